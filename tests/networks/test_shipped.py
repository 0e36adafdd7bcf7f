"""The shipped networks: an image registered to itself stays; a GPU gives the fields of the CPU, also under AMP."""

import pytest
import torch

from scripts.registration.pair import Registration

from ..conftest import SAMPLES

PAIRS = {
    "cardiac": [SAMPLES / f"sunnybrook/SC-N-10/SC-N-10_{frame}.nii.gz" for frame in ("ED", "ES")],
    "hippocampus": [SAMPLES / f"hippocampus/hippocampus_{subject}/t1.nii.gz" for subject in (327, 341)],
    "brain": [SAMPLES / f"brain_synthetic/synthetic_{subject}/t1.nii.gz" for subject in (19, 20)],
}


def network_and_images(task, fixed, moving):
    """The network in evaluation mode, and its input; of a stack, one pair for each slice."""
    register = Registration.load(task, device="cpu")
    image = register.preprocessing({"fixed": fixed, "moving": moving})["image"].as_tensor()
    return register.network.eval(), image.movedim(-1, 0) if register.spatial_dims == 2 else image[None]


@pytest.mark.parametrize(
    ("task", "frame"),
    [("cardiac", 0), ("cardiac", 1), ("hippocampus", 0), pytest.param("brain", 1, marks=pytest.mark.slow)],
)
def test_an_image_registered_to_itself_stays(task, frame):
    network, image = network_and_images(task, PAIRS[task][frame], PAIRS[task][frame])
    with torch.no_grad():
        assert network(image).abs().max() < 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("task", PAIRS)
def test_a_gpu_agrees_also_under_amp(task):
    network, image = network_and_images(task, *PAIRS[task])
    with torch.no_grad():
        expected = network(image)
        on_gpu = network.cuda()(image.cuda()).cpu()
        with torch.autocast("cuda", torch.bfloat16):
            half = network(image.cuda()).cpu()
    difference, length = (on_gpu - expected).norm(dim=1), expected.norm(dim=1)
    assert difference.mean() < 0.01 * length.mean()
    assert (half - expected).norm(dim=1).mean() < 0.05 * length.mean()
