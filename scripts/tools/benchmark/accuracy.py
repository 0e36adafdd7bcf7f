"""Measures every registration method on the same preprocessed pairs of a task: overlap, folding, time and memory.

One process on one thread registers pair by pair, with one method after the other. ``pairs.csv`` has one row per method
and pair. A row that exists is not measured again unless the method or its weights have changed; therefore an
interrupted run continues, and a new method does not repeat the others. The tables show all methods in that file.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import ResampleToMatchd
from monai.utils import convert_to_tensor

from ...registration import Registration
from ...results.measures import flatten
from ...results.summary import write_csv
from ...results.tables import Row
from ...support.errors import InputError
from ...support.files import prepare_folder, replace_file
from .comparisons import Method, UnavailableError, find_comparison, methods_of, parse_network, read_config
from .machine import cpu_seconds, peak_growth, run_apart
from .table import write_results

__all__ = ["Benchmark", "PairMeasures", "first_pair_peak", "read_rows"]

TEXTS = ("method", "pair", "settings", "digest")
COLUMNS = (*TEXTS, "parameters", "peak_mib", "cpu_s", "wall_s")
MEASURES = ("dice.after.", "folding.whole_grid.")


class PairMeasures:
    """Loads pairs on the grid of the networks, and measures them as ``evaluate.yaml`` does.

    Args:
        name: name of the task.
        data: the folder with the data sets.
    """

    def __init__(self, name: str, data: Path) -> None:
        parser = read_config(find_comparison(name), data)
        self.pairs: list[dict[str, str]] = parser.get_parsed_content("pairs")
        self.registration: Registration = parser.get_parsed_content("registration")
        label_names = parser.get_parsed_content("label_names")
        self.label_names = {str(number): label for number, label in label_names.items()}
        self.to_grid = ResampleToMatchd("label_fixed", key_dst="fixed", mode="nearest", padding_mode="zeros")

    def load(self, pair: Mapping[str, str]) -> dict[Hashable, Any]:
        """Preprocess a pair; the grid of the network replaces the grid of the fixed image."""
        data = self.to_grid(self.registration.preprocessing(pair))
        return {**data, "native_fixed": data["fixed"], "image": convert_to_tensor(data["image"], track_meta=False)}

    def measure(self, data: Mapping[Hashable, Any], ddf: torch.Tensor) -> Row:
        """Measure the Dice of the moving label, warped once from its own grid, and folding on the whole grid."""
        if not torch.isfinite(ddf).all():
            raise InputError(f"{data['name']}: a displacement is not finite.")
        measures = flatten(self.registration.result({}, data, ddf).metrics, self.label_names)
        return {key: value for key, value in measures.items() if key.startswith(MEASURES)}


class Benchmark:
    """Measures the rows that are missing in ``pairs.csv``, and writes the tables and plots.

    Args:
        name: name of the task.
        data: the folder with the data sets.
        networks: further networks, in the form that :func:`parse_network` reads.
        output_dir: the folder to write to.
        num_pairs: use only this many pairs, the first ones.
    """

    def __init__(
        self, name: str, data: Path, networks: Sequence[str], output_dir: Path, num_pairs: int | None = None
    ) -> None:
        self.name = name
        self.data = data
        self.networks = list(networks)
        self.output_dir = output_dir.expanduser()
        self.measures = PairMeasures(name, data)
        self.pairs = self.measures.pairs[:num_pairs]
        self.declared = methods_of(find_comparison(name), data, dict(map(parse_network, networks)))
        self.path = self.output_dir / "pairs.csv"
        self.digests: dict[str, str] = {}
        self.rows: dict[tuple[str, str], Row] = {}

    def run(self, wanted: Sequence[str] = ("",), fresh: bool = False) -> None:
        """Measure the methods with one of the wanted texts in their names; with ``fresh``, also those measured before.

        Raises:
            InputError: when no method can run, or the output folder cannot be written to.
        """
        prepare_folder(self.output_dir)
        methods = self._prepare_methods(wanted)
        self.digests = {method.name: method.digest for method in methods}
        if fresh:
            self._write({key: row for key, row in self._known_rows().items() if key[0] not in self.digests})
        self.rows = self._known_rows()
        warm: set[str] = set()
        for index, pair in enumerate(self.pairs):
            missing = [method for method in methods if (method.name, pair["name"]) not in self.rows]
            if not missing:
                continue
            data = self.measures.load(pair)
            for method in missing:
                if method.name not in warm:
                    self._warm_up(method, data if index == 0 else self.measures.load(self.pairs[0]))
                    warm.add(method.name)
                row = self._measure(method, data)
                if index == 0:
                    row["peak_mib"] = self._peak(method.name)
                self._record(row)
                dice, seconds = row["dice.after.mean"], row["cpu_s"]
                print(
                    f"{index + 1}/{len(self.pairs)} {pair['name']}, {method.name}: Dice {dice:.3f}, {seconds:.1f} s",
                    flush=True,
                )
        write_results(self._complete_methods(), self.name, self.output_dir)

    def _prepare_methods(self, wanted: Sequence[str]) -> list[Method]:
        names = [name for name in self.declared if any(text.lower() in name.lower() for text in wanted)]
        methods = []
        for name in names:
            try:
                methods.append(self.declared[name]())
            except UnavailableError as reason:
                print(f"skipped {name}: {reason}", flush=True)
        if not methods:
            raise InputError(f"--methods: no method to run; expected one of {', '.join(self.declared)}.")
        return methods

    def _warm_up(self, method: Method, data: Mapping[Hashable, Any]) -> None:
        """Register one slice, or every second voxel of a volume, to load the libraries before the measurement."""
        image = data["image"]
        method.register(image[..., :1] if self.measures.registration.spatial_dims == 2 else image[:, ::2, ::2, ::2])

    def _measure(self, method: Method, data: Mapping[Hashable, Any]) -> Row:
        wall, cpu = time.perf_counter(), cpu_seconds()
        ddf = method.register(data["image"])
        cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
        about = {"method": method.name, "pair": data["name"], "settings": method.settings, "digest": method.digest}
        times = {"parameters": method.parameters, "peak_mib": None, "cpu_s": cpu, "wall_s": wall}
        return {**about, **times, **self.measures.measure(data, ddf)}

    def _peak(self, name: str) -> float:
        networks = [argument for network in self.networks for argument in ("--network", network)]
        return float(run_apart("accuracy", self.name, "--memory_of", name, "--data", str(self.data), *networks))

    def _known_rows(self) -> dict[tuple[str, str], Row]:
        """Return the rows that were measured before, by method and pair, without methods that have changed."""
        rows = read_rows(self.path) if self.path.is_file() else []
        fitting = [row for row in rows if row["digest"] == self.digests.get(row["method"], row["digest"])]
        return {(row["method"], row["pair"]): row for row in fitting}

    def _record(self, row: Row) -> None:
        """Add a row to the file, to which another run may have added rows of other methods in the meantime."""
        self.rows = self._known_rows() | self.rows | {(row["method"], row["pair"]): row}
        self._write(self.rows)

    def _write(self, rows: Mapping[tuple[str, str], Row]) -> None:
        columns = dict.fromkeys((*COLUMNS, *(column for row in rows.values() for column in row)))
        replace_file(self.path, lambda path: write_csv(list(rows.values()), list(columns), path))

    def _complete_methods(self) -> dict[str, list[Row]]:
        """Return the rows of each method that has all pairs, in the order of the pairs."""
        names = dict.fromkeys((*self.declared, *(method for method, _ in self.rows)))
        found = {name: [self.rows.get((name, pair["name"])) for pair in self.pairs] for name in names}
        return {name: [row for row in rows if row] for name, rows in found.items() if all(rows)}


def first_pair_peak(name: str, data: Path, networks: Sequence[str], method: str) -> float:
    """Return the growth of memory to its peak while a method registers the first pair, in MiB (Linux)."""
    measures = PairMeasures(name, data)
    prepared = methods_of(find_comparison(name), data, dict(map(parse_network, networks)))[method]()
    image = measures.load(measures.pairs[0])["image"]
    return peak_growth(lambda: prepared.register(image))


def read_rows(path: Path) -> list[Row]:
    """Read ``pairs.csv``, with numbers as numbers and empty cells as None."""
    with path.open(newline="") as file:
        return [{key: _value(key, text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(column: str, text: str) -> Any:
    if column in TEXTS:
        return text
    return float(text) if text else None
