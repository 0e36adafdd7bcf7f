"""The error that tells a user in one line what is wrong with the input."""

from __future__ import annotations

__all__ = ["InputError", "find_input_error"]


class InputError(ValueError):
    """Bad input. Its message is one line that names the file or option, what was found and what was expected."""


def find_input_error(error: BaseException | None) -> InputError | None:
    """Return the :class:`InputError` that a library wrapped in its own exception, or None."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error
