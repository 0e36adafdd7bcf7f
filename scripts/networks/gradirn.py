"""GraDIRN: gradient-based registration, unrolled over a pyramid, with a learned regularizer.

H. Qiu, K. Hammernik, C. Qin, C. Chen, D. Rueckert, "Embedding Gradient-based Optimization in Image Registration
Networks", MICCAI 2022, arXiv 2112.03915.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from monai.data import MetaTensor
from torch import nn

from ..support.errors import InputError
from .checks import check_image
from .features import Features
from .guidance import Guidance, GuidanceLayout
from .initialisation import initialise
from .kernels.compiled import compiled_if_possible
from .kernels.memory import COMPILED
from .kernels.sampling import resize, upsample
from .kernels.tracing import Traced, new_tensor
from .levels import for_each_level
from .regularizer import CNN
from .step import Block, Gradient, StepRule, fit_labels

__all__ = ["Backprop", "DeepSupervision", "GraDIRN", "compile_steps"]

UPDATES = ("add", "compose")
GUIDANCE_BYTES = 16  # for each channel and voxel: itself, on its level, warped, and its part of what is at once

_compiled_call = compiled_if_possible(lambda module, *tensors: module(*tensors))


@dataclass(frozen=True)
class Backprop:
    """How a training uses memory.

    Args:
        checkpoint: do not keep the activations of each step, but compute them again in the backward pass, in parts of
            the volume.
        repeats: differentiate only this many of the last repeats of a block, so that the memory does not grow with the
            number of repeats; the earlier repeats count as the identity. None differentiates all.

    Raises:
        InputError: when ``repeats`` is less than 1.
    """

    checkpoint: bool = False
    repeats: int | None = None

    def __post_init__(self) -> None:
        if self.repeats is not None and self.repeats < 1:
            raise InputError(f"the differentiated repeats must be at least 1, got {self.repeats}.")


class GraDIRN(nn.Module):
    """Registers pairs of images by unrolled gradient steps from coarse to fine; the defaults are the paper's.

    Level l of an image pyramid has ``num_blocks[l]`` blocks, each with its own parameters and applied
    ``num_repeats[l]`` times. The displacement starts at zero at the coarsest level; from level to level it is upsampled
    and its values are doubled. A level with 0 blocks only upsamples, so that the network can work below the full
    resolution. :func:`~scripts.networks.initialise` changes how a training starts, and :func:`compile_steps` how an
    evaluation runs.

    Args:
        spatial_dims: 2 or 3.
        num_blocks: number of blocks of each level, coarse to fine.
        num_repeats: how often each block of a level is applied.
        step: the explicit step, ``Gradient`` as published or ``Demons``; one rule or one for each level.
        regularizer: the learned part of the step, one CNN or one for each level; None leaves it out.
        update: ``add`` steps to the displacement, as published, or ``compose`` them with it.
        ddf_smoothing: standard deviation of a Gaussian filter of the displacement after each step, in voxels of its
            level: the regularizer of the demons algorithm, in addition to the learned one; 0 is none. One value or one
            for each level.
        features: learned channels of the images that drive the ``Demons`` step together with the intensities.
        backprop: how a training uses memory.

    Raises:
        InputError: a ValueError, for an option out of range.

    Example::

        >>> net = GraDIRN(spatial_dims=2)
        >>> ddf = net(torch.rand(1, 2, 160, 160))  # channel 0 moving, channel 1 fixed
        >>> ddf.shape
        torch.Size([1, 2, 160, 160])
        >>> steps = [Gradient("ssd"), Gradient("ssd"), Demons(LNCC(5), smoothing=1.5)]
        >>> net = GraDIRN(2, step=steps, regularizer=[CNN(32), CNN(16), None], update="compose")
    """

    def __init__(
        self,
        spatial_dims: int,
        num_blocks: Sequence[int] = (1, 1, 1),
        num_repeats: Sequence[int] = (3, 3, 3),
        step: StepRule | Sequence[StepRule] = Gradient("ssd"),
        regularizer: CNN | Sequence[CNN | None] | None = CNN(32),
        update: str = "add",
        ddf_smoothing: float | Sequence[float] = 0.0,
        features: Features | None = None,
        backprop: Backprop = Backprop(),
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise InputError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if update not in UPDATES:
            raise InputError(f"unknown update '{update}': expected one of {', '.join(UPDATES)}.")
        num_levels = _count_levels(num_blocks, num_repeats)
        rules: tuple[StepRule, ...] = for_each_level("step", step, num_levels)
        cnns: tuple[CNN | None, ...] = for_each_level("regularizer", regularizer, num_levels)
        smoothings: tuple[float, ...] = for_each_level("ddf_smoothing", ddf_smoothing, num_levels)
        self.used_features = features.used_on(num_levels) if features else (0,) * num_levels
        if any(count and isinstance(rule, Gradient) for count, rule in zip(self.used_features, rules)):
            raise InputError("features need the Demons step on the levels that use them, got Gradient.")
        self.spatial_dims = spatial_dims
        self.rules = rules
        self.num_repeats = tuple(num_repeats)
        self.num_steps = sum(blocks * repeats for blocks, repeats in zip(num_blocks, num_repeats))
        self.backprop = backprop
        self.steps_compiled = False
        self.features = features.build(spatial_dims) if features else None
        self.levels = nn.ModuleList(
            nn.ModuleList(
                Block(spatial_dims, rule, cnn, update, smoothing, count, backprop.checkpoint) for _ in range(blocks)
            )
            for blocks, rule, cnn, smoothing, count in zip(num_blocks, rules, cnns, smoothings, self.used_features)
        )
        initialise(self)

    def extra_repr(self) -> str:
        return f"num_repeats={self.num_repeats}, used_features={self.used_features}, {self.backprop}"

    @property
    def minimum_size(self) -> int:
        """Smallest size of an image along each axis: the coarsest levels of pyramid and features need two voxels."""
        coarsest = 2 ** (len(self.levels) - 1)
        return 1 + (coarsest if self.features is None else max(coarsest, self.features.factor))

    @property
    def has_fine_steps(self) -> bool:
        """Whether the steps of the finest level fit a finer grid, too: nothing is learned there but the step size."""
        blocks = cast("list[list[Block]]", self.levels)[-1]
        return bool(blocks) and self.used_features[-1] == 0 and all(block.cnn is None for block in blocks)

    def evaluation_bytes(self, size: Sequence[int], guidance_channels: int = 0) -> int:
        """Estimate the memory in bytes that the registration of one pair of this size takes, without gradients.

        Args:
            size: spatial size of the pair.
            guidance_channels: channels of the input behind the two images.
        """
        levels = cast("list[list[Block]]", self.levels)
        level, block = [(n, blocks[0]) for n, blocks in enumerate(levels) if blocks and self.num_repeats[n]][-1]
        voxels = math.prod(size) / 2 ** (self.spatial_dims * (len(self.levels) - 1 - level))
        each = block.bytes_per_voxel * (COMPILED if self.steps_compiled else 1) + GUIDANCE_BYTES * guidance_channels
        return int(voxels * each)

    def taus(self) -> dict[str, float]:
        """Return tau of each block, by the name ``level_<l>_block_<b>``."""
        levels = cast("list[list[Block]]", self.levels)
        return {
            f"level_{level}_block_{index}": block.tau.item()
            for level, blocks in enumerate(levels)
            for index, block in enumerate(blocks)
        }

    def __prepare_scriptable__(self) -> nn.Module:
        """Give ``torch.jit.script``, and so MONAI's ``ckpt_export``, a trace of the network to compile."""
        return Traced(self, self.spatial_dims, self.minimum_size)

    def forward(self, image: torch.Tensor, layout: GuidanceLayout | None = None) -> torch.Tensor:
        """Register a batch.

        Args:
            image: moving (channel 0) and fixed (channel 1), scaled to [0, 1], shape (B, 2, *spatial). A MetaTensor is
                used as a plain tensor.
            layout: further channels of ``image``, which guide the steps; None means that there are none.

        Returns:
            the ddf in voxels, shape (B, spatial_dims, *spatial), float32 (float64 for float64 images), also under AMP.

        Raises:
            InputError: when the image does not have this shape.
        """
        image, guidance = _split(image, layout)
        level, ddf = deque(self.steps(image, guidance=guidance), maxlen=1).pop()
        return self.to_full_size(ddf, level, image)

    def steps(
        self,
        image: torch.Tensor,
        channels: tuple[torch.Tensor, torch.Tensor] | None = None,
        guidance: Guidance | None = None,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the level, 0 for the coarsest, and the ddf in voxels of this level after each unrolled step.

        Args:
            image: see :meth:`forward`.
            channels: result of :meth:`with_features`, if it is known already.
            guidance: what else drives the steps.
        """
        moving, fixed = channels or self.with_features(image)
        ddf = new_tensor(torch.zeros, [image.shape[0], self.spatial_dims, *self._level_size(image, 0)], moving)
        for level, blocks in enumerate(cast("list[nn.ModuleList]", self.levels)):
            size = self._level_size(image, level)
            ddf = upsample(ddf, size) if level > 0 else ddf
            if len(blocks) * self.num_repeats[level] == 0:
                continue
            used = slice(1 + self.used_features[level])
            images = (resize(moving[:, used], size), resize(fixed[:, used], size))
            steps = self._steps_on(level, self.num_repeats[level], ddf, images, guidance)
            for ddf in steps:
                yield level, ddf

    def fine_steps(
        self, image: torch.Tensor, ddf: torch.Tensor, count: int, layout: GuidanceLayout | None = None
    ) -> torch.Tensor:
        """Continue on a grid that is twice as fine, by steps of the finest level; see :attr:`has_fine_steps`.

        Args:
            image: as in :meth:`forward`, on the fine grid, shape (B, C, *spatial).
            ddf: the result at half the size of the image, in voxels there.
            count: how often each block is applied.
            layout: as in :meth:`forward`.

        Returns:
            the ddf in voxels of the fine grid, shape (B, spatial_dims, *spatial).
        """
        image, guidance = _split(image, layout)
        images = (image[:, :1].float(), image[:, 1:2].float())
        steps = self._steps_on(len(self.levels) - 1, count, upsample(ddf, image.shape[2:]), images, guidance)
        return deque(steps, maxlen=1).pop()

    def _steps_on(
        self,
        level: int,
        repeats: int,
        ddf: torch.Tensor,
        images: tuple[torch.Tensor, torch.Tensor],
        guidance: Guidance | None,
    ) -> Iterator[torch.Tensor]:
        """Yield the ddf after each step of a level; moving and fixed image are on the grid of the ddf."""
        moving, fixed = (self.rules[level].describe(image) for image in images)
        on_level = guidance and guidance.on_grid(ddf.shape[2:], self.rules[level].similarity)
        for block in cast("list[nn.ModuleList]", self.levels)[level]:
            for repeats_left in reversed(range(repeats)):
                ddf = self._step(block, (ddf, fixed, moving), on_level, repeats_left)
                yield ddf
        if on_level and on_level.labels is not None:
            yield fit_labels(ddf, on_level)

    def with_features(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the moving and the fixed image, each with its features, shape (B, 1 + num_features, *spatial)."""
        check_image(image, self.spatial_dims, self.minimum_size)
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        moving, fixed = (image if image.dtype == torch.float64 else image.float()).split(1, dim=1)
        if self.features is None:
            return moving, fixed
        features = self.features(torch.cat([moving, fixed]).to(next(self.features.parameters()).dtype)).to(moving.dtype)
        batch = image.shape[0]  # an export would make a constant of chunk(2) or len(image)
        return torch.cat([moving, features[:batch]], 1), torch.cat([fixed, features[batch:]], 1)

    def to_full_size(self, ddf: torch.Tensor, level: int, image: torch.Tensor) -> torch.Tensor:
        """Upsample a ddf of :meth:`steps` from its level to the voxels of the image."""
        for finer in range(level + 1, len(self.levels)):
            ddf = upsample(ddf, self._level_size(image, finer))
        return ddf

    def _step(
        self, block: nn.Module, state: tuple[torch.Tensor, ...], guidance: Guidance | None, repeats_left: int
    ) -> torch.Tensor:
        """Apply a block once to ddf, fixed and moving image; it will be applied ``repeats_left`` more times."""
        repeats = self.backprop.repeats
        if repeats is not None and repeats_left >= repeats and torch.is_grad_enabled():
            ddf = state[0]
            with torch.no_grad():
                change = block(*state, guidance=guidance) - ddf
            return ddf + change
        if self.steps_compiled and guidance is None and not torch.is_grad_enabled():
            return _compiled_call(block, *state)
        return block(*state, guidance=guidance)

    def _level_size(self, image: torch.Tensor, level: int) -> tuple[int, ...]:
        """Return the size of a level: half per level, rounded up, so that doubled displacements fit odd sizes, too."""
        factor = 2 ** (len(self.levels) - 1 - level)
        return tuple((size + factor - 1) // factor for size in image.shape[2:])


class DeepSupervision(nn.Module):
    """A view of a network that returns all steps and features from ``forward``, as data-parallel training needs.

    Args:
        network: the network; it shares its parameters with the view.
        every_step: return the ddf after each step, not only the last one.

    Raises:
        InputError: when the network has no steps, such as VoxelMorph.
    """

    def __init__(self, network: nn.Module, every_step: bool = True) -> None:
        super().__init__()
        if not isinstance(network, GraDIRN):
            raise InputError(f"deep supervision needs a network with steps, got {type(network).__name__}.")
        self.network = network
        self.every_step = every_step

    def forward(self, image: torch.Tensor) -> dict[str, Any]:
        """Register a batch.

        Returns:
            ``ddfs``, first to last, each of shape (B, d, *spatial) in voxels of the image, and ``features``, those of
            the moving and of the fixed image, each of shape (B, num_features, *spatial).
        """
        network = self.network
        channels = network.with_features(image)
        steps = deque(network.steps(image, channels), maxlen=None if self.every_step else 1)
        return {
            "ddfs": [network.to_full_size(ddf, level, image) for level, ddf in steps],
            "features": tuple(of_image[:, 1:] for of_image in channels),
        }


def compile_steps(network: nn.Module, enabled: bool = True) -> nn.Module:
    """Compile the steps of a GraDIRN by torch.compile, at the first evaluation; a training does not change.

    If compilation is not possible, and for other networks, nothing changes.

    Args:
        network: the network; it is changed in place.
        enabled: False returns to the plain steps.

    Returns:
        the network.
    """
    if isinstance(network, GraDIRN):
        network.steps_compiled = enabled
    return network


def _split(image: torch.Tensor, layout: GuidanceLayout | None) -> tuple[torch.Tensor, Guidance | None]:
    """Split the input of a network into both images, (B, 2, *spatial), and what else drives the steps."""
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    return (plain, None) if layout is None else layout.split(plain.float())


def _count_levels(num_blocks: Sequence[int], num_repeats: Sequence[int]) -> int:
    if len(num_blocks) != len(num_repeats) or not num_blocks or min(*num_blocks, *num_repeats) < 0:
        raise InputError(
            "num_blocks and num_repeats must have the same length, with one non-negative number for each level, "
            f"got {tuple(num_blocks)} and {tuple(num_repeats)}."
        )
    if not any(blocks * repeats for blocks, repeats in zip(num_blocks, num_repeats)):
        raise InputError(f"no step in num_blocks {tuple(num_blocks)} with num_repeats {tuple(num_repeats)}.")
    return len(num_blocks)
