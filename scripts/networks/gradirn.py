"""GraDIRN: gradient-based registration, unrolled over a pyramid, with a learned regularizer.

H. Qiu, K. Hammernik, C. Qin, C. Chen, D. Rueckert, "Embedding Gradient-based Optimization in Image Registration
Networks", MICCAI 2022, arXiv 2112.03915.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from monai.data import MetaTensor
from torch import nn

from ..support.errors import InputError
from .features import Features
from .kernels.compiled import compiled_if_possible
from .kernels.memory import COMPILED
from .kernels.sampling import resize, upsample
from .kernels.tracing import Traced, new_tensor
from .regularizer import Regularizer
from .similarity import get_similarity
from .step import Block

__all__ = ["DeepSupervision", "GraDIRN"]

REGULARIZER_INPUTS = ("warped", "moving", "none", "step")
UPDATES = ("add", "compose")
T = TypeVar("T")

_compiled_call = compiled_if_possible(lambda module, *tensors: module(*tensors))


class GraDIRN(nn.Module):
    """Registers pairs of images by K unrolled gradient steps from coarse to fine; the defaults are the paper's.

    Level l of an image pyramid has ``num_blocks[l]`` blocks, each with parameters of its own and applied
    ``num_repeats[l]`` times. The displacement starts at zero at the coarsest level and is upsampled, its values
    doubled, from level to level. A level with 0 blocks only upsamples, which makes the network work at a fraction of
    the full resolution.

    Args:
        spatial_dims: 2 or 3.
        num_blocks: blocks of each level, coarse to fine.
        num_repeats: how often each block of a level is applied.
        similarity: ``ssd``, ``ncc`` or ``lncc``, the energy D whose gradient drives the steps, one name or one for each
            level.
        update: ``add`` steps to the displacement, as published, or ``compose`` them with it.
        regularizer_input: ``warped`` ("explicit" in the paper), ``moving`` ("implicit"), ``none``, or ``step``, which
            adds the explicit step to ``warped``.
        normalize_step: divide the gradient as the demons algorithm does, so that no step is longer than tau / 2 voxels;
            one answer or one for each level.
        step_smoothing: standard deviation of a Gaussian filter of the explicit step, in voxels of its level, one number
            or one for each level; 0 is none.
        ddf_smoothing: likewise, of the displacement after each step: the demons algorithm's regularizer, beside r.
        num_features: learned channels of the images that drive the normalized step beside the intensities.
        feature_channels: of each level of the U-Net that makes them, fine to coarse.
        use_features: whether they drive the steps, or how many of the first of them; one answer or one for each level.
        feature_units: residual units of each level of the U-Net.
        num_channels: hidden channels of the regularizer, one number or one for each level; 0 leaves it out.
        num_layers: convolutions of the regularizer.
        window_size: window of ``lncc``, in voxels.
        initial_step_size: tau at the start of a training, as used, one value or one for each level; None is the
            published 5 / (number of steps + 1), too much for ``lncc`` where images are flat.
        output_scale: factor of the initial weights of each regularizer's last convolution, 1 as published; a small
            one lets a training start from small smooth steps.
        checkpoint_steps: recompute the activations of each step in the backward pass instead of keeping them, in parts
            of the volume.
        gradient_repeats: differentiate only so many of the last repeats of a block, so that the memory of a training
            does not grow with their number; through those before, the gradient passes as if they were the identity.
        gate: multiply the regularizer's output by a gate that is closed where nothing moves, so that an image that is
            registered to itself stays where it is.
        compile_steps: in evaluation, let torch.compile make the step of each block, at the first call; where it cannot,
            nothing changes.

    Raises:
        InputError: a ValueError, for an option out of its range.

    Example::

        >>> net = GraDIRN(spatial_dims=2)
        >>> ddf = net(torch.rand(1, 2, 160, 160))  # channel 0 moving, channel 1 fixed
        >>> ddf.shape
        torch.Size([1, 2, 160, 160])
    """

    def __init__(
        self,
        spatial_dims: int,
        num_blocks: Sequence[int] = (1, 1, 1),
        num_repeats: Sequence[int] = (3, 3, 3),
        similarity: str | Sequence[str] = "ssd",
        update: str = "add",
        regularizer_input: str = "warped",
        normalize_step: bool | Sequence[bool] = False,
        step_smoothing: float | Sequence[float] = 0.0,
        ddf_smoothing: float = 0.0,
        num_features: int = 0,
        feature_channels: Sequence[int] = (16, 32, 32),
        use_features: bool | int | Sequence[bool | int] = True,
        feature_units: int = 0,
        num_channels: int | Sequence[int] = 32,
        num_layers: int = 5,
        window_size: int = 9,
        initial_step_size: float | Sequence[float | None] | None = None,
        output_scale: float = 1.0,
        checkpoint_steps: bool = False,
        gradient_repeats: int | None = None,
        gate: bool = False,
        compile_steps: bool = False,
    ) -> None:
        super().__init__()
        if gradient_repeats is not None and gradient_repeats < 1:
            raise InputError(f"gradient_repeats must be at least 1, got {gradient_repeats}.")
        if spatial_dims not in (2, 3):
            raise InputError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if len(num_blocks) != len(num_repeats) or not num_blocks or min(*num_blocks, *num_repeats) < 0:
            raise InputError(
                "num_blocks and num_repeats must be of the same length, one non-negative number a level, "
                f"got {tuple(num_blocks)} and {tuple(num_repeats)}."
            )
        num_levels = len(num_blocks)
        channels = _for_each_level("num_channels", num_channels, num_levels)
        smoothing = _for_each_level("step_smoothing", step_smoothing, num_levels)
        given: tuple[float | None, ...] = _for_each_level("initial_step_size", initial_step_size, num_levels)
        names: tuple[str, ...] = _for_each_level("similarity", similarity, num_levels)
        normalized = _for_each_level("normalize_step", normalize_step, num_levels)
        wanted = _for_each_level("use_features", use_features, num_levels)
        self.used_features = tuple(num_features if count is True else min(int(count), num_features) for count in wanted)
        if num_features and any(used and not step for used, step in zip(self.used_features, normalized)):
            raise InputError(f"num_features {num_features} needs normalize_step on the levels that use them.")
        if regularizer_input not in REGULARIZER_INPUTS:
            raise InputError(
                f"unknown regularizer_input '{regularizer_input}': expected one of {', '.join(REGULARIZER_INPUTS)}."
            )
        if update not in UPDATES:
            raise InputError(f"unknown update '{update}': expected one of {', '.join(UPDATES)}.")
        self.num_steps = sum(b * r for b, r in zip(num_blocks, num_repeats))
        if self.num_steps == 0:
            raise InputError(f"no step in num_blocks {tuple(num_blocks)} with num_repeats {tuple(num_repeats)}.")
        self.spatial_dims = spatial_dims
        self.num_repeats = tuple(num_repeats)
        self.gradient_repeats = gradient_repeats
        self.compile_steps = compile_steps
        step_sizes = [5 / (self.num_steps + 1) if tau is None else tau for tau in given]
        self.features = Features(spatial_dims, num_features, feature_channels, feature_units) if num_features else None
        self.levels = nn.ModuleList(
            nn.ModuleList(
                Block(
                    spatial_dims,
                    get_similarity(names[level], window_size),
                    update,
                    regularizer_input,
                    normalized[level],
                    smoothing[level],
                    ddf_smoothing,
                    self.used_features[level],
                    step_sizes[level],
                    channels[level],
                    num_layers,
                    checkpoint_steps,
                    gate,
                )
                for _ in range(count)
            )
            for level, count in enumerate(num_blocks)
        )
        for module in self.modules():
            if isinstance(module, Regularizer):
                cast("torch.Tensor", module.convs[-1].weight).data.mul_(output_scale)

    @property
    def minimum_size(self) -> int:
        """Voxels that an image needs along each axis, so that the coarsest level, and that of the features, has two."""
        coarsest = 2 ** (len(self.levels) - 1)
        return 1 + (coarsest if self.features is None else max(coarsest, self.features.factor))

    def evaluation_bytes(self, size: Sequence[int]) -> int:
        """About how much memory it takes, without gradients, to register one pair of images of this size."""
        levels = cast("list[list[Block]]", self.levels)
        level, block = [(n, blocks[0]) for n, blocks in enumerate(levels) if blocks and self.num_repeats[n]][-1]
        voxels = math.prod(size) / 2 ** (self.spatial_dims * (len(self.levels) - 1 - level))
        return int(voxels * block.bytes_per_voxel * (COMPILED if self.compile_steps else 1))

    def taus(self) -> dict[str, float]:
        """tau of each block, by ``level_<l>_block_<b>``, as used."""
        levels = cast("list[list[Block]]", self.levels)
        return {
            f"level_{level}_block_{index}": block.tau.item()
            for level, blocks in enumerate(levels)
            for index, block in enumerate(blocks)
        }

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script``, and so MONAI's ``ckpt_export``, compiles in place of the network: its trace."""
        return Traced(self, self.spatial_dims, self.minimum_size)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Register a batch.

        Args:
            image: moving (channel 0) and fixed (channel 1), scaled to [0, 1], shape (B, 2, *spatial). A MetaTensor is
                taken as a plain tensor.

        Returns:
            the ddf in voxels, shape (B, spatial_dims, *spatial), float32 (float64 for float64 images) also under AMP.

        Raises:
            InputError: when the shape is not the one expected.
        """
        level, ddf = deque(self.steps(image), maxlen=1).pop()
        return self.to_full_size(ddf, level, image)

    def steps(
        self, image: torch.Tensor, channels: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the level, 0 for the coarsest, and the ddf in that level's voxels after each unrolled step.

        ``channels`` is what :meth:`with_features` gives, where it is known already.
        """
        moving, fixed = channels or self.with_features(image)
        ddf = new_tensor(torch.zeros, [image.shape[0], self.spatial_dims, *self._level_size(image, 0)], moving)
        for level, blocks in enumerate(cast("list[nn.ModuleList]", self.levels)):
            size = self._level_size(image, level)
            ddf = upsample(ddf, size) if level > 0 else ddf
            if len(blocks) * self.num_repeats[level] == 0:
                continue
            used = slice(1 + self.used_features[level])
            level_moving, level_fixed = resize(moving[:, used], size), resize(fixed[:, used], size)
            for block in blocks:
                for repeats_left in reversed(range(self.num_repeats[level])):
                    ddf = self._step(block, ddf, level_fixed, level_moving, repeats_left)
                    yield level, ddf

    def with_features(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The moving and the fixed image of a batch, each followed by its features, (B, 1 + num_features, *spatial)."""
        self._check(image)
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        moving, fixed = (image if image.dtype == torch.float64 else image.float()).split(1, dim=1)
        if self.features is None:
            return moving, fixed
        features = self.features(torch.cat([moving, fixed]).to(next(self.features.parameters()).dtype)).to(moving.dtype)
        batch = image.shape[0]  # neither chunk(2) nor len(image), which an export would take for a constant
        return torch.cat([moving, features[:batch]], 1), torch.cat([fixed, features[batch:]], 1)

    def to_full_size(self, ddf: torch.Tensor, level: int, image: torch.Tensor) -> torch.Tensor:
        """Carry a ddf of :meth:`steps` from its level to the voxels of the image."""
        for finer in range(level + 1, len(self.levels)):
            ddf = upsample(ddf, self._level_size(image, finer))
        return ddf

    def _step(
        self, block: nn.Module, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor, repeats_left: int
    ) -> torch.Tensor:
        """One step, after which the block is applied ``repeats_left`` times more."""
        if self.gradient_repeats is not None and repeats_left >= self.gradient_repeats and torch.is_grad_enabled():
            with torch.no_grad():
                change = block(ddf, fixed, moving) - ddf
            return ddf + change
        if self.compile_steps and not torch.is_grad_enabled():
            return _compiled_call(block, ddf, fixed, moving)
        return block(ddf, fixed, moving)

    def _level_size(self, image: torch.Tensor, level: int) -> tuple[int, ...]:
        """Half the size a level, rounded up: then twice the displacement fits odd sizes too."""
        factor = 2 ** (len(self.levels) - 1 - level)
        return tuple((size + factor - 1) // factor for size in image.shape[2:])

    def _check(self, image: torch.Tensor) -> None:
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != 2 or min(image.shape[2:]) < self.minimum_size:
            raise InputError(
                f"image must have shape (B, 2, {', '.join('HWD'[: self.spatial_dims])}), channel 0 moving and channel "
                f"1 fixed, with at least {self.minimum_size} voxels along each axis; got {tuple(image.shape)}."
            )


class DeepSupervision(nn.Module):
    """A view of a network for losses on what it has inside, in a forward pass, which data-parallel training needs.

    Args:
        network: shares its parameters with the view.
        every_step: give the ddf after each step, not only the last.

    Raises:
        InputError: when the network has no steps, as VoxelMorph.
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
            ``ddfs``, first to last, each of shape (B, d, *spatial) in voxels of the image, and ``features`` of the
            moving and the fixed image, shape (B, num_features, *spatial) each.
        """
        network = self.network
        channels = network.with_features(image)
        steps = deque(network.steps(image, channels), maxlen=None if self.every_step else 1)
        return {
            "ddfs": [network.to_full_size(ddf, level, image) for level, ddf in steps],
            "features": tuple(of_image[:, 1:] for of_image in channels),
        }


def _for_each_level(name: str, value: T | Sequence[T], num_levels: int) -> tuple[T, ...]:
    one = value is None or isinstance(value, (str, int, float))
    values = (cast("T", value),) * num_levels if one else tuple(cast("Sequence[T]", value))
    if len(values) != num_levels:
        raise InputError(f"{name} must be one value or one for each of {num_levels} levels, got {values}.")
    return values
