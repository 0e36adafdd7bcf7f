"""The registration network, its parts, its baseline, and its weights."""

from .gradirn import DeepSupervision, GraDIRN
from .voxelmorph import VoxelMorph
from .weights import load_torchscript, load_weights

__all__ = ["DeepSupervision", "GraDIRN", "VoxelMorph", "load_torchscript", "load_weights"]
