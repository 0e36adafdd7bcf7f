"""Options that may be different on each level of the image pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from ..support.errors import InputError

__all__ = ["for_each_level"]

T = TypeVar("T")


def for_each_level(name: str, value: T | Sequence[T], num_levels: int) -> tuple[T, ...]:
    """Return one value for each level, coarse to fine.

    Args:
        name: name of the option, for the error message.
        value: one value for all levels, or a list or tuple with one value for each level.
        num_levels: number of levels of the pyramid.

    Raises:
        InputError: when a list has another length.
    """
    values = tuple(value) if isinstance(value, (list, tuple)) else (cast("T", value),) * num_levels
    if len(values) != num_levels:
        raise InputError(f"{name} must be one value or one for each of {num_levels} levels, got {values}.")
    return values
