"""The error that tells a user in one line what is wrong with the input."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

__all__ = ["InputError", "find_input_error", "unknown_option", "unwrapped"]


class InputError(ValueError):
    """Bad input. Its message is one line that names the file or option, what was found and what was expected."""


def find_input_error(error: BaseException | None) -> InputError | None:
    """Return the :class:`InputError` that a library wrapped in its own exception, or None."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def unknown_option(name: str, known: Collection[str], prefix: str = "") -> InputError:
    """Make the error for an option that does not exist; its message names the most similar option.

    Args:
        name: the unknown option.
        known: the options that exist.
        prefix: prefix of all options in the message, such as ``--``.
    """
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {prefix}{nearest[0]}?" if nearest else f"expected one of {', '.join(sorted(known))}."
    return InputError(f"unknown option {prefix}{name}: {hint}")


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise an :class:`InputError` itself where a library wrapped it in its own exception."""
    try:
        yield
    except Exception as error:
        known = find_input_error(error)
        if known is None:
            raise
        raise known from None
