"""One step of the unrolled optimisation: the rules for its explicit part, and the block that adds the learned part."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from .kernels.checkpointing import recomputed
from .kernels.filters import gaussian, window_mean
from .kernels.memory import bytes_per_voxel
from .kernels.sampling import warp, warp_with_gradient
from .regularizer import CNN
from .similarity import Similarity, get_similarity

__all__ = ["STEP_SIZE_SCALE", "Block", "Demons", "Gradient", "StepRule"]

STEP_SIZE_SCALE = 10.0  # the stored parameter is a tenth of tau, as published
NOISE = 1e-2  # squared difference between images in [0, 1] that counts as noise
GATE_WINDOW = 5  # in voxels of a level
GATE_MOTION = 0.05  # motion, in voxels, at which the gate of the regularizer is half open


class StepRule(ABC):
    """Computes the explicit step from the images. A new rule is a subclass with the method :meth:`descend`.

    Args:
        similarity: the similarity, as an object or by name.
        smoothing: standard deviation of a Gaussian filter of the step, in voxels of the level; 0 is no filter.

    Raises:
        InputError: when the name is unknown.
    """

    def __init__(self, similarity: Similarity | str = "ssd", smoothing: float = 0.0) -> None:
        self.similarity = get_similarity(similarity)
        self.smoothing = float(smoothing)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.similarity}, smoothing={self.smoothing})"

    def describe(self, image: torch.Tensor) -> torch.Tensor:
        """Replace the intensities, channel 0 of (B, 1 + F, *spatial), by what the similarity compares."""
        intensities = image[:, :1]
        described = self.similarity.describe(intensities)
        return image if described is intensities else torch.cat([described, image[:, 1:]], 1)

    @abstractmethod
    def descend(self, fixed: torch.Tensor, warped: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the step before it is multiplied by tau and smoothed.

        Args:
            fixed: channels of the fixed image, shape (B, C, *spatial): those of the similarity, then learned features.
            warped: the same channels of the warped image.
            gradient: derivative of ``warped`` with respect to the displacement, shape (B, C, d, *spatial).

        Returns:
            a direction in which the dissimilarity decreases, in voxels, shape (B, d, *spatial).
        """


class Gradient(StepRule):
    """The negative gradient of the energy D, as published; it does not use features.

    By the chain rule, grad_u D = dD/dW * (grad M)(x + u), with the exact derivative of the interpolant.
    """

    def descend(self, fixed: torch.Tensor, warped: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return -(self.similarity.derivative(fixed, warped).unsqueeze(2) * gradient).sum(1)


class Demons(StepRule):
    """The step of the demons algorithm, at most half a voxel long, so that one tau fits flat and contrasted regions.

    With the residual r of the intensity fit and the gradient g of the fitted warped image, the step is
    r g / (|g|^2 + r^2 + noise): Vercauteren et al., "Diffeomorphic demons", NeuroImage 2009, equation 4, there for SSD.
    After its intensity fit (no fit, one line, or one line per window), each similarity here is a least-squares problem;
    therefore the same formula holds for all, and the step does not depend on contrast. Numerator and denominator are
    summed over the channels; learned features are compared by SSD.
    """

    def descend(self, fixed: torch.Tensor, warped: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        own = self.similarity.channels(gradient.shape[2])
        residual, slope = self.similarity.residual(fixed[:, :own], warped[:, :own])
        residual = torch.cat([residual, fixed[:, own:] - warped[:, own:]], 1)
        gradient = torch.cat([slope.unsqueeze(2) * gradient[:, :own], gradient[:, own:]], 1)
        length = gradient.square().sum((1, 2)).unsqueeze(1) + residual.square().sum(1, keepdim=True) + NOISE
        return (residual.unsqueeze(2) * gradient).sum(1) / length


class Block(nn.Module):
    """One step of the unrolled optimisation, s = -tau * grad_u D(F, M o (id + u)) - r([u, F, M o (id + u)]).

    The published network adds the step: u <- u + s. With composition, id + u <- (id + u) o (id + s), small smooth steps
    do not fold the displacement.

    Args:
        spatial_dims: 2 or 3.
        rule: the explicit step.
        cnn: the learned step r; None leaves it out.
        update: ``add`` or ``compose``.
        ddf_smoothing: standard deviation of a Gaussian filter of the displacement after the step, in voxels.
        num_features: number of learned features of the images, in addition to the channels of the similarity.
        checkpoint: do not keep the activations of r for the backward pass.
    """

    def __init__(
        self,
        spatial_dims: int,
        rule: StepRule,
        cnn: CNN | None,
        update: str,
        ddf_smoothing: float,
        num_features: int,
        checkpoint: bool,
    ) -> None:
        super().__init__()
        self.rule = rule
        self.cnn = cnn
        self.update = update
        self.ddf_smoothing = float(ddf_smoothing)
        channels = rule.similarity.channels(spatial_dims) + num_features
        self.bytes_per_voxel = bytes_per_voxel(spatial_dims, channels, cnn.channels if cnn else 0)
        self.step_size = nn.Parameter(torch.zeros(()))
        self.regularizer = cnn.build(spatial_dims, channels, checkpoint) if cnn else None

    def extra_repr(self) -> str:
        return f"{self.rule}, {self.cnn}, update={self.update}, ddf_smoothing={self.ddf_smoothing}"

    @property
    def tau(self) -> torch.Tensor:
        """The step size, ten times the stored parameter ``step_size``."""
        return STEP_SIZE_SCALE * self.step_size

    def forward(self, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return the next displacement, shape (B, d, *spatial), in the precision of the arguments."""
        warped, descent = recomputed(self._descent, ddf, fixed, moving)
        step = descent
        if self.cnn is not None and self.regularizer is not None:
            learned = self.regularizer(ddf, *self.cnn.select(fixed, moving, warped, descent)).to(ddf.dtype)
            step = step - (_motion_gate(ddf, descent) * learned if self.cnn.gate else learned)
        ddf = ddf + step if self.update == "add" else warp(ddf, step) + step
        return gaussian(ddf, self.ddf_smoothing)

    def _descent(
        self, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the warped image and the explicit step, in the precision of ddf, also under AMP."""
        with torch.autocast(ddf.device.type, enabled=False):
            warped, gradient = warp_with_gradient(moving, ddf)
            step = self.rule.descend(fixed, warped, gradient)
            return warped, self.tau.to(ddf.dtype) * gaussian(step, self.rule.smoothing)


def _motion_gate(ddf: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return 0 where neither the displacement nor the explicit step moves anything in the window, up to 1 elsewhere."""
    motion = window_mean((ddf.square() + step.square()).sum(1, keepdim=True), GATE_WINDOW)
    return motion / (motion + GATE_MOTION**2)
