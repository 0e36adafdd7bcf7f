"""The tasks of the bundle, each with its configuration and weights. A new task is one more entry here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..support.bundle import BUNDLE_ROOT
from ..support.errors import InputError

__all__ = ["TASKS", "Task", "find_task", "task_of"]


@dataclass(frozen=True)
class Task:
    """One kind of images, and the network that registers them.

    Args:
        name: name for the user; the overlay of the task sets ``task`` to it.
        weights: file of the shipped weights, relative to the bundle.
        layouts: names of the data-set layouts whose images belong to the task; each layout belongs to one task.
        overlays: names of the overlays of ``train``, ``evaluate`` and ``inference``; none for the default task.
        intensity_range: the intensities that become 0 and 1, such as the window of a CT in Hounsfield units; None means
            the percentiles 1 and 99 of each image.
    """

    name: str
    weights: str
    layouts: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    intensity_range: tuple[float, float] | None = None

    def config_files(self, mode: str) -> list[str]:
        """Return the files of ``train``, ``evaluate`` or ``inference`` with the overlays of the task."""
        return [str(Path(BUNDLE_ROOT) / "configs" / f"{name}.yaml") for name in (mode, *self.overlays)]

    @property
    def weights_file(self) -> Path:
        """The path of the shipped weights."""
        return Path(BUNDLE_ROOT) / self.weights


_ALL = (
    Task("cardiac", "models/model.pt", ("ukbb", "mnms2", "acdc", "sunnybrook", "datalist")),
    Task("hippocampus", "models/model_hippocampus.pt", ("hippocampus",), ("hippocampus",)),
    Task(
        "brain",
        "models/model_brain.pt",
        ("camcan", "oasis", "learn2reg", "ibsr", "brains", "labelmaps"),
        ("brain",),
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def find_task(name: str) -> Task:
    """Return the task with this name.

    Raises:
        InputError: when there is no such task.
    """
    if name not in TASKS:
        raise InputError(f"unknown task '{name}': expected one of {', '.join(TASKS)}.")
    return TASKS[name]


def task_of(layout: str) -> Task:
    """Return the task of the images of a data-set layout.

    Raises:
        InputError: when no task has the layout.
    """
    for task in TASKS.values():
        if layout in task.layouts:
            return task
    raise InputError(f"the layout '{layout}' belongs to no task: expected one that scripts/cohorts/tasks.py names.")
