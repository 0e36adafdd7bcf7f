"""What a task trains on a GPU: ``train.yaml``, the overlays of the task, and the file of its name in this folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from monai.bundle import ConfigParser

from ...cohorts import TASKS, find_task
from ...support.bundle import BUNDLE_ROOT

__all__ = ["Variation", "read_config", "task_names"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Variation:
    """The random variation of samples: motion, in degrees and in voxels of the packed grid, and contrast.

    Args:
        rotation: largest angle of both images, about each axis, in degrees.
        motion_rotation: largest further angle of the moving image alone.
        shift: largest shift of both images, in voxels.
        motion_shift: largest further shift of the moving image alone.
        scale: largest relative change of size.
        elastic: standard deviation of a smooth random displacement of both images, in voxels.
        motion: the same for the moving image alone.
        gamma: range of the exponent of the contrast.
        flips: axes along which both images may be mirrored.
    """

    rotation: float
    motion_rotation: float
    shift: float
    motion_shift: float
    scale: float
    elastic: float
    motion: float
    gamma: tuple[float, float] = (0.6, 1.6)
    flips: tuple[int, ...] = ()


def task_names() -> list[str]:
    """Return the tasks that have a file in this folder."""
    return [name for name in TASKS if (FOLDER / f"{name}.yaml").is_file()]


def read_config(task: str, overrides: Iterable[Path] = ()) -> ConfigParser:
    """Read the configuration of a task.

    Args:
        task: name of the task.
        overrides: further files, which replace what the others say.
    """
    parser = ConfigParser()
    parser.read_config([*find_task(task).config_files("train"), str(FOLDER / f"{task}.yaml"), *map(str, overrides)])
    parser.update({"bundle_root": BUNDLE_ROOT, "device": "cpu"})
    return parser
