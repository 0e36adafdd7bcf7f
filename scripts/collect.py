"""Puts the results of a cohort into one table, and says what is missing.

python -m scripts.collect OUT ... [--datalist PAIRS.json]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .cohorts.datalist import read_json_list, read_pairs
from .heart.run import read_cines
from .results.measures import flatten
from .results.outliers import FEWEST, find_outliers
from .results.summary import EvaluationSummary, write_csv
from .results.tables import EJECTION_FRACTION, Row, cines_table, measures_row, pairs_table
from .support.command_line import report_in_one_line
from .support.errors import InputError
from .support.files import read_record, remove_debris, replace_file, user_path

__all__ = ["collect", "main", "names_of"]

PART = re.compile(r"shard_(\d+)_of_(\d+)\.json")
NO_MEASURES = ("files", "sha256", "settings", "outputs", "warnings", "seconds", "versions", "motion_voxels")
MOST_NAMED = 20


def collect(folders: Sequence[Path], names: Iterable[str] | None = None) -> list[str]:
    """Write ``cohort.csv`` to the first folder: one row per pair or cine: measures, seconds, warnings, versions.

    Pairs that are unlike the others (``scripts.results.outliers``) have the reason in ``outlier``.

    It holds the pairs that inference has finished, by their ``metrics.json``, and those that the parts of an evaluation
    have measured. If all parts of an evaluation are there, ``metrics.csv``, ``summary.json`` and the plots are written
    as by an evaluation in one run; the pairs are in the order of their names.

    Args:
        folders: output folders.
        names: the pairs that are wanted; None if they are not known.

    Returns:
        what is missing: parts, pairs that have failed, and pairs that are wanted and not there.

    Raises:
        InputError: when there is no result, or a folder cannot be written to.
    """
    parts = [(path, record) for folder in folders for path in folder.glob("shard_*.json") if (record := _part(path))]
    rows = [row for folder in folders for row in _of_inference(folder)]
    rows += [
        _row(r["name"], {**r["metrics"], "verdict": r.get("verdict")}, r["seconds"], part["versions"])
        for _, part in parts
        for r in part["results"]
    ]
    if not rows:
        raise InputError(f"{', '.join(map(str, folders))}: there is no result of a registration.")
    table = {str(row["pair"]): row for row in rows}  # a pair that is there twice counts once
    rows = [table[name] for name in sorted(table)]
    of_cines = any(EJECTION_FRACTION in row for row in rows)
    if not of_cines:
        outliers = find_outliers(rows)
        rows = [{**row, "outlier": outliers.get(index, "")} for index, row in enumerate(rows)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    replace_file(folders[0] / "cohort.csv", lambda path: write_csv(rows, columns, path))
    print(cines_table(rows) if of_cines else f"{pairs_table(rows)}\n{_said_of_outliers(rows)}")
    missing = _missing_parts([path for path, _ in parts])
    failed = {name: text for _, part in parts for name, text in part["failed"].items() if name not in table}
    if parts and not missing:
        _summarize(folders[0], [part for _, part in parts], failed)
    missing += [f"pair {name}: {text}" for name, text in sorted(failed.items())]
    return missing + [f"pair {name}" for name in names or () if name not in table and name not in failed]


def _said_of_outliers(rows: Sequence[Row]) -> str:
    """Say which pairs are unlike the others, for the screen."""
    if len(rows) < FEWEST:
        return f"outliers: not looked for among {len(rows)} pairs, which needs {FEWEST}"
    found = [f"outlier: pair {row['pair']}: {row['outlier']}" for row in rows if row["outlier"]]
    more = [f"outliers in all: {len(found)}"] if len(found) > MOST_NAMED else []
    return "\n".join([*found[:MOST_NAMED], *more]) or f"outliers: none among {len(rows)} pairs"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.collect", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="output folders of inference or evaluation")
    parser.add_argument("--datalist", help="the list of all pairs, to name those that are missing")
    options = parser.parse_args(arguments)
    folders = [user_path(folder, "OUT") for folder in options.folders]
    names = names_of(options.datalist) if options.datalist else None
    missing = collect(folders, names)
    print(f"\ntable: {folders[0] / 'cohort.csv'}")
    for text in missing[:MOST_NAMED]:
        print(f"missing: {text}")
    if missing:
        print(f"missing in all: {len(missing)}")
    return 1 if missing else 0


def names_of(datalist: str) -> list[str]:
    """Return the names of all pairs, or of all cines, of a datalist."""
    entries = read_json_list(user_path(datalist, "datalist"), "pairs or cines", "[{fixed: ..., moving: ...}, ...]")
    of_cines = any(isinstance(entry, dict) and "cine" in entry for entry in entries)
    found = read_cines(None, datalist=datalist) if of_cines else read_pairs({}, datalist)
    return [entry["name"] for entry in found]


def _part(path: Path) -> dict[str, Any]:
    record = read_record(path) if PART.fullmatch(path.name) else {}
    return record if "results" in record else {}


def _of_inference(folder: Path) -> Iterable[Row]:
    for path in sorted(folder.rglob("metrics.json")):
        record = read_record(path)
        if record:
            remove_debris(path.parent)  # of a killed run that came to a finished pair
            measures = {key: value for key, value in record.items() if key not in NO_MEASURES}
            name = path.parent.relative_to(folder).as_posix()
            yield {
                **_row(name, measures, record["seconds"], record["versions"]),
                "warnings": " ".join(record["warnings"]),
            }


def _row(name: str, metrics: Mapping[str, Any], seconds: Mapping[str, float], versions: Mapping[str, str]) -> Row:
    return {**measures_row(name, metrics), **flatten({"seconds": seconds, "version": versions})}


def _missing_parts(paths: Sequence[Path]) -> list[str]:
    found = [PART.fullmatch(path.name) for path in paths]
    pieces = {(int(match[2]), int(match[1])) for match in found if match}
    counts = sorted({count for count, _ in pieces})
    if len(counts) > 1:
        raise InputError(f"{paths[0].parent} has parts of {' and of '.join(map(str, counts))}: expected one division.")
    return [f"part {i}/{count}" for count in counts for i in range(1, count + 1) if (count, i) not in pieces]


def _summarize(folder: Path, parts: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> None:
    """Write what an evaluation in one run writes."""
    weights = parts[0]["weights"]
    summary = EvaluationSummary(folder, parts[0]["label_names"], weights, parts[0]["about"])
    summary.prepare()
    results = sorted((result for part in parts for result in part["results"]), key=lambda result: result["name"])
    summary.write(results, failed, sum(part["seconds"] for part in parts))


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    sys.exit(main())
