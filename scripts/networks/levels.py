"""Options that may differ from level to level of the image pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from ..support.errors import InputError

__all__ = ["for_each_level"]

T = TypeVar("T")


def for_each_level(name: str, value: T | Sequence[T], num_levels: int) -> tuple[T, ...]:
    """One value for each level, coarse to fine, from a list of them or from one that serves all.

    Args:
        name: of the option, for the message.
        value: one, or a list or tuple with one for each level.
        num_levels: of the pyramid.

    Raises:
        InputError: when a list has another length.
    """
    values = tuple(value) if isinstance(value, (list, tuple)) else (cast("T", value),) * num_levels
    if len(values) != num_levels:
        raise InputError(f"{name} must be one value or one for each of {num_levels} levels, got {values}.")
    return values
