"""How much memory there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

__all__ = ["GIB", "available_memory", "memory_bytes"]

GIB = 2**30
RECLAIMABLE = ("inactive_file", "total_inactive_file")  # the file cache, in cgroups of version 2 and 1
FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def memory_bytes(limit: float | None, device: torch.device | str = "cpu") -> float:
    """The bytes that a registration may take: a limit in GiB, or where there is none, what is free on the device."""
    return available_memory(torch.device(device)) if limit is None else limit * GIB


def available_memory(device: torch.device, root: Path = Path("/")) -> float:
    """Bytes that are free on a device, of the machine and of the containers around this process; infinite if unknown.

    Args:
        device: a GPU or the CPU.
        root: the folder that holds ``proc`` and ``sys``.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    found = [
        float(line.split()[1]) * 1024 for line in _lines(root / "proc/meminfo") if line.startswith("MemAvailable:")
    ]
    return min(
        [*found, *(free for folder in _cgroups(root) if (free := _free(folder)) is not None)], default=float("inf")
    )


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups and of those above; in a container, there may be the top alone."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, place = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / "sys/fs/cgroup" / controllers
            below = Path(place.lstrip("/"))
            yield from (top / folder for folder in (below, *below.parents))


def _free(folder: Path) -> float | None:
    """The bytes that a control group may still take, its file cache included; None if it has no limit."""
    for limit, usage in FILES:
        most, used = _lines(folder / limit), _lines(folder / usage)
        if most and used and most[0] != "max":
            statistics = dict(line.split() for line in _lines(folder / "memory.stat"))
            cache = max(float(statistics.get(key, 0)) for key in RECLAIMABLE)
            return max(0.0, float(most[0]) - float(used[0]) + cache)
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
