"""Synthesis of T1-like brains from label maps, for training without images.

The method is SynthSeg's (Billot et al., Medical Image Analysis 86, 2023), but the order of the intensities is that of
a T1-weighted image, in place of a random contrast.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandBiasField,
    RandGaussianSmooth,
    RandomizableTransform,
    RandRicianNoise,
    RandSimulateLowResolution,
)

__all__ = ["RandSynthesizeT1d", "paint_t1", "without_extracerebral"]

EXTRACEREBRAL = (500, 1000)  # SynthSeg's ids of skull, skin, eyes, ...; FreeSurfer's cortical parcels start at 1000

# FreeSurfer ids of each tissue, left and right, and its range of brightness in a T1-weighted image; CSF is 0, cerebral
# cortex 1 and cerebral white matter 2
TISSUES: dict[str, tuple[tuple[int, ...], tuple[float, float]]] = {
    "ventricles": ((4, 43, 5, 44, 14, 15, 72), (0.0, 0.0)),
    "CSF around the brain": ((24,), (0.0, 0.3)),
    "choroid plexus": ((31, 63, 136, 163, 137, 164), (0.3, 1.0)),
    "vessels": ((30, 62), (0.0, 1.5)),
    "cerebral cortex": ((3, 42, *range(1000, 3000)), (1.0, 1.0)),
    "cerebellar cortex": ((8, 47), (0.85, 1.2)),
    "hippocampus": ((17, 53), (0.85, 1.25)),
    "amygdala": ((18, 54), (0.85, 1.25)),
    "caudate": ((11, 50), (0.95, 1.35)),
    "accumbens": ((26, 58), (0.95, 1.35)),
    "putamen": ((12, 51), (1.05, 1.5)),
    "thalamus": ((10, 49), (1.25, 1.75)),
    "ventral diencephalon": ((28, 60), (1.4, 1.9)),
    "pallidum": ((13, 52), (1.5, 2.0)),
    "brain stem": ((16,), (1.55, 2.0)),
    "optic chiasm": ((85,), (1.0, 1.8)),
    "white matter lesions": ((25, 57, 77), (0.8, 1.8)),
    "cerebellar white matter": ((7, 46), (1.75, 2.05)),
    "cerebral white matter": ((2, 41), (2.0, 2.0)),
    "corpus callosum": ((251, 252, 253, 254, 255), (1.9, 2.1)),
}
KNOWN_LABELS = [label for labels, _ in TISSUES.values() for label in labels]
ANY_BRIGHTNESS = (0.0, 2.0)  # range of brightness of unknown ids
LONGEST_TABLE = 2**16  # ids that are looked up without being sorted, which takes longer
PAIR = (("label_fixed", "fixed"), ("label_moving", "moving"))  # keys of label maps, and of the images to paint

# ranges, as fractions of the mean of white matter unless the comment says otherwise
CSF = (0.1, 0.35)  # mean
GREY = (0.4, 0.75)  # mean of cerebral cortex, as a fraction of the way from CSF to white matter
TISSUE_NOISE = (0.01, 0.08)  # standard deviation within a tissue
BLUR = (0.4, 0.8)  # standard deviation of the partial-volume blur, in voxels
BIAS = (-0.1, 0.1)  # coefficients of the third-order polynomial whose exponential is the bias field
ZOOM = (0.6, 1.0)  # resolution, as a fraction of the grid's
NOISE = 0.04  # largest standard deviation of the Rician noise
GAMMA = (0.8, 1.25)  # exponent that changes the contrast


class RandSynthesizeT1d(RandomizableTransform):
    """Paint random T1-like images ``fixed`` and ``moving`` on the grids of their label maps.

    The label maps, shape (1, X, Y, Z), have FreeSurfer ids. Unknown ids get a random brightness; SynthSeg's
    extra-cerebral ids (500 to 999) are set to 0, in the label maps, too.

    Each tissue gets a random mean (in the order CSF, grey, white matter) and its own noise; then follow partial volume,
    bias field, resolution, Rician noise and contrast. The image is exactly 0 outside the brain, and its maximum is 255.
    The two images of a pair are independent.

    Args:
        seed: for validation: with a seed, the images depend only on it and on the names of the label maps' files and
            folders; without one, they depend on the random state and differ each time.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(prob=1.0)
        self.seed = seed
        self.tissue_noise = TISSUE_NOISE
        self.scanner = Compose(
            [
                RandGaussianSmooth(BLUR, BLUR, BLUR, prob=1),
                RandBiasField(degree=3, coeff_range=BIAS, prob=1),
                RandSimulateLowResolution(prob=0.5, zoom_range=ZOOM),
                RandRicianNoise(prob=1, std=NOISE, sample_std=True),
                RandAdjustContrast(prob=1, gamma=GAMMA),
            ]
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        names = "|".join(_short_name(data[label]) for label, _ in PAIR)
        for label, image in PAIR:
            result[label] = without_extracerebral(data[label])
            random = self.R if self.seed is None else _random_state(self.seed, names, image)
            result[image] = self._paint(result[label], random)
        return result

    def _paint(self, label: MetaTensor, random: np.random.RandomState) -> MetaTensor:
        ids, places = _table(label)
        mean, deviation = self._tissue_values(ids, places, random)
        noise = torch.from_numpy(random.standard_normal(tuple(places.shape)).astype(np.float32))
        image = mean[places] + deviation[places] * noise
        self.scanner.set_random_state(state=random)
        painted = self.scanner(image.clamp(min=0)) * (label.as_tensor() > 0)
        return MetaTensor(painted * (255 / painted.max().clamp(min=1e-6)), meta=label.meta)

    def _tissue_values(
        self, ids: Sequence[int], places: torch.Tensor, random: np.random.RandomState
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw mean and standard deviation of every id; white matter is 1, the background and ids below it are 0."""
        csf = random.uniform(*CSF)
        grey = csf + random.uniform(*GREY) * (1 - csf)
        drawn: dict[int, tuple[float, float]] = {}
        present = torch.bincount(places.flatten()).nonzero().flatten().tolist()
        unknown = sorted({ids[place] for place in present if ids[place] > 0} - set(KNOWN_LABELS))
        for labels, brightness in (*TISSUES.values(), *(([label], ANY_BRIGHTNESS) for label in unknown)):
            mean = tissue_mean(random.uniform(*brightness), csf, grey)
            drawn |= dict.fromkeys(labels, (mean, random.uniform(*self.tissue_noise)))
        values = torch.tensor([drawn.get(label, (0.0, 0.0)) for label in ids])
        return values[:, 0], values[:, 1]


def tissue_mean(brightness: float, csf: float, grey: float) -> float:
    """The intensity of a brightness on the scale of TISSUES, with white matter at 1, CSF and cortex as given."""
    return float(np.interp(brightness, [0, 1, 2, 3], [csf, grey, 1, 2 - grey]))


def paint_t1(label: MetaTensor) -> MetaTensor:
    """Paint each tissue with its typical brightness in a T1-weighted image: white matter 100, cortex 65.

    Args:
        label: FreeSurfer ids, shape (1, X, Y, Z); unknown ids become as bright as cortex.

    Returns:
        an image on the same grid, 0 in the background.
    """
    ids, places = _table(label)
    typical = {0: 0.0}
    for labels, brightness in TISSUES.values():
        typical |= dict.fromkeys(labels, float(np.interp(np.mean(brightness), [0, 1, 2, 3], [25, 65, 100, 135])))
    mean = torch.tensor([typical.get(label, 65.0) for label in ids])
    return MetaTensor(mean[places], meta=label.meta)


def _table(label: MetaTensor) -> tuple[list[int], torch.Tensor]:
    """Ids of a label map, and the place of each voxel's id among them, of the map's shape."""
    values = label.as_tensor().long()
    largest = int(values.max())
    if int(values.min()) >= 0 and largest < LONGEST_TABLE:
        return list(range(largest + 1)), values
    ids, places = values.unique(return_inverse=True)
    return ids.tolist(), places


def without_extracerebral(label: MetaTensor) -> MetaTensor:
    """Set SynthSeg's ids of everything around the brain (500 to 999) to 0."""
    ids = label.as_tensor()
    return MetaTensor(torch.where((ids < EXTRACEREBRAL[0]) | (ids >= EXTRACEREBRAL[1]), ids, 0), meta=label.meta)


def _short_name(label: MetaTensor) -> str:
    """Return folder and file, which are the same wherever the data set is stored."""
    return "/".join(Path(str(label.meta.get("filename_or_obj", ""))).parts[-2:])


def _random_state(seed: int, names: str, image: str) -> np.random.RandomState:
    digest = sha256(f"{seed}|{names}|{image}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype=np.uint32))
