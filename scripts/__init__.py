"""GraDIRN, a MONAI bundle for deformable registration of medical images."""

from .support.bundle import BUNDLE_ROOT

__all__ = ["BUNDLE_ROOT"]
