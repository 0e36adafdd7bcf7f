"""Images from their files to the network: reading, alignment, intensities, brains, synthesis."""

from .alignment import AlignWorldsd, find_affine
from .brains import CheckBrainsd, CorrectBiasd, brain_transforms
from .loading import LoadPaird, read_nifti
from .synthesis import RandSynthesizeT1d

__all__ = [
    "AlignWorldsd",
    "CheckBrainsd",
    "CorrectBiasd",
    "LoadPaird",
    "RandSynthesizeT1d",
    "brain_transforms",
    "find_affine",
    "read_nifti",
]
