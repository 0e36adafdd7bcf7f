"""Makes the network of a task from the configuration file that defines it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["read_network"]


def read_network(file: str | Path, refine_steps: int | None = None, **changes: Any) -> nn.Module:
    """Make the ``network_def`` of a configuration file, so that training and use have one definition.

    Args:
        file: the configuration file, such as ``configs/cardiac.yaml``.
        refine_steps: number of repeats at full resolution, for files that refer to it; None is the default of the file.
        changes: arguments of the network that replace those of the file, such as ``num_repeats``.
    """
    from monai.bundle import ConfigParser  # takes seconds, and is only needed for configurations

    parser = ConfigParser()
    parser.read_config(str(file))
    parser["refine_steps"] = refine_steps
    for name, value in changes.items():
        parser[f"network_def#{name}"] = value
    return parser.get_parsed_content("network_def")
