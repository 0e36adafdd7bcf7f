"""What counts as the same options."""

from functools import partial

import torch

from scripts.networks import CNN, LNCC, Demons, Gradient, GraDIRN
from scripts.registration.inferer import RegistrationInferer
from scripts.registration.preprocessing import preprocess_pair
from scripts.support.fingerprint import fingerprint


def network(**options):
    return GraDIRN(2, (1, 1), (1, 1), **options)


def test_equal_options_have_one_fingerprint_and_weights_do_not_count():
    first, second = network(), network()
    second.load_state_dict({name: torch.rand_like(value) for name, value in first.state_dict().items()})
    assert fingerprint(first) == fingerprint(second.eval())
    assert len(fingerprint(first)) == 16


def test_every_option_that_changes_a_result_counts():
    grid = {"spacing": (1, 1, 1), "spatial_size": (8, 8, 8)}
    objects = [
        *(network(), network(step=Gradient("lncc")), network(step=Gradient(LNCC(5))), network(update="compose")),
        *(network(step=Demons("lncc")), network(step=Demons("lncc", 1.5)), network(ddf_smoothing=0.5)),
        *(network(regularizer=CNN(8)), network(regularizer=CNN(8, inputs="step")), GraDIRN(2, (1, 1), (1, 2))),
        *(preprocess_pair(3, **grid), preprocess_pair(3, **{**grid, "spacing": (1, 1, 2)})),
        preprocess_pair(3, **grid, alignment="centers"),
        *(RegistrationInferer(3), RegistrationInferer(3, amp=True), RegistrationInferer(3, memory_limit=1)),
        *(partial(int, base=2), partial(int, base=3), {"a": 1}, {"a": None}, [1.0, 2.0]),
    ]
    assert len({fingerprint(item) for item in objects}) == len(objects)


def test_a_circle_ends():
    item = torch.nn.Identity()
    item.own = [item]
    assert fingerprint(item) == fingerprint(item)
