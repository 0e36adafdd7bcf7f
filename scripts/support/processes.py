"""The processes of a distributed run."""

from __future__ import annotations

import torch.distributed as dist

__all__ = ["rank_and_count"]


def rank_and_count() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; (0, 1) outside a distributed run."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
