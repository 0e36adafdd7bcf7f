"""What a report knows of each pair or cine: its results, read from the folders of inference or evaluation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..results.names import OUTPUTS
from ..results.outliers import find_outliers
from ..results.tables import measures_row
from ..support.files import read_record

__all__ = ["VERDICTS", "Entry", "Results", "find_entries", "find_failures", "mark_outliers", "worst_first"]

VERDICTS = ("failed", "doubtful", "no verdict", "good")  # the worst first
NOT_MEASURES = ("warnings", "seconds", "files", "sha256", "settings", "outputs", "versions", "motion_voxels")
# names of BIDS derivatives, where links hide those of the images from which they were made
BIDS = {
    "moving_warped.nii.gz": r".*_desc-warped_[a-zA-Z0-9]+\.nii\.gz",
    "label_warped.nii.gz": r".*_desc-labels_dseg\.nii\.gz",
    "jacobian_determinant.nii.gz": r".*_desc-jacobian_map\.nii\.gz",
    "error_mm.nii.gz": r".*_desc-error(mm)?_map\.nii\.gz",
    "alignment.mat": r".*_desc-alignment_xfm\.mat",
}
LIKENESS = ("dice.after.mean", "ncc.after", "evidence.agreement")
SPACE = re.compile(r"(?:^|_)space-([a-zA-Z0-9]+)_")


@dataclass
class Entry:
    """One registered pair, or one tracked cine.

    Attributes:
        name: its name, which is unique in a report.
        folder: where its files are.
        record: its ``metrics.json``.
        outlier: why it is unlike the others; empty if it is not.
        row: its measures, flattened.
    """

    name: str
    folder: Path
    record: dict[str, Any]
    outlier: str = ""
    row: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        measures = {key: value for key, value in self.record.items() if key not in NOT_MEASURES}
        self.row = measures_row(self.name, measures) | {"seconds": sum(self.seconds.values()) or None}

    @property
    def is_cine(self) -> bool:
        return "end_systole_frame" in self.record

    @property
    def _said(self) -> dict[str, Any]:
        said = self.record.get("verdict")
        return said if isinstance(said, dict) else {}

    @property
    def verdict(self) -> str:
        """One of :data:`VERDICTS`."""
        said = self._said.get("verdict")
        return said if said in VERDICTS else "no verdict"

    @property
    def reasons(self) -> list[str]:
        return [str(reason) for reason in self._said.get("reasons") or ()]

    @property
    def warnings(self) -> list[str]:
        return [str(text) for text in self.record.get("warnings") or ()]

    @property
    def inputs(self) -> dict[str, str]:
        """The input files by their keys; empty where the images were given in memory."""
        return dict(self.record.get("files") or {})

    @property
    def seconds(self) -> dict[str, float]:
        """The time of each stage."""
        stages = (self.record.get("seconds") or {}).items()
        return {key: value for key, value in stages if isinstance(value, int | float)}

    @property
    def outputs(self) -> list[str]:
        """The names of the files that were asked for."""
        found = self.record.get("outputs")  # older results have none
        return [str(file) for file in (OUTPUTS if found is None else found)]

    @property
    def knows_alignment(self) -> bool:
        """Whether ``alignment.mat`` is all that came before the network, or there was nothing and so no such file."""
        asked = any(re.fullmatch(rf"alignment\.mat|{BIDS['alignment.mat']}", file) for file in self.outputs)
        return asked and not {"initial_transform", "displacement"} & {*self.inputs}

    def output(self, name: str) -> Path | None:
        """Return the place of one of ``scripts.results.names.OUTPUTS``, whichever scheme of names it has."""
        pattern = BIDS.get(name)
        if name == "displacement.nii.gz":  # to the space of the other results; the inverse leads from there
            spaces = {match[1] for file in self.outputs if (match := SPACE.search(file))}
            pattern = rf".*_to-({'|'.join(spaces)})_mode-image_xfm\.nii\.gz" if spaces else None
        found = [file for file in self.outputs if file == name or (pattern and re.fullmatch(pattern, file))]
        return next((self.folder / file for file in found if (self.folder / file).is_file()), None)


@dataclass(frozen=True)
class Results:
    """All that a report shows.

    Attributes:
        entries: the registered pairs and the tracked cines.
        failures: why others were not, by their names.
    """

    entries: list[Entry]
    failures: Mapping[str, str]


def find_entries(folders: Sequence[Path]) -> Results:
    """Find the results below output folders, and the pairs of which an evaluation says that they have failed."""
    entries: dict[str, Entry] = {}
    found = {path.resolve(): (path, folder) for folder in folders for path in sorted(folder.rglob(OUTPUTS[-1]))}
    for path, folder in found.values():
        record = read_record(path)
        if not {"folding", "end_systole_frame"}.isdisjoint(record):
            name = path.parent.relative_to(folder).as_posix()
            name = path.parent.resolve().name if name == "." else name
            name = str(path.parent) if name in entries else name
            entries[name] = Entry(name, path.parent, record)
    return Results(list(entries.values()), find_failures(folders))


def find_failures(folders: Iterable[Path]) -> dict[str, str]:
    """Return why pairs failed, by their names, from the summaries of evaluations and of their parts."""
    paths = [path for folder in folders for path in (folder / "summary.json", *sorted(folder.glob("shard_*.json")))]
    failed = [read_record(path).get("failed") for path in paths]
    return {str(name): str(text) for found in failed if isinstance(found, dict) for name, text in found.items()}


def mark_outliers(entries: Iterable[Entry]) -> None:
    """Set ``outlier`` of the pairs that are unlike the others which the same weights have registered."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.is_cine:
            continue
        groups.setdefault(str((entry.record.get("sha256") or {}).get("weights")), []).append(entry)
    for group in groups.values():
        reasons = find_outliers([entry.row for entry in group])
        for index, entry in enumerate(group):
            entry.outlier = reasons.get(index, "")


def worst_first(entry: Entry) -> tuple[Any, ...]:
    """Order by verdict, then by the probability of a failure, then by Dice, or else the correlation or agreement.

    Those without a value come last.
    """

    def ascending(*columns: str) -> tuple[bool, float]:
        values = (entry.row.get(column) for column in columns)
        known = next((value for value in values if isinstance(value, int | float)), None)
        return known is None, 0.0 if known is None else known

    unknown, score = ascending("score")
    return VERDICTS.index(entry.verdict), unknown, -score, *ascending(*LIKENESS), entry.name
