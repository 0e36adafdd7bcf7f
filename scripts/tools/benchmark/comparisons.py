"""What is compared on each task: its pairs, the settings of other tools, and networks."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser

from ...cohorts import find_task
from ...registration import Registration
from ...support.bundle import BUNDLE_ROOT
from ...support.errors import InputError
from ...support.files import sha256
from .classical import bspline, demons, greedy, syn, unregistered

__all__ = [
    "COMPARISONS",
    "Comparison",
    "Method",
    "Network",
    "UnavailableError",
    "find_comparison",
    "methods_of",
    "parse_network",
    "read_config",
]

DIGEST_LENGTH = 12


class UnavailableError(Exception):
    """Says in one line why a method cannot run."""


@dataclass(frozen=True)
class Method:
    """A registration method that is ready to run.

    Args:
        name: name in the table.
        settings: description of the settings.
        digest: checksum of everything that the results depend on.
        register: maps a preprocessed ``image``, shape (2, *spatial), to the ddf in voxels, shape (3, *spatial).
        parameters: number of learned parameters; None if nothing was learned.
    """

    name: str
    settings: str
    digest: str
    register: Callable[[torch.Tensor], torch.Tensor]
    parameters: int | None = None


@dataclass(frozen=True)
class Tool:
    """A function of ``classical.py`` with its options, and the package and module that it needs."""

    function: Callable[..., np.ndarray]
    options: Mapping[str, Any] = field(default_factory=dict)
    package: str = "SimpleITK"
    module: str = "SimpleITK"


@dataclass(frozen=True)
class Network:
    """A network: its weights and configuration.

    Args:
        weights: the file, relative to the bundle or absolute; None means the file that the configuration names.
        overlays: overlays of ``evaluate.yaml``, after those of the task.
        overrides: values that replace those of the configuration.
        made_by: the command that makes the weights.
    """

    weights: str | None = None
    overlays: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    made_by: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The pairs of a task, and what registers them.

    Args:
        task: name of the task, whose overlays ``evaluate.yaml`` gets.
        folder: folder of the data set below ``--data``.
        overrides: values of ``evaluate.yaml`` that choose the pairs.
        tools: the tools by name.
        networks: the networks by name.
    """

    task: str
    folder: str
    overrides: Mapping[str, Any]
    tools: Mapping[str, Tool]
    networks: Mapping[str, Network]


def _greedy(options: str) -> Tool:
    return Tool(greedy, {"options": options}, "picsl-greedy", "picsl_greedy")


def _syn(radius: int) -> Tool:
    return Tool(syn, {"radius": radius, "iterations": (40, 20, 10)}, "antspyx", "ants")


def _networks(task: str) -> dict[str, Network]:
    def trained(name: str) -> Network:
        made_by = f"models/train.sh {task}_{name}"
        return Network(f"eval/weights/{task}_{name}/model.pt", (f"{name}.yaml",), made_by=made_by)

    return {"VoxelMorph": trained("voxelmorph"), "GraDIRN, published": trained("published"), "GraDIRN": Network()}


_ALL = (
    Comparison(
        "cardiac",
        "acdc",
        {"subset": "all", "spatial_size": [128, 128, -1]},
        {
            "unregistered": Tool(unregistered),
            "Greedy NCC 4x4": _greedy("-m NCC 4x4 -n 100x100x50 -s 2vox 0.5vox"),
            "Greedy NCC 2x2": _greedy("-m NCC 2x2 -n 100x100x50 -s 1.732vox 0.707vox"),
            "Greedy SSD": _greedy("-m SSD -n 100x100x50 -s 2vox 0.5vox"),
            "demons": Tool(demons, {"sigma": 1.0, "iterations": (100, 100, 50)}),
            "B-spline": Tool(bspline, {"spacing": 8, "iterations": 100}),
            "SyN": _syn(radius=4),
        },
        _networks("cardiac"),
    ),
    Comparison(
        "hippocampus",
        "hippocampus",
        {"test": 40},
        {
            "unregistered": Tool(unregistered),
            "Greedy NCC 2x2x2": _greedy("-m NCC 2x2x2 -n 100x50 -s 2vox 0.5vox"),
            "Greedy SSD": _greedy("-m SSD -n 100x50 -s 2vox 0.5vox"),
            "demons": Tool(demons, {"sigma": 1.0, "iterations": (100, 100, 50)}),
            "SyN": _syn(radius=2),
        },
        _networks("hippocampus"),
    ),
    Comparison(
        "brain",
        "ibsr18_mni2mm",
        {"subset": "all", "labelled": True},
        {
            "unregistered": Tool(unregistered),
            "Greedy NCC 2x2x2 100x50x10": _greedy("-m NCC 2x2x2 -n 100x50x10 -s 1.732vox 0.707vox"),
            "Greedy NCC 2x2x2 100x100x50": _greedy("-m NCC 2x2x2 -n 100x100x50 -s 1.732vox 0.707vox"),
            "demons": Tool(demons, {"sigma": 1.0, "iterations": (100, 100, 50), "match_histograms": True}),
            "SyN": _syn(radius=2),
        },
        _networks("brain"),
    ),
)
COMPARISONS = {comparison.task: comparison for comparison in _ALL}


def find_comparison(task: str) -> Comparison:
    """Return the comparison on a task.

    Raises:
        InputError: when there is none.
    """
    if task not in COMPARISONS:
        raise InputError(f"nothing is compared on the task '{task}': expected one of {', '.join(COMPARISONS)}.")
    return COMPARISONS[task]


def read_config(comparison: Comparison, data: Path, network: Network | None = None) -> ConfigParser:
    """Read ``evaluate.yaml`` with the overlays and overrides of a comparison, and of a network.

    Raises:
        InputError: when a data set, overlay or option does not exist.
    """
    folder = data.expanduser() / comparison.folder
    if not folder.is_dir():
        raise InputError(f"--data: {folder} is not a folder: expected the data set '{comparison.folder}' below {data}.")
    network = network or Network()
    files = [Path(file) for file in find_task(comparison.task).config_files("evaluate")]
    files += [Path(BUNDLE_ROOT) / "configs" / name for name in network.overlays]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} does not exist: expected an overlay with a file in configs/.")
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    for key in network.overrides:
        if re.split("::|#", key)[0] not in parser.get():
            raise InputError(f"--network: unknown option {key}: expected one that evaluate.yaml defines.")
    common = {"bundle_root": BUNDLE_ROOT, "dataset_dir": str(folder), "device": "cpu", "surfaces": False}
    parser.update({**common, **comparison.overrides, **network.overrides})
    if network.weights is not None:
        parser["weights"] = str(Path(BUNDLE_ROOT) / network.weights)
    return parser


def parse_network(text: str) -> tuple[str, Network]:
    """Read a network and its name from ``NAME=WEIGHTS[,OVERLAY.yaml...][,KEY=VALUE...]``.

    Commas in brackets are part of a value.

    Raises:
        InputError: when the text does not have this form, or the file does not exist.
    """
    name, _, rest = text.partition("=")
    weights, *others = re.split(r",(?![^\[]*\])", rest)
    if not name or not weights or not all(other.endswith(".yaml") or "=" in other for other in others):
        raise InputError(f"--network is '{text}': expected NAME=WEIGHTS[,OVERLAY.yaml...][,KEY=VALUE...].")
    path = Path(weights).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"--network: {path} does not exist: expected the weights of '{name}'.")
    overrides = dict(other.split("=", 1) for other in others if "=" in other)
    overlays = tuple(other for other in others if "=" not in other)
    return name, Network(str(path), overlays, {key: yaml.safe_load(value) for key, value in overrides.items()})


def methods_of(comparison: Comparison, data: Path, further: Mapping[str, Network]) -> dict[str, Callable[[], Method]]:
    """Return by name a function that makes each method ready to run, or raises :class:`UnavailableError`."""
    dims = read_config(comparison, data).get_parsed_content("spatial_dims")
    tools = {name: partial(_prepare_tool, name, tool, dims) for name, tool in comparison.tools.items()}
    networks = {**comparison.networks, **further}
    return {**tools, **{name: partial(_prepare_network, name, n, comparison, data) for name, n in networks.items()}}


def _prepare_tool(name: str, tool: Tool, spatial_dims: int) -> Method:
    try:
        importlib.import_module(tool.module)
    except ImportError as error:
        raise UnavailableError(
            f"pip install -r requirements-benchmark.txt installs {tool.package} ({error})"
        ) from error
    options = ", ".join(f"{key} {value}" for key, value in tool.options.items()).removeprefix("options ")
    settings = f"{tool.package} {version(tool.package)}: {options}" if options else "-"
    function = partial(tool.function, **tool.options)
    return Method(name, settings, _digest(settings), partial(_register_with, function, spatial_dims))


def _register_with(function: Callable[..., np.ndarray], spatial_dims: int, image: torch.Tensor) -> torch.Tensor:
    """Register a volume, or a stack slice by slice without through-plane motion."""
    moving, fixed = image.numpy()
    if spatial_dims == 3:
        return torch.from_numpy(function(fixed, moving))
    slices = [function(fixed[..., k], moving[..., k]) for k in range(fixed.shape[-1])]
    ddf = np.stack(slices, axis=-1)
    return torch.from_numpy(np.concatenate([ddf, np.zeros_like(ddf[:1])]))


def _prepare_network(name: str, declared: Network, comparison: Comparison, data: Path) -> Method:
    parser = read_config(comparison, data, declared)
    weights = Path(parser.get_parsed_content("weights"))
    if not weights.is_file():
        raise UnavailableError(
            f"{weights} does not exist" + (f": {declared.made_by} makes it" if declared.made_by else "")
        )
    registration: Registration = parser.get_parsed_content("registration")
    shown = weights.relative_to(BUNDLE_ROOT) if weights.is_relative_to(BUNDLE_ROOT) else weights.name
    overlays = [f"{overlay}.yaml" for overlay in find_task(comparison.task).overlays]
    overrides = [f"{key}={value}" for key, value in declared.overrides.items()]
    settings = ", ".join([str(shown), *overlays, *declared.overlays, *overrides])
    digest = _digest(settings, sha256(weights), str(registration.network))  # which names every option
    parameters = sum(p.numel() for p in registration.network.parameters())
    return Method(name, settings, digest, registration.predict, parameters)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGEST_LENGTH]
