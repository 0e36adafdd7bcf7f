"""Checksums of the options of objects: equal for objects that were made in the same way."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Set
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["fingerprint"]

PLAIN = (bool, int, float, str, type(None))


def fingerprint(*parts: Any) -> str:
    """Return a checksum of the public attributes of objects, and of the objects in them.

    Tensors and random states do not count, because they change during use; neither does the device.

    Args:
        parts: networks, transforms and other objects. Their options count, learned weights do not.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps([_describe(part, ()) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _describe(value: Any, above: tuple[int, ...]) -> Any:
    """Convert a value to a form for JSON; ``above`` are the objects that contain it."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Enum):
        return str(value.value)
    if id(value) in above:
        return None
    inside = (*above, id(value))
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _describe(item, inside) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_describe(item, inside) for item in value]
    if isinstance(value, functools.partial):
        return [_describe(item, inside) for item in (value.func, value.args, value.keywords)]
    if isinstance(value, torch.Tensor | torch.device | Set | torch.jit.ScriptModule):
        return None
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    attributes = {name: item for name, item in vars(value).items() if not name.startswith("_")} if _open(value) else {}
    attributes |= {"modules": dict(value.named_children())} if isinstance(value, nn.Module) else {}
    attributes.pop("training", None)
    return {"class": type(value).__qualname__, **_describe(attributes, inside)}


def _open(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, np.random.RandomState | np.random.Generator)
