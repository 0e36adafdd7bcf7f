"""The registration network, its parts, and its weights."""

from .gradirn import GraDIRN
from .weights import load_weights

__all__ = ["GraDIRN", "load_weights"]
