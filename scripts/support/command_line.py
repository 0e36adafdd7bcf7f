"""Improves ``python -m monai.bundle run``: paths as written, messages on misspelt options, errors in one line."""

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

from .errors import InputError, find_input_error
from .keys import FILES, IMAGES

__all__ = [
    "TEXTS",
    "check_options",
    "flag",
    "is_bundle_command",
    "number",
    "prepare",
    "refuse_imports",
    "report_in_one_line",
    "texts",
]

TEXTS = (  # options whose values are names of files, folders, subjects and images
    *FILES,
    *("cine", "label", "rv_insertion", "datalist", "dataset_dir", "output_dir", "bundle_root"),
    *("weights", "initial_weights", "displacements", "true_displacements"),
    *("shard", "layout", "group", "atlas", "fixed_image", "moving_image"),
)
IMPORT = re.compile(r"""(^|[\[({,'"\s])\$.*import""", re.DOTALL)  # at the beginning of a text, or of one in a list
INTERRUPTED = "the same command continues"


def prepare(known: dict[str, Any], interrupted: str = INTERRUPTED) -> None:
    """Prepare a command; the first expression of every ``run``. Options stay as written, errors take one line.

    Args:
        known: the values of the configuration that are known already, ``__local_refs`` in its expressions. The values
            of :data:`TEXTS` on the command line are added, so that MONAI does not change them: it would evaluate a
            value that begins with ``$``, look up one that begins with ``@``, and split at ``#``.
        interrupted: what the message after an interrupt tells the user to do.

    Raises:
        InputError: when an option is unknown, or has no value.
    """
    sys.excepthook = partial(report_in_one_line, interrupted=interrupted)
    if is_bundle_command():
        signal.signal(signal.SIGTERM, partial(_terminate, process=os.getpid(), interrupted=interrupted))
        check_options(sys.argv[2:])
        known.update(texts(sys.argv[2:]))


def flag(name: str, value: object) -> bool:
    """Read a switch from a configuration or the command line, which passes ``--overwrite true`` on as text.

    Raises:
        InputError: when the value is neither true nor false.
    """
    known = {"true": True, "false": False}
    if str(value).lower() not in known:
        raise InputError(f"--{name} is '{value}': expected true or false.")
    return known[str(value).lower()]


def number(name: str, value: object, above: float = -math.inf, whole: bool = False) -> float:
    """Read a number from a configuration or the command line.

    Args:
        name: name of the option.
        value: value of the option.
        above: the number must be larger than this.
        whole: whether it must be a whole number.

    Raises:
        InputError: when the value is not such a number.
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
    """Print bad input and an interrupt in one line; anything else is a defect, and keeps its traceback."""
    if isinstance(error, KeyboardInterrupt):
        print(f"interrupted; {interrupted}.", file=sys.stderr)
        return
    known = find_input_error(error)
    if known is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {' '.join(str(known).splitlines())}", file=sys.stderr)


def check_options(arguments: Sequence[str]) -> None:
    """Reject options that no configuration file defines; MONAI would add them silently.

    Args:
        arguments: the arguments of ``monai.bundle run``, such as
            ``["--config_file", "configs/inference.yaml", "--fixed", "a.nii"]``.

    Raises:
        InputError: when an option is unknown; names the option and the most similar known one.
    """
    from monai.bundle import run  # slow to import, as it imports the engines

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


def texts(arguments: Sequence[str]) -> dict[str, str | list[str]]:
    """Return the options of :data:`TEXTS` among the arguments of ``monai.bundle run``, exactly as written.

    ``--fixed`` and ``--moving`` may be lists, ``"['T1.nii.gz','T2.nii.gz']"``.

    Raises:
        InputError: when one of them has no value.
    """
    found = {name: value for name, value in _options(arguments).items() if name in TEXTS}
    for name, value in found.items():
        if not value:
            raise InputError(f"--{name} has no value: expected a name after it.")
    return {name: _listed(str(value)) if name in IMAGES else str(value) for name, value in found.items()}


def _listed(text: str) -> str | list[str]:
    """Return the names in a list, with quotes or without; a text that is no list, or the name of a file, as it is."""
    if not (text.startswith("[") and text.endswith("]")) or os.path.lexists(text):
        return text
    try:
        return [str(name) for name in ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        return [name.strip(" '\"") for name in text[1:-1].split(",")]


def refuse_imports(arguments: Sequence[str]) -> None:
    """Refuse names that MONAI would execute as import statements, see ``scripts.support.guard``.

    Raises:
        InputError: when an option of :data:`TEXTS` has such a value, also in quotes or in a list.
    """
    for name, value in _options(arguments).items():
        if name in TEXTS and IMPORT.search(str(value)):
            raise InputError(f"--{name} is {value!r}, which MONAI would execute: write ./ before a name with $.")


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """Split arguments into options and their values as fire does, but as text; None is an option without a value.

    The options of an ``--args_file`` count, too, unless they are also given on the command line.
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
    given: Mapping[str, Any] = _read(file) if file and Path(file).is_file() else {}
    return {**given, **options}


def _is_option(word: str) -> bool:
    return word.startswith("--") or re.match("-[a-zA-Z]", word) is not None


def _defined_ids(config_file: str) -> set[str]:
    """Return the top-level ids of one configuration file, or of a list of files in the form that fire reads."""
    files = ast.literal_eval(config_file) if config_file.startswith(("[", "(")) else [config_file]
    return {str(key).lstrip("+") for file in files for key in _read(file)}


def _read(config_file: str) -> dict[str, Any]:
    from monai.bundle import ConfigParser

    return ConfigParser.load_config_file(config_file)


def is_bundle_command() -> bool:
    """Return whether this process is ``python -m monai.bundle run``, with any options of Python."""
    file = getattr(sys.modules["__main__"], "__file__", None) or ""
    return Path(file).parts[-3:] == ("monai", "bundle", "__main__.py") and sys.argv[1:2] == ["run"]


def _terminate(signum: int, frame: Any, process: int, interrupted: str) -> None:
    """End the process as an interrupt does: half-written files are removed."""
    if os.getpid() == process:  # not a process that was forked from it
        print(f"terminated; {interrupted}.", file=sys.stderr)
    sys.exit(128 + signum)
