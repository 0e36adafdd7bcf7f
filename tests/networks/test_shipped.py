"""The shipped networks on a GPU: the same fields as on the CPU, in float32 and under AMP."""

import pytest
import torch
from monai.bundle import ConfigParser

from ..conftest import SAMPLES, config_files

PAIRS = {
    (): {f: str(SAMPLES / f"sunnybrook/SC-N-10/SC-N-10_{k}.nii.gz") for f, k in (("fixed", "ED"), ("moving", "ES"))},
    ("hippocampus",): {
        f: str(SAMPLES / f"hippocampus/hippocampus_{k}/t1.nii.gz") for f, k in (("fixed", 327), ("moving", 341))
    },
    ("brain",): {
        f: str(SAMPLES / f"brain_synthetic/synthetic_{k}/t1.nii.gz") for f, k in (("fixed", 19), ("moving", 20))
    },
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("overlay", PAIRS, ids=lambda names: names[0] if names else "cardiac")
def test_the_shipped_networks_agree_on_a_gpu_also_under_amp(overlay):
    parser = ConfigParser()
    parser.read_config(config_files("inference", *overlay))
    parser.update({"bundle_root": str(SAMPLES.parents[1]), "device": "cpu"})
    network = parser.get_parsed_content("network").eval()
    image = parser.get_parsed_content("preprocessing")({**PAIRS[overlay], "name": "pair"})["image"].as_tensor()[None]
    if image.ndim == 5 and network.spatial_dims == 2:
        image = image.movedim(-1, 1).flatten(0, 1)
    with torch.no_grad():
        expected = network(image)
        on_gpu = network.cuda()(image.cuda()).cpu()
        with torch.autocast("cuda", torch.bfloat16):
            half = network(image.cuda()).cpu()
    difference, length = (on_gpu - expected).norm(dim=1), expected.norm(dim=1)
    assert difference.mean() < 0.01 * length.mean()
    assert (half - expected).norm(dim=1).mean() < 0.05 * length.mean()
