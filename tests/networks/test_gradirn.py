"""The unrolled network: configuration, oracle, known motions, precision, shapes."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.networks import CNN, LNCC, Backprop, DeepSupervision, Demons, Features, Gradient, GraDIRN, initialise
from scripts.networks.kernels.sampling import warp_with_gradient
from scripts.networks.similarity import get_similarity
from scripts.support.errors import InputError
from scripts.tools.benchmark.reference import ReferenceGraDIRN


def smooth_image(size, batch=1, dtype=torch.float32, seed=0):
    """A random image without detail below a few voxels, from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 1, *[max(3, n // 5) for n in size], generator=generator, dtype=dtype)
    mode = "bicubic" if len(size) == 2 else "trilinear"
    return torch.nn.functional.interpolate(coarse, size=size, mode=mode, align_corners=True).clamp(0, 1)


def classical(net, smoothing):
    """Make r a linear smoother of u: plain gradient descent with u <- blur(u), no learning needed."""
    for blocks in net.levels:
        for block in blocks:
            block.regularizer = Blur(net.spatial_dims, smoothing)
    return net


class Blur(torch.nn.Module):
    def __init__(self, dims, weight):
        super().__init__()
        self.dims, self.weight = dims, weight

    def forward(self, ddf, *images):
        pool = torch.nn.functional.avg_pool2d if self.dims == 2 else torch.nn.functional.avg_pool3d
        return self.weight * (ddf - pool(ddf, 3, 1, 1, count_include_pad=False))


@pytest.mark.parametrize(("dims", "count"), [(2, 88_521), (3, 269_964)])
def test_parameter_counts_of_the_paper(dims, count):
    net = GraDIRN(dims)
    assert sum(p.numel() for p in net.parameters()) == count
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}
    assert net.num_steps == 9
    assert all(block.step_size.item() == pytest.approx(0.05) for blocks in net.levels for block in blocks)


@pytest.mark.parametrize(("inputs", "channels"), [("warped", 4), ("moving", 4), ("none", 2), ("step", 6)])
def test_regularizer_inputs(inputs, channels):
    net = GraDIRN(2, regularizer=CNN(inputs=inputs))
    assert net.levels[0][0].regularizer.convs[0].in_channels == channels
    image = torch.rand(1, 2, 16, 16)
    seen = []
    net.levels[-1][0].regularizer.register_forward_pre_hook(lambda _, inputs: seen.append(torch.cat(inputs, 1)))
    net(image)
    if inputs == "moving":
        torch.testing.assert_close(seen[0][:, 2:], image.flip(1))
    if inputs in ("warped", "step"):
        warped, _ = warp_with_gradient(image[:, :1], seen[-1][:, :2].detach())
        torch.testing.assert_close(seen[-1][:, 2:4], torch.cat([image[:, 1:], warped], 1))


@pytest.mark.parametrize("size", [(24, 20), (13, 17), (12, 10, 8), (9, 7, 11)])
@pytest.mark.parametrize("similarity", ["ssd", "ncc", "lncc"])
def test_equals_the_reference_in_double_precision(size, similarity):
    torch.manual_seed(0)
    net = GraDIRN(len(size), step=Gradient(similarity)).double()
    reference = ReferenceGraDIRN(len(size), similarity=similarity).double()
    for parameter in net.parameters():
        parameter.data *= 0.7
    reference.copy_parameters(net)
    image = torch.cat([smooth_image(size, 2, torch.float64, 0), smooth_image(size, 2, torch.float64, 1)], 1)
    output, expected = net(image), reference(image)
    # steps on lattice points may fall to either side of a kink: compare nearly all voxels, not the largest difference
    difference = (output - expected).abs().flatten()
    assert difference.quantile(0.98) < 1e-9
    output.square().mean().backward()
    expected.square().mean().backward()
    for parameter, other in zip(net.parameters(), reference.parameters()):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=5e-2, atol=5e-3 * other.grad.abs().max().item())


@pytest.mark.parametrize(
    ("similarity", "update"), [("ssd", "add"), ("ncc", "add"), ("lncc", "add"), ("ssd", "compose")]
)
@pytest.mark.parametrize("size", [(6, 5), (3, 3, 3)])
def test_gradient_and_second_gradient_through_a_step(similarity, update, size):
    torch.manual_seed(0)
    step = Gradient(get_similarity(similarity, window_size=3))
    net = GraDIRN(len(size), (1,), (1,), step, CNN(2, layers=2), update).double()
    block = net.levels[0][0]
    fixed, moving = torch.rand(2, 1, 1, *size, dtype=torch.float64)
    ddf = (torch.rand(1, len(size), *size, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: block(u, fixed, moving), (ddf,))
    assert torch.autograd.gradgradcheck(lambda u: block(u, fixed, moving), (ddf,))


@pytest.mark.parametrize("similarity", ["ssd", "ncc", "lncc"])
@pytest.mark.parametrize("shift", [(2.0, -1.0), (1.0, 1.5, -0.5)])
def test_recovers_a_translation(similarity, shift):
    net = classical(GraDIRN(len(shift), num_repeats=(40, 40, 20), step=Gradient(similarity)), 0.9)
    _set_step(net, {"ssd": 2.0, "ncc": 0.05, "lncc": 0.1}[similarity])
    torch.testing.assert_close(_found_translation(net, shift), torch.tensor(shift), atol=0.2, rtol=0)


def _found_translation(net, shift, change=lambda image: image):
    """Mean displacement that a network finds, away from the border, for an image and itself translated and changed."""
    size = (48, 40) if len(shift) == 2 else (24, 28, 20)
    fixed = smooth_image(size)
    ddf = torch.tensor(shift).view(1, -1, *[1] * len(size)).expand(1, -1, *size)
    # fixed(x) = moving(x + shift), so moving is fixed taken at x - shift
    moving, _ = warp_with_gradient(fixed, -ddf)
    with torch.no_grad():
        found = net(torch.cat([change(moving), fixed], 1))
    inner = tuple(slice(6, n - 6) for n in size)
    return found[(0, slice(None), *inner)].flatten(1).mean(1)


def _set_step(net, tau):
    for blocks in net.levels:
        for block in blocks:
            block.step_size.data.fill_(tau / 10 * len(net.levels))


@pytest.mark.parametrize("size", [(48, 40), (32, 28, 24)])
def test_recovers_a_smooth_warp(size):
    dims = len(size)
    moving = smooth_image(size)
    axes = [torch.linspace(-1, 1, n) for n in size]
    radius = sum(g**2 for g in torch.meshgrid(*axes, indexing="ij"))
    direction = torch.tensor([2.0, -1.5, 1.0][:dims]).view(dims, *[1] * dims)
    true = (direction * torch.exp(-2 * radius))[None]
    fixed, _ = warp_with_gradient(moving, true)
    net = classical(GraDIRN(dims, num_repeats=(40, 40, 40)), 0.2)
    _set_step(net, 1.0 if dims == 2 else 4.0)
    with torch.no_grad():
        found = net(torch.cat([moving, fixed], 1))
    core = (radius < 0.5)[None]
    error, size_of_true = (found - true).norm(dim=1)[core].mean(), true.norm(dim=1)[core].mean()
    assert error < 0.35 * size_of_true
    warped, _ = warp_with_gradient(moving, found)
    assert (warped - fixed).abs().mean() < 0.15 * (moving - fixed).abs().mean()


def test_displacements_double_from_level_to_level():
    # with r = 0 and tau = 0 but a constant displacement injected at the coarsest level
    net = GraDIRN(2, (1, 0, 0), (1, 1, 1))
    block = net.levels[0][0]
    block.step_size.data.zero_()
    for conv in block.regularizer.convs:
        conv.weight.data.zero_()
    block.regularizer.convs[-1].bias.data = torch.tensor([-1.0, 0.5])
    ddf = net(torch.rand(1, 2, 21, 16))
    assert ddf.shape == (1, 2, 21, 16)
    torch.testing.assert_close(ddf[0, :, 3, 4], torch.tensor([4.0, -2.0]))
    assert ddf.flatten(2).std(dim=2).max() < 1e-6


def test_composed_and_added_updates_by_hand():
    # u = 0.25 i along the first axis, step (2, 0): added u + 2; composed 2 + 0.25 (i + 2), constant beyond the border
    ddf = torch.zeros(1, 2, 8, 5)
    ddf[0, 0] = 0.25 * torch.arange(8.0)[:, None]
    image = torch.rand(1, 1, 8, 5)
    expected = {"add": 2 + 0.25 * torch.arange(8.0), "compose": 2 + 0.25 * (torch.arange(8.0) + 2).clamp(max=7)}
    for update, profile in expected.items():
        block = GraDIRN(2, (1,), (1,), update=update).levels[0][0]
        block.step_size.data.zero_()
        for conv in block.regularizer.convs:
            conv.weight.data.zero_()
        block.regularizer.convs[-1].bias.data = torch.tensor([-2.0, 0.0])
        new = block(ddf, image, image)
        torch.testing.assert_close(new[0, 0], profile[:, None].expand(8, 5))
        assert (new[0, 1] == 0).all()


def test_steps_gives_every_step_and_ends_where_forward_does():
    net = GraDIRN(2, (1, 2, 1), (2, 1, 3))
    image = torch.rand(1, 2, 24, 18)
    levels, ddfs = zip(*net.steps(image))
    assert levels == (0, 0, 1, 1, 2, 2, 2)
    assert [tuple(d.shape[2:]) for d in ddfs[1::2]] == [(6, 5), (12, 9), (24, 18)]
    torch.testing.assert_close(ddfs[-1], net(image))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_smallest_size_works_and_a_smaller_one_is_refused(dims):
    net = GraDIRN(dims)
    assert net.minimum_size == 5
    assert net(torch.rand(2, 2, *[5] * dims)).shape == (2, dims, *[5] * dims)
    with pytest.raises(InputError, match=r"at least 5 voxels along each axis; got \(1, 2, 5, 4"):
        net(torch.rand(1, 2, 5, 4, *[5] * (dims - 2)))


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 3, 16, 16), (2, 16, 16), (1, 2, 16, 16, 16)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(InputError, match="image must have shape"):
        GraDIRN(2)(torch.rand(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3, got 4"),
        ({"num_blocks": (1, 1)}, "same length"),
        ({"num_repeats": (3, -1, 3)}, "non-negative"),
        ({"num_blocks": (0, 0, 0)}, "no step"),
        ({"update": "exp"}, "unknown update 'exp': expected one of add, compose"),
        ({"regularizer": (CNN(16), None)}, "regularizer must be one value or one for each of 3 levels, got \\(CNN"),
        ({"ddf_smoothing": (0.5, 0.0)}, "ddf_smoothing must be one value or one for each of 3 levels"),
        ({"step": [Gradient(), Demons()]}, "step must be one value or one for each of 3 levels"),
        ({"features": Features(2, used=(2, 0))}, "used features must be one value or one for each of 3 levels"),
        ({"features": Features(2, used=3)}, "used features must be numbers from 0 to 2, got \\(3, 3, 3\\)"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        GraDIRN(**{"spatial_dims": 2, **options})


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        (Gradient, {"similarity": "mi"}, "unknown similarity 'mi'"),
        (Demons, {"similarity": "mi"}, "unknown similarity 'mi'"),
        (CNN, {"inputs": "explicit"}, "unknown inputs 'explicit'"),
        (CNN, {"layers": 1}, "got channels 32 and layers 1"),
        (CNN, {"channels": 0}, "got channels 0 and layers 5"),
        (Features, {"count": 0}, "at least 1, got 0"),
        (Backprop, {"repeats": 0}, "repeats must be at least 1, got 0"),
    ],
)
def test_bad_options_of_a_part_are_refused(part, options, message):
    with pytest.raises(InputError, match=message):
        part(**options)


def test_no_grad_inference_mode_and_grad_agree():
    net = GraDIRN(2)
    image = torch.cat([smooth_image((40, 36)), smooth_image((40, 36), seed=1)], 1)
    with_grad = net(image)
    with torch.no_grad():
        without = net(image)
    with torch.inference_mode():
        inference = net(image)
    assert with_grad.requires_grad
    assert torch.equal(without, inference)
    # the fused convolution rounds otherwise, and lattice points amplify that: compare the mean
    assert (with_grad - without).abs().mean() < 1e-3 * with_grad.abs().mean()
    net(image).mean().backward()  # training goes on after inference mode


@pytest.mark.parametrize(("dims", "size"), [(2, (70, 20)), (3, (36, 8, 9))])  # more slices than go at once
def test_checkpointing_does_not_change_gradients(dims, size):
    torch.manual_seed(0)
    image = torch.rand(2, 2, *size, dtype=torch.float64)
    plain, checkpointed = GraDIRN(dims).double(), GraDIRN(dims, backprop=Backprop(checkpoint=True)).double()
    checkpointed.load_state_dict(plain.state_dict())
    grads = []
    for net in (plain, checkpointed):
        net(image).square().mean().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    for first, second in zip(*grads):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_a_truncated_gradient_is_that_of_the_last_repeats():
    torch.manual_seed(0)
    net = GraDIRN(2, (1, 1), (2, 3), regularizer=CNN(4), backprop=Backprop(repeats=1))
    image = torch.rand(1, 2, 12, 10)
    net(image).sum().backward()
    found = [parameter.grad.clone() for parameter in net.levels[1].parameters()]
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.levels[0].parameters())  # through the identity
    net.zero_grad()
    net.backprop = Backprop()
    ddfs = [ddf for _, ddf in net.steps(image)]
    moving, fixed = image.split(1, 1)
    net.levels[1][0](ddfs[-2].detach(), fixed, moving).sum().backward()
    for parameter, expected in zip(net.levels[1].parameters(), found):
        torch.testing.assert_close(parameter.grad, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_amp_on_the_cpu_keeps_the_displacement_in_float32(dtype):
    torch.manual_seed(0)
    net = GraDIRN(2)
    image = torch.cat([smooth_image((40, 36)), smooth_image((40, 36), seed=1)], 1)
    inputs = []
    net.levels[-1][0].register_forward_pre_hook(lambda _, arguments: inputs.extend(arguments))
    with torch.autocast("cpu", dtype):
        ddf = net(image)
        ddf.square().mean().backward()
    assert ddf.dtype == torch.float32
    assert {tensor.dtype for tensor in inputs} == {torch.float32}
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    with torch.no_grad():
        full = net(image)
    assert (ddf - full).abs().mean() < 0.05 * full.abs().mean()


def test_half_precision_images_and_weights():
    image = torch.rand(1, 2, 16, 16)
    assert GraDIRN(2)(image.half()).dtype == torch.float32
    assert GraDIRN(2).bfloat16()(image).dtype == torch.float32
    assert GraDIRN(2).double()(image.double()).dtype == torch.float64


def test_batch_layout_and_metatensor_do_not_matter():
    net = GraDIRN(3).eval()
    image = torch.rand(3, 2, 12, 10, 8)
    with torch.no_grad():
        expected = net(image)
        single = torch.cat([net(sample) for sample in image.split(1)])
        strided = net(image.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0))
        meta = net(MetaTensor(image))
    torch.testing.assert_close(single, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(strided, expected)
    torch.testing.assert_close(meta, expected)
    assert type(meta) is torch.Tensor


def test_scaling_the_size_of_the_batch_of_one_image_keeps_its_steps():
    # energies are sums a sample: a second, different sample in the batch must not change the first
    net = GraDIRN(2, step=Gradient("ncc")).double()
    first, second = torch.rand(2, 1, 2, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(torch.cat([first, second]))[:1], net(first))


def test_the_same_seed_gives_the_same_result():
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(GraDIRN(2)(torch.rand(1, 2, 20, 20)))
    assert torch.equal(*outputs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("dims", [2, 3])
def test_gpu_agrees_with_cpu_also_under_amp(dims):
    net = GraDIRN(dims)
    image = torch.cat([smooth_image((32,) * dims), smooth_image((32,) * dims, seed=1)], 1)
    expected = net(image)
    net, image = net.cuda(), image.cuda()
    assert (net(image).cpu() - expected).abs().mean() < 1e-2 * expected.abs().mean()
    with torch.autocast("cuda", torch.float16):
        half = net(image)
        half.square().mean().backward()
    assert half.dtype == torch.float32
    assert (half.cpu() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_deep_supervision_ends_in_the_networks_own_displacement():
    net = GraDIRN(2, (1, 1, 0), (2, 1, 0), step=Gradient(LNCC(5)), update="compose")
    image = torch.rand(1, 2, 21, 18)
    view = DeepSupervision(net)
    ddfs = view(image)["ddfs"]
    assert [ddf.shape for ddf in ddfs] == [(1, 2, 21, 18)] * 3
    torch.testing.assert_close(ddfs[-1], net(image))
    # a step of level 0 reaches full size through two doublings
    level, coarse = next(net.steps(image))
    assert level == 0
    assert ddfs[0].abs().max().item() == pytest.approx(4 * coarse.abs().max().item(), rel=1e-5)
    sum(ddf.square().mean() for ddf in ddfs).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    with pytest.raises(InputError, match="deep supervision needs a network with steps, got Linear"):
        DeepSupervision(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("similarity", ["ssd", "ncc", "lncc", "mind"])
@pytest.mark.parametrize("shift", [(2.0, -1.0), (1.0, 1.5, -0.5)])
def test_normalized_steps_alone_recover_a_translation(similarity, shift):
    # no regularizer but Gaussian filters: the demons algorithm, nothing learned, in a third of the steps
    options = {"step": Demons(similarity, smoothing=2.0), "regularizer": None, "ddf_smoothing": 0.5}
    net = initialise(GraDIRN(len(shift), num_repeats=(10, 10, 10), update="compose", **options), taus=3.0)
    assert sum(p.numel() for p in net.parameters()) == 3  # tau
    torch.testing.assert_close(_found_translation(net, shift), torch.tensor(shift), atol=0.3, rtol=0)


@pytest.mark.parametrize(("rule", "tau"), [(Demons, 3.0), (Gradient, 10.0)])
@pytest.mark.parametrize("shift", [(2.0, -1.0), (1.0, 1.5, -0.5)])
def test_mind_recovers_a_translation_between_opposite_contrasts(rule, tau, shift):
    options = {"step": rule("mind", smoothing=2.0), "regularizer": None, "ddf_smoothing": 0.5}
    net = initialise(GraDIRN(len(shift), num_repeats=(10, 10, 10), update="compose", **options), taus=tau)
    found = _found_translation(net, shift, change=lambda image: 1 - image)
    torch.testing.assert_close(found, torch.tensor(shift), atol=0.1, rtol=0)


@pytest.mark.parametrize(("dims", "channels"), [(2, 4), (3, 12)])
def test_with_mind_the_regularizer_sees_the_descriptions_and_trains(dims, channels):
    net = GraDIRN(dims, (1, 1), (1, 1), Demons("mind"), CNN(4, inputs="step"), features=Features(2))
    assert net.levels[0][0].regularizer.convs[0].in_channels == dims + 2 * (channels + 2) + dims
    image = torch.rand(2, 2, *(13, 18, 11)[:dims])
    net(image).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())


def test_each_level_may_have_channels_of_its_own():
    net = GraDIRN(2, regularizer=(CNN(16), CNN(8), None))
    assert [blocks[0].regularizer.convs[0].out_channels for blocks in net.levels[:2]] == [16, 8]
    assert net.levels[2][0].regularizer is None
    assert net(torch.rand(1, 2, 12, 9)).shape == (1, 2, 12, 9)


@pytest.mark.parametrize("size", [(13, 18), (9, 12, 10)])
def test_features_drive_the_step_beside_the_intensities(size):
    net = GraDIRN(len(size), (1, 1), (1, 1), Demons(), CNN(4), features=Features(2))
    image = torch.rand(3, 2, *size)
    moving, fixed = net.with_features(image)
    assert moving.shape == fixed.shape == (3, 3, *size)
    assert torch.equal(torch.cat([moving[:, :1], fixed[:, :1]], 1), image)
    # one network sees both images: swapped images have swapped features
    swapped = net.with_features(image.flip(1))
    torch.testing.assert_close(swapped[0], fixed)
    inside = DeepSupervision(net, every_step=False)(image)
    assert [feature.shape for feature in inside["features"]] == [(3, 2, *size)] * 2
    torch.testing.assert_close(inside["ddfs"], [net(image)])
    inside["ddfs"][0].square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())


def test_a_level_may_do_without_the_features():
    def make(num_repeats, features=None):
        return initialise(GraDIRN(2, (1, 1), num_repeats, Demons(), None, features=features), taus=4.0)

    net = make((1, 1), Features(2, used=(2, 0)))
    plain = make((0, 1))
    net.num_repeats = (0, 1)
    image = torch.rand(1, 2, 13, 18)
    assert torch.equal(net(image), plain(image))
    net.num_repeats = (1, 0)
    assert not torch.equal(net(image), make((1, 0))(image))


def test_each_level_may_have_a_similarity_and_a_step_of_its_own():
    image = torch.rand(1, 2, 24, 20)
    each = classical_network((0, 1), (Gradient("ssd"), Demons(LNCC(5))))
    assert torch.equal(each(image), classical_network((0, 1), Demons(LNCC(5)))(image))
    each.num_repeats = (1, 0)
    assert torch.equal(each(image), classical_network((1, 0), Gradient("ssd"))(image))


def classical_network(num_repeats, step):
    """Two levels without anything learned, tau 1."""
    return initialise(GraDIRN(2, (1, 1), num_repeats, step, regularizer=None), taus=1.0)


def test_the_step_may_be_smoothed_more_on_coarse_levels():
    image = torch.rand(1, 2, 24, 20)
    each = classical_network((0, 1), (Gradient(smoothing=2.0), Gradient(smoothing=0.7)))
    assert torch.equal(each(image), classical_network((0, 1), Gradient(smoothing=0.7))(image))
    assert not torch.equal(each(image), classical_network((0, 1), Gradient(smoothing=2.0))(image))


def test_features_need_the_normalized_step():
    steps = (Demons(), Demons(), Gradient())
    with pytest.raises(InputError, match="features need the Demons step"):
        GraDIRN(2, step=steps, features=Features(2))
    GraDIRN(2, step=steps, features=Features(2, used=(2, 2, 0)))


def test_the_start_of_a_training_is_an_option():
    # a first step of -tau * grad D alone, with the regularizer at 0: D = sum (M - F)^2, of which M' = 1
    net = initialise(GraDIRN(2, (1,), (1,)), taus=0.25, output_scale=0.0)
    assert net.taus() == {"level_0_block_0": pytest.approx(0.25)}
    each = initialise(GraDIRN(2, (1, 1), (1, 3)), taus=(None, 3.0)).taus()
    assert each == {"level_0_block_0": pytest.approx(1.0), "level_1_block_0": pytest.approx(3.0)}  # 5 / (4 steps + 1)
    moving = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 1, 6, 6) / 10
    ddf = net(torch.cat([moving, moving + 0.1], 1))
    # -0.25 * 2 * (-0.1) * 0.1 along the first axis, nothing along the second
    torch.testing.assert_close(ddf[0, 0], torch.full((6, 6), 0.005))
    assert (ddf[0, 1] == 0).all()
    published = GraDIRN(2).taus()
    assert published == {f"level_{level}_block_0": pytest.approx(0.5) for level in range(3)}
    with pytest.raises(InputError, match="taus must be one value or one for each of 3 levels"):
        initialise(GraDIRN(2), taus=(1.0, 2.0))


def test_a_network_without_steps_starts_as_it_was_made():
    linear = torch.nn.Linear(2, 1)
    before = linear.weight.clone()
    assert initialise(linear, taus=4.0, output_scale=0.0) is linear
    assert torch.equal(linear.weight, before)


def explicit(levels, repeats):
    """Composed demons steps of one tau, without learned parts."""
    net = GraDIRN(3, [1] * levels, repeats, Demons(LNCC(3), smoothing=0.7), None, "compose", ddf_smoothing=0.5)
    return initialise(net, taus=2.0)


@torch.no_grad()
def test_fine_steps_are_a_further_level_with_the_block_of_the_finest():
    image = torch.cat([smooth_image((17, 25, 21)), smooth_image((17, 25, 21), seed=1)], 1)
    expected = explicit(3, [2, 2, 3])(image)
    net = explicit(2, [2, 2])
    found = net.fine_steps(image, net(image[:, :, ::2, ::2, ::2]), 3)
    assert net.has_fine_steps
    assert found.abs().max() > 0.5
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_fine_steps_of_an_image_to_itself_move_nothing():
    image = smooth_image((17, 17, 17)).expand(-1, 2, -1, -1, -1)
    net = explicit(2, [1, 1])
    assert (net.fine_steps(image, net(image[:, :, ::2, ::2, ::2]), 2) == 0).all()


def test_only_explicit_steps_fit_a_finer_grid():
    demons = Demons("ssd")
    assert not GraDIRN(2, [1, 1], [1, 1], demons, [None, CNN(4)]).has_fine_steps
    assert not GraDIRN(2, [1, 0], [1, 0], demons, None).has_fine_steps
    assert not GraDIRN(2, [1, 1], [1, 1], demons, None, features=Features(count=2)).has_fine_steps
    assert GraDIRN(2, [1, 1], [1, 1], demons, [CNN(4), None]).has_fine_steps


def test_each_level_may_have_its_own_smoothing_of_the_displacement():
    image = torch.cat([smooth_image((24, 20)), smooth_image((24, 20), seed=1)], 1)
    options = {"step": Demons(LNCC(3), smoothing=1.0), "regularizer": None, "update": "compose"}
    coarse, both = (
        initialise(GraDIRN(2, (1, 1), (3, 3), **options, ddf_smoothing=smoothing), taus=2.0)
        for smoothing in ((0.5, 0.0), 0.5)
    )
    steps, same = ([ddf for _, ddf in net.steps(image)] for net in (coarse, both))
    torch.testing.assert_close(steps[2], same[2])
    assert (steps[3] - same[3]).abs().max() > 1e-3
