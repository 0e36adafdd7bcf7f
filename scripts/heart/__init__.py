"""A beating heart: from a short-axis cine to its motion, volumes and strain."""

from .cine import Cine, label_names, read_cine
from .frames import register_frames
from .tracking import TrackedCine, track

__all__ = ["Cine", "TrackedCine", "label_names", "read_cine", "register_frames", "track"]
