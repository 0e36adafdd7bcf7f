"""The registration network, its parts, its baseline, and its weights."""

from .definition import read_network
from .features import Features
from .gradirn import Backprop, DeepSupervision, GraDIRN, compile_steps
from .initialisation import initialise
from .regularizer import CNN
from .similarity import LNCC, MIND, NCC, SSD
from .step import Demons, Gradient
from .voxelmorph import VoxelMorph
from .weights import load_torchscript, load_weights

__all__ = [
    "CNN",
    "LNCC",
    "MIND",
    "NCC",
    "SSD",
    "Backprop",
    "DeepSupervision",
    "Demons",
    "Features",
    "GraDIRN",
    "Gradient",
    "VoxelMorph",
    "compile_steps",
    "initialise",
    "load_torchscript",
    "load_weights",
    "read_network",
]
