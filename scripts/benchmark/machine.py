"""What a process has used of the machine it runs on."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import torch

__all__ = ["RETURN_FREED_MEMORY", "cpu_seconds", "describe_machine", "forget_peak", "resident_memory"]

# glibc: give freed blocks back at once, so that the peak is that of what is alive and repeats from run to run
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def cpu_seconds() -> float:
    """User and system time of this process and its ended children so far, in seconds."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def resident_memory(field: str) -> float:
    """MiB of resident memory now (VmRSS) or at its peak (VmHWM); getrusage would count the parent's peak too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def forget_peak() -> None:
    """Let the peak (VmHWM) start from the memory that is held now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def describe_machine() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
