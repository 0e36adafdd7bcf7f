"""Command line of the benchmarks; every figure is a ratio to the straightforward reference, measured in one run."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..networks import GraDIRN
from .reference import ReferenceGraDIRN

SPEED_CASES = {"2D 160x160, batch 10": (10, (160, 160)), "3D 64x64x64, batch 1": (1, (64, 64, 64))}
# glibc: give freed blocks back at once, so that the peak is that of what is alive and repeats from run to run
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MEMORY_VARIANTS = ("reference", "gradirn", "gradirn_checkpoint")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed", help="evaluation of the published configuration, interleaved")
    speed.add_argument("--threads", type=int, default=1)
    speed.add_argument("--runs", type=int, default=7)
    memory = commands.add_parser("memory", help="peak memory of one training step, a process for each variant")
    memory.add_argument("--size", type=int, default=64, help="side of the cube")
    memory.add_argument("--threads", type=int, default=1)
    memory.add_argument("--variant", choices=MEMORY_VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.command == "speed":
        print_speed(arguments.runs)
    elif arguments.variant:
        print(training_peak(arguments.variant, arguments.size))
    else:
        print_memory(arguments.size, arguments.threads)


def print_speed(runs: int) -> None:
    """Median seconds of an evaluation, and how many times the reference's speed that is."""
    print(
        f"{describe_machine()}\n\n| evaluation, float32 | reference, s | GraDIRN, s | times faster |\n|---|---|---|---|"
    )
    for name, (batch, size) in SPEED_CASES.items():
        network, reference = _networks(len(size))
        image = torch.rand(batch, 2, *size)
        with torch.no_grad():  # the reference cannot run in inference mode
            medians = interleaved_medians([partial(reference, image), partial(network, image)], runs)
        print(f"| {name} | {medians[0]:.3f} | {medians[1]:.3f} | {medians[0] / medians[1]:.2f} |", flush=True)


def interleaved_medians(calls: list[Callable[[], Any]], runs: int) -> list[float]:
    """Median seconds of each call, called in turn ``runs`` times after one warm-up round."""
    seconds: list[list[float]] = [[] for _ in calls]
    for run in range(runs + 1):
        for call, times in zip(calls, seconds):
            start = time.perf_counter()
            call()
            if run > 0:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def print_memory(size: int, threads: int) -> None:
    """Growth of the resident peak over one training step, and its ratio to the reference's."""
    print(
        f"{describe_machine()}\n\n| training step, 3D {size}^3, float32 | peak, MiB | of the reference |\n|---|---|---|"
    )
    peaks: dict[str, float] = {}
    for variant in MEMORY_VARIANTS:
        command = [sys.executable, "-m", "scripts.benchmark", "memory", "--variant", variant]
        command += ["--size", str(size), "--threads", str(threads)]
        child = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | RETURN_FREED_MEMORY
        )
        peaks[variant] = float(child.stdout)
        print(f"| {variant} | {peaks[variant]:.0f} | {peaks[variant] / peaks['reference']:.2f} |", flush=True)


def training_peak(variant: str, size: int) -> float:
    """MiB between the memory this process holds and its peak in one training step (Linux).

    A small step before loads the libraries.
    """
    network, reference = _networks(3, checkpoint_steps=variant.endswith("checkpoint"))
    chosen = reference if variant == "reference" else network
    training_step(chosen, torch.rand(1, 2, 16, 16, 16))
    before = _process_memory("VmRSS")
    training_step(chosen, torch.rand(1, 2, size, size, size))
    return _process_memory("VmHWM") - before


def _process_memory(field: str) -> float:
    """MiB of resident memory now (VmRSS) or at its peak (VmHWM); getrusage would count the parent's peak too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def training_step(network: nn.Module, image: torch.Tensor) -> None:
    network.zero_grad()
    network(image).square().mean().backward()


def _networks(spatial_dims: int, checkpoint_steps: bool = False) -> tuple[GraDIRN, ReferenceGraDIRN]:
    network = GraDIRN(spatial_dims, checkpoint_steps=checkpoint_steps)
    reference = ReferenceGraDIRN(spatial_dims)
    reference.copy_parameters(network)
    return network, reference


def describe_machine() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


if __name__ == "__main__":
    main()
