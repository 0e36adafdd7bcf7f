"""What masks, landmarks and labels do: planted lesions and errors on real images with a known displacement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from ...deformation.grid import apply_affine, lattice, sample
from ...images.loading import read_nifti
from ...registration import Registration
from ...results.registered import RegisteredPair
from .accuracy import PairMeasures

__all__ = ["print_guidance"]

TISSUE = 0.6  # quantile of the smoothed image above which a lesion is planted
RADIUS = {"hippocampus": 5, "brain": 9}  # voxels of a lesion
MOTION = {"hippocampus": (3.0, 6.0), "brain": (4.0, 10.0)}  # voxels: largest displacement, smoothness
NOISE = 0.03  # of the standard deviation of the image
LANDMARKS, TARGETS = 6, 50


@dataclass(frozen=True)
class Planted:
    """An image, the same image after a known displacement, and the place of a lesion.

    Args:
        moving: shape (1, X, Y, Z).
        fixed: fixed(x) = moving(x + ddf(x)), with noise.
        ddf: the displacement in voxels, shape (3, X, Y, Z).
        lesion: where the lesion lies in the moving image, boolean, (X, Y, Z).
        in_fixed: how much of each voxel of the fixed image the lesion takes, (X, Y, Z).
    """

    moving: MetaTensor
    fixed: MetaTensor
    ddf: torch.Tensor
    lesion: torch.Tensor
    in_fixed: torch.Tensor

    @property
    def tissue(self) -> torch.Tensor:
        """Where the fixed image shows something and no lesion."""
        values = self.fixed.as_tensor()[0]
        return (values > values.min() + 0.05 * (values.max() - values.min())) & (self.in_fixed < 0.01)

    def error(self, pair: RegisteredPair) -> float:
        """Return the mean length of the error in the tissue, in voxels."""
        return float((pair.ddf.as_tensor() - self.ddf).norm(dim=0)[self.tissue].mean())

    def volume(self, pair: RegisteredPair) -> float:
        """Return the volume of the lesion after the registration, as a fraction of the true one."""
        warped = _warp(self.lesion[None].float(), pair.ddf.as_tensor())
        return float(warped.sum() / self.in_fixed.sum())


def print_guidance(task: str, data: Path, num_pairs: int | None, seed: int = 0) -> None:
    """Print a table of errors with and without masks, landmarks and labels.

    Args:
        task: ``hippocampus`` or ``brain``.
        data: the folder with the data sets.
        num_pairs: use only the first pairs.
        seed: seed of everything that is planted.
    """
    pairs = PairMeasures(task, data).pairs[:num_pairs]
    register, with_labels = Registration.load(task), Registration.load(task, use_labels=True)
    rows: list[dict[str, float]] = []
    for index, pair in enumerate(pairs):
        random = np.random.default_rng([seed, index])
        planted = _plant(read_nifti(pair["moving"], "moving"), task, random)
        rows.append(
            {
                **_lesion_row(register, planted, random),
                **_landmark_row(register, planted, random),
                **_label_row(register, with_labels, pair),
            }
        )
        print(", ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True)
    print(f"\n{task}, {len(rows)} pairs\n\n| measure | mean | lowest | highest |\n|---|---|---|---|")
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"| {name} | {np.mean(values):.3f} | {min(values):.3f} | {max(values):.3f} |")


def _plant(moving: MetaTensor, task: str, random: np.random.Generator) -> Planted:
    values = moving.as_tensor()[0].numpy()
    largest, smoothness = MOTION[task]
    noise = np.stack([gaussian_filter(random.normal(size=values.shape), smoothness) for _ in range(3)])
    ddf = torch.from_numpy(noise * largest / np.abs(noise).max()).float()
    fixed = _warp(moving.as_tensor(), ddf).numpy() + random.normal(scale=NOISE * values.std(), size=values.shape)
    smooth = gaussian_filter(values, 2)
    middle, radius = np.array(values.shape)[:, None] / 2, RADIUS[task]
    places = np.argwhere(smooth > np.quantile(smooth, TISSUE)).T
    places = places[:, np.abs(places - middle).max(0) < min(values.shape) / 2 - 1.5 * radius]
    center = places[:, random.integers(places.shape[1])]
    distance = (lattice(values.shape) - torch.from_numpy(center).view(3, 1, 1, 1)).norm(dim=0)
    lesion = distance < radius
    clean = np.maximum(fixed[0], values.min())
    return Planted(moving, _like(moving, clean), ddf, lesion, _warp(lesion[None].float(), ddf)[0])


def _lesion_row(register: Registration, planted: Planted, random: np.random.Generator) -> dict[str, float]:
    """A cavity in the moving image, with and without a mask."""
    values = planted.moving.as_tensor()[0].numpy()
    speckle = gaussian_filter(random.normal(size=values.shape), 1) * 0.1 * values.std()
    cavity = _like(planted.moving, np.where(planted.lesion, np.maximum(values.min(), values.min() + speckle), values))
    mask = _like(planted.moving, (~planted.lesion).numpy().astype(np.float32))
    clean = register(planted.fixed, planted.moving)
    plain, masked = register(planted.fixed, cavity), register(planted.fixed, cavity, mask_moving=mask)
    error = planted.error(clean)
    return {
        "error without a lesion, voxel": error,
        "error with a lesion / without": planted.error(plain) / error,
        "error with a lesion and a mask / without": planted.error(masked) / error,
        "volume without a lesion / true": planted.volume(clean),
        "volume of the lesion / true": planted.volume(plain),
        "volume of the lesion with a mask / true": planted.volume(masked),
    }


def _landmark_row(register: Registration, planted: Planted, random: np.random.Generator) -> dict[str, float]:
    """A part of the fixed image that shows noise, with and without landmarks in it; targets in the same part."""
    values = planted.fixed.as_tensor()[0].numpy().copy()
    hidden = (planted.in_fixed > 0.5).numpy()
    darkest, brightest = np.quantile(values, (0.05, 0.95)).tolist()
    values[hidden] = random.uniform(darkest, brightest, size=int(hidden.sum()))
    fixed = _like(planted.fixed, values)
    places = random.permutation(np.argwhere(hidden))[: LANDMARKS + TARGETS].T
    points = torch.from_numpy(places).double()
    shift = planted.ddf[(slice(None), *places)]
    affine = planted.fixed.affine.double()
    ends = [apply_affine(affine, x)[:, :LANDMARKS].T.numpy() for x in (points, points + shift)]
    targets = (slice(None), *places[:, LANDMARKS:])
    errors = [
        float((pair.ddf.as_tensor()[targets] - planted.ddf[targets]).norm(dim=0).mean())
        for pair in (register(fixed, planted.moving), register(fixed, planted.moving, landmarks=(ends[0], ends[1])))
    ]
    return {
        "target error without landmarks, voxel": errors[0],
        "target error with landmarks / without": errors[1] / errors[0],
    }


def _label_row(plain: Registration, with_labels: Registration, pair: Mapping[str, str]) -> dict[str, float]:
    files = (pair["fixed"], pair["moving"], pair["label_moving"], pair["label_fixed"])
    found = {"": plain(*files).metrics, " with both labels": with_labels(*files).metrics}
    return {
        f"{name}{how}": value
        for how, metrics in found.items()
        for name, value in (
            ("Dice", metrics["dice"]["after"]["mean"]),
            ("folds, %", metrics["folding"]["whole_grid"]["folding_percent"]),
        )
    }


def _warp(image: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
    return sample(image.float(), lattice(ddf.shape[1:]) + ddf)


def _like(image: MetaTensor, values: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.from_numpy(values.astype(np.float32))[None], meta=image.meta)
