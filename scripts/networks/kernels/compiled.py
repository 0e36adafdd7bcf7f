"""torch.compile where it works."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

__all__ = ["compiled_if_possible"]


def compiled_if_possible(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors and modules that its first call compiles; itself, without a word, where that fails.

    It is compiled anew for each size and batch and each configuration of a module, and runs as it is once torch has had
    enough of that; compiled for any size, it would be little faster.

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
            compiled = compiled or torch.compile(function, dynamic=False)
            return compiled(*arguments)
        except Exception:  # of dynamo, of inductor, of the compiler it calls: each its own; a fault of ours comes again
            failed = True
            return function(*arguments)

    return call
