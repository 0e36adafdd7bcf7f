"""Which process of a distributed run this is."""

from __future__ import annotations

import torch.distributed as dist

__all__ = ["rank_and_count"]


def rank_and_count() -> tuple[int, int]:
    """Rank of this process, and how many there are; (0, 1) outside a distributed run."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
