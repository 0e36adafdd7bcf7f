"""Copies the shipped samples to studies and atlases for a server: ``python -m scripts.label_app.samples FOLDER``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ..support.bundle import BUNDLE_ROOT

__all__ = ["write_samples"]

ATLASES = {
    "brain": ("brain_synthetic/synthetic_19",),
    "hippocampus": tuple(f"hippocampus/hippocampus_{number}" for number in (327, 341, 361)),
    "cardiac": ("sunnybrook/SC-HYP-09", "sunnybrook/SC-N-10"),
}
VOLUMES = ("brain_synthetic/synthetic_20", "hippocampus/hippocampus_383")
HEARTS = ("SC-HF-NI-15", "SC-HYP-09", "SC-N-10")


def write_samples(folder: Path) -> None:
    """Make ``studies``, with the labels of the hearts at end-diastole, and ``atlases/<name>`` for each anatomy.

    If the studies exist already, nothing happens.
    """
    samples, studies = Path(BUNDLE_ROOT) / "tests" / "data", folder / "studies"
    if studies.exists():
        return
    for name, atlases in ATLASES.items():
        for atlas in atlases:
            shutil.copytree(samples / atlas, folder / "atlases" / name / Path(atlas).name, dirs_exist_ok=True)
    labels = studies / "labels" / "final"
    labels.mkdir(parents=True)
    for volume in VOLUMES:
        shutil.copy(samples / volume / "t1.nii.gz", studies / f"{Path(volume).name}.nii.gz")
    for heart in HEARTS:
        for frame in ("ED", "ES"):
            shutil.copy(samples / "sunnybrook" / heart / f"{heart}_{frame}.nii.gz", studies)
        shutil.copy(samples / "sunnybrook" / heart / f"{heart}_ED_gt.nii.gz", labels / f"{heart}_ED.nii.gz")


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]))
