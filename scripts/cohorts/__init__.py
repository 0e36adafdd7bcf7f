"""Which files belong together: data sets in known layouts, their subjects, pairs of subjects, and tasks."""

from .datalist import read_pairs, take_shard
from .pairing import frame_pairs, make_pairs, training_items, training_partners
from .selection import select_subjects
from .subjects import find_subjects
from .tasks import TASKS, find_task, task_of

__all__ = [
    "TASKS",
    "find_subjects",
    "find_task",
    "frame_pairs",
    "make_pairs",
    "read_pairs",
    "select_subjects",
    "take_shard",
    "task_of",
    "training_items",
    "training_partners",
]
