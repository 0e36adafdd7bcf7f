"""The folder of the bundle, and the versions of the software."""

from __future__ import annotations

import json
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

__all__ = ["BUNDLE_ROOT", "versions"]

BUNDLE_ROOT = str(Path(__file__).resolve().parents[2])
PACKAGES = ("torch", "monai", "nibabel", "numpy", "pytorch-ignite")

_version = cache(version)  # which is read from a file


def versions() -> dict[str, str]:
    """Return the versions of the bundle, of Python and of the most important packages."""
    bundle = json.loads((Path(BUNDLE_ROOT) / "configs" / "metadata.json").read_text())["version"]
    packages = {name: _version(name) for name in PACKAGES}
    return {"gradirn": bundle, "python": platform.python_version(), **packages}
