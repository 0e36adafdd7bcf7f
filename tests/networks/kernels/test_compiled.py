"""Compiled steps equal the plain ones, which are taken where nothing can be compiled."""

import copy
import pickle

import pytest
import torch

from scripts.networks import CNN, Demons, GraDIRN, compile_steps, gradirn, initialise
from scripts.networks.kernels import compiled
from scripts.networks.kernels.compiled import compiled_if_possible


def raise_error(*_, **__):
    raise RuntimeError("no C++ compiler")


@pytest.mark.parametrize("broken", [raise_error, lambda *_, **__: raise_error], ids=["at once", "at the first call"])
def test_what_cannot_be_compiled_runs_as_it_is(broken, monkeypatch):
    attempts = []
    monkeypatch.setattr(compiled.torch, "compile", lambda *a, **k: attempts.append(a) or broken())
    double = compiled_if_possible(lambda x: 2 * x)
    assert [double(torch.tensor(value)).item() for value in (1, 2)] == [2, 4]
    assert len(attempts) == 1


def test_an_error_of_the_function_itself_is_raised():
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        compiled_if_possible(raise_error)(torch.ones(1))


def test_a_network_with_the_option_trains_copies_and_pickles_as_without(monkeypatch):
    monkeypatch.setattr(compiled.torch, "compile", raise_error)  # neither needs it
    net = compile_steps(GraDIRN(2, (1, 1), (1, 1), regularizer=CNN(4)))
    image = torch.rand(1, 2, 12, 10)
    net(image).sum().backward()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other(image), net(image))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(24, 21), (12, 10, 13)], ids=["2D", "3D"])
def test_a_network_gives_the_same_with_the_option_and_is_exported_with_it(size, monkeypatch):
    torch.manual_seed(0)
    options = {"update": "compose", "step": Demons("lncc"), "regularizer": CNN(4)}
    plain = initialise(GraDIRN(len(size), (1, 1), (1, 1), **options), output_scale=0.05).eval()
    net = compile_steps(copy.deepcopy(plain))
    calls = []
    monkeypatch.setattr(gradirn, "_compiled_call", lambda *a, call=gradirn._compiled_call: calls.append(a) or call(*a))
    image = torch.rand(1, 2, *size)
    with torch.no_grad():
        torch.testing.assert_close(net(image), plain(image), atol=1e-4, rtol=0)
        assert len(calls) == 2
        assert torch.equal(compile_steps(copy.deepcopy(net), enabled=False)(image), plain(image))
        assert len(calls) == 2
        torch.testing.assert_close(torch.jit.script(net)(image), plain(image), atol=1e-4, rtol=0)
        exported = torch.export.export(net, (image,)).module()
        torch.testing.assert_close(exported(image), plain(image), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_whole_network_may_be_compiled():
    torch.manual_seed(0)
    net = initialise(GraDIRN(2, (1, 1), (1, 1), regularizer=CNN(4, layers=2)), output_scale=0.05).eval()
    image = torch.rand(1, 2, 24, 20)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net)(image), net(image), atol=1e-4, rtol=0)
