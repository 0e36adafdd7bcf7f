"""Writes a report: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ..cohorts.datalist import read_shard
from ..results.overview import BLUE_TO_RED
from ..results.writer import RegistrationWriter
from ..support.bundle import versions
from ..support.errors import InputError
from ..support.files import read_record, replace_file
from .cines import CinePictures, draw_cines
from .entries import VERDICTS, Entry, Results, mark_outliers, worst_first
from .pictures import ERROR_COLOURS, Pictures, draw_pair
from .tables import histograms, tables_of, used_columns
from .viewer import LIBRARY, pack_library, pack_pairs

__all__ = ["MOST", "ReportWriter", "check_report", "write_report"]

PAGE = Path(__file__).parent / "page"
GENERATOR = "GraDIRN report"
MOST = 200  # pairs and cines with pictures


class ReportWriter:
    """Writes the report of the pairs or cines of one run, those that failed included.

    Args:
        writer: knows the folders of the results; the report is ``report.html`` in its folder.
        shard: the part of the pairs that is registered, as ``3/100``: then the report is ``report_3_of_100.html``.
        overwrite: replace a file of this name that is not a report.
    """

    def __init__(self, writer: RegistrationWriter, shard: str | None = None, overwrite: bool = False) -> None:
        self.writer = writer
        name = "report.html" if shard is None else "report_{}_of_{}.html".format(*read_shard(shard))
        self.path = writer.output_dir / name
        self.overwrite = overwrite

    def prepare(self) -> None:
        """Check that the report may be written, before anything is registered.

        Raises:
            InputError: when there is a file of this name that is not a report.
        """
        check_report(self.path, self.overwrite)

    def write(self, pairs: Sequence[Mapping[str, Any]], failures: Mapping[str, str]) -> None:
        """Write the report.

        Args:
            pairs: all pairs or cines of the run, finished now or before; each has a ``name``.
            failures: what went wrong, by the names of those that failed.
        """
        entries, failed = [], {}
        for pair in pairs:
            folder = self.writer.folder(pair)
            name = folder.resolve().name if pair["name"] == "." else pair["name"]  # a pair without a folder of its own
            if pair["name"] in failures:
                failed[name] = failures[pair["name"]]
            elif record := read_record(folder / "metrics.json"):
                entries.append(Entry(name, folder, record))
        write_report(Results(entries, failed), self.path)


def check_report(path: Path, overwrite: bool) -> None:
    """Raise an :class:`InputError` if a file is there that is not a report, unless it may be overwritten."""
    if path.is_dir():
        raise InputError(f"output: {path} is a folder: expected the name of a file.")
    if path.exists() and not overwrite and GENERATOR.encode() not in path.read_bytes()[:1000]:
        raise InputError(f"output: {path} exists, and is not a report: expected another name, or --overwrite.")


def write_report(results: Results, path: Path, most: int = MOST, viewer: bool = False) -> None:
    """Write a report of pairs and cines, the worst first.

    Args:
        results: the pairs and cines, see ``scripts.report.entries.find_entries``.
        path: the file; it is replaced.
        most: number of them with pictures, the worst ones; the others are in the table alone.
        viewer: also put whole volumes of the worst pairs into the page, and niivue, which shows them.

    Raises:
        InputError: when there is neither a pair nor a failure, or the file cannot be written.
    """
    if not results.entries and not results.failures:
        raise InputError(f"{path.parent}: there is no result of a registration to report.")
    mark_outliers(results.entries)
    entries = sorted(results.entries, key=worst_first)
    pairs, cines = ([entry for entry in entries[:most] if entry.is_cine == kind] for kind in (False, True))
    pictures: dict[str, Pictures | CinePictures] = {entry.name: draw_pair(entry) for entry in pairs}
    pictures |= draw_cines(cines)
    volumes = pack_pairs(pairs) if viewer else {}
    text = _render(entries, results, pictures, volumes, viewer)
    # names of files need not be text
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="replace"))


def _render(
    entries: Sequence[Entry],
    results: Results,
    pictures: Mapping[str, Pictures | CinePictures],
    volumes: Mapping[str, Mapping[str, str]],
    viewer: bool,
) -> str:
    environment = Environment(
        loader=FileSystemLoader(PAGE, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"zip": zip, "breakable": _breakable}
    names = ["viewer.js", "report.js"] if viewer else ["report.js"]
    style, *scripts = (Markup((PAGE / name).read_text(encoding="utf-8")) for name in ("report.css", *names))
    counts = Counter(entry.verdict for entry in entries)
    page = environment.get_template("report.html").render(
        generator=GENERATOR,
        version=versions()["gradirn"],
        style=style,
        scripts=scripts,
        hashes=[_hash(script.encode()) for script in scripts] + ([_hash(LIBRARY.read_bytes())] if viewer else []),
        library=pack_library() if viewer else "",
        entries=entries,
        pictures=pictures,
        volumes=volumes,
        failures=dict(sorted(results.failures.items())),
        nouns=_nouns(entries),
        counts={verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]},
        columns=used_columns(entries),
        histograms=histograms(entries),
        measured=_date(entries),
        tables_of=tables_of,
        determinant_colours=_gradient(BLUE_TO_RED),
        error_colours=_gradient(ERROR_COLOURS),
    )
    return page.lstrip()


def _nouns(entries: Sequence[Entry]) -> tuple[str, str]:
    """What the entries are, one and many of them."""
    names = {True: ("cine", "cines"), False: ("pair", "pairs")}
    kinds = {entry.is_cine for entry in entries} or {False}
    return names[kinds.pop()] if len(kinds) == 1 else ("pair or cine", "pairs and cines")


def _hash(script: bytes) -> str:
    """The hash by which the page allows a script to run; no other script runs in it."""
    return base64.b64encode(hashlib.sha256(script).digest()).decode()


def _breakable(name: str) -> Markup:
    """A name whose line may break after each underscore, hyphen and slash."""
    return Markup(re.sub(r"([_/-])", r"\1<wbr>", str(escape(name))))


def _date(entries: Sequence[Entry]) -> str:
    """The time of the newest result, so that the same results give the same report."""
    files = [entry.folder / "metrics.json" for entry in entries]
    times = [file.stat().st_mtime for file in files if file.exists()]
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(max(times))) if times else ""


def _gradient(colours: np.ndarray) -> str:
    """Colours as the stops of a gradient in CSS."""
    return ", ".join("rgb({} {} {})".format(*colour) for colour in colours)
