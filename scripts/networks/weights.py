"""Weights from a file into a network, or a whole exported network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..support.errors import InputError
from ..support.files import user_path

__all__ = ["load_torchscript", "load_weights"]


def load_weights(network: nn.Module, path: str | Path | None, device: torch.device | str = "cpu") -> nn.Module:
    """Load a state dictionary, check that it fits, and return the network on the device.

    Args:
        network: the network that the weights are for.
        path: a file of ``torch.save``: a state dictionary, or a training checkpoint that holds one as ``network``.
        device: the device to which the network is moved.

    Raises:
        InputError: when the file is missing, unreadable, or holds the weights of another configuration.
    """
    if path is None:
        raise InputError("--weights is missing: no weights of this network are shipped, expected those of a training.")
    path = _existing(path, "a checkpoint of torch.save")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile each have their own errors for a damaged file
        raise InputError(f"weights: {path} cannot be read as a checkpoint of torch.save; it may be damaged.") from error
    if isinstance(state, dict) and isinstance(state.get("network"), dict):
        state = state["network"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"weights: {path} holds no state dictionary: expected parameter names with tensors.")
    difference = _first_difference(state, network.state_dict())
    if difference:
        raise InputError(f"weights: {path} is of another network configuration: {difference}.")
    network.load_state_dict(state)
    return network.to(device)


def load_torchscript(path: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Load what ``monai.bundle ckpt_export`` has made of a network.

    Args:
        path: the file.
        device: the device to which the network is moved.

    Raises:
        InputError: when the file is missing, or not a TorchScript module.
    """
    path = _existing(path, "what monai.bundle ckpt_export makes")
    try:
        return torch.jit.load(path, map_location=device)
    except RuntimeError as error:
        raise InputError(
            f"weights: {path} is not a TorchScript module: expected what monai.bundle ckpt_export makes."
        ) from error


def _existing(path: str | Path, expected: str) -> Path:
    path = user_path(path, "weights")
    if not path.is_file():
        raise InputError(f"weights: {path} does not exist: expected {expected}.")
    return path


def _first_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> str | None:
    for name, value in expected.items():
        if name not in found:
            return f"found no '{name}', expected shape {tuple(value.shape)}"
        if found[name].shape != value.shape:
            return f"found '{name}' of shape {tuple(found[name].shape)}, expected {tuple(value.shape)}"
    surplus = sorted(set(found) - set(expected))
    return f"found '{surplus[0]}', which this network does not have" if surplus else None
