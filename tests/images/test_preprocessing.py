"""The intensities that become 0 and 1, and what is refused."""

import numpy as np
import pytest
import torch

from scripts.images import preprocess_pair
from scripts.images.preprocessing import ScaleIntensitiesd
from scripts.results.measures import rescale

from ..conftest import message_of, meta


def pair(*values):
    """Images of these values along one axis: the fixed one as they are, the moving one in reverse."""
    image = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
    return {"fixed": meta(image), "moving": meta(image.flip(0))}


def test_a_window_is_clipped_and_scaled_alike_in_both_images():
    data = ScaleIntensitiesd([-1000, 400])(pair(-1024, -1000, -300, 50, 400, 3000))
    expected = [0, 0, 0.5, 0.75, 1, 1]  # 700 and 1050 of 1400
    assert data["fixed"].flatten().tolist() == pytest.approx(expected)
    assert data["moving"].flatten().tolist() == pytest.approx(expected[::-1])
    assert data["intensity_range"] == (-1000, 400)


def test_without_a_window_each_image_has_its_own_percentiles():
    values = np.arange(101.0) ** 2
    images = pair(*values)
    images["moving"] = 3 * images["moving"] + 7
    data = ScaleIntensitiesd()(images)
    # percentiles 1 and 99 of 0, 1, 4, ..., 10000 are 1 and 9801
    expected = np.clip((values - 1) / 9800, 0, 1)
    np.testing.assert_allclose(data["fixed"].flatten(), expected, atol=1e-6)
    np.testing.assert_allclose(data["moving"].flatten().flip(0), expected, atol=1e-6)
    assert data["intensity_range"] is None


@pytest.mark.parametrize("window", [None, (-1000.0, 400.0)])
def test_the_measures_scale_as_the_preprocessing_does(window):
    values = torch.linspace(-1100, 900, 50)
    scaled = ScaleIntensitiesd(window)(pair(*values.tolist()))["fixed"].flatten()
    torch.testing.assert_close(rescale(values, values, window).float(), scaled.as_tensor().float())


@pytest.mark.parametrize("window", [[400, -1000], [0, 0], [1], "wide", 7])
def test_what_is_no_range_is_refused(window):
    message = message_of(lambda: preprocess_pair(3, (1, 1, 1), (8, 8, 8), intensity_range=window))
    assert message == f"intensity_range is {window}: expected two increasing numbers such as [-1000,400]."


def test_a_window_goes_from_the_files_to_the_image(save):
    values = np.full((8, 8, 8), -1024, np.int16)
    values[2:6, 2:6, 2:6] = 50
    files = {key: save(f"{key}.nii.gz", values) for key in ("fixed", "moving")}
    image = preprocess_pair(3, (1, 1, 1), (8, 8, 8), intensity_range=[-1000, 400])(files)["image"]
    assert image.shape == (2, 8, 8, 8)
    assert torch.unique(image).tolist() == [0, 0.75]
