"""Makes a report of registrations: one HTML file that needs nothing but itself.

python -m scripts.report OUT ... [--output FILE.html] [--datalist PAIRS.json]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..collect import names_of
from ..support.command_line import flag, number, report_in_one_line
from ..support.errors import InputError
from ..support.files import prepare_folder, user_path
from .entries import VERDICTS, Results, find_entries
from .writer import MOST, check_report, write_report

__all__ = ["main", "report"]


def report(
    folders: Sequence[Path], path: Path, names: Sequence[str] = (), most: int = MOST, viewer: bool = False
) -> Results:
    """Write the report of the pairs and cines below output folders.

    Args:
        folders: output folders of inference, or of an evaluation with the files of each pair.
        path: the HTML file.
        names: the pairs or cines that are wanted; those without a result are in the report as not registered.
        most: number of them with pictures.
        viewer: see :func:`scripts.report.writer.write_report`.

    Raises:
        InputError: when a folder is not there or holds no result, or the file cannot be written.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"OUT: {folder} is not a folder: expected the output folder of a registration.")
    results = find_entries(folders)
    there = {entry.name for entry in results.entries}
    failures = {name: text for name, text in results.failures.items() if name not in there}
    failures = {name: "There is no result." for name in names if name not in there} | failures
    results = replace(results, failures=failures)
    write_report(results, path, most, viewer)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.report", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="OUT", help="output folders of inference or evaluation")
    parser.add_argument("--output", help="the file; by default report.html in the first folder")
    parser.add_argument("--datalist", help="the list of all pairs or cines, to name those without a result")
    parser.add_argument("--most", default=MOST, help=f"how many have pictures, the worst ones; by default {MOST}")
    parser.add_argument("--viewer", default="false", help="true: with whole volumes, and niivue to look at them")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is not a report")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folders = [user_path(folder, "OUT") for folder in options.folders]
    path = user_path(options.output, "output") if options.output else folders[0] / "report.html"
    most = int(number("most", options.most, above=-1, whole=True))
    viewer = flag("viewer", options.viewer)
    check_report(path, options.overwrite)
    names = names_of(options.datalist) if options.datalist else []
    if options.output:
        prepare_folder(path.parent)
    results = report(folders, path, names, most, viewer)
    said = [sum(entry.verdict == verdict for entry in results.entries) for verdict in VERDICTS]
    print(", ".join(f"{count} {verdict}" for count, verdict in zip(said, VERDICTS) if count))
    if results.failures:
        print(f"not registered: {len(results.failures)}")
    print(f"report: {path}")


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
