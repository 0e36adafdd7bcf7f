"""Training samples: what moves, what stays, and what each option adds."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandBiasFieldd, RandGaussianSmoothd

from scripts.training.augmentation import augment_pair


def names(transform):
    return [type(each).__name__ for each in transform.transforms]


def disk(shape, centre, radius):
    lattice = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    distance = sum((x - c) ** 2 for x, c in zip(lattice, centre))
    return MetaTensor((distance < radius**2)[None].float())


def pair_of_disks(shape=(48, 40, 3)):
    """A pair whose images are their own labels, as the preprocessing makes it."""
    fixed, moving = disk(shape, (20, 22, 1), 12), disk(shape, (26, 18, 1), 9)
    return {"image": torch.cat([moving, fixed]), "label_fixed": fixed, "label_moving": moving, "other": "dropped"}


def test_each_option_adds_its_transforms_in_a_fixed_order():
    start = ["SelectItemsd", "RandSpatialCropd", "SqueezeDimd", "RandSwapd"]
    elastic, motion = ["RandSmoothDeformd"], ["SplitDimd", "RandSmoothDeformd", "ConcatItemsd"]
    contrast = ["RandAdjustContrastd", "RandBiasFieldd", "RandGaussianSmoothd", "EnsureTyped"]
    affine = ["RandAxisFlipd", "RandAffined"]
    assert names(augment_pair((48, 40))) == start + affine + contrast
    assert names(augment_pair((48, 40), elastic=0.1, motion=0.1)) == start + affine + elastic + motion + contrast
    assert names(augment_pair((8, 8, 8), motion=0.1)) == [*start[:2], start[3], *affine, *motion, *contrast]
    assert names(augment_pair((48, 40), augmentation=False, elastic=0.1)) == [*start, "EnsureTyped"]


def test_motion_deforms_the_moving_image_and_its_label_and_nothing_else():
    every = augment_pair((48, 40), labelled=True, motion=0.2)
    kinds = ("SplitDimd", "RandSmoothDeformd", "ConcatItemsd")
    motion = Compose([t for t in every.transforms if type(t).__name__ in kinds])
    assert len(motion.transforms) == 3
    motion.set_random_state(0)
    image = disk((48, 40), (20, 22), 12)
    moved = 0
    for _ in range(10):
        data = motion({"image": torch.cat([image, image]), "label_fixed": image, "label_moving": image})
        assert torch.equal(data["image"][1:], image)
        assert torch.equal(data["label_fixed"], image)
        moving = (data["image"][:1] > 0.5).float()
        assert (moving != data["label_moving"]).float().mean() < 0.01  # but where linear and nearest differ
        moved += bool((moving != image).float().mean() > 0.05)
    assert 2 <= moved <= 8  # one in two


@pytest.mark.parametrize("size", [(48, 40), (48, 40, 3)])
def test_labels_go_with_their_images(size):
    options = {"labelled": True, "gamma": (1, 1), "swap_prob": 0.5, "elastic": 0.1, "motion": 0.1}
    transform = augment_pair(size, **options)
    transform.set_random_state(1)
    for _ in range(10):
        data = transform(pair_of_disks())
        assert data["image"].shape == (2, *size)
        for channel, key in enumerate(("label_moving", "label_fixed")):
            image = (data["image"][channel : channel + 1] > 0.5).float()
            assert (image != data[key]).float().mean() < 0.03  # linear and nearest differ at the border


def test_without_augmentation_a_sample_is_a_slice_or_a_crop_and_may_be_swapped():
    pair = pair_of_disks()
    slices = pair["image"].as_tensor().unbind(-1)
    transform = augment_pair((48, 40), labelled=True, augmentation=False)
    transform.set_random_state(0)
    swapped = 0
    for _ in range(20):
        data = transform(pair)
        assert set(data) == {"image", "label_fixed", "label_moving"}
        assert not isinstance(data["image"], MetaTensor)
        swap = any(torch.equal(data["image"], plane.flip(0)) for plane in slices)
        assert swap or any(torch.equal(data["image"], plane) for plane in slices)
        assert torch.equal(data["label_fixed"], data["image"][1:])
        swapped += swap
    assert 5 <= swapped <= 15
    assert transform(pair)["image"].shape == (2, 48, 40)
    crop = augment_pair((-1, 16, 2), augmentation=False)
    assert crop(pair)["image"].shape == (2, 48, 16, 2)


def test_bias_field_and_blur_are_the_same_for_both_images():
    every = augment_pair((48, 40), scanner_prob=1.0)
    scanner = Compose([t for t in every.transforms if isinstance(t, RandBiasFieldd | RandGaussianSmoothd)])
    scanner.set_random_state(0)
    image = torch.rand(1, 48, 40, generator=torch.Generator().manual_seed(0))
    result = scanner({"image": torch.cat([image, image])})["image"]
    assert torch.equal(result[0], result[1])
    assert not torch.allclose(result[0], image[0], atol=0.01)
