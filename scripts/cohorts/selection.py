"""Which subjects: those of a subset or a group, and how many."""

from __future__ import annotations

import random
from collections.abc import Iterable

from ..support.errors import InputError
from .layouts import SPLITS, Subject

__all__ = ["by_name", "select_subjects", "without"]


def select_subjects(
    subjects: Iterable[Subject],
    subset: str = "all",
    validation: float | str = 0.1,
    test: float | str = 0.2,
    group: str | None = None,
    train_limit: float | str | None = None,
    seed: int = 0,
) -> list[Subject]:
    """Choose the subjects of a subset.

    An amount is a number of subjects (10, "10") or a fraction of them (0.05, 1.0, "0.05", "5%").

    Args:
        subjects: the subjects of a data set.
        subset: ``all``, ``train``, ``validation`` or ``test``.
        validation: amount of subjects for validation, taken from those that are not for test, if the data set defines
            no validation subjects. A number takes the last subjects by name, a fraction the last ones of each group.
        test: amount of all subjects for test, if the data set defines no test subjects; 0 means none.
        group: only subjects of this group. The group does not change which subset a subject belongs to.
        train_limit: amount of training subjects to use; a larger limit includes the subjects of a smaller one.
        seed: seed for the choice of these subjects.

    Returns:
        the chosen subjects, sorted by name.

    Raises:
        InputError: when an option does not have this form, or no subject is left.
    """
    if subset not in ("all", *SPLITS):
        raise InputError(f"unknown subset '{subset}': expected all, {', '.join(SPLITS)}.")
    everyone = by_name(subjects)
    known = sorted({subject.group for subject in everyone} - {""})
    if group is not None and group not in known:
        raise InputError(f"unknown group '{group}': expected {', '.join(known) or 'none, as no subject has one'}.")
    chosen = everyone
    if subset != "all":
        for_test = _held_out(everyone, "test", test)
        rest = without(everyone, for_test)
        for_validation = _held_out(rest, "validation", validation)
        chosen = {"test": for_test, "validation": for_validation, "train": without(rest, for_validation)}[subset]
    if group is not None:
        chosen = [subject for subject in chosen if subject.group == group]
    if not chosen:
        of_group = f" of group {group}" if group is not None else ""
        raise InputError(
            f"no subject{of_group} is left for {subset}: found {len(everyone)} subjects in all, with validation "
            f"{validation} and test {test}; expected at least one."
        )
    return _limited(chosen, train_limit, seed) if train_limit is not None and subset == "train" else chosen


def by_name(subjects: Iterable[Subject]) -> list[Subject]:
    """Sort subjects by their names."""
    return sorted(subjects, key=lambda subject: subject.name)


def without(subjects: list[Subject], others: list[Subject]) -> list[Subject]:
    """Return the subjects that are not among others."""
    names = {subject.name for subject in others}
    return [subject for subject in subjects if subject.name not in names]


def _limited(subjects: list[Subject], limit: float | str, seed: int) -> list[Subject]:
    """Choose an amount of subjects at random."""
    amount = _amount(limit, "train_limit")
    if not 0 < amount <= len(subjects):
        raise InputError(f"train_limit is {limit}: expected 1 to {len(subjects)} subjects, or a fraction.")
    return by_name(random.Random(seed).sample(subjects, len(subjects))[: _count(amount, len(subjects))])


def _held_out(subjects: list[Subject], split: str, amount: float | str) -> list[Subject]:
    """Return the subjects of this split or, if there are none, the last ones without a split or for training."""
    marked = [subject for subject in subjects if subject.split == split]
    if marked:
        return marked
    free = [subject for subject in subjects if subject.split in ("", "train")]
    amount = _amount(amount, split)
    groups = {subject.group for subject in free} if isinstance(amount, float) else set()
    members = ([subject for subject in free if subject.group == group] for group in groups)
    last = [subject for group in members for subject in group[len(group) - round(amount * len(group)) :]]
    return by_name(last) or free[len(free) - _count(amount, len(free)) :]


def _amount(value: float | str, option: str) -> int | float:
    """Read a number of subjects as int, or a fraction of them as float."""
    text = str(value).strip()
    if text.isdecimal():
        return int(text)
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = -1.0
    if 0 <= number <= 1:
        return number
    if number.is_integer() and number > 1 and not text.endswith("%"):
        return int(number)
    raise InputError(f"{option} is {value}: expected a number of subjects, or a fraction such as 0.05 or 5%.")


def _count(amount: int | float, total: int) -> int:
    """Convert an amount to a number of subjects; a fraction above 0 gives at least one."""
    count = amount if isinstance(amount, int) else max(round(amount * total), 1 if amount else 0)
    return min(count, total)
