"""The benchmark's bookkeeping, and the memory of training in bytes that autograd keeps (not in seconds or RSS)."""

import pytest
import torch

from scripts.benchmark.cost import MEMORY_VARIANTS, interleaved_medians, print_memory
from scripts.benchmark.reference import ReferenceGraDIRN
from scripts.networks import GraDIRN


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
    assert saved_bytes(GraDIRN(3, checkpoint_steps=True), image) < 0.05 * reference


def test_calls_are_interleaved_and_the_first_round_is_warm_up():
    order = []
    medians = interleaved_medians([lambda: order.append("a"), lambda: order.append("b")], runs=2)
    assert order == ["a", "b"] * 3
    assert len(medians) == 2


@pytest.mark.slow
def test_the_memory_table_has_a_row_for_each_variant(capsys):
    print_memory(size=48, threads=2)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[2:]] == list(MEMORY_VARIANTS)
    ratios = [float(row[2]) for row in rows[2:]]
    assert ratios[0] == 1
    assert ratios[2] < ratios[1] < 0.7
