"""The tasks of the bundle: what is registered, with which configuration and weights. A new task is an entry here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..support.bundle import BUNDLE_ROOT
from ..support.errors import InputError

__all__ = ["TASKS", "Task", "find_task", "task_of"]


@dataclass(frozen=True)
class Task:
    """One kind of images and the network that registers them.

    Args:
        name: what a user calls the task; its overlay sets ``task`` to it.
        weights: file of its shipped weights, relative to the bundle.
        layouts: names of the data-set layouts whose images belong to it.
        overlays: names of the configurations that are laid over ``train``, ``evaluate`` and ``inference``; none for
            the task that these describe themselves.
        intensity_range: the intensities that become 0 and 1, such as the window of a CT in Hounsfield units; None
            stands for each image's own percentiles 1 and 99.
    """

    name: str
    weights: str
    layouts: tuple[str, ...]
    overlays: tuple[str, ...] = ()
    intensity_range: tuple[float, float] | None = None

    def config_files(self, mode: str) -> list[str]:
        """The files of ``train``, ``evaluate`` or ``inference`` with the task's overlays."""
        return [str(Path(BUNDLE_ROOT) / "configs" / f"{name}.yaml") for name in (mode, *self.overlays)]

    @property
    def weights_file(self) -> Path:
        """Where the shipped weights lie."""
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
    """The task of this name.

    Raises:
        InputError: when there is none.
    """
    if name not in TASKS:
        raise InputError(f"unknown task '{name}': expected one of {', '.join(TASKS)}.")
    return TASKS[name]


def task_of(layout: str) -> Task:
    """The task that the images of a data-set layout belong to.

    Raises:
        InputError: when no task has the layout.
    """
    for task in TASKS.values():
        if layout in task.layouts:
            return task
    raise InputError(f"the layout '{layout}' belongs to no task: expected one that scripts/cohorts/tasks.py names.")
