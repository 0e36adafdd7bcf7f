"""Speed and training memory, compared with the straightforward reference in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ...networks import Backprop, GraDIRN
from .machine import describe_machine, peak_growth, run_apart, wall_seconds
from .reference import ReferenceGraDIRN

__all__ = ["MEMORY_VARIANTS", "interleaved_medians", "print_memory", "print_speed", "training_peak"]

SPEED_CASES = {"2D 160x160, batch 10": (10, (160, 160)), "3D 64x64x64, batch 1": (1, (64, 64, 64))}
MEMORY_VARIANTS = ("reference", "gradirn", "gradirn_checkpoint")


def print_speed(runs: int, device: str) -> None:
    """Print median seconds of evaluations and training steps, and how many times faster than the reference they are."""
    print(f"{describe_machine(device)}\n")
    print("| | reference, s | GraDIRN, s | times faster | bfloat16, s | times faster |")
    print("|---|---|---|---|---|---|")
    for training in (False, True):
        for name, (batch, size) in SPEED_CASES.items():
            network, reference = _networks(len(size), device)
            image = torch.rand(batch, 2, *size, device=device)
            kinds: list[tuple[nn.Module, bool]] = [
                (reference, False),
                (network, False),
                *([(network, True)] if _has_bfloat16(device) else []),
            ]
            calls = [partial(_run, net, image, training, half) for net, half in kinds]
            first, *others = interleaved_medians(calls, runs, device)
            cells = [f"{first:.3f}", *(text for other in others for text in (f"{other:.3f}", f"{first / other:.2f}"))]
            row = [f"{'training step' if training else 'evaluation'}, {name}", *cells, *["-"] * (5 - len(cells))]
            print(f"| {' | '.join(row)} |", flush=True)


def _run(network: nn.Module, image: torch.Tensor, training: bool, half: bool) -> None:
    # the reference cannot run in inference mode
    with torch.set_grad_enabled(training), torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        result = network(image)
    if training:
        network.zero_grad()
        result.square().mean().backward()


def _has_bfloat16(device: str) -> bool:
    if device != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def interleaved_medians(calls: Sequence[Callable[[], Any]], runs: int, device: str = "cpu") -> list[float]:
    """Return the median seconds of each call; all are called in turn, ``runs`` times after one warm-up round."""
    found: list[list[float]] = [[] for _ in calls]
    for run in range(runs + 1):
        for call, times in zip(calls, found):
            start = wall_seconds(device)
            call()
            if run > 0:
                times.append(wall_seconds(device) - start)
    return [statistics.median(times) for times in found]


def print_memory(size: int, threads: int, device: str) -> None:
    """Print the peak memory of one training step, and its ratio to that of the reference."""
    print(f"{describe_machine(device)}\n\n| training step, 3D {size}^3, float32 | peak, MiB | of the reference |")
    print("|---|---|---|")
    peaks: dict[str, float] = {}
    for variant in MEMORY_VARIANTS:
        options = ("--size", str(size), "--threads", str(threads), "--device", device)
        peaks[variant] = float(run_apart("memory", "--variant", variant, *options))
        print(f"| {variant} | {peaks[variant]:.0f} | {peaks[variant] / peaks['reference']:.2f} |", flush=True)


def training_peak(variant: str, size: int, device: str) -> float:
    """Return the growth of this process's memory to its peak in one training step, in MiB (Linux).

    A small step before the measurement loads the libraries.
    """
    network, reference = _networks(3, device, checkpoint=variant.endswith("checkpoint"))
    chosen = reference if variant == "reference" else network
    training_step(chosen, torch.rand(1, 2, 16, 16, 16, device=device))
    return peak_growth(lambda: training_step(chosen, torch.rand(1, 2, size, size, size, device=device)), device)


def training_step(network: nn.Module, image: torch.Tensor) -> None:
    _run(network, image, training=True, half=False)


def _networks(spatial_dims: int, device: str, checkpoint: bool = False) -> tuple[GraDIRN, ReferenceGraDIRN]:
    network = GraDIRN(spatial_dims, backprop=Backprop(checkpoint)).to(device)
    reference = ReferenceGraDIRN(spatial_dims).to(device)
    reference.copy_parameters(network)
    return network, reference
