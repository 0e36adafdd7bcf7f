"""Files to network input: pairs, reading and checking, preprocessing. Knows nothing of networks."""

from .nifti import read_nifti
from .pairs import read_pairs
from .transforms import AlignWorldsd, LoadPaird

__all__ = ["AlignWorldsd", "LoadPaird", "read_nifti", "read_pairs"]
