"""Learns the expected errors of a task from synthetic deformations of images, and measures how good they are.

python -m scripts.tools.errors learn TASK
python -m scripts.tools.errors test TASK
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from ..cohorts import TASKS
from ..deformation.grid import as_volume, by_image, length
from ..networks.kernels.filters import gaussian
from ..networks.kernels.sampling import warp
from ..registration import Registration
from ..support.command_line import report_in_one_line
from ..support.errors import InputError
from ..verdict import ErrorModel, error_features, find_tissue, read_error_model
from ..verdict.error_map import FEATURES
from .verdicts import BRAINS, DATA, SHIPPED, Pair, pairs_of, write_rounded


class Deformation(NamedTuple):
    """Ranges that synthetic deformations are drawn from, in voxels of the network's grid.

    Attributes:
        length: of the displacement: its 95th percentile.
        smoothness: the standard deviation of the Gaussian filter that makes noise a displacement.
        texture: the largest standard deviation, of images in [0, 1], of what only one of the two subjects has.
    """

    length: tuple[float, float]
    smoothness: tuple[float, float]
    texture: float = 0.0


class Sample(NamedTuple):
    """Voxels in the tissue of one synthetic pair.

    Attributes:
        features: shape (N, F).
        means: their means over the tissue, shape (F).
        errors: the true error of each voxel, in voxels, shape (N).
    """

    features: torch.Tensor
    means: torch.Tensor
    errors: torch.Tensor


# as long and as rough as the displacements of real pairs, and images that are as unlike
DEFORMATIONS = {
    "cardiac": Deformation((1, 7), (7, 17)),
    "hippocampus": Deformation((1, 5), (4, 10), 0.15),
    "brain": Deformation((1, 4), (3, 9), 0.1),
}
GAMMA = (0.8, 1.25)
NOISE = (0.01, 0.06)  # standard deviations, of images in [0, 1]
TEXTURE = (1.0, 2.5)  # voxels: how smooth it is
SLICES = 3  # in the middle of a stack
CROP = 64  # voxels: the longest side of a volume; of a larger one the middle is taken, which saves time
MARGIN = 4  # voxels of such a middle that are not measured, since what lies beyond its border is missing
VOXELS = 3000  # of each pair
DECAY = 1e-3
SMALLEST = 0.05  # voxels: errors below it are as good as this one
STEPS = 20  # of the table from the weighted sum to the error
NUMBERS = {"learn": (60, 16), "test": (80, 20)}  # of synthetic pairs, and of those of brains, which take longer


def images_of(pairs: Sequence[Pair]) -> list[Path]:
    """Return the images of these pairs, each once, in an order in which the first ones are of all cohorts."""
    files = sorted({pair.fixed for pair in pairs})
    return [files[n] for n in np.random.default_rng(0).permutation(len(files))]


def draw(
    image: torch.Tensor, deformation: Deformation, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a pair of one image: as it is, and deformed, with other brightness; both with noise.

    Args:
        image: in [0, 1], shape (B, 1, *spatial).
        deformation: the ranges to draw from.
        random: draws.

    Returns:
        moving and fixed, (B, 2, *spatial), and the true displacement in voxels, (B, d, *spatial).
    """
    generator = torch.Generator().manual_seed(int(random.integers(2**31)))
    noise = torch.randn(len(image), image.ndim - 2, *image.shape[2:], generator=generator)
    field = gaussian(noise, random.uniform(*deformation.smoothness))
    lengths = length(field.movedim(1, 0)).flatten(1).numpy()
    longest = torch.from_numpy(np.percentile(lengths, 95, axis=1)).float()
    field *= (random.uniform(*deformation.length) / longest).view(-1, *[1] * (image.ndim - 1))
    level = random.uniform(*NOISE)
    pair = torch.cat([image, warp(image, field).clamp(min=0) ** random.uniform(*GAMMA)], 1)
    noise = level * torch.cat([torch.randn(image.shape, generator=generator) for _ in range(2)], 1)
    if deformation.texture:
        texture = gaussian(torch.randn(pair.shape, generator=generator), random.uniform(*TEXTURE))
        noise += random.uniform(0, deformation.texture) * texture / texture.std()
    return (pair + noise * (pair > 0)).clamp(0, 1), field


def measure(register: Registration, file: Path, deformation: Deformation, random: np.random.Generator) -> Sample:
    """Register a synthetic pair of an image in both directions, and compare with the true displacement."""
    dims = register.spatial_dims
    image = by_image(register.preprocessing({"fixed": file, "moving": file})["image"], dims)
    if dims == 2:
        first = max(0, (len(image) - SLICES) // 2)
        image = image[first : first + SLICES]
    pairs, truth, inside = _middle(*draw(image[:, 1:2], deformation, random))
    there, back = (by_image(register.predict(as_volume(way, dims)), dims) for way in (pairs, pairs.flip(1)))
    values = error_features(pairs, there, back).movedim(1, -1)
    tissue = (find_tissue(pairs) & inside)[:, 0]
    values, errors = values[tissue], length((there - truth).movedim(1, 0))[tissue]
    chosen = torch.from_numpy(random.permutation(len(errors))[:VOXELS])
    return Sample(values[chosen], values.mean(0), errors[chosen])


def _middle(pairs: torch.Tensor, field: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cut the middle out of large volumes; slices stay. The last result is where to measure, (B, 1, *spatial)."""
    inside = torch.ones_like(pairs[:, :1], dtype=torch.bool)
    for axis in range(2, pairs.ndim) if pairs.ndim == 5 else ():
        size = pairs.shape[axis]
        if size > CROP:
            first = (size - CROP) // 2
            pairs, field, inside = (part.narrow(axis, first, CROP) for part in (pairs, field, inside))
            rows = torch.arange(CROP).view(-1, *[1] * (pairs.ndim - 1 - axis))
            inside = inside & (rows >= MARGIN) & (rows < CROP - MARGIN)
    return pairs, field, inside


def measure_all(register: Registration, task: str, files: Sequence[Path], number: int, seed: int) -> list[Sample]:
    """Measure synthetic pairs of these images, one after the other."""
    samples = []
    for n in range(number):
        random = np.random.default_rng([seed, n])
        samples.append(measure(register, files[n % len(files)], DEFORMATIONS[task], random))
        print(f"{n + 1}/{number}: mean error {samples[-1].errors.mean():.2f} voxels", file=sys.stderr, flush=True)
    return samples


def learn(samples: Sequence[Sample]) -> ErrorModel:
    """Learn the logarithm of the error by a linear regression, and the table that calibrates it."""
    table = torch.cat([torch.cat([s.features, s.means.expand_as(s.features)], 1) for s in samples]).double().numpy()
    errors = torch.cat([s.errors for s in samples]).double().numpy()
    target = np.log(errors + SMALLEST)
    centred = table - table.mean(0)
    penalty = DECAY * len(table) * np.eye(table.shape[1])
    weights = np.linalg.solve(centred.T @ centred + penalty, centred.T @ (target - target.mean()))
    order = np.argsort(table @ weights)
    parts = np.array_split(order, STEPS)
    sums, found = ([float(values[part].mean()) for part in parts] for values in (table @ weights, errors))
    return ErrorModel(weights.tolist(), sums, np.maximum.accumulate(found).tolist())


def test(samples: Sequence[Sample], model: ErrorModel) -> str:
    """Say how well the expected error follows the true one, beside two measures that a user has without it."""
    expected = [model.look_up(model.total(s.features, s.means)).numpy() for s in samples]
    true = [s.errors.numpy() for s in samples]
    ways = {"expected error": expected} | {
        f"{name} alone": [s.features[:, FEATURES.index(name)].numpy() for s in samples]
        for name in ("inconsistency", "disagreement")
    }
    lines = ["| | Spearman, all voxels | in a pair | pairs |", "|---" * 4 + "|"]
    for name, values in ways.items():
        inside = np.mean([_rank_correlation(a, b) for a, b in zip(values, true)])
        pairs = _rank_correlation([v.mean() for v in values], [v.mean() for v in true])
        lines.append(
            f"| {name} | {_rank_correlation(np.concatenate(values), np.concatenate(true)):.3f} "
            f"| {inside:.3f} | {pairs:.3f} |"
        )
    deciles = np.array_split(np.argsort(np.concatenate(expected), kind="stable"), 10)
    lines += ["", "| decile | " + " | ".join(map(str, range(1, 11))) + " |", "|---" * 11 + "|"]
    for name, found in (("expected, voxels", expected), ("true, voxels", true)):
        every = np.concatenate(found)
        lines.append(f"| {name} | " + " | ".join(f"{every[part].mean():.2f}" for part in deciles) + " |")
    return "\n".join(lines)


def compare_with_dice(register: Registration, pairs: Sequence[Pair]) -> str:
    """Say how the mean expected error of real pairs goes with their Dice."""
    found = []
    for pair in pairs:
        result = register(pair.fixed, pair.moving, pair.label_moving, pair.label_fixed)
        found.append((result.expected_error_mm["mean"], result.metrics["dice"]["after"]["mean"]))
        print(f"{len(found)}/{len(pairs)}: {found[-1][0]:.2f} mm, Dice {found[-1][1]:.3f}", file=sys.stderr, flush=True)
    errors, dice = np.transpose(found)
    return (
        f"{len(found)} real pairs: mean expected error {errors.mean():.2f} mm ({errors.min():.2f} to "
        f"{errors.max():.2f}), Spearman with Dice {_rank_correlation(errors, dice):.2f}"
    )


def _rank_correlation(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    return float(spearmanr(first, second)[0])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tools.errors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    learning = commands.add_parser("learn", help="learn from synthetic deformations of the chosen subjects")
    testing = commands.add_parser("test", help="print what it is worth on those of the reported subjects")
    testing.add_argument("--pairs", type=int, default=0, help="compare so many real pairs with their Dice, too")
    for command in (learning, testing):
        command.add_argument("task", choices=TASKS)
        command.add_argument("--number", type=int, help="of synthetic pairs (default: 60 and 80, or 16 and 20 brains)")
        command.add_argument("--data", type=Path, default=DATA, help="folder with the data sets (default: %(default)s)")
        command.add_argument("--brains", type=Path, default=BRAINS, help="label maps that scripts.prepare has prepared")
        command.add_argument("--verdicts", type=Path, default=SHIPPED, help="default: %(default)s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    task, reported = options.task, options.command == "test"
    register = Registration.load(task, device="cpu")
    pairs = pairs_of(task, reported, options.data, options.brains)
    number = options.number or NUMBERS[options.command][task == "brain"]
    samples = measure_all(register, task, images_of(pairs), number, seed=int(reported))
    if not reported:
        _write(options.verdicts, task, learn(samples))
        return
    model = read_error_model(options.verdicts, task)
    if model is None:
        raise InputError(f"nothing was learned for {task}: expected `learn {task}` before.")
    print(f"\n{task}, {number} synthetic pairs\n\n{test(samples, model)}")
    if options.pairs:
        register.error_model = model
        order = np.random.default_rng(0).permutation(len(pairs))[: options.pairs]
        print(f"\n{compare_with_dice(register, [pairs[n] for n in order])}")


def _write(file: Path, task: str, model: ErrorModel) -> None:
    known = json.loads(file.read_text()) if file.exists() else {}
    write_rounded(known | {task: known.get(task, {}) | {"error": asdict(model)}}, file)


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
