"""Tracks one cine or many: what ``cine.yaml`` runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cohorts.datalist import folder_name, name_entries, read_json_list
from ..support.command_line import number
from ..support.errors import InputError, find_input_error
from ..support.files import read_record, user_path
from ..support.fingerprint import fingerprint
from ..verdict import check_level, refuse_verdicts
from ..verdict.judge import LEVELS
from . import cine as cine_module
from . import departure, frames, refinement, results, strain, tracking, verdict
from .cine import label_names
from .insertions import parse_insertions
from .results import OUTPUTS, checksums, write_cine_results

if TYPE_CHECKING:
    from ..registration import Registration
    from ..report import ReportWriter

__all__ = ["CineTracker", "read_cines"]

logger = logging.getLogger(__name__)
KEYS = ("cine", "label", "label_frame", "rv_insertion", "name")


def read_cines(
    cine: str | None,
    label: str | None = None,
    label_frame: int | str = 0,
    rv_insertion: str | None = None,
    datalist: str | None = None,
) -> list[dict[str, Any]]:
    """List the cines to track.

    Args:
        cine: one cine, with its label, if it has one.
        label: the label map of the frame ``label_frame``.
        label_frame: from 0.
        rv_insertion: insertions of the right ventricle, see :func:`~scripts.heart.insertions.parse_insertions`.
        datalist: a JSON file in place of these: a list of dictionaries with these keys and optionally ``name``, the
            folder of the results; relative paths start at the folder of the file.

    Raises:
        InputError: when both or none are given, or the datalist does not have this form.
    """
    if datalist is None:
        if cine is None:
            raise InputError("--cine is missing: expected --cine, or --datalist.")
        points = None if rv_insertion is None else parse_insertions(rv_insertion)
        frame = _frame(label_frame)
        return [{"name": ".", "cine": cine, "label": label, "label_frame": frame, "rv_insertion": points}]
    for option, value in {"cine": cine, "rv_insertion": rv_insertion}.items():
        if value is not None:
            raise InputError(f"--datalist and --{option} were both given: expected one or the other.")
    path = user_path(datalist, "datalist")
    entries = []
    for index, entry in enumerate(read_json_list(path, "cines", "[{cine: ...}, ...]")):
        where = f"{path}, entry {index}"
        if not isinstance(entry, dict) or "cine" not in entry or not set(entry) <= set(KEYS):
            raise InputError(f"{where}: expected a dictionary with cine and optionally {', '.join(KEYS[1:])}.")
        names = [k for k in ("cine", "label", "rv_insertion") if entry.get(k) and not isinstance(entry[k], list)]
        files = {k: str(path.parent / user_path(entry[k], f"{where}, {k}")) for k in names}
        name = {"name": folder_name(entry["name"], where)} if "name" in entry else {}
        known = {"label": None, "rv_insertion": entry.get("rv_insertion"), **files}
        entries.append({**known, **name, "label_frame": _frame(entry.get("label_frame", label_frame))})
    return name_entries(entries, "cine", path)


def constants() -> str:
    """Return a text that changes with the numbers in the modules that track and measure."""
    modules = cine_module, departure, frames, refinement, results, strain, tracking, verdict
    numbers = {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float)
    }
    return fingerprint(numbers, verdict.LIMITS)


def _frame(value: object) -> int:
    return int(number("label_frame", value, above=-1, whole=True))


class CineTracker:
    """Tracks cines and writes their results, each to a folder of its own below the output folder.

    Args:
        cines: result of :func:`read_cines`.
        registration: registers the frames.
        output_dir: the output folder.
        label_layout: the data-set layout that names the ids of the labels: ``acdc``, ``ukbb``, ``mnms2``, ...
        overwrite: replace existing results.
        fail_on: ``doubtful`` or ``failed``: ``run`` ends in an :class:`InputError` if a cine has this verdict, or a
            worse one; None means that verdicts are only reported.
        report: writes the report of all cines.

    Raises:
        InputError: when there is no such layout or verdict.
    """

    def __init__(
        self,
        cines: Sequence[Mapping[str, Any]],
        registration: Registration,
        output_dir: str | Path,
        label_layout: str = "acdc",
        overwrite: bool = False,
        fail_on: str | None = None,
        report: ReportWriter | None = None,
    ) -> None:
        label_names(label_layout)  # refuses an unknown layout before any image is read
        self.cines = cines
        self.registration = registration
        self.output_dir = user_path(output_dir, "output_dir")
        self.label_layout = label_layout
        self.overwrite = overwrite
        self.fail_on = check_level(fail_on)
        self.report = report

    def run(self) -> None:
        """Track all cines; those that are done are skipped, and one that fails does not stop the others.

        Raises:
            InputError: when a cine failed, or has a verdict that ``fail_on`` names; all are done before.
        """
        failures: dict[str, str] = {}
        verdicts: dict[str, str] = {}
        if self.report is not None:
            self.report.prepare()
        for entry in self.cines:
            try:
                verdicts[entry["name"]] = self._track(entry)
            except Exception as error:
                known = find_input_error(error)
                if known is None or len(self.cines) == 1:
                    raise
                failures[entry["name"]] = str(known)
                logger.error("%s: %s", entry["name"], known)
        if self.report is not None:
            self.report.write(self.cines, failures)
            logger.info("report: %s", self.report.path)
        if failures:
            raise InputError(f"{len(failures)} of {len(self.cines)} cines failed: {', '.join(failures)}.")
        refuse_verdicts(verdicts, self.fail_on, "cine")

    def _track(self, entry: Mapping[str, Any]) -> str:
        """Track a cine that is not done yet, and return its verdict."""
        folder = self.output_dir / entry["name"]
        files = {"cine": entry["cine"], "label": entry["label"], "weights": self.registration.weights}
        if isinstance(entry["rv_insertion"], str):
            files["rv_insertion"] = entry["rv_insertion"]
        for name, path in files.items():
            if path is not None and not user_path(path, name).exists():
                raise InputError(f"{name}: {path} does not exist.")
        options = entry["label_frame"], self.label_layout, entry["rv_insertion"]
        record = {
            "files": {name: str(Path(path).resolve()) for name, path in files.items() if path is not None},
            "sha256": checksums(files),
            "settings": " ".join(map(str, (self.registration.settings, constants(), *options))),
        }
        known = read_record(folder / OUTPUTS[-1])
        if not self.overwrite and known and all(known.get(k) == record[k] for k in ("sha256", "settings")):
            logger.info("%s is done", folder)
            return str(known["verdict"]["verdict"])
        start = time.perf_counter()
        tracked = self.registration.track(
            entry["cine"], entry["label"], entry["label_frame"], self.label_layout, entry["rv_insertion"]
        )
        said, seconds = tracked.verdict, time.perf_counter() - start
        write_cine_results(tracked, tracked.strain, folder, {**record, "seconds": {"track": seconds}}, self.overwrite)
        logger.info("tracked %d frames in %.0f s: results in %s", len(tracked.ddf), seconds, folder)
        level = logging.INFO if said.verdict == LEVELS[0] else logging.WARNING
        logger.log(level, "%s: %s", "cine" if entry["name"] == "." else entry["name"], said.describe(tracked.warnings))
        return said.verdict
