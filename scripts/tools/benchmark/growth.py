"""Growth of time and memory with the size of the image, the batch and the number of steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...networks import Backprop, GraDIRN
from ...support.files import replace_file
from .cost import training_step
from .machine import describe_machine, peak_growth, run_apart, seconds

__all__ = ["CASES", "Case", "exponent", "largest_cube", "measure", "write_growth"]

LEVELS = 3
EVALUATION_GIB, TRAINING_GIB = 8.0, 24.0
SHORT = 5.0  # seconds; shorter cases are measured three times


@dataclass(frozen=True)
class Case:
    """One point of a series, with the published configuration.

    Args:
        series: what grows: ``2D size``, ``3D size``, ``2D batch``, ``2D steps``, ...
        spatial_dims: 2 or 3.
        size: side of the square or cube, in voxels.
        batch: number of pairs.
        repeats: number of repeats of the block of each of the three levels.
        training: measure a training step; otherwise an evaluation.
        checkpoint: in a training step, recompute the activations of every step.
    """

    series: str
    spatial_dims: int
    size: int
    batch: int = 1
    repeats: int = 3
    training: bool = False
    checkpoint: bool = False

    @property
    def voxels(self) -> int:
        return self.size**self.spatial_dims

    @property
    def grown(self) -> int:
        """The number that grows along the series."""
        if self.series.endswith("batch"):
            return self.batch
        return LEVELS * self.repeats if self.series.endswith(" steps") else self.voxels


CASES = [
    *(Case("2D size", 2, size) for size in (64, 128, 256, 512)),
    *(Case("3D size", 3, size) for size in (32, 64, 96, 128, 160, 192)),
    *(Case("2D batch", 2, 128, batch=batch) for batch in (1, 2, 4, 8, 16)),
    *(Case("3D batch", 3, 32, batch=batch) for batch in (1, 2, 4, 8, 16)),
    *(Case("2D steps", 2, 128, repeats=repeats) for repeats in (3, 6, 9, 12)),
    *(Case("3D steps", 3, 48, repeats=repeats) for repeats in (3, 6, 9, 12)),
    *(Case("3D training size", 3, size, training=True) for size in (32, 48, 64, 96)),
    *(Case("3D training size, checkpoint_steps", 3, size, training=True, checkpoint=True) for size in (32, 48, 64, 96)),
    *(Case("3D training steps", 3, 32, repeats=repeats, training=True) for repeats in (3, 6, 9, 12)),
]


def measure(case: Case, device: str) -> dict[str, float]:
    """Measure seconds (the shortest of three runs for short cases) and the growth of memory to its peak, in MiB."""
    torch.manual_seed(0)
    network = GraDIRN(case.spatial_dims, num_repeats=(case.repeats,) * LEVELS, backprop=Backprop(case.checkpoint))
    network = network.to(device)
    _run(case, network, torch.rand(1, 2, *[16] * case.spatial_dims, device=device))  # loads the libraries
    image = torch.rand(case.batch, 2, *[case.size] * case.spatial_dims, device=device)
    times: list[float] = []
    peak = peak_growth(lambda: times.append(_run(case, network, image)), device)
    if times[0] < SHORT:
        times += [_run(case, network, image) for _ in range(2)]
    return {"seconds": min(times), "peak_mib": peak}


def exponent(cases: Sequence[Case], values: Sequence[float]) -> float:
    """Fit p in value ~ grown^p, by least squares of the logarithms over the larger half of the series."""
    tail = slice(len(cases) // 2 - (len(cases) % 2 == 0), None)
    grown = np.log([case.grown for case in cases[tail]])
    return float(np.polyfit(grown - grown.mean(), np.log(values[tail]), 1)[0])


def largest_cube(cases: Sequence[Case], peaks: Sequence[float], gib: float) -> int:
    """Return the side of the cube with a peak of ``gib``, by proportion from the largest measured cube."""
    mib_per_voxel = peaks[-1] / cases[-1].voxels
    return int((gib * 1024 / mib_per_voxel) ** (1 / 3))


def write_growth(output_dir: Path, threads: int, device: str) -> None:
    """Measure every case in a separate process; write ``growth.md`` and ``growth.png``, and print the table."""
    results: dict[Case, dict[str, float]] = {}
    for case in CASES:
        results[case] = _measure_apart(case, threads, device)
        print(f"{case}: {results[case]}", flush=True)
    text = _table(results, describe_machine(device))
    print(text)
    output_dir.mkdir(parents=True, exist_ok=True)
    replace_file(output_dir / "growth.md", lambda path: path.write_text(text))
    replace_file(output_dir / "growth.png", lambda path: _plot(results, path))


def _run(case: Case, network: GraDIRN, image: torch.Tensor) -> float:
    device = image.device.type
    start = seconds(device)
    if case.training:
        training_step(network, image)
    else:
        with torch.inference_mode():
            network(image)
    return seconds(device) - start


def _measure_apart(case: Case, threads: int, device: str) -> dict[str, float]:
    """Measure the peak, and the seconds in a second process, which may keep the memory that it frees."""
    arguments = ("growth", "--case", str(CASES.index(case)), "--threads", str(threads), "--device", device)
    return json.loads(run_apart(*arguments)) | {"seconds": json.loads(run_apart(*arguments, environment={}))["seconds"]}


def _by_series(results: dict[Case, dict[str, float]]) -> dict[str, list[Case]]:
    return {
        name: [case for case in results if case.series == name] for name in dict.fromkeys(c.series for c in results)
    }


def _table(results: dict[Case, dict[str, float]], machine: str) -> str:
    lines = [f"{machine}; the published configuration in float32.", ""]
    lines += ["| what grows | size | batch | steps | seconds | peak MiB |", "|---|---|---|---|---|---|"]
    for case, found in results.items():
        size = "x".join([str(case.size)] * case.spatial_dims)
        steps = LEVELS * case.repeats
        row = f"| {case.series} | {size} | {case.batch} | {steps} | {found['seconds']:.3f} | {found['peak_mib']:.0f} |"
        lines.append(row)
    lines += ["", "| what grows | time ~ n^p, p | memory ~ n^p, p |", "|---|---|---|"]
    for name, cases in _by_series(results).items():
        powers = [exponent(cases, [results[case][key] for case in cases]) for key in ("seconds", "peak_mib")]
        lines.append(f"| {name} | {powers[0]:.2f} | {powers[1]:.2f} |")
    lines += ["", "n is the number of voxels, pairs or steps; p is fitted to the larger half of each series.", ""]
    for name, gib in (
        ("3D size", EVALUATION_GIB),
        ("3D training size", TRAINING_GIB),
        ("3D training size, checkpoint_steps", TRAINING_GIB),
    ):
        cases = _by_series(results)[name]
        side = largest_cube(cases, [results[case]["peak_mib"] for case in cases], gib)
        lines.append(
            f"- {name}: a cube of {side} voxels per side fits into {gib:.0f} GiB, by proportion from the largest "
            "measured cube."
        )
    return "\n".join(lines) + "\n"


def _plot(results: dict[Case, dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, key, label in zip(figure.subplots(1, 2), ("seconds", "peak_mib"), ("seconds", "peak MiB")):
        for name, cases in _by_series(results).items():
            if "size" in name:
                values = [results[case][key] for case in cases]
                axes.loglog(
                    [case.voxels for case in cases], values, "o-", label=f"{name} (p {exponent(cases, values):.2f})"
                )
        axes.set_xlabel("voxels")
        axes.set_ylabel(label)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120, format="png")
