"""Names of label ids, for the data sets with many labels."""

from __future__ import annotations

__all__ = ["FREESURFER", "MALPEM_TISSUES", "SEG35"]

_BOTH_SIDES = (  # left id, right id, name
    (2, 41, "Cerebral-White-Matter"),
    (3, 42, "Cerebral-Cortex"),
    (4, 43, "Lateral-Ventricle"),
    (5, 44, "Inf-Lat-Vent"),
    (7, 46, "Cerebellum-White-Matter"),
    (8, 47, "Cerebellum-Cortex"),
    (10, 49, "Thalamus"),
    (11, 50, "Caudate"),
    (12, 51, "Putamen"),
    (13, 52, "Pallidum"),
    (17, 53, "Hippocampus"),
    (18, 54, "Amygdala"),
    (25, 57, "Lesion"),
    (26, 58, "Accumbens-area"),
    (28, 60, "VentralDC"),
    (30, 62, "vessel"),
    (31, 63, "choroid-plexus"),
)
_MIDLINE = {
    14: "3rd-Ventricle",
    15: "4th-Ventricle",
    16: "Brain-Stem",
    24: "CSF",
    72: "5th-Ventricle",
    77: "WM-hypointensities",
    80: "non-WM-hypointensities",
    85: "Optic-Chiasm",
    251: "CC_Posterior",
    252: "CC_Mid_Posterior",
    253: "CC_Central",
    254: "CC_Mid_Anterior",
    255: "CC_Anterior",
}
_LEFT = {left: f"Left-{name}" for left, _, name in _BOTH_SIDES}
_RIGHT = {right: f"Right-{name}" for _, right, name in _BOTH_SIDES}

FREESURFER: dict[int, str] = dict(sorted({**_LEFT, **_RIGHT, **_MIDLINE}.items()))
"""Structures of FreeSurfer's ``aseg``."""

_NOT_IN_SEG35 = {24, 25, 57}
SEG35: dict[int, str] = dict(
    enumerate((name for id_, name in FREESURFER.items() if id_ < 72 and id_ not in _NOT_IN_SEG35), start=1)
)
"""The 35 structures of neurite's OASIS, numbered in the order of their FreeSurfer ids."""

MALPEM_TISSUES: dict[int, str] = {1: "ventricles", 2: "subcortical_GM", 3: "WM", 4: "cortical_GM", 5: "other"}
"""Tissue classes of MALPEM; 2 includes the cerebellar cortex, 5 is outer CSF and vessels."""
