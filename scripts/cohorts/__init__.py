"""Which files belong together: data sets in known layouts, their subjects, and pairs of them."""

from .datalist import read_pairs
from .pairing import frame_pairs, make_pairs, partners, select_subjects, training_items
from .subjects import find_subjects

__all__ = [
    "find_subjects",
    "frame_pairs",
    "make_pairs",
    "partners",
    "read_pairs",
    "select_subjects",
    "training_items",
]
