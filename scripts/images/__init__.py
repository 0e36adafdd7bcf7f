"""Images from their files to the network: reading, alignment, intensities, brains, synthesis."""

from .affine import find_affine
from .alignment import AlignWorldsd
from .brains import CheckBrainsd, CorrectBiasd
from .extraction import ExtractBrainsd, brain_transforms
from .loading import LoadPaird, read_nifti
from .synthesis import RandSynthesizeT1d

__all__ = [
    "AlignWorldsd",
    "CheckBrainsd",
    "CorrectBiasd",
    "ExtractBrainsd",
    "LoadPaird",
    "RandSynthesizeT1d",
    "brain_transforms",
    "find_affine",
    "read_nifti",
]
