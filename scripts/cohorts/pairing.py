"""Makes pairs of the images of subjects: datalists of file names.

A pair has the keys ``name``, ``fixed``, ``moving`` and, if there are labels, ``label_fixed``, ``label_moving``.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence

from ..support.errors import InputError
from .layouts import Cohort, Subject
from .selection import by_name, select_subjects, without

__all__ = [
    "atlas_pairs",
    "frame_pairs",
    "half_pairs",
    "make_pairs",
    "subject_pairs",
    "training_items",
    "training_partners",
]

logger = logging.getLogger(__name__)

PAIRINGS = ("frames", "subjects", "ring", "random", "atlas")


def frame_pairs(
    subjects: Iterable[Subject],
    fixed: str = "ED",
    moving: str = "ES",
    labelled: bool = False,
) -> list[dict[str, str]]:
    """Pair two images of each subject.

    Args:
        subjects: the subjects, in any order.
        fixed: key of the fixed image.
        moving: key of the moving image.
        labelled: only use subjects with both labels.

    Raises:
        InputError: when no subject has both images, or both labels if they are needed.
    """
    usable = _usable(subjects, (fixed, moving), labelled)
    return [_pair(subject.name, (subject, fixed), (subject, moving)) for subject in usable]


def subject_pairs(
    subjects: Iterable[Subject],
    fixed: str = "T1",
    moving: str = "T1",
    how: str = "ring",
    num_pairs: int | None = None,
    seed: int = 0,
    labelled: bool = False,
) -> list[dict[str, str]]:
    """Pair images of two subjects, named ``<moving subject>_to_<fixed subject>``.

    Args:
        subjects: the subjects, in any order.
        fixed: key of the fixed image.
        moving: key of the moving image.
        how: ``ring``: sorted by name, each subject is fixed and the next one moving, and after the last one comes the
            first; ``random``: random ordered pairs, each at most once.
        num_pairs: largest number of pairs; by default the number of subjects.
        seed: seed of the random pairs.
        labelled: only use subjects with labels.

    Raises:
        InputError: when there are not two subjects with these images; for two modalities, one subject is enough.
    """
    if how not in ("ring", "random"):
        raise InputError(f"unknown pairing of subjects '{how}': expected ring or random.")
    usable = _usable(subjects, (fixed, moving), labelled)
    count = len(usable)
    if count == 1 and fixed == moving:
        raise InputError(f"only {usable[0].name} has an image '{fixed}': expected two subjects to make a pair.")
    if how == "ring" or count == 1:
        order = [(index, (index + 1) % count) for index in range(count)]
    else:
        every = count * (count - 1)
        drawn = random.Random(seed).sample(range(every), min(every, num_pairs or count))
        order = [(index // (count - 1), index % (count - 1)) for index in drawn]
        order = [(first, second + (second >= first)) for first, second in order]
    return [_between((usable[first], fixed), (usable[second], moving)) for first, second in order][:num_pairs]


def atlas_pairs(
    subjects: Iterable[Subject],
    atlas: str,
    fixed: str = "T1",
    moving: str = "T1",
    labelled: bool = False,
) -> list[dict[str, str]]:
    """Pair every subject with one of them, the atlas.

    Args:
        subjects: the subjects, in any order, including the atlas.
        atlas: name of the fixed subject.
        fixed: key of the fixed image.
        moving: key of the moving image.
        labelled: only use subjects with labels.

    Raises:
        InputError: when the atlas does not exist, or is the only subject.
    """
    everyone = by_name(subjects)
    base = next((subject for subject in everyone if subject.name == atlas), None)
    if base is None:
        raise InputError(f"atlas '{atlas}' is not a subject: found {_some_names(everyone)}.")
    base = _usable([base], (fixed,), labelled)[0]
    others = [subject for subject in everyone if subject.name != atlas]
    if not others:
        raise InputError(f"atlas '{atlas}' is the only subject: expected others to pair with it.")
    others = _usable(others, (moving,), labelled)
    return [_between((base, fixed), (other, moving)) for other in others]


def make_pairs(
    cohort: Cohort,
    subset: str = "all",
    pairing: str | None = None,
    fixed: str | None = None,
    moving: str | None = None,
    validation: float | str = 0.1,
    test: float | str = 0.2,
    group: str | None = None,
    num_pairs: int | None = None,
    seed: int = 0,
    labelled: bool = False,
    atlas: str | None = None,
) -> list[dict[str, str]]:
    """Make the pairs of a data set; the same options always give the same pairs.

    Args:
        cohort: result of :func:`find_subjects`.
        subset: see :func:`select_subjects`, also for validation, test and group.
        pairing: ``frames``, ``ring`` (also named ``subjects``), ``random`` or ``atlas``. The default is the pairing of
            the layout, or the pairs that the data set itself defines for the subset.
        fixed: key of the fixed image; by default that of the layout.
        moving: key of the moving image; by default that of the layout.
        num_pairs: largest number of pairs: the first ones, or random ones.
        seed: seed of random pairs.
        labelled: only use pairs with both labels.
        atlas: name of the fixed subject; it may be outside the subset.

    Raises:
        InputError: when an option does not have this form, or no pair is left.
    """
    if pairing is not None and pairing not in PAIRINGS:
        raise InputError(f"unknown pairing '{pairing}': expected {', '.join(PAIRINGS)}.")
    if (pairing == "atlas" and atlas is None) or (pairing not in (None, "atlas") and atlas is not None):
        raise InputError(
            f"pairing is {pairing} and atlas is {atlas}: expected pairing atlas and the name of a subject."
        )
    if num_pairs is not None and num_pairs < 1:
        raise InputError(f"num_pairs is {num_pairs}: expected at least 1.")
    if pairing is None:
        pairing = cohort.layout.pairing if atlas is None else "atlas"
    subjects = select_subjects(cohort.subjects, subset, validation, test, group)
    usual = (cohort.layout.pairing, cohort.layout.fixed, cohort.layout.moving)
    fixed, moving = fixed or cohort.layout.fixed, moving or cohort.layout.moving
    own = cohort.pairs.get(subset) if (pairing, fixed, moving) == usual else None
    if own:
        pairs = _own_pairs(own, subjects, labelled)
    elif pairing == "frames":
        pairs = frame_pairs(subjects, fixed, moving, labelled)
    elif pairing == "atlas":
        outside = [subject for subject in without(cohort.subjects, subjects) if subject.name == atlas]
        pairs = atlas_pairs([*subjects, *outside], str(atlas), fixed, moving, labelled=labelled)
    else:
        how = "random" if pairing == "random" else "ring"
        pairs = subject_pairs(subjects, fixed, moving, how, num_pairs, seed, labelled)
    if not pairs:
        raise InputError(f"{cohort.root}: no pair is left for {subset}: expected at least one.")
    return pairs[:num_pairs]


def training_items(
    cohort: Cohort,
    subjects: Sequence[Subject],
    pairing: str | None = None,
    fixed: str | None = None,
    moving: str | None = None,
    labelled: bool = False,
) -> list[dict[str, str]]:
    """List what a training draws its samples from: pairs of frames, or the fixed halves of pairs of subjects.

    Args:
        cohort: the data set, whose layout gives the defaults.
        subjects: the training subjects.
        pairing: ``frames`` or ``subjects``; by default that of the layout.
        fixed: key of the fixed image; by default that of the layout.
        moving: key of the moving image; by default that of the layout.
        labelled: only use subjects with labels.

    Raises:
        InputError: when the pairing is not one of these, or no subject has these images.
    """
    fixed, moving = fixed or cohort.layout.fixed, moving or cohort.layout.moving
    if _training_pairing(cohort, pairing) == "frames":
        return frame_pairs(subjects, fixed, moving, labelled)
    return half_pairs(subjects, "fixed", fixed, labelled)


def training_partners(
    cohort: Cohort,
    subjects: Sequence[Subject],
    pairing: str | None = None,
    moving: str | None = None,
    labelled: bool = False,
) -> list[dict[str, str]]:
    """List the moving halves that complete the items of :func:`training_items`, which has the same arguments.

    The list is empty where the items are pairs of frames, which are complete.
    """
    if _training_pairing(cohort, pairing) == "frames":
        return []
    return half_pairs(subjects, "moving", moving or cohort.layout.moving, labelled)


def _training_pairing(cohort: Cohort, pairing: str | None) -> str:
    pairing = pairing or cohort.layout.pairing
    if pairing not in ("frames", "subjects"):
        raise InputError(f"unknown pairing '{pairing}' for training: expected frames or subjects.")
    return pairing


def half_pairs(subjects: Iterable[Subject], role: str, key: str = "T1", labelled: bool = False) -> list[dict[str, str]]:
    """Return the fixed or the moving half of a pair for each subject; :class:`RandPartnerd` makes pairs of them.

    Args:
        subjects: in any order.
        role: ``fixed`` or ``moving``.
        key: key of the image.
        labelled: only use subjects with a label of this image.

    Returns:
        dictionaries with ``name``, the role and, where there is a label, ``label_<role>``.
    """
    return [{"name": subject.name, **_half(role, subject, key)} for subject in _usable(subjects, (key,), labelled)]


def _usable(subjects: Iterable[Subject], keys: tuple[str, ...], labelled: bool) -> list[Subject]:
    """Return the subjects that have these images and, if needed, their labels, sorted by name."""
    everyone = by_name(subjects)
    wanted = " and ".join(dict.fromkeys(keys))
    usable = [subject for subject in everyone if all(key in subject.images for key in keys)]
    if not usable:
        found = ", ".join(sorted({key for subject in everyone for key in subject.images})) or "no subject"
        raise InputError(f"no subject has the image {wanted}: found {found}.")
    _log_left_out(everyone, usable, f"the image {wanted}")
    if labelled:
        having = usable
        usable = [subject for subject in having if all(key in subject.labels for key in keys)]
        if not usable:
            raise InputError(f"no subject has a label: found {_some_names(having)}, expected labels of {wanted}.")
        _log_left_out(having, usable, "a label")
    return usable


def _log_left_out(everyone: list[Subject], usable: list[Subject], lacking: str) -> None:
    names = [subject.name for subject in without(everyone, usable)]
    if names:
        logger.warning("%d subjects without %s are left out: %s", len(names), lacking, ", ".join(names))


def _own_pairs(
    own: list[tuple[tuple[str, str], tuple[str, str]]], subjects: list[Subject], labelled: bool
) -> list[dict[str, str]]:
    """Return the pairs of these subjects that the data set itself defines, named by subject and image."""
    known = {subject.name: subject for subject in subjects}
    pairs = [
        _pair(f"{moving}_{moving_key}_to_{fixed}_{fixed_key}", (known[fixed], fixed_key), (known[moving], moving_key))
        for (fixed, fixed_key), (moving, moving_key) in own
        if fixed in known and moving in known
    ]
    return [pair for pair in pairs if not labelled or {"label_fixed", "label_moving"} <= pair.keys()]


def _between(fixed: tuple[Subject, str], moving: tuple[Subject, str]) -> dict[str, str]:
    return _pair(f"{moving[0].name}_to_{fixed[0].name}", fixed, moving)


def _pair(name: str, fixed: tuple[Subject, str], moving: tuple[Subject, str]) -> dict[str, str]:
    return {"name": name, **_half("fixed", *fixed), **_half("moving", *moving)}


def _half(role: str, subject: Subject, key: str) -> dict[str, str]:
    half = {role: subject.images[key]}
    return half | ({f"label_{role}": subject.labels[key]} if key in subject.labels else {})


def _some_names(subjects: list[Subject], first: int = 5) -> str:
    more = f" and {len(subjects) - first} more" if len(subjects) > first else ""
    return (", ".join(subject.name for subject in subjects[:first]) + more) or "none"
