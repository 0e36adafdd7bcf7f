"""In which precision the convolutions of a network are computed."""

from __future__ import annotations

import torch

from ...support.errors import InputError

__all__ = ["autocast_dtype"]

# instructions that make bfloat16 fast; oneDNN also runs it without them, more slowly than float32
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def autocast_dtype(amp: bool | str, device: torch.device | str) -> torch.dtype | None:
    """The dtype of the convolutions under AMP, for ``torch.autocast``; None is float32.

    Args:
        amp: ``auto`` takes bfloat16 where the device has it in hardware, and float32 elsewhere; true and false force
            either. The command line hands them on as text.
        device: where the network runs.

    Raises:
        InputError: when ``amp`` is none of the three.
    """
    choice = str(amp).lower()
    if choice not in ("auto", "true", "false"):
        raise InputError(f"--amp is '{amp}': expected auto, true or false.")
    if choice == "auto":
        in_hardware = _gpu_has_bfloat16() if torch.device(device).type == "cuda" else _cpu_has_bfloat16()
        choice = "true" if in_hardware else "false"
    return torch.bfloat16 if choice == "true" else None


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in BFLOAT16_INSTRUCTIONS)


def _gpu_has_bfloat16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)
