"""The gate of the regularizer, which keeps an image in its place, and the features that a level does not use."""

import pytest
import torch

from scripts.networks import CNN, LNCC, Demons, Features, Gradient, GraDIRN
from scripts.networks.regularizer import INPUTS

# not Gradient("ncc"): the constant in the published energy makes its gradient differ from 0 for equal images
RULES = {"gradient": Gradient("ssd"), "demons": Demons("ssd"), "lncc": Demons(LNCC(5))}


def network(inputs, gate, rule="demons", dims=2):
    """Two levels whose regularizers, biases included, are far from zero everywhere."""
    torch.manual_seed(0)
    net = GraDIRN(dims, (1, 1), (2, 2), RULES[rule], CNN(4, inputs=inputs, gate=gate), "compose", ddf_smoothing=0.5)
    for parameter in net.parameters():
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def random_image(dims=2, seed=0):
    return torch.rand(2, 1, *[14, 11, 12][:dims], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize(("rule", "dims"), [("gradient", 2), ("demons", 3), ("lncc", 3)])
def test_a_gated_network_leaves_an_image_that_is_registered_to_itself_where_it_is(inputs, rule, dims):
    image = random_image(dims)
    twice = torch.cat([image, image], 1)
    with torch.no_grad():
        assert not network(inputs, True, rule, dims)(twice).any()
        assert network(inputs, False, rule, dims)(twice).abs().max() > 0.01, "without the gate it moves"


@pytest.mark.parametrize("inputs", INPUTS)
def test_the_gate_opens_where_something_moves(inputs):
    moving, fixed = random_image(seed=1), random_image(seed=2)
    gated = network(inputs, True)
    explicit = network(inputs, True)
    for blocks in explicit.levels:
        for block in blocks:
            block.regularizer = None
    pair = torch.cat([moving, fixed], 1)
    assert (gated(pair) - explicit(pair)).abs().max() > 0.01


def test_features_beyond_the_count_of_a_level_are_not_used():
    net = GraDIRN(2, (1, 1), (1, 1), Demons(), CNN(4), features=Features(3, used=(1, 3))).eval()
    image = torch.cat([random_image(seed=1), random_image(seed=2)], 1)
    moving, fixed = net.with_features(image)
    others = [torch.cat([each[:, :2], torch.rand_like(each[:, 2:])], 1) for each in (moving, fixed)]
    first, last = (ddf for _, ddf in net.steps(image, (moving, fixed)))
    first_of_others, last_of_others = (ddf for _, ddf in net.steps(image, tuple(others)))
    assert torch.equal(first, first_of_others), "the coarse level uses one of three"
    assert not torch.equal(last, last_of_others), "the fine level uses all"
    coarse, fine = (blocks[0].regularizer.convs[0].in_channels for blocks in net.levels)
    assert (coarse, fine) == (2 + 2 * 2, 2 + 2 * 4), "displacement, fixed and warped channels"
