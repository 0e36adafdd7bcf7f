"""torch.compile where it works."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

__all__ = ["compiled_if_possible"]


def compiled_if_possible(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is compiled at its first call; where that fails, it runs uncompiled.

    Its arguments are tensors and modules.

    Each size, batch and configuration of a module is compiled by itself, since a function that is compiled for any size
    is little faster. At torch's recompilation limit, the function falls back to eager mode. Compilation fails without
    a C++ compiler, or where torch has no back end for the machine. Within a trace, an export or another compilation,
    the function is not compiled.
    """
    compiled: Callable[..., Any] | None = None
    failed = False

    @wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal compiled, failed
        if failed or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return function(*arguments)
        try:
            compiled = compiled or torch.compile(function, dynamic=False)
            return compiled(*arguments)
        except Exception:  # dynamo, inductor and the compiler have errors of their own; ours are raised again below
            failed = True
            return function(*arguments)

    return call
