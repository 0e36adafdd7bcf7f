"""The registration network, its parts, its baseline, and its weights."""

from .gradirn import EveryStep, GraDIRN
from .voxelmorph import VoxelMorph
from .weights import load_weights

__all__ = ["EveryStep", "GraDIRN", "VoxelMorph", "load_weights"]
