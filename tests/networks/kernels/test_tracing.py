"""A network as TorchScript gives the same on sizes that the trace has not seen, and names no device."""

import re

import pytest
import torch
from monai.networks.utils import convert_to_onnx

from scripts.networks import CNN, LNCC, Demons, Features, GraDIRN, initialise, load_torchscript
from scripts.support.errors import InputError

CARDIAC = {"spatial_dims": 2, "num_blocks": (1, 1), "num_repeats": (2, 1), "update": "compose", "ddf_smoothing": 0.5}
FEATURES = {
    "spatial_dims": 3,
    "num_blocks": (1, 1),
    "num_repeats": (1, 1),
    "step": Demons(LNCC(5), smoothing=1.0),
    "regularizer": (CNN(4), None),
    "features": Features(2),
}


DESCRIPTIONS = {"spatial_dims": 2, "num_blocks": (1, 1), "num_repeats": (1, 1), "step": Demons("mind")}


@pytest.fixture(params=[CARDIAC, FEATURES, DESCRIPTIONS], ids=["2D", "3D with features", "2D with MIND"])
def network(request):
    torch.manual_seed(0)
    return initialise(GraDIRN(**request.param), output_scale=0.05).eval()


def test_the_script_gives_the_same_for_another_batch_and_odd_sizes(network, tmp_path):
    torch.jit.script(network).save(tmp_path / "model.ts")
    script = load_torchscript(tmp_path / "model.ts")
    size = (37, 22, 19)[: network.spatial_dims]
    for batch in (1, 2):
        image = torch.rand(batch, 2, *size)
        with torch.inference_mode():
            torch.testing.assert_close(script(image), network(image), atol=1e-4, rtol=0)


def test_the_script_refuses_other_shapes(network):
    script = torch.jit.script(network)
    dims = network.spatial_dims
    for shape in ((1, 3, *[16] * dims), (1, 2, *[16] * (dims - 1)), (1, 2, 2, *[16] * (dims - 1))):
        with pytest.raises(torch.jit.Error, match="image must have shape"):
            script(torch.rand(shape))


def test_what_the_script_makes_anew_follows_the_device_of_its_input(network):
    lines = str(torch.jit.script(network).trace.inlined_graph).splitlines()
    devices = [found[1] for line in lines if (found := re.match(r"\s*(%\S+) : Device = prim::Constant", line))]
    makers = [line for line in lines if any(re.search(rf"{re.escape(name)}[,)]", line) for name in devices)]
    assert makers
    for line in makers:
        made = re.match(r"\s*(%\S+) :", line)[1]
        used = [other for other in lines if re.search(rf"\(.*{re.escape(made)}[,)]", other)]
        assert used
        assert all("aten::type_as" in other for other in used), line


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_onnxruntime_gives_the_same_for_another_batch_and_odd_sizes(dims, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = GraDIRN(dims, (1, 1), (1, 1), update="compose", regularizer=CNN(4, layers=2))
    initialise(net, output_scale=0.05)
    # as MONAI's onnx_export calls it
    convert_to_onnx(
        net,
        [torch.rand(3, 2, *(17, 22, 19)[:dims])],
        input_names=["image"],
        output_names=["ddf"],
        dynamic_axes={"image": {0: "batch", 2: "x", 3: "y", 4: "z"} if dims == 3 else {0: "batch", 2: "x", 3: "y"}},
        filename=str(tmp_path / "model.onnx"),
        use_trace=False,
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    image = torch.rand(1, 2, *(26, 21, 16)[:dims])
    (found,) = session.run(None, {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(image).detach(), atol=1e-4, rtol=0)


def test_torch_export_takes_any_batch(network):
    image = torch.rand(3, 2, *(17, 22, 19)[: network.spatial_dims])
    with torch.no_grad():
        exported = torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
        torch.testing.assert_close(exported(image[:2]), network(image[:2]), atol=1e-4, rtol=0)


def test_a_file_that_is_no_script_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"model.ts does not exist: expected what monai.bundle ckpt_export makes"):
        load_torchscript(tmp_path / "model.ts")
    (tmp_path / "model.ts").write_text("no")
    with pytest.raises(InputError, match=r"model.ts is not a TorchScript module"):
        load_torchscript(tmp_path / "model.ts")
