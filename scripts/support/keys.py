"""The keys of a pair: the same in datalists, in the data of transforms and in the files of a result."""

from __future__ import annotations

__all__ = ["FILES", "IMAGES", "LABELS"]

IMAGES = ("fixed", "moving")
LABELS = ("label_fixed", "label_moving")
FILES = (*IMAGES, *LABELS, "displacement", "true_displacement")
"""All inputs of a pair; a displacement of another tool replaces the network, a true displacement measures both."""
