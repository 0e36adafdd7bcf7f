"""Time and memory that a process uses, and the machine it runs on."""

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

__all__ = ["cpu_seconds", "describe_machine", "peak_growth", "peak_resident", "run_apart", "seconds", "wall_seconds"]

# glibc: return freed blocks at once, so that the peak counts only memory in use and repeats from run to run; this takes
# up to twice the time
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def cpu_seconds() -> float:
    """Return the user and system time of this process and its finished children, in seconds."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def wall_seconds(device: str) -> float:
    """Return the time of the clock; on a GPU, wait first until it has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(device: str) -> float:
    """Return CPU seconds, which depend little on how busy the machine is, or :func:`wall_seconds` on a GPU."""
    return cpu_seconds() if device == "cpu" else wall_seconds(device)


def peak_growth(call: Callable[[], Any], device: str = "cpu") -> float:
    """Return the growth of this process's memory to its peak during a call, in MiB (Linux)."""
    if device != "cpu":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    held = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    call()
    return _resident("VmHWM") - held


def peak_resident() -> float:
    """Return the peak of this process's memory, in MiB (Linux)."""
    return _resident("VmHWM")


def run_apart(*arguments: str, environment: Mapping[str, str] = RETURN_FREED_MEMORY) -> str:
    """Run ``python -m scripts.tools.benchmark`` in a new process, which has its own peak; return its last line."""
    command = [sys.executable, "-W", "ignore", "-m", "scripts.tools.benchmark", *arguments]
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    return child.stdout.splitlines()[-1]


def describe_machine(device: str = "cpu") -> str:
    threads = f"{torch.get_num_threads()} thread(s)" if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {threads}, torch {torch.__version__}"


def _resident(field: str) -> float:
    """Read a memory field of the kernel, in MiB; getrusage would include the parent's peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024
