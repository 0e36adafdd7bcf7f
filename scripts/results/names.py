"""The names of the files of one registration: plain ones, or those of BIDS derivatives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..support.errors import InputError

__all__ = ["ERROR_MAP", "OUTPUTS", "USUAL", "check_scheme", "every_name", "file_names"]

ERROR_MAP = "error_mm.nii.gz"
OUTPUTS = (
    "moving_warped.nii.gz",
    "label_warped.nii.gz",
    "displacement.nii.gz",
    "displacement_inverse.nii.gz",
    "jacobian_determinant.nii.gz",
    "alignment.mat",
    "brain_mask_fixed.nii.gz",
    "brain_mask_moving.nii.gz",
    ERROR_MAP,
    "overview.png",
    "metrics.json",
)
USUAL = tuple(file for file in OUTPUTS if not file.startswith(("brain_mask", "error")))  # the others are on request
SCHEMES = (None, "bids")
ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9]+)")  # of BIDS: a key and its value
STARTS = ("sub-", "tpl-")  # of a name of BIDS
REPLACED = ("space", "from", "to", "mode", "desc")  # entities that a result has of its own


def check_scheme(scheme: object) -> str | None:
    """Return a scheme of names, None or ``bids``.

    Raises:
        InputError: when it is neither.
    """
    if scheme not in SCHEMES:
        raise InputError(f"--names is '{scheme}': expected bids, or no such option.")
    return None if scheme is None else str(scheme)


def file_names(inputs: Mapping[str, Any], scheme: str | None) -> dict[str, str]:
    """Return the name of each of ``OUTPUTS`` for a pair. ``metrics.json``, by which a result is found, has no other.

    Args:
        inputs: ``fixed`` and ``moving``, from whose file names those of BIDS are derived.
        scheme: None for plain names, or ``bids``.
    """
    if scheme is None:
        return {file: file for file in OUTPUTS}
    (fixed, to), (moving, suffix) = (_parsed(inputs.get(key)) for key in ("fixed", "moving"))
    space, source = _label(fixed, moving, to, suffix), _label(moving, fixed, suffix, to)
    if not space or not source or space == source:
        space, source = "fixed", "moving"
    own = {key: value for key, value in moving.items() if key not in REPLACED}
    shared = {key: value for key, value in own.items() if key in ("sub", "ses") or fixed.get(key) == value}
    image = {**own, "space": space}
    there = {**shared, "from": source, "to": space, "mode": "image"}
    back = {**shared, "from": space, "to": source, "mode": "image"}
    return {
        "moving_warped.nii.gz": _name({**image, "desc": "warped"}, f"{suffix or 'image'}.nii.gz"),
        "label_warped.nii.gz": _name({**image, "desc": "labels"}, "dseg.nii.gz"),
        "displacement.nii.gz": _name(there, "xfm.nii.gz"),
        "displacement_inverse.nii.gz": _name(back, "xfm.nii.gz"),
        "jacobian_determinant.nii.gz": _name({**image, "desc": "jacobian"}, "map.nii.gz"),
        "alignment.mat": _name({**there, "desc": "alignment"}, "xfm.mat"),
        "brain_mask_fixed.nii.gz": _name({**shared, "space": space, "desc": "brain"}, "mask.nii.gz"),
        "brain_mask_moving.nii.gz": _name({**shared, "space": source, "desc": "brain"}, "mask.nii.gz"),
        ERROR_MAP: _name({**image, "desc": "error"}, "map.nii.gz"),
        "overview.png": _name({**there, "desc": "overview"}, "xfm.png"),
        "metrics.json": "metrics.json",
    }


def every_name(inputs: Mapping[str, Any]) -> list[str]:
    """Return the names of a pair's results in all schemes, ``metrics.json`` last."""
    names = [name for scheme in SCHEMES for name in file_names(inputs, scheme).values()]
    return [name for name in dict.fromkeys(names) if name != OUTPUTS[-1]] + [OUTPUTS[-1]]


def _parsed(file: Any) -> tuple[dict[str, str], str]:
    """The entities and the suffix of a file's name, such as {sub: 01, ses: 2} and T1w; empty where there are none."""
    parts = Path(file).name.partition(".")[0].split("_") if isinstance(file, str | Path) else [""]
    found = [ENTITY.fullmatch(part) for part in parts] if parts[0].startswith(STARTS) else []
    return {match[1]: match[2] for match in found if match}, parts[-1] if parts[-1].isalnum() else ""


def _label(entities: Mapping[str, str], others: Mapping[str, str], suffix: str, other_suffix: str) -> str:
    """What an image has and the other one has not: entities, a number with its key, or else the suffix."""
    values = [
        value if value[0].isalpha() else key + value
        for key, value in entities.items()
        if key not in REPLACED and others.get(key) != value
    ]
    return "".join(values) or (suffix if suffix != other_suffix else "")


def _name(entities: Mapping[str, str], suffix: str) -> str:
    return "_".join([*(f"{key}-{value}" for key, value in entities.items()), suffix])
