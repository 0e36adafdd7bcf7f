"""The range of intensities of an image, whatever its contents are, and padding that is not part of it."""

import numpy as np
import pytest
import torch
from monai.transforms import ScaleIntensityRangePercentiles
from scipy.ndimage import affine_transform

from scripts.images.intensities import ClampPaddingd, ScaleIntensitiesd, find_range, tissue_floor
from scripts.registration.preprocessing import preprocess_pair
from scripts.results.measures import rescale

from ..conftest import blobs, message_of, meta

SHAPE = (20, 24, 16)


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


@pytest.mark.parametrize("offset", [0, -300])
def test_an_ordinary_image_is_scaled_as_monai_scales_it(offset):
    image = meta(torch.from_numpy(blobs(SHAPE).astype(np.float32)) + offset)
    expected = ScaleIntensityRangePercentiles(1, 99, b_min=0, b_max=1, clip=True)(image)
    assert torch.equal(ScaleIntensitiesd()({"fixed": image, "moving": image})["fixed"], expected)
    assert tissue_floor(image) == -np.inf


@pytest.mark.parametrize("unit", [1e-3, 1, 1e3])
def test_a_small_object_is_scaled_in_any_unit_and_so_is_a_small_hole(unit):
    """8 of 7680 voxels, so that both percentiles are the background."""
    small = torch.zeros(SHAPE)
    small[4:6, 4:6, 4:6] = torch.tensor([100.0, 110, 120, 130, 140, 150, 160, 170]).view(2, 2, 2)
    # percentiles 1 and 99 of the object: 100 + 0.07 * 10 and 170 - 0.07 * 10
    assert [float(limit) / unit for limit in find_range(small * unit)] == pytest.approx([0, 169.3])
    assert [float(limit) / unit for limit in find_range((200 - small) * unit)] == pytest.approx([30.7, 200])
    scaled = ScaleIntensitiesd()({"fixed": meta(small * unit), "moving": meta(200 * unit - small * unit)})
    assert scaled["fixed"][0, 4, 4, 4].item() == pytest.approx(100 / 169.3)
    assert (scaled["fixed"].min(), scaled["fixed"].max()) == (0, 1)
    torch.testing.assert_close(rescale(small * unit, small * unit), scaled["fixed"][0].as_tensor())


def test_what_differs_by_rounding_is_one_intensity_and_one_wild_voxel_changes_nothing():
    small = torch.full(SHAPE, 37.0)
    small[::2] += 4e-6  # the next number in single precision
    small[4:6, 4:6, 4:6] = 100
    assert [float(limit) for limit in find_range(small)] == pytest.approx([37, 100])
    image = torch.from_numpy(blobs(SHAPE).astype(np.float32))
    low, high = find_range(image)
    image[0, 0, 0] = 1e10
    assert find_range(image) == (pytest.approx(low, abs=5), pytest.approx(high, abs=5))


def test_an_image_of_one_intensity_is_named_and_two_are_an_error(caplog):
    one, other = meta(torch.full(SHAPE, 7.0)), meta(torch.from_numpy(blobs(SHAPE)))
    assert find_range(one) is None
    assert (rescale(one, one) == 0).all()
    one.meta["filename_or_obj"] = "grey.nii.gz"
    data = ScaleIntensitiesd()({"fixed": other, "moving": one})
    assert (data["moving"] == 0).all()
    assert [record.getMessage() for record in caplog.records] == [
        "moving: grey.nii.gz is constant where it is registered: nothing moves."
    ]
    message = message_of(lambda: ScaleIntensitiesd()({"fixed": one, "moving": one}))
    assert message.startswith("fixed: grey.nii.gz and moving: grey.nii.gz: each is constant")
    # and so are images that are beyond a window
    assert "in the intensity_range [-9.0, 0.0]" in message_of(
        lambda: ScaleIntensitiesd([-9, 0])({"fixed": other, "moving": one})
    )


def padded(image, value):
    """The corners of each slice, outside of a circle, have a value."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, n) for n in image.shape[:2]], indexing="ij")
    return np.where((x**2 + y**2 > 1)[..., None], value, image)


def half_a_voxel_on(image, order):
    return affine_transform(image, np.eye(3), offset=(0.5, 0.5, 0), order=order, mode="nearest")


@pytest.mark.parametrize("value", [-1000, -1024.0, -2000, -3024, -32768])
def test_padding_is_background(value):
    image = blobs(SHAPE).astype(np.float32)
    assert tissue_floor(torch.from_numpy(padded(image, value))) == 0
    hounsfield = image - 500  # percentile 1 is about -500
    assert -500 < tissue_floor(torch.from_numpy(padded(hounsfield, value - 1000))) < -300


def test_a_padded_slice_is_background_though_all_others_are_close_to_it():
    image = blobs((20, 24, 5)).astype(np.float32)
    image[..., 2] = -2000
    assert tissue_floor(torch.from_numpy(image)) == 0


@pytest.mark.parametrize("order", [1, 3])
def test_padding_that_a_resampling_has_mixed_with_tissue_is_background(order):
    image = np.kron(blobs(SHAPE), np.ones((4, 4, 1))).astype(np.float32)
    mixed = half_a_voxel_on(padded(image, -2000), order)
    assert ((mixed > -1900) & (mixed < -10)).mean() > 0.005
    assert tissue_floor(torch.from_numpy(mixed)) == 0


def test_what_is_no_padding_stays(samples):
    import nibabel as nib

    brain = np.asarray(nib.load(samples / "brain_synthetic/synthetic_19/t1.nii.gz").dataobj, dtype=np.float32)
    inside = brain > 0
    z_scores = (brain - brain[inside].mean()) / brain[inside].std()
    air = np.random.default_rng(0).normal(-1000, 20, brain.shape)
    ordinary = {
        "zero is the background": brain,
        "tissue from 700 to 1000": np.where(inside, 700 + brain, 0),
        "normalised as a whole": (brain - brain.mean()) / brain.std(),
        "normalised in the brain": np.where(inside, z_scores, 0),
        "noise of air": np.where(inside, brain, air),
        "a few voxels": np.where(np.arange(brain.size).reshape(brain.shape) % 200 == 0, -2000, brain),
        "a small object": np.where(brain > 230, brain, -1000),
    }
    for name, values in ordinary.items():
        assert tissue_floor(torch.from_numpy(values.astype(np.float32))) == -np.inf, name


def test_padding_is_raised_and_named(caplog):
    image = padded(blobs(SHAPE).astype(np.float32), -2000)
    data = {"fixed": meta(torch.from_numpy(image)), "moving": meta(torch.from_numpy(blobs(SHAPE, seed=1)))}
    data["fixed"].meta["filename_or_obj"] = "ct.nii.gz"
    result = ClampPaddingd()(data)
    np.testing.assert_array_equal(result["fixed"][0], np.maximum(image, 0))
    assert result["moving"] is data["moving"]
    assert data["fixed"].min() == -2000
    assert [record.getMessage() for record in caplog.records] == [
        "fixed: ct.nii.gz is padded with -2000, far below its tissue: taken as background."
    ]


def test_a_window_goes_from_the_files_to_the_image(save):
    values = np.full((8, 8, 8), -1024, np.int16)
    values[2:6, 2:6, 2:6] = 50
    files = {key: save(f"{key}.nii.gz", values) for key in ("fixed", "moving")}
    image = preprocess_pair(3, (1, 1, 1), (8, 8, 8), intensity_range=[-1000, 400])(files)["image"]
    assert image.shape == (2, 8, 8, 8)
    assert torch.unique(image).tolist() == [0, 0.75]


@pytest.mark.parametrize("value", [0, -2000])
def test_the_network_sees_the_same_whatever_the_padding_is(save, value):
    images = {key: blobs((20, 20, 16), seed).astype(np.int16) for seed, key in enumerate(("fixed", "moving"))}
    seen = []
    for padding in (0, value):
        files = {key: save(f"{key}{padding}.nii.gz", padded(image, padding)) for key, image in images.items()}
        data = preprocess_pair(3, (1.5, 1.5, 1.5), (12, 12, 8))(files)
        assert data["native_fixed"].min() == padding
        seen.append(data["image"])
    torch.testing.assert_close(*seen)
