"""Energies by hand, and their closed-form gradients against autograd and finite differences."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from scripts.networks import LNCC, MIND, Demons, Gradient
from scripts.networks.kernels.sampling import warp_with_gradient
from scripts.networks.similarity import SIMILARITIES, Term, get_similarity
from scripts.support.errors import InputError
from scripts.tools.benchmark.reference import reference_energy, reference_warp
from scripts.training.losses import RegistrationLoss

SIZES = [(7, 6), (5, 6, 4)]
NAMES = list(SIMILARITIES)
WITH_REFERENCE = ["ssd", "ncc", "lncc"]


def random_inputs(size):
    torch.manual_seed(1)
    fixed, moving = torch.rand(2, 2, 1, *size, dtype=torch.float64)
    return fixed, moving, (torch.rand(2, len(size), *size, dtype=torch.float64) - 0.5) * 3


def described_inputs(name, size):
    """What is compared of the random images, and a displacement."""
    fixed, moving, ddf = random_inputs(size)
    return *(get_similarity(name, 3).describe(image) for image in (fixed, moving)), ddf


def similarity_gradient(similarity, fixed, moving, ddf):
    """The warped image, and the derivative of the energy by the displacement."""
    warped, gradient = warp_with_gradient(moving, ddf)
    return warped, -Gradient(similarity).descend([Term(get_similarity(similarity), fixed, warped, gradient)])


def normalized_step(similarity, fixed, moving, ddf):
    warped, gradient = warp_with_gradient(moving, ddf)
    return warped, Demons(similarity).descend([Term(get_similarity(similarity), fixed, warped, gradient)])


def test_ssd_by_hand():
    # differences 1 and -2 in two voxels: 1 + 4; derivative twice the difference
    fixed, warped = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[2.0, 1.0]]]])
    ssd = get_similarity("ssd")
    assert ssd.energy(fixed, warped).tolist() == [5]
    assert ssd.derivative(fixed, warped).flatten().tolist() == [2, -4]


def test_ncc_by_hand():
    # f = (-1, 0, 1), w = (-1, 1, 0): cov 1/3, variances 2/3: -(1/9) / (4/9 + 1e-5) per voxel
    fixed, warped = torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[1.0, 3.0, 2.0]]]])
    energy = get_similarity("ncc").energy(fixed.double(), warped.double())
    assert energy.item() == pytest.approx(-3 * (1 / 9) / (4 / 9 + 1e-5), rel=1e-12)


def test_ncc_and_lncc_do_not_see_a_linear_change_of_intensity():
    fixed, _, _ = random_inputs((9, 9))
    for name in ("ncc", "lncc"):
        energy = get_similarity(name).energy(fixed, 3 - 2 * fixed)
        # -1 a voxel but for the 1e-5 beside the variances, here about 0.08 * 0.33
        torch.testing.assert_close(energy, torch.full_like(energy, -81.0), rtol=2e-3, atol=0)


def test_lncc_with_a_window_over_everything_is_ncc():
    fixed, moving, _ = random_inputs((5, 5))
    torch.testing.assert_close(
        get_similarity("lncc", 9).energy(fixed, moving), get_similarity("ncc").energy(fixed, moving)
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_energy_matches_the_reference(name, size):
    fixed, moving, _ = random_inputs(size)
    energy = get_similarity(name, window_size=3).energy(fixed, moving)
    torch.testing.assert_close(energy, reference_energy(name, fixed, moving, window_size=3))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_gradient_matches_autograd(name, size):
    fixed, moving, ddf = described_inputs(name, size)
    similarity = get_similarity(name, 3)
    ddf.requires_grad_()
    own = similarity.energy(fixed, reference_warp(moving, ddf)).sum()
    energies = [own]
    if name in WITH_REFERENCE:
        energies.append(reference_energy(name, fixed, reference_warp(moving, ddf), window_size=3).sum())
    warped, gradient = similarity_gradient(similarity, fixed, moving, ddf)
    torch.testing.assert_close(warped, reference_warp(moving, ddf))
    for energy in energies:
        (expected,) = torch.autograd.grad(energy, ddf)
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["interior", "border"])
def test_gradient_matches_finite_differences(name, size, where):
    fixed, moving, ddf = described_inputs(name, size)
    similarity = get_similarity(name, 3)
    _, gradient = similarity_gradient(similarity, fixed, moving, ddf)
    voxel = tuple(n // 2 for n in size) if where == "interior" else tuple(0 for _ in size)
    # the border voxel is displaced inwards, so that its derivative is not simply zero
    if where == "border":
        ddf[(slice(None), slice(None), *voxel)] = 0.3
        _, gradient = similarity_gradient(similarity, fixed, moving, ddf)
    for axis in range(len(size)):
        energies = []
        for step in (1e-6, -1e-6):
            moved = ddf.clone()
            moved[(0, axis, *voxel)] += step
            energies.append(similarity.energy(fixed, reference_warp(moving, moved))[0])
        difference = (energies[0] - energies[1]) / 2e-6
        torch.testing.assert_close(gradient[(0, axis, *voxel)], difference, atol=1e-7, rtol=1e-5)


def test_the_normalized_step_of_ssd_by_hand():
    # a ramp of slope 0.3 and an image 0.1 above it: 0.1 * 0.3 / (0.3^2 + 0.1^2 + 0.01)
    moving = 0.3 * torch.arange(5.0).view(1, 1, 5, 1).expand(1, 1, 5, 4)
    warped, step = normalized_step(get_similarity("ssd"), moving + 0.1, moving, torch.zeros(1, 2, 5, 4))
    assert torch.equal(warped, moving)
    torch.testing.assert_close(step[:, 0], torch.full((1, 5, 4), 0.03 / 0.11))
    assert (step[:, 1] == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_the_normalized_step_is_short_and_descends(name, size):
    fixed, moving, ddf = described_inputs(name, size)
    similarity = get_similarity(name, window_size=3)
    warped, step = normalized_step(similarity, fixed, moving, ddf)
    expected, gradient = similarity_gradient(similarity, fixed, moving, ddf)
    assert torch.equal(warped, expected)
    assert (step.norm(dim=1) <= 0.5).all()
    # of a local fit, D's own gradient also has the share of the neighbours' windows
    assert ((step * gradient).flatten(1).sum(1) < 0).all()


@pytest.mark.parametrize("name", ["ncc", "lncc"])
def test_the_normalized_step_does_not_see_a_linear_change_of_intensity(name):
    fixed, moving, ddf = random_inputs((12, 12))
    similarity = get_similarity(name, window_size=5)
    _, step = normalized_step(similarity, fixed, moving, ddf)
    _, changed = normalized_step(similarity, fixed, 3 - 2 * moving, ddf)
    torch.testing.assert_close(step, changed, atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_image_has_a_finite_zero_gradient(name):
    similarity = get_similarity(name)
    fixed, moving, ddf = random_inputs((7, 6))
    described = (similarity.describe(image) for image in (fixed, torch.ones_like(moving)))
    _, gradient = similarity_gradient(similarity, *described, ddf)
    assert (gradient == 0).all()


def test_mind_by_hand():
    # patches of one voxel; around the centre of a plus: up 0, down 1, left 3, right 0
    image = torch.tensor([[7.0, 0.0, 7.0], [3.0, 5.0, 0.0], [7.0, 1.0, 7.0]]).view(1, 1, 3, 3)
    # (up - left)^2, (up - right)^2, (down - left)^2, (down - right)^2, of mean 3.5
    distances = torch.tensor([9.0, 0.0, 4.0, 1.0])
    found = MIND(window_size=1).describe(image)
    torch.testing.assert_close(found[0, :, 1, 1], torch.exp(-distances / (3.5 + 1e-4)))
    # at the upper left corner the voxels above and to the left are the corner itself, 7; below 3, to the right 0
    distances = torch.tensor([0.0, 49.0, 16.0, 9.0])
    torch.testing.assert_close(found[0, :, 0, 0], torch.exp(-distances / (18.5 + 1e-4)))


def naive_mind(image, voxel, window_size, distance):
    """The description of one voxel by loops, for an image without channels."""
    dims, half = image.ndim, window_size // 2
    offsets = [sign * distance * np.eye(dims, dtype=int)[axis] for axis in range(dims) for sign in (-1, 1)]
    last = np.array(image.shape) - 1

    def value(point):
        return image[tuple(np.clip(point, 0, last))]

    distances = []
    for first, second in combinations(offsets, 2):
        if (first == -second).all():
            continue
        patch = [np.add(voxel, shift) for shift in product(range(-half, half + 1), repeat=dims)]
        inside = [point for point in patch if (point >= 0).all() and (point <= last).all()]
        distances.append(np.mean([(value(point + first) - value(point + second)) ** 2 for point in inside]))
    distances = np.array(distances)
    return np.exp(-(distances - distances.min()) / (distances.mean() + 1e-4))


@pytest.mark.parametrize(("window_size", "distance"), [(3, 1), (5, 2)])
@pytest.mark.parametrize(("size", "channels"), [((7, 6), 4), ((5, 6, 4), 12)])
def test_mind_equals_loops_over_pairs_and_patches(size, channels, window_size, distance):
    image = random_inputs(size)[0][:1]
    found = MIND(window_size, distance).describe(image)
    assert found.shape == (1, channels, *size)
    assert MIND().channels(len(size)) == channels
    for voxel in product(*[(0, n // 2, n - 1) for n in size]):
        expected = naive_mind(image[0, 0].numpy(), voxel, window_size, distance)
        np.testing.assert_allclose(found[(0, slice(None), *voxel)], expected, rtol=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_mind_does_not_see_inverted_contrast_and_hardly_a_scaled_one(size):
    image = random_inputs(size)[0]
    description = MIND().describe(image)
    torch.testing.assert_close(MIND().describe(1 - image), description)
    # the exponents change by 3 * 1e-4 of the mean distance, here about 0.1
    torch.testing.assert_close(MIND().describe(0.5 * image + 0.2), description, atol=5e-3, rtol=0)
    assert (MIND()(image, 1 - image) < 1e-20).all()
    assert (MIND()(image, image.flip(2)) > 0.01 * image[0].numel()).all()


def test_the_loss_with_mind_has_the_derivative_of_its_energy():
    fixed, moving, ddf = random_inputs((5, 4))
    fixed, moving = fixed[:1], moving[:1]
    loss = RegistrationLoss("mind", regularization_weight=0.0)
    target = {"image": torch.cat([moving, fixed], 1).float()}
    expected = MIND()(fixed, reference_warp(moving, ddf[:1])) / 20
    assert loss(ddf[:1], target).item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.autograd.gradcheck(lambda warped: MIND()(fixed, warped), moving.requires_grad_())


def test_unknown_names_and_even_windows_are_refused():
    with pytest.raises(InputError, match="unknown similarity 'mi': expected one of ssd, ncc, lncc"):
        get_similarity("mi")
    for options, message in (({"window_size": 2}, "window_size must be"), ({"distance": 0}, "distance must be")):
        with pytest.raises(InputError, match=message):
            MIND(**options)
    with pytest.raises(InputError, match="window_size must be a positive odd number, got 4"):
        get_similarity("lncc", 4)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_equal_images_leave_no_residual(similarity):
    image = torch.rand(1, 1, 12, 14, generator=torch.Generator().manual_seed(1))
    image[..., :5] = 0.3  # flat, where only noise would be fitted
    chosen = get_similarity(similarity)
    described = chosen.describe(image)
    assert torch.equal(chosen.residual(described, described)[0], torch.zeros_like(described))


def test_a_changed_fixed_image_is_measured_anew():
    torch.manual_seed(0)
    fixed, warped = torch.rand(2, 1, 1, 6, 7)
    with torch.no_grad():
        for change in (0.0, 1.0):
            fixed[..., 3] += change
            found, expected = (LNCC(3).residual(image, warped) for image in (fixed, fixed.clone()))
            assert torch.equal(torch.cat(found), torch.cat(expected))
