"""What ``python -m monai.bundle run`` lacks: a word on misspelt options, and errors in one line."""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from collections.abc import Sequence
from types import TracebackType

from monai.bundle import ConfigParser, run

from .errors import InputError, find_input_error

__all__ = ["check_options", "flag", "prepare", "report_in_one_line"]


def prepare() -> None:
    """First expression of every ``run``: checks the options of the command line and shortens its error messages."""
    sys.excepthook = report_in_one_line
    if "monai.bundle" in " ".join(sys.orig_argv[:4]) and sys.argv[1:2] == ["run"]:
        check_options(sys.argv[2:])


def flag(name: str, value: object) -> bool:
    """A switch from a configuration or the command line, which hands on ``--overwrite true`` as text.

    Raises:
        InputError: when it is neither true nor false.
    """
    known = {"true": True, "false": False}
    if str(value).lower() not in known:
        raise InputError(f"--{name} is '{value}': expected true or false.")
    return known[str(value).lower()]


def report_in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print bad input and an interrupt as one line; anything else is a defect, and keeps its traceback."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; --resume true continues a training.", file=sys.stderr)
        return
    known = find_input_error(error)
    if known is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {known}", file=sys.stderr)


def check_options(arguments: Sequence[str]) -> None:
    """Reject options that no configuration file defines, since MONAI adds unknown ones without a word.

    Args:
        arguments: of ``monai.bundle run``, as in ``["--config_file", "configs/inference.yaml", "--fixed", "a.nii"]``.

    Raises:
        InputError: that names the option and the nearest known one.
    """
    if not any(argument.startswith("--config") for argument in arguments):
        return  # the configuration is named in an --args_file
    names = [argument.lstrip("-").partition("=")[0].replace("-", "_") for argument in arguments]
    is_option = [argument.startswith("--") for argument in arguments]
    known = set(inspect.signature(run).parameters) - {"override"}
    for index, name in enumerate(names):
        if is_option[index] and name == "config_file":
            known |= _defined_ids(arguments[index].partition("=")[2] or arguments[index + 1])
    for name in (name for name, option in zip(names, is_option) if option):
        top_level = name.replace("::", "#").split("#")[0]
        if top_level not in known:
            nearest = difflib.get_close_matches(top_level, known, n=1)
            hint = f"did you mean --{nearest[0]}?" if nearest else f"expected one of {', '.join(sorted(known))}."
            raise InputError(f"unknown option --{name}: {hint}")


def _defined_ids(config_file: str) -> set[str]:
    """Top-level ids of one configuration file, or of a list of them written as fire reads it."""
    files = ast.literal_eval(config_file) if config_file.startswith(("[", "(")) else [config_file]
    return {str(key).lstrip("+") for file in files for key in ConfigParser.load_config_file(file)}
