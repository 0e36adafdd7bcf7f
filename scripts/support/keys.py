"""The keys of a pair: the same in datalists, in the data of transforms and in the files of a result."""

from __future__ import annotations

__all__ = ["BRAIN_MASKS", "CONTRASTS", "FILES", "IMAGES", "LABELS", "LANDMARKS", "MASKS"]

IMAGES = ("fixed", "moving")
LABELS = ("label_fixed", "label_moving")
MASKS = ("mask_fixed", "mask_moving")
BRAIN_MASKS = ("brain_mask_fixed", "brain_mask_moving")
LANDMARKS = ("landmarks_fixed", "landmarks_moving")
CONTRASTS = ("contrasts_fixed", "contrasts_moving")
FILES = (*IMAGES, *LABELS, *MASKS, *BRAIN_MASKS, *LANDMARKS, "initial_transform", "displacement", "true_displacement")
"""All inputs of a pair; a displacement of another tool replaces the network, a true displacement measures both."""
