"""What a process has used of the machine it runs on."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["cpu_seconds", "describe_machine", "peak_growth", "run_apart", "seconds", "wall_seconds"]

# glibc: give freed blocks back at once, so that the peak is that of what is alive and repeats from run to run; it takes
# up to twice the time
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def cpu_seconds() -> float:
    """User and system time of this process and its ended children so far, in seconds."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def wall_seconds(device: str) -> float:
    """The clock on the wall, on a GPU once it has done all it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(device: str) -> float:
    """What this process has used of the CPU, which a busy machine changes little, or :func:`wall_seconds` on a GPU."""
    return cpu_seconds() if device == "cpu" else wall_seconds(device)


def peak_growth(call: Callable[[], Any], device: str = "cpu") -> float:
    """MiB between the memory that this process holds and its peak while it makes a call (Linux)."""
    if device != "cpu":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    held = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    call()
    return _resident("VmHWM") - held


def run_apart(*arguments: str, environment: Mapping[str, str] = RETURN_FREED_MEMORY) -> str:
    """The last line that ``python -m scripts.tools.benchmark`` prints in a process of its own, with its own peak."""
    command = [sys.executable, "-W", "ignore", "-m", "scripts.tools.benchmark", *arguments]
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    return child.stdout.splitlines()[-1]


def describe_machine(device: str = "cpu") -> str:
    threads = f"{torch.get_num_threads()} thread(s)" if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {threads}, torch {torch.__version__}"


def _resident(field: str) -> float:
    """Of the kernel's account; getrusage would count the parent's peak too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024
