"""What ``python -m monai.bundle run`` lacks: paths as written, a word on misspelt options, errors in one line."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from monai.bundle import ConfigParser, run

from .errors import InputError, find_input_error

__all__ = ["TEXTS", "check_options", "flag", "number", "prepare", "report_in_one_line", "texts"]

TEXTS = (  # options that are the names of files, folders, subjects and images
    *("fixed", "moving", "label_fixed", "label_moving", "datalist", "dataset_dir", "output_dir", "bundle_root"),
    *("weights", "initial_weights", "displacements", "true_displacements"),
    *("layout", "group", "atlas", "fixed_image", "moving_image"),
)
INTERRUPTED = "the same command goes on where it was"


def prepare(known: dict[str, Any], interrupted: str = INTERRUPTED) -> None:
    """First expression of every ``run``: options as they were written, and errors in one line.

    Args:
        known: the values of the configuration that are known already, ``__local_refs`` in its expressions. Those of
            :data:`TEXTS` on the command line are added, so that MONAI neither evaluates nor rewrites them: it runs what
            begins with ``$``, looks for what begins with ``@``, and takes ``#`` for its own separator.
        interrupted: what to do after an interrupt, for the message.

    Raises:
        InputError: when an option is unknown, or lacks its value.
    """
    sys.excepthook = partial(report_in_one_line, interrupted=interrupted)
    if _is_bundle_command():
        signal.signal(signal.SIGTERM, partial(_terminate, process=os.getpid(), interrupted=interrupted))
        check_options(sys.argv[2:])
        known.update(texts(sys.argv[2:]))


def flag(name: str, value: object) -> bool:
    """A switch from a configuration or the command line, which hands on ``--overwrite true`` as text.

    Raises:
        InputError: when it is neither true nor false.
    """
    known = {"true": True, "false": False}
    if str(value).lower() not in known:
        raise InputError(f"--{name} is '{value}': expected true or false.")
    return known[str(value).lower()]


def number(name: str, value: object, above: float = -math.inf, whole: bool = False) -> float:
    """A number from a configuration or the command line.

    Args:
        name: of the option.
        value: what was given.
        above: it must be larger than this.
        whole: whether it must be a whole number.

    Raises:
        InputError: when it is none, or none of these.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found) or found <= above or (whole and not found.is_integer()):
        limit = f" above {above:g}" if math.isfinite(above) else ""
        raise InputError(f"--{name} is '{value}': expected a {'whole ' if whole else ''}number{limit}.")
    return found


def report_in_one_line(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None, interrupted: str = INTERRUPTED
) -> None:
    """Print bad input and an interrupt as one line; anything else is a defect, and keeps its traceback."""
    if isinstance(error, KeyboardInterrupt):
        print(f"interrupted; {interrupted}.", file=sys.stderr)
        return
    known = find_input_error(error)
    if known is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {' '.join(str(known).splitlines())}", file=sys.stderr)


def check_options(arguments: Sequence[str]) -> None:
    """Reject options that no configuration file defines, since MONAI adds unknown ones without a word.

    Args:
        arguments: of ``monai.bundle run``, as in ``["--config_file", "configs/inference.yaml", "--fixed", "a.nii"]``.

    Raises:
        InputError: that names the option and the nearest known one.
    """
    options = _options(arguments)
    if options.get("config_file") is None:
        return
    known = set(inspect.signature(run).parameters) - {"override"} | _defined_ids(str(options["config_file"]))
    for name in options:
        top_level = re.split("#|::", name)[0]
        if top_level not in known:
            nearest = difflib.get_close_matches(top_level, known, n=1)
            hint = f"did you mean --{nearest[0]}?" if nearest else f"expected one of {', '.join(sorted(known))}."
            raise InputError(f"unknown option --{name}: {hint}")


def texts(arguments: Sequence[str]) -> dict[str, str]:
    """The options of :data:`TEXTS` among the arguments of ``monai.bundle run``, letter by letter.

    Raises:
        InputError: when one of them lacks its value.
    """
    found = {name: value for name, value in _options(arguments).items() if name in TEXTS}
    for name, value in found.items():
        if not value:
            raise InputError(f"--{name} has no value: expected a name after it.")
    return {name: str(value) for name, value in found.items()}


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """Options and their values as fire tells them apart, but as text; None is an option without a value.

    Those of an ``--args_file`` count too, where it is one, unless they are given beside it.
    """
    options: dict[str, Any] = {}
    words = iter(range(len(arguments)))
    for index in words:
        if not _is_option(arguments[index]):
            continue
        name, equals, value = arguments[index].lstrip("-").partition("=")
        follows = not equals and index + 1 < len(arguments) and not _is_option(arguments[index + 1])
        if follows:
            value = arguments[next(words)]
        options[name.replace("-", "_")] = value if equals or follows else None
    file = options.get("args_file")
    given: Mapping[str, Any] = ConfigParser.load_config_file(file) if file and Path(file).is_file() else {}
    return {**given, **options}


def _is_option(word: str) -> bool:
    return word.startswith("--") or re.match("-[a-zA-Z]", word) is not None


def _defined_ids(config_file: str) -> set[str]:
    """Top-level ids of one configuration file, or of a list of them written as fire reads it."""
    files = ast.literal_eval(config_file) if config_file.startswith(("[", "(")) else [config_file]
    return {str(key).lstrip("+") for file in files for key in ConfigParser.load_config_file(file)}


def _is_bundle_command() -> bool:
    """Whether this process is ``python -m monai.bundle run``, whatever options Python was given."""
    file = getattr(sys.modules["__main__"], "__file__", None) or ""
    return Path(file).parts[-3:] == ("monai", "bundle", "__main__.py") and sys.argv[1:2] == ["run"]


def _terminate(signum: int, frame: Any, process: int, interrupted: str) -> None:
    """End as an interrupt does: what is half written is removed."""
    if os.getpid() == process:  # not one that was forked from it
        print(f"terminated; {interrupted}.", file=sys.stderr)
    sys.exit(128 + signum)
