"""Speed and training memory; every figure is a ratio to the straightforward reference, measured in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..networks import GraDIRN
from .machine import describe_machine, peak_growth, run_apart, wall_seconds
from .reference import ReferenceGraDIRN

__all__ = ["MEMORY_VARIANTS", "interleaved_medians", "print_memory", "print_speed", "training_peak"]

SPEED_CASES = {"2D 160x160, batch 10": (10, (160, 160)), "3D 64x64x64, batch 1": (1, (64, 64, 64))}
MEMORY_VARIANTS = ("reference", "gradirn", "gradirn_checkpoint")


def print_speed(runs: int, device: str) -> None:
    """Median seconds of an evaluation, and how many times the reference's speed that is."""
    print(f"{describe_machine(device)}\n\n| evaluation, float32 | reference, s | GraDIRN, s | times faster |")
    print("|---|---|---|---|")
    for name, (batch, size) in SPEED_CASES.items():
        network, reference = _networks(len(size), device)
        image = torch.rand(batch, 2, *size, device=device)
        with torch.no_grad():  # the reference cannot run in inference mode
            medians = interleaved_medians([partial(reference, image), partial(network, image)], runs, device)
        print(f"| {name} | {medians[0]:.3f} | {medians[1]:.3f} | {medians[0] / medians[1]:.2f} |", flush=True)


def interleaved_medians(calls: list[Callable[[], Any]], runs: int, device: str = "cpu") -> list[float]:
    """Median seconds of each call, called in turn ``runs`` times after one warm-up round."""
    found: list[list[float]] = [[] for _ in calls]
    for run in range(runs + 1):
        for call, times in zip(calls, found):
            start = wall_seconds(device)
            call()
            if run > 0:
                times.append(wall_seconds(device) - start)
    return [statistics.median(times) for times in found]


def print_memory(size: int, threads: int, device: str) -> None:
    """Growth of the peak over one training step, and its ratio to the reference's."""
    print(f"{describe_machine(device)}\n\n| training step, 3D {size}^3, float32 | peak, MiB | of the reference |")
    print("|---|---|---|")
    peaks: dict[str, float] = {}
    for variant in MEMORY_VARIANTS:
        options = ("--size", str(size), "--threads", str(threads), "--device", device)
        peaks[variant] = float(run_apart("memory", "--variant", variant, *options))
        print(f"| {variant} | {peaks[variant]:.0f} | {peaks[variant] / peaks['reference']:.2f} |", flush=True)


def training_peak(variant: str, size: int, device: str) -> float:
    """MiB between the memory this process holds and its peak in one training step (Linux).

    A small step before loads the libraries.
    """
    network, reference = _networks(3, device, checkpoint_steps=variant.endswith("checkpoint"))
    chosen = reference if variant == "reference" else network
    training_step(chosen, torch.rand(1, 2, 16, 16, 16, device=device))
    return peak_growth(lambda: training_step(chosen, torch.rand(1, 2, size, size, size, device=device)), device)


def training_step(network: nn.Module, image: torch.Tensor) -> None:
    network.zero_grad()
    network(image).square().mean().backward()


def _networks(spatial_dims: int, device: str, checkpoint_steps: bool = False) -> tuple[GraDIRN, ReferenceGraDIRN]:
    network = GraDIRN(spatial_dims, checkpoint_steps=checkpoint_steps).to(device)
    reference = ReferenceGraDIRN(spatial_dims).to(device)
    reference.copy_parameters(network)
    return network, reference
