"""The overview picture."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import MetaTensor

from scripts.results.overview import draw_overview

from ..conftest import blobs


def result(shape, spacing, folded=False):
    image = MetaTensor(
        torch.from_numpy(blobs(shape).astype(np.float32))[None], affine=torch.diag(torch.tensor([*spacing, 1.0]))
    )
    jacobian = torch.ones(shape)
    if folded:
        jacobian[:] = -0.5
    label = (image.as_tensor() > 500).float()
    labels = {"label_fixed": label, "label_warped": label}
    field = {"ddf": torch.zeros(3, *shape), "jacobian": jacobian[None]}
    return SimpleNamespace(intensity_range=None, fixed=image, resampled=image, warped=image, **labels, **field)


def magenta(path):
    pixels = imread(path)[..., :3]
    return (np.abs(pixels - [1, 0, 1]).max(-1) < 0.02).mean()


@pytest.mark.parametrize(
    ("shape", "spacing", "rows"),
    [((30, 24, 6), (1, 1, 8), 3), ((20, 24, 18), (1, 1, 1), 3), ((30, 24, 1), (1, 1, 1), 1)],
)
def test_one_row_a_slice_or_plane_and_folds_in_magenta(tmp_path, shape, spacing, rows):
    draw_overview(result(shape, spacing), tmp_path / "a.png")
    draw_overview(result(shape, spacing, folded=True), tmp_path / "b.png")
    height, width, _ = imread(tmp_path / "a.png").shape
    assert width > height if rows == 1 else height > 300
    assert magenta(tmp_path / "b.png") > 0.05 > 0.002 > magenta(tmp_path / "a.png")
