"""The processes of a distributed run, and the device of each."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist

__all__ = ["join_processes", "local_device", "rank_and_count"]

PATIENCE = timedelta(days=1)  # a process may have to wait for another one whose pairs take longer


def rank_and_count() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; (0, 1) outside a distributed run."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def local_device() -> torch.device:
    """Return the GPU of this process, or the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def join_processes() -> None:
    """Join the other processes that ``torchrun`` started; a process that it did not start works alone."""
    if "RANK" not in os.environ:
        return
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())  # after an error, too
