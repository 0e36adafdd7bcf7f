"""GraDIRN, a MONAI bundle for deformable registration of medical images."""

from pathlib import Path

__all__ = ["BUNDLE_ROOT"]

BUNDLE_ROOT = str(Path(__file__).resolve().parents[1])
