"""The precision of the convolutions follows the option, and the hardware where the option leaves the choice to it."""

import pytest
import torch

from scripts.networks.kernels.precision import autocast_dtype
from scripts.registration.inferer import RegistrationInferer
from scripts.support.errors import InputError


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, None),  # oneDNN would emulate it
        ({"neon": True}, None),
    ],
)
def test_auto_takes_bfloat16_only_where_the_processor_has_it(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert autocast_dtype("auto", "cpu") is expected
    for forced in (True, "true", "True"):
        assert autocast_dtype(forced, "cpu") is torch.bfloat16
    for forced in (False, "false"):
        assert autocast_dtype(forced, torch.device("cpu")) is None


@pytest.mark.parametrize("in_hardware", [True, False])
def test_auto_takes_bfloat16_only_where_the_graphics_card_has_it(in_hardware, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: in_hardware or including_emulation)
    assert autocast_dtype("auto", "cuda:0") is (torch.bfloat16 if in_hardware else None)


def test_another_word_is_refused():
    with pytest.raises(InputError, match="--amp is 'maybe': expected auto, true or false"):
        autocast_dtype("maybe", "cpu")
    with pytest.raises(InputError, match="--amp is 'maybe'"):
        RegistrationInferer(2, "maybe")


def test_the_inferer_runs_the_network_in_that_precision():
    seen = []

    def network(image):
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return image

    for amp in ("true", "false"):
        RegistrationInferer(2, amp)(torch.rand(1, 2, 4, 4), network)
    assert seen == [torch.bfloat16, None]
