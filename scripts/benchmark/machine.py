"""What a process has used of the machine it runs on."""

from __future__ import annotations

import platform
import resource
import time
from pathlib import Path

import torch

__all__ = [
    "RETURN_FREED_MEMORY",
    "cpu_seconds",
    "describe_machine",
    "forget_peak",
    "held_memory",
    "peak_memory",
    "seconds",
]

# glibc: give freed blocks back at once, so that the peak is that of what is alive and repeats from run to run
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def cpu_seconds() -> float:
    """User and system time of this process and its ended children so far, in seconds."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def seconds(device: str) -> float:
    """A clock: of what this process has used of the CPU, or of the wall once the GPU has done all it was given."""
    if device == "cpu":
        return cpu_seconds()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def held_memory(device: str = "cpu") -> float:
    """MiB that this process holds now."""
    return _resident("VmRSS") if device == "cpu" else torch.cuda.memory_allocated(device) / 2**20


def peak_memory(device: str = "cpu") -> float:
    """MiB at its peak since the start, or since :func:`forget_peak` (Linux)."""
    return _resident("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated(device) / 2**20


def forget_peak(device: str = "cpu") -> None:
    """Let the peak start from the memory that is held now (Linux)."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")
    else:
        torch.cuda.reset_peak_memory_stats(device)


def describe_machine(device: str = "cpu") -> str:
    threads = f"{torch.get_num_threads()} thread(s)" if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {threads}, torch {torch.__version__}"


def _resident(field: str) -> float:
    """Of the kernel's account; getrusage would count the parent's peak too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024
