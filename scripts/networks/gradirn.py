"""GraDIRN: gradient-based registration, unrolled over a pyramid, with a learned regularizer.

H. Qiu, K. Hammernik, C. Qin, C. Chen, D. Rueckert, "Embedding Gradient-based Optimization in Image Registration
Networks", MICCAI 2022, arXiv 2112.03915.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor
from torch import nn

from ..errors import InputError
from .memory import recomputed
from .regularizer import Regularizer
from .sampling import warp
from .similarity import Similarity, get_similarity, similarity_gradient

__all__ = ["EveryStep", "GraDIRN"]

REGULARIZER_INPUTS = ("warped", "moving", "none")
UPDATES = ("add", "compose")
STEP_SIZE_SCALE = 10.0


class Block(nn.Module):
    """One step of the unrolled optimisation, s = -tau * grad_u D(F, M o (id + u)) - r([u, F, M o (id + u)]).

    The published network adds it, u <- u + s. Composed, id + u <- (id + u) o (id + s), small smooth steps keep the
    whole free of folds.

    Args:
        spatial_dims: 2 or 3.
        similarity: D and its derivative.
        update: ``add`` or ``compose``.
        regularizer_input: what r sees beside u: ``warped`` F and the warped M, ``moving`` F and M, ``none`` nothing.
        initial_step_size: tau as used; a tenth of it is stored.
        num_channels: hidden channels of r.
        num_layers: convolutions of r.
    """

    def __init__(
        self,
        spatial_dims: int,
        similarity: Similarity,
        update: str,
        regularizer_input: str,
        initial_step_size: float,
        num_channels: int,
        num_layers: int,
    ) -> None:
        super().__init__()
        self.similarity = similarity
        self.update = update
        self.regularizer_input = regularizer_input
        self.step_size = nn.Parameter(torch.tensor(initial_step_size / STEP_SIZE_SCALE))
        in_channels = spatial_dims + (0 if regularizer_input == "none" else 2)
        self.regularizer = Regularizer(spatial_dims, in_channels, num_channels, num_layers)

    @property
    def used_step_size(self) -> torch.Tensor:
        """tau: ten times the stored value."""
        return STEP_SIZE_SCALE * self.step_size

    def forward(self, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return the next displacement, (B, d, *spatial); all arguments are float32 or float64 and stay so."""
        warped, descent = recomputed(self._descent, ddf, fixed, moving)
        beside = {"warped": (fixed, warped), "moving": (fixed, moving), "none": ()}[self.regularizer_input]
        regularization = self.regularizer(torch.cat([ddf, *beside], dim=1))
        step = descent - regularization.to(ddf.dtype)
        return ddf + step if self.update == "add" else warp(ddf, step) + step

    def _descent(
        self, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The warped image and -tau * grad_u D, in the precision of ddf also under AMP."""
        with torch.autocast(ddf.device.type, enabled=False):
            warped, gradient = similarity_gradient(self.similarity, fixed, moving, ddf)
            return warped, -self.used_step_size.to(ddf.dtype) * gradient


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
        similarity: ``ssd``, ``ncc`` or ``lncc``, the energy D whose gradient drives the steps.
        update: ``add`` steps to the displacement, as published, or ``compose`` them with it.
        regularizer_input: ``warped`` ("explicit" in the paper), ``moving`` ("implicit") or ``none``.
        num_channels: hidden channels of the regularizer.
        num_layers: convolutions of the regularizer.
        window_size: window of ``lncc``, in voxels.
        initial_step_size: tau at the start of a training, as used; None is the published 5 / (number of steps + 1), too
            much for ``lncc`` where images are flat.
        output_scale: factor of the initial weights of each regularizer's last convolution, 1 as published; a small
            one lets a training start from small smooth steps.
        checkpoint_steps: recompute each step in the backward pass instead of keeping its activations.

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
        similarity: str = "ssd",
        update: str = "add",
        regularizer_input: str = "warped",
        num_channels: int = 32,
        num_layers: int = 5,
        window_size: int = 9,
        initial_step_size: float | None = None,
        output_scale: float = 1.0,
        checkpoint_steps: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise InputError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if len(num_blocks) != len(num_repeats) or not num_blocks or min(*num_blocks, *num_repeats) < 0:
            raise InputError(
                "num_blocks and num_repeats must be of the same length, one non-negative number a level, "
                f"got {tuple(num_blocks)} and {tuple(num_repeats)}."
            )
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
        self.checkpoint_steps = checkpoint_steps
        energy = get_similarity(similarity, window_size)
        if initial_step_size is None:
            initial_step_size = 5 / (self.num_steps + 1)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                Block(spatial_dims, energy, update, regularizer_input, initial_step_size, num_channels, num_layers)
                for _ in range(count)
            )
            for count in num_blocks
        )
        for module in self.modules():
            if isinstance(module, Regularizer):
                cast("torch.Tensor", module.convs[-1].weight).data.mul_(output_scale)

    @property
    def minimum_size(self) -> int:
        """Voxels that an image needs along each axis, so that the coarsest level has two: 5 for three levels."""
        return 2 ** (len(self.levels) - 1) + 1

    def step_sizes(self) -> dict[str, float]:
        """tau of each block, by ``level_<l>_block_<b>``, as used."""
        levels = cast("list[list[Block]]", self.levels)
        return {
            f"level_{level}_block_{index}": block.used_step_size.item()
            for level, blocks in enumerate(levels)
            for index, block in enumerate(blocks)
        }

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

    def steps(self, image: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the level, 0 for the coarsest, and the ddf in that level's voxels after each unrolled step."""
        self._check(image)
        image = convert_to_tensor(image, track_meta=False)
        image = image if image.dtype == torch.float64 else image.float()
        ddf = image.new_zeros(image.shape[0], self.spatial_dims, *self._level_size(image, 0))
        for level, blocks in enumerate(cast("list[nn.ModuleList]", self.levels)):
            size = self._level_size(image, level)
            ddf = _upsample(ddf, size) if level > 0 else ddf
            moving, fixed = _resize(image, size).split(1, dim=1)
            for block in blocks:
                for _ in range(self.num_repeats[level]):
                    ddf = self._step(block, ddf, fixed, moving)
                    yield level, ddf

    def to_full_size(self, ddf: torch.Tensor, level: int, image: torch.Tensor) -> torch.Tensor:
        """Carry a ddf of :meth:`steps` from its level to the voxels of the image."""
        for finer in range(level + 1, len(self.levels)):
            ddf = _upsample(ddf, self._level_size(image, finer))
        return ddf

    def _step(self, block: nn.Module, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        return recomputed(block, ddf, fixed, moving) if self.checkpoint_steps else block(ddf, fixed, moving)

    def _level_size(self, image: torch.Tensor, level: int) -> tuple[int, ...]:
        """Half the size a level, rounded up: then twice the displacement fits odd sizes too."""
        factor = 2 ** (len(self.levels) - 1 - level)
        return tuple(-(-size // factor) for size in image.shape[2:])

    def _check(self, image: torch.Tensor) -> None:
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != 2 or min(image.shape[2:]) < self.minimum_size:
            raise InputError(
                f"image must have shape (B, 2, {', '.join('HWD'[: self.spatial_dims])}), channel 0 moving and channel "
                f"1 fixed, with at least {self.minimum_size} voxels along each axis; got {tuple(image.shape)}."
            )


class EveryStep(nn.Module):
    """A view of a network for a loss on every step: its forward pass, which data-parallel training needs, gives all.

    Args:
        network: shares its parameters with the view.

    Raises:
        InputError: when the network has no steps, as VoxelMorph.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, GraDIRN):
            raise InputError(f"a loss on every step needs a network with steps, got {type(network).__name__}.")
        self.network = network

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the ddf after each step, first to last, each of shape (B, d, *spatial) in voxels of the image."""
        network = self.network
        return [network.to_full_size(ddf, level, image) for level, ddf in network.steps(image)]


def _resize(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Linear interpolation with aligned corners, without smoothing."""
    if tuple(image.shape[2:]) == tuple(size):
        return image
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(image, size=tuple(size), mode=mode, align_corners=True)


def _upsample(ddf: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """To the next finer level: the values double with the size."""
    return 2 * _resize(ddf, size)
