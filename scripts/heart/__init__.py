"""A beating heart: from a short-axis cine to its motion, volumes and strain."""

from .cine import Cine, label_names, read_cine
from .tracking import TrackedCine, track

__all__ = ["Cine", "TrackedCine", "label_names", "read_cine", "track"]
