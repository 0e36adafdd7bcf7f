"""A beating heart: from a short-axis cine to its motion, volumes and strain."""

from .cine import Cine, read_cine
from .tracking import TrackedCine, track

__all__ = ["Cine", "TrackedCine", "read_cine", "track"]
