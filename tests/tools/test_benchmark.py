"""The benchmark's bookkeeping; memory of training in bytes that autograd keeps, work in operations (not in seconds)."""

import json
from itertools import pairwise

import pytest
import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode

from scripts.networks import Backprop, GraDIRN
from scripts.tools.benchmark.cost import MEMORY_VARIANTS, interleaved_medians, print_memory
from scripts.tools.benchmark.growth import CASES, Case, exponent, largest_cube
from scripts.tools.benchmark.machine import run_apart
from scripts.tools.benchmark.pairs import STAGES, measure_pair
from scripts.tools.benchmark.reference import ReferenceGraDIRN

from ..conftest import config_files


def saved_bytes(network, image):
    """Bytes of distinct storages kept for the backward pass, parameters aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(image)
    del output
    return sum(size for size, _ in kept.values())


def test_training_keeps_less_than_the_reference():
    image = torch.rand(1, 2, 24, 24, 24)
    reference = saved_bytes(ReferenceGraDIRN(3), image)
    assert saved_bytes(GraDIRN(3), image) < 0.35 * reference
    assert saved_bytes(GraDIRN(3, backprop=Backprop(checkpoint=True)), image) < 0.05 * reference


def test_with_a_truncated_gradient_more_repeats_keep_no_more():
    image = torch.rand(1, 2, 16, 16, 16)
    few, many = (saved_bytes(GraDIRN(3, num_repeats=(n,) * 3, backprop=Backprop(repeats=1)), image) for n in (2, 6))
    assert few == many < saved_bytes(GraDIRN(3, num_repeats=(2, 2, 2)), image)


def network_of(name):
    """The published network by its dimension, a shipped one by its overlay."""
    if name in ("2", "3"):
        return GraDIRN(int(name))
    parser = ConfigParser()
    parser.read_config(config_files("inference", *([] if name == "cardiac" else [name])))
    return parser.get_parsed_content("network_def").eval()


def convolutions(dims, channels, sizes):
    """Floating-point operations of 3^d convolutions that lead through these channels, once at each size."""
    pairs = sum(into * out for into, out in pairwise(channels))
    return 2 * 3**dims * pairs * sum(size**dims for size in sizes)


# images of 32 and 16 voxels a side; the features of the hippocampus are a U-Net, not derived by hand: today's number
@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("2", 32, convolutions(2, [4, 32, 32, 32, 32, 2], [8, 16, 32] * 3)),
        ("3", 16, convolutions(3, [5, 32, 32, 32, 32, 3], [4, 8, 16] * 3)),
        ("cardiac", 32, convolutions(2, [4, 32, 32, 32, 32, 2], [4, 8, 16] * 3)),
        (
            "brain",
            32,
            convolutions(3, [8, 16, 16, 16, 16, 3], [8] * 3) + convolutions(3, [8, 8, 8, 8, 8, 3], [16] * 4),
        ),
        ("hippocampus", 32, 1_717_043_200),
    ],
)
def test_the_convolutions_take_no_more_than_they_must(name, size, expected):
    net = network_of(name)
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        net(torch.rand(1, 2, *[size] * net.spatial_dims))
    counts = counter.get_flop_counts()["Global"].items()  # the filters are products with matrices
    assert sum(count for operator, count in counts if "convolution" in str(operator)) == expected


def test_exponents_and_the_largest_cube():
    cases = [Case("3D size", 3, size) for size in (10, 20, 40, 80)]
    assert exponent(cases, [5.0, *(7 * case.voxels**1.5 for case in cases[1:])]) == pytest.approx(1.5)
    assert exponent(cases[:3], [2.0 * case.voxels for case in cases[:3]]) == pytest.approx(1)
    # 1 MiB for 80^3 voxels: 8 * 1024 of them in 8 GiB
    assert largest_cube(cases, [0, 0, 0, 1.0], 8) == int(80 * 8192 ** (1 / 3))
    assert [Case("2D steps", 2, 8, repeats=4).grown, Case("2D batch", 2, 8, batch=3).grown] == [12, 3]
    assert Case("3D training size, checkpoint_steps", 3, 8, training=True, checkpoint=True).grown == 512


@pytest.mark.slow
def test_a_case_is_measured():
    # in a process of its own, as this one may hold freed memory from other tests
    case = Case("3D training size", 3, 32, training=True)
    found = json.loads(run_apart("growth", "--case", str(CASES.index(case))))
    assert found["seconds"] > 0
    assert found["peak_mib"] > 20


def test_calls_are_interleaved_and_the_first_round_is_warm_up():
    order = []
    medians = interleaved_medians([lambda: order.append("a"), lambda: order.append("b")], runs=2)
    assert order == ["a", "b"] * 3
    assert len(medians) == 2


@pytest.mark.slow
def test_the_memory_table_has_a_row_for_each_variant(capsys):
    print_memory(size=40, threads=1, device="cpu")
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[2:]] == list(MEMORY_VARIANTS)
    ratios = [float(row[2]) for row in rows[2:]]
    assert ratios[0] == 1
    assert ratios[2] < ratios[1] < 0.7


def test_a_whole_pair_has_the_seconds_of_each_stage_and_a_peak(tmp_path):
    *seconds, peak = (float(word) for word in measure_pair("hippocampus", tmp_path, 1).split())
    assert len(seconds) == len(STAGES)
    assert 0 < min(seconds) < max(seconds) < 60
    assert 100 < peak < 10_000
