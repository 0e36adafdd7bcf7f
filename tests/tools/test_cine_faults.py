"""Faults that are planted into cines: what each one changes, and what it leaves."""

import numpy as np
import pytest

from scripts import Registration
from scripts.tools.cine_faults import FAULTS, Heart, count_warnings, judge, known_motion, on_grid_of
from scripts.tools.verdicts import Pair

from ..conftest import blobs

SHAPE, COUNT = (4, 4, 5), 12
FOREIGN = 1000


@pytest.fixture
def hearts():
    """A heart whose voxels say slice and frame, 10 z + t, and another one that is brighter by 1000."""
    frames = np.broadcast_to(10.0 * np.arange(5)[:, None] + np.arange(COUNT), (*SHAPE, COUNT)).copy()
    label = np.zeros(SHAPE, np.uint8)
    label[1, 1] = 3
    return Heart(frames, label, np.eye(4)), Heart(frames + FOREIGN, np.flip(label, 0), np.eye(4))


def planted(hearts, name, seed=0):
    """The heart with a fault; the frame of the label is as it was, and the one without the fault, too."""
    heart, other = hearts
    before = heart.frames.copy(), heart.label.copy()
    faulty = FAULTS[name](heart, other, np.random.default_rng(seed))
    assert np.array_equal(heart.frames, before[0])
    assert np.array_equal(heart.label, before[1])
    return faulty


def changed(faulty, heart):
    """The slices and frames in which anything has changed."""
    return np.argwhere((faulty.frames != heart.frames).any((0, 1))).tolist()


def test_another_order_keeps_the_first_frame_and_all_others(hearts):
    frames = planted(hearts, "frames in another order").frames[0, 0, 0]
    assert frames[0] == 0
    assert sorted(frames) == list(range(COUNT))
    assert list(frames) != list(range(COUNT))


@pytest.mark.parametrize("seed", range(4))
def test_one_frame_but_the_first_is_of_the_other_patient(hearts, seed):
    faulty = planted(hearts, "one frame of another patient", seed)
    places = changed(faulty, hearts[0])
    assert [z for z, _ in places] == [0, 1, 2, 3, 4]
    (t,) = {t for _, t in places}
    assert t > 0
    assert faulty.frames[0, 0, :, t].tolist() == [FOREIGN + 10 * z + t for z in range(5)]


@pytest.mark.parametrize("seed", range(4))
def test_half_of_the_slices_are_of_the_other_patient(hearts, seed):
    one = planted(hearts, "half of the slices of one frame of another patient", seed)
    every = planted(hearts, "half of the slices, in all frames, of another patient", seed)
    for faulty, count in ((one, 1), (every, COUNT)):
        places = changed(faulty, hearts[0])
        assert sorted({z for z, _ in places}) in ([0, 1], [2, 3, 4])
        assert len({t for _, t in places}) == count
        assert set((faulty.frames - hearts[0].frames).ravel()) == {0, FOREIGN}
        assert np.array_equal(faulty.label, hearts[0].label)
    assert 0 not in {t for _, t in changed(one, hearts[0])}


def test_a_frame_of_noise_and_one_with_next_to_nothing(hearts):
    spread = hearts[0].frames.std()
    for name, level, deviation in (
        ("one frame of noise", spread * np.sqrt(2 / np.pi), spread * np.sqrt(1 - 2 / np.pi)),  # a half normal
        ("one frame with next to nothing", hearts[0].frames.mean(), 0.01 * spread),
    ):
        faulty = planted(hearts, name)
        (t,) = {t for _, t in changed(faulty, hearts[0])}
        values = faulty.frames[..., t]
        assert t > 0
        assert values.mean() == pytest.approx(level, abs=4 * deviation / np.sqrt(values.size))
        assert values.std() == pytest.approx(deviation, rel=0.3)


def test_the_label_of_the_other_patient_and_half_of_the_cycle(hearts):
    faulty = planted(hearts, "the label of another patient")
    assert faulty.label[2, 1].tolist() == [3] * 5
    assert changed(faulty, hearts[0]) == []
    assert planted(hearts, "the first half of the cycle").frames[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_another_heart_on_the_grid_of_a_heart(hearts):
    frames = np.zeros((2, 6, 3, COUNT))
    frames[..., 1:, :] = [[1], [2]]
    other = Heart(frames, np.ones((2, 6, 3), np.uint8), 2 * np.eye(4))
    moved = on_grid_of(other, hearts[0])
    assert moved.frames.shape == hearts[0].frames.shape
    assert moved.frames.mean() == pytest.approx(hearts[0].frames.mean())
    assert moved.frames.std() == pytest.approx(hearts[0].frames.std())
    row = moved.frames[1, 0, :, 0]  # slices 0, 0 or 1, 1, 1 or 2 and 2 of three
    assert row[0] < row[2] < row[4]
    assert (row[4] - row[2]) == pytest.approx(row[2] - row[0])
    assert moved.label[..., 0].tolist() == [[0] * 4, [1] * 4, [1] * 4, [0] * 4]  # padded, and cropped
    assert np.array_equal(moved.affine, np.eye(4))


def rings(inner):
    """A cavity of this radius in a wall of radius 11: ids of ACDC in two slices of 60 x 60."""
    r = np.hypot(*np.meshgrid(np.arange(60) - 30, np.arange(60) - 30))
    return np.stack([np.where(r < inner, 3, np.where(r < 11, 2, 0))] * 2, -1).astype(np.uint8)


def test_a_known_motion_is_the_same_each_time_and_shows_no_wall_that_was_drawn(save):
    wall = rings(6)
    affine = np.diag([1.5, 1.5, 8, 1.0])
    image = save("image.nii.gz", blobs((60, 60, 2)), affine)
    label = save("label.nii.gz", wall, affine)
    first, again, another = (known_motion(image, label, "acdc", number) for number in (1, 1, 2))
    assert first.frames.shape == (60, 60, 2, 12)
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, another.frames)
    assert np.array_equal(first.label, wall)
    cavity = save("cavity.nii.gz", (wall == 3).astype(np.uint8), affine)  # 1, in Sunnybrook
    alone = known_motion(image, cavity, "sunnybrook", 1)
    assert set(np.unique(alone.label)) == {0, 3}
    assert (alone.frames[..., 6] != alone.frames[..., 0]).any()


def test_warnings_of_a_wrong_frame_are_counted_for_both_labels(save):
    """Bright cavities of radius 6 and 3: each label fits its own frame without fault, and the other one badly."""
    affine = np.diag([1.5, 1.5, 8, 1.0])
    diastole, systole = (
        [
            save(f"{r}.nii.gz", np.where(rings(r) == 3, 100, 20).astype(np.float32), affine),
            save(f"{r}_gt.nii.gz", rings(r), affine),
        ]
        for r in (6, 3)
    )
    pairs = [Pair("", a[0], b[0], a[1], b[1]) for a, b in ((diastole, systole), (systole, diastole))]
    assert count_warnings({"acdc": pairs}) == {
        "label of end-diastole, called end-diastole": {"acdc": "0 of 1"},
        "label of end-diastole, called end-systole": {"acdc": "1 of 1"},
        "label of end-systole, called end-systole": {"acdc": "0 of 1"},
        "label of end-systole, called end-diastole": {"acdc": "1 of 1"},
    }


def test_a_header_without_orientation_does_not_count():
    label = rings(6)
    label[20:40, 10:18] = 1  # the right ventricle
    images = np.stack([label * 30.0 + 5, label * 30.0 + 6], -1)
    assert judge(Registration.load("cardiac"), Heart(images, label, np.diag([1.5, 1.5, 8, 1.0]))).reasons == (
        "an ejection fraction of 0 % is not plausible",
    )
