"""Files to network input: pairs, reading and checking, preprocessing. Knows nothing of networks."""

from .alignment import AlignWorldsd, find_affine
from .augmentation import RandPartnerd, RandSwapd
from .brains import CheckBrainsd, CorrectBiasd
from .dataset import EpochDataset, training_loader
from .nifti import read_nifti
from .pairing import frame_pairs, make_pairs, partners, select_subjects, training_items
from .pairs import read_pairs
from .preprocessing import preprocess_pair
from .subjects import find_subjects
from .synthesis import RandSynthesizeT1d
from .transforms import LoadPaird

__all__ = [
    "AlignWorldsd",
    "CheckBrainsd",
    "CorrectBiasd",
    "EpochDataset",
    "LoadPaird",
    "RandPartnerd",
    "RandSwapd",
    "RandSynthesizeT1d",
    "find_affine",
    "find_subjects",
    "frame_pairs",
    "make_pairs",
    "partners",
    "preprocess_pair",
    "read_nifti",
    "read_pairs",
    "select_subjects",
    "training_items",
    "training_loader",
]
