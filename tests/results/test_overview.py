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
    limits = (float(image.min()), float(image.max()))
    ranges = {"fixed": limits, "moving": limits}
    moving = {"resampled_plane": image.as_tensor()[0].select}
    return SimpleNamespace(ranges=ranges, fixed=image, warped=image, **moving, **labels, **field)


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


def test_panels_show_what_they_stand_for(tmp_path):
    pair = result((4, 4, 1), (1, 1, 1))
    pair.label_fixed = torch.zeros(1, 4, 4, 1)
    pair.label_fixed[0, 1:3, 1:3] = 1
    pair.label_warped = None
    pair.jacobian[0, 0, 3] = 2.0  # at the upper left, as the second axis leads upwards
    draw_overview(pair, tmp_path / "a.png")
    pixels = np.round(imread(tmp_path / "a.png")[18:, 18:, :3] * 255)  # one row of panels of 216 pixels, 8 apart
    green = (pixels[:216, :216] == [0, 255, 0]).all(-1)
    # two columns and two rows of 108 pixels around the square from 54 to 162, which meet in one of its corners
    assert green.sum() == 4 * 108 - 1
    assert green[54:162, [53, 161]].all()
    assert green[[53, 161], 54:162].all()
    jacobian = pixels[:216, 6 * 224 :][:, :216]
    assert (jacobian[:54, :54] == [103, 0, 31]).all()
    assert (jacobian[54:] == 247).all()
