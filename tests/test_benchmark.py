"""The benchmark's bookkeeping, and the memory of training in bytes that autograd keeps (not in seconds or RSS)."""

import pytest
import torch

from scripts.benchmark.__main__ import interleaved_medians, training_peak
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
    assert saved_bytes(GraDIRN(3), image) < 0.45 * reference
    assert saved_bytes(GraDIRN(3, checkpoint_steps=True), image) < 0.05 * reference


def test_calls_are_interleaved_and_the_first_round_is_warm_up():
    order = []
    medians = interleaved_medians([lambda: order.append("a"), lambda: order.append("b")], runs=2)
    assert order == ["a", "b"] * 3
    assert len(medians) == 2


@pytest.mark.parametrize("variant", ["reference", "gradirn", "gradirn_checkpoint"])
def test_a_training_step_of_each_variant_runs(variant):
    assert training_peak(variant, 16) >= 0
