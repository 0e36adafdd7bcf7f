"""Registration as a MONAI transform, in a Compose that reads and writes files, against SimpleITK."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged, Orientationd, SaveImaged, Spacingd

from scripts import InputError, RegisterImaged, Registration
from scripts.registration.inferer import RegistrationInferer
from scripts.registration.preprocessing import preprocess_pair

from ..conftest import Shift, blobs, meta, oblique_affine, ramp

ANGLES = (25, -15)
FIXED = oblique_affine((1.0, 1.5, 2.0), (20, -15, 10), ANGLES, (-1, 1, 1))  # flipped, anisotropic, oblique
MOVING = oblique_affine((1.2, 1.0, 1.4), (-18, -20, -10), (-10, 20), (1, 1, 1))
OTHER = oblique_affine((2.5, 2.0, 3.0), (-40, -35, -30), (5, 0), (1, -1, 1))  # of an image that is carried along
FIXED_SHAPE, MOVING_SHAPE, OTHER_SHAPE = (40, 30, 24), (44, 46, 40), (30, 32, 24)
SHIFT = (3.0, -4.0, 5.0)  # in the network's grid: 1 mm along the fixed image's axes, pointing to R, A and S


def centered(affine, shape):
    """The same grid with its middle at one point of the world."""
    affine = affine.copy()
    affine[:3, 3] = np.array([5, -8, 3]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


@pytest.fixture
def files(save):
    """A pair on two grids, a label on the moving one, and another image of the moving subject on a third."""
    moving = blobs(MOVING_SHAPE, 1)
    label = (moving > 500).astype(np.uint8) + 2 * (moving > 700).astype(np.uint8)
    fixed_grid, moving_grid = centered(FIXED, FIXED_SHAPE), centered(MOVING, MOVING_SHAPE)
    return {
        "fixed": save("fixed.nii.gz", blobs(FIXED_SHAPE), fixed_grid),
        "moving": save("moving.nii.gz", moving, moving_grid),
        "label": save("label.nii.gz", label, moving_grid),
        "other": save("other.nii.gz", blobs(OTHER_SHAPE, 2), centered(OTHER, OTHER_SHAPE)),
    }


def known_shift():
    preprocessing = preprocess_pair(3, (1, 1, 1), (48, 48, 48))
    return Registration(Shift(SHIFT), preprocessing, RegistrationInferer(3))


def by_itk(path, reference, interpolator):
    """SimpleITK's resampling through the translation, in its own world (LPS)."""
    shift = oblique_affine((1, 1, 1), (0, 0, 0), ANGLES, (1, 1, 1))[:3, :3] @ SHIFT * [-1, -1, 1]
    image, fixed = (sitk.ReadImage(name, sitk.sitkFloat32) for name in (path, reference))
    resampled = sitk.Resample(image, fixed, sitk.TranslationTransform(3, shift.tolist()), interpolator, 0.0)
    return sitk.GetArrayFromImage(resampled)


def test_in_a_compose_with_files_it_finds_what_simpleitk_finds(files, tmp_path):
    moved = ["moving", "label", "other"]
    transform = Compose(
        [
            LoadImaged(list(files), ensure_channel_first=True),
            RegisterImaged(moved, known_shift(), mode=["bilinear", "nearest", "bilinear"]),
            SaveImaged(moved, output_dir=tmp_path, output_postfix="out", separate_folder=False, print_log=False),
        ]
    )
    data = transform(dict(files))
    for key, interpolator in (
        ("moving", sitk.sitkLinear),
        ("label", sitk.sitkNearestNeighbor),
        ("other", sitk.sitkLinear),
    ):
        written = str(tmp_path / f"{key}_out.nii.gz")
        ours = sitk.GetArrayFromImage(sitk.ReadImage(written, sitk.sitkFloat32))
        expected = by_itk(files[key], files["fixed"], interpolator)
        assert (ours > 0).mean() > 0.3
        if key == "label":
            assert (ours != expected).mean() < 0.001
        else:
            assert np.abs(ours - expected).mean() < 0.005 * np.ptp(expected)
            assert np.quantile(np.abs(ours - expected), 0.999) < 0.01 * np.ptp(expected)
        np.testing.assert_allclose(nib.load(written).affine, nib.load(files["fixed"]).affine, atol=1e-4)
        assert data[key].meta["filename_or_obj"] == files[key]
    # 3, -4 and 5 mm to R, A and S, in flipped voxels of 1, 1.5 and 2 mm
    np.testing.assert_allclose(data["ddf"][:, 20, 15, 12], (-3, -4 / 1.5, 5 / 2), atol=1e-3)
    torch.testing.assert_close(data["ddf"].affine, data["fixed"].affine)
    assert torch.equal(data["fixed"], LoadImaged("fixed", ensure_channel_first=True)(files)["fixed"])


def test_what_was_done_to_the_fixed_image_before_is_undone_for_the_registered_one(files):
    """The result has the fixed image's history, so that ``Invertd`` brings it to the grid of the fixed file."""
    preprocessing = Compose(
        [
            LoadImaged(["fixed", "moving"], ensure_channel_first=True),
            Orientationd("fixed", axcodes="RAS", labels=None),
            Spacingd("fixed", pixdim=(2, 2, 2)),
        ]
    )
    data = RegisterImaged("moving", known_shift())(preprocessing(dict(files)))
    assert data["moving"].shape == data["fixed"].shape
    inverted = Invertd("moving", preprocessing, orig_keys="fixed")(data)["moving"]
    assert inverted.shape[1:] == FIXED_SHAPE
    np.testing.assert_allclose(inverted.affine, nib.load(files["fixed"]).affine, atol=1e-4)


def test_without_weights_a_shift_is_found(save):
    """The moving image is the fixed one, -2, 1.5 and -1 voxels away in its flipped and anisotropic world."""
    volume = blobs((40, 36, 32), 3).astype(np.float32)
    affine = np.diag([-1.0, 1.5, 2.0, 1.0])
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ (-2, 1.5, -1)
    data = LoadImaged(["fixed", "moving"], ensure_channel_first=True)(
        {"fixed": save("f.nii", volume, affine), "moving": save("m.nii", volume, moved)}
    )
    result = RegisterImaged("moving")(data)
    inner = (slice(None), *[slice(6, -6)] * 3)
    np.testing.assert_allclose(result["ddf"][inner].mean((1, 2, 3)), (-2, 1.5, -1), atol=0.15)
    assert np.abs(result["moving"][inner] - data["fixed"][inner]).mean() < 0.005 * np.ptp(volume)


def test_images_of_two_dimensions():
    volume = torch.from_numpy(blobs((40, 36)).astype(np.float32))[None]
    fixed = MetaTensor(volume, affine=torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0])))
    moving = MetaTensor(volume.roll(2, 1), affine=fixed.affine)
    result = RegisterImaged("moving", ddf_key="field")({"fixed": fixed, "moving": moving})
    assert result["moving"].shape == (1, 40, 36)
    assert result["field"].shape == (2, 40, 36)
    np.testing.assert_allclose(result["field"][:, 8:-8, 8:-8].mean((1, 2)), (2, 0), atol=0.2)


def test_its_keys_are_the_users():
    data = {"template": meta(ramp((9, 8, 7))), "image": meta(ramp((9, 8, 7)), shift=1.0)}
    register = RegisterImaged(
        ["image", "label"], Registration.classical(3), "template", "image", ddf_key=None, allow_missing_keys=True
    )
    assert set(register(data)) == {"template", "image"}
    with pytest.raises(KeyError, match="label"):
        RegisterImaged(["image", "label"], Registration.classical(3), "template", "image")(data)


def test_the_name_of_a_task_loads_its_weights():
    assert RegisterImaged("moving", "hippocampus").registration.weights.name == "model_hippocampus.pt"


def test_what_it_cannot_use_is_named():
    with pytest.raises(InputError, match="unknown mode 'cubic': expected bilinear or nearest"):
        RegisterImaged("moving", mode="cubic")
    with pytest.raises(InputError, match="fixed is a str: expected a MetaTensor"):
        RegisterImaged("moving")({"fixed": "f.nii", "moving": meta(ramp())})
    with pytest.raises(InputError, match=r"moving is a MetaTensor of shape \(2, 6, 4, 3\)"):
        RegisterImaged("moving")({"fixed": meta(ramp()), "moving": MetaTensor(torch.rand(2, 6, 4, 3))})
    with pytest.raises(InputError, match="unknown task 'heart'"):
        RegisterImaged("moving", "heart")


def test_masks_and_initial_transforms_go_in_under_any_keys():
    register = Registration.classical(3, num_repeats=(2, 2), device="cpu")
    fixed, moving = (meta(torch.from_numpy(blobs((16, 18, 14), seed).astype(np.float32))) for seed in (0, 1))
    mask = meta(torch.ones(16, 18, 14))
    mask[0, 5:9, 6:10, 4:8] = 0
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor([2.0, -1.0, 3.0])
    data = {"fixed": fixed, "moving": moving, "lesion-free": mask, "start": matrix}
    keys = {"mask_fixed": "lesion-free", "initial_transform": "start", "mask_moving": "missing"}
    found = RegisterImaged("moving", register, guidance_keys=keys)(data)
    expected = register(fixed, moving, mask_fixed=mask, initial_transform=matrix)
    torch.testing.assert_close(found["ddf"].as_tensor(), expected.ddf.as_tensor())
    with pytest.raises(InputError, match="unknown name 'mask' in guidance_keys: expected one of mask_fixed, "):
        RegisterImaged("moving", register, guidance_keys={"mask": "mask"})
