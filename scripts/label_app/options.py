"""The options of a request, with their types and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..support.command_line import flag
from ..support.errors import InputError
from .values import quoted

__all__ = ["check_options", "listed", "read_options"]

# the smallest and the largest value of each option that is a number
RANGES: dict[str, tuple[float, float]] = {
    "frame": (0, 32_767),  # the longest axis of NIfTI
    "learning_rate": (1e-8, 1),
    "max_batch_size": (0, 100_000),
    "max_epochs": (1, 10_000),
    "max_images": (0, 10_000),
    "max_workers": (0, 64),
    "samples_per_epoch": (1, 100_000),
    "seed": (0, 2**32 - 1),
}


def check_options(config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise an :class:`InputError` unless these are known options with usable values, see :func:`read_options`."""
    for name in given:
        if name not in config:
            raise InputError(f"there is no option {quoted(name)}: expected one of {', '.join(sorted(config))}.")
    read_options(config, given)


def read_options(config: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Read the options of a task from a request.

    Args:
        config: the default of each option, which also defines its type; a list contains choices, and its first value is
            the default.
        request: the values of a request. Viewers send text for numbers, and nothing or an empty text for the default.

    Raises:
        InputError: when a value does not have this type, is not one of the choices, or is out of range.
    """
    return {name: _read(name, default, request.get(name)) for name, default in config.items()}


def _read(name: str, default: Any, value: Any) -> Any:
    if value is None or value == "":
        return default[0] if isinstance(default, list) else default
    if isinstance(default, list):
        if value not in default:
            raise InputError(f"{name} is {quoted(value)}: expected one of {', '.join(default)}.")
        return value
    if isinstance(default, bool):
        return flag(name, value)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise InputError(f"{name} is {quoted(value)}: expected text.")
        return value
    return _read_number(name, default, value)


def _read_number(name: str, default: float, value: Any) -> float:
    low, high = RANGES[name]
    kind = type(default)
    try:
        number = kind(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not low <= number <= high or kind(number) != number:
            raise ValueError
    except (TypeError, ValueError) as error:
        expected = "a whole number" if kind is int else "a number"
        raise InputError(f"{name} is {quoted(value)}: expected {expected} from {low} to {high}.") from error
    return kind(number)


def listed(text: str) -> list[str]:
    """Split a text into names at the commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
