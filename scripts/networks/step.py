"""One step of the unrolled optimisation."""

from __future__ import annotations

import torch
from torch import nn

from .kernels.checkpointing import recomputed
from .kernels.filters import gaussian, window_mean
from .kernels.memory import bytes_per_voxel
from .kernels.sampling import warp
from .regularizer import Regularizer
from .similarity import Similarity, normalized_step, similarity_gradient

__all__ = ["Block"]

STEP_SIZE_SCALE = 10.0
GATE_WINDOW = 5  # voxels of a level
GATE_MOTION = 0.05  # voxels: the motion at which the gate of the regularizer is half open


class Block(nn.Module):
    """One step of the unrolled optimisation, s = -tau * grad_u D(F, M o (id + u)) - r([u, F, M o (id + u)]).

    The published network adds it, u <- u + s. Composed, id + u <- (id + u) o (id + s), small smooth steps keep the
    whole free of folds. Normalized, the demons step stands in place of -grad_u D, so that one tau serves flat and
    contrasted regions.

    Args:
        spatial_dims: 2 or 3.
        similarity: D and its derivative.
        update: ``add`` or ``compose``.
        regularizer_input: the inputs of r in addition to u: ``warped`` F and the warped M, ``moving`` F and M,
            ``none`` nothing, ``step`` F, the warped M and the explicit step.
        normalize_step: take the demons step.
        step_smoothing: standard deviation, in voxels, of a Gaussian filter of the explicit step.
        ddf_smoothing: likewise, of the displacement after the step.
        num_features: channels of the images beside their intensities.
        initial_step_size: tau as used; a tenth of it is stored.
        num_channels: hidden channels of r; 0 leaves r out.
        num_layers: convolutions of r.
        checkpoint: keep none of r's activations for the backward pass.
        gate: close r where nothing moves.
    """

    def __init__(
        self,
        spatial_dims: int,
        similarity: Similarity,
        update: str,
        regularizer_input: str,
        normalize_step: bool,
        step_smoothing: float,
        ddf_smoothing: float,
        num_features: int,
        initial_step_size: float,
        num_channels: int,
        num_layers: int,
        checkpoint: bool,
        gate: bool,
    ) -> None:
        super().__init__()
        self.similarity = similarity
        self.update = update
        self.gate = gate
        self.regularizer_input = regularizer_input
        self.normalize_step = normalize_step
        self.step_smoothing = step_smoothing
        self.ddf_smoothing = ddf_smoothing
        self.step_size = nn.Parameter(torch.tensor(initial_step_size / STEP_SIZE_SCALE))
        self.bytes_per_voxel = bytes_per_voxel(spatial_dims, 1 + num_features, num_channels)
        images = 2 * (1 + num_features)
        in_channels = spatial_dims + {"none": 0, "step": images + spatial_dims}.get(regularizer_input, images)
        self.regularizer = (
            Regularizer(spatial_dims, in_channels, num_channels, num_layers, checkpoint) if num_channels else None
        )

    @property
    def tau(self) -> torch.Tensor:
        """The step size as used, ten times the stored ``step_size``."""
        return STEP_SIZE_SCALE * self.step_size

    def forward(self, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Return the next displacement, (B, d, *spatial); all arguments are float32 or float64 and stay so."""
        warped, descent = recomputed(self._descent, ddf, fixed, moving)
        step = descent
        if self.regularizer is not None:
            inputs = {
                "warped": (fixed, warped),
                "moving": (fixed, moving),
                "none": (),
                "step": (fixed, warped, descent),
            }[self.regularizer_input]
            learned = self.regularizer(ddf, *inputs).to(ddf.dtype)
            step = step - (_motion_gate(ddf, descent) * learned if self.gate else learned)
        ddf = ddf + step if self.update == "add" else warp(ddf, step) + step
        return gaussian(ddf, self.ddf_smoothing)

    def _descent(
        self, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The warped image and the explicit step, in the precision of ddf also under AMP."""
        with torch.autocast(ddf.device.type, enabled=False):
            if self.normalize_step:
                warped, step = normalized_step(self.similarity, fixed, moving, ddf)
            else:
                warped, gradient = similarity_gradient(self.similarity, fixed, moving, ddf)
                step = -gradient
            return warped, self.tau.to(ddf.dtype) * gaussian(step, self.step_smoothing)


def _motion_gate(ddf: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """0 where neither the displacement nor the explicit step moves anything in the window, towards 1 elsewhere."""
    motion = window_mean((ddf.square() + step.square()).sum(1, keepdim=True), GATE_WINDOW)
    return motion / (motion + GATE_MOTION**2)
