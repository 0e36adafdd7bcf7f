"""torch.compile where it works."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

__all__ = ["compiled_if_possible"]


def compiled_if_possible(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors that its first call compiles, for any sizes; itself, without a word, where that fails.

    Compilation fails where there is no C++ compiler, or where torch has no back end for the machine. Within a trace, an
    export or another compilation the function itself is taken.
    """
    compiled: Callable[..., Any] | None = None
    failed = False

    @wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal compiled, failed
        if failed or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return function(*arguments)
        try:
            compiled = compiled or torch.compile(function, dynamic=True)
            return compiled(*arguments)
        except Exception:  # of dynamo, of inductor, of the compiler it calls: each its own; a fault of ours comes again
            failed = True
            return function(*arguments)

    return call
