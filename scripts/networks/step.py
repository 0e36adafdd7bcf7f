"""One step of the unrolled optimisation: the rules for its explicit part, and the block that adds the learned part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial, reduce
from itertools import chain
from typing import cast

import torch
from torch import nn

from .guidance import Guidance
from .kernels.checkpointing import recomputed
from .kernels.filters import extend, gaussian, window_mean
from .kernels.memory import bytes_per_voxel
from .kernels.sampling import warp, warp_with_gradient
from .regularizer import CNN
from .similarity import SSD, Similarity, Term, get_similarity

__all__ = ["STEP_SIZE_SCALE", "Block", "Demons", "Gradient", "StepRule", "fit_labels"]

STEP_SIZE_SCALE = 10.0  # the stored parameter is a tenth of tau, as published
NOISE = 1e-2  # squared difference between images in [0, 1] that counts as noise
GATE_WINDOW = 5  # in voxels of a level
LABEL_STEPS, LABEL_TAU = 16, 2.0
LABEL_SMOOTHING, LABEL_DDF_SMOOTHING = 0.85, 0.35  # voxels: of the steps, and of the displacement after each
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
    def descend(self, terms: Iterable[Term], weight: torch.Tensor | None = None) -> torch.Tensor:
        """Return the step before it is multiplied by tau and smoothed.

        Args:
            terms: what is compared: the images, then learned features, further contrasts and labels.
            weight: how much each voxel counts, from 0 to 1, shape (B, 1, *spatial); None means 1. Where it is 0, the
                step does not matter.

        Returns:
            a direction in which the dissimilarity decreases, in voxels, shape (B, d, *spatial).
        """


class Gradient(StepRule):
    """The negative gradient of the energy D, as published; it does not use features.

    By the chain rule, grad_u D = dD/dW * (grad M)(x + u), with the exact derivative of the interpolant.
    """

    def descend(self, terms: Iterable[Term], weight: torch.Tensor | None = None) -> torch.Tensor:
        step: torch.Tensor | float = 0.0
        for term in terms:
            derivative = term.similarity.derivative(term.fixed, term.warped, weight)
            step = step - (derivative.unsqueeze(2) * term.gradient).sum(1)
        return cast(torch.Tensor, step)


class Demons(StepRule):
    """The step of the demons algorithm, at most half a voxel long, so that one tau fits flat and contrasted regions.

    With the residual r of the intensity fit and the gradient g of the fitted warped image, the step is
    r g / (|g|^2 + r^2 + noise): Vercauteren et al., "Diffeomorphic demons", NeuroImage 2009, equation 4, there for SSD.
    After its intensity fit (no fit, one line, or one line per window), each similarity here is a least-squares problem;
    therefore the same formula holds for all, and the step does not depend on contrast. Numerator and denominator are
    summed over all channels.
    """

    def descend(self, terms: Iterable[Term], weight: torch.Tensor | None = None) -> torch.Tensor:
        steps: list[torch.Tensor] = []
        length: torch.Tensor | float = NOISE
        for term in terms:
            residual, slope = term.similarity.residual(term.fixed, term.warped, weight)
            steps.append(_over_channels((residual * slope).unsqueeze(2) * term.gradient))
            squared = reduce(torch.add, (part.square() for part in term.gradient.unbind(2)))
            length = length + _over_channels(squared * slope.square() + residual.square())
        return reduce(torch.add, steps) / cast(torch.Tensor, length).unsqueeze(1)


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

    def forward(
        self, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor, guidance: Guidance | None = None
    ) -> torch.Tensor:
        """Return the next displacement, shape (B, d, *spatial), in the precision of the arguments."""
        guidance = guidance or Guidance()
        weight = guidance.weight(ddf)
        warped, descent = recomputed(partial(self._descent, guidance=guidance, weight=weight), ddf, fixed, moving)
        step = descent
        if self.cnn is not None and self.regularizer is not None:
            seen = warped if weight is None else torch.lerp(fixed, warped, weight)  # no difference outside of a mask
            learned = self.regularizer(ddf, *self.cnn.select(fixed, moving, seen, descent)).to(ddf.dtype)
            step = step - (_motion_gate(ddf, descent) * learned if self.cnn.gate else learned)
        step = step if weight is None else extend(step, weight)
        ddf = ddf + step if self.update == "add" else warp(ddf, step) + step
        return guidance.correct(gaussian(ddf, self.ddf_smoothing))

    def _descent(
        self,
        ddf: torch.Tensor,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        guidance: Guidance,
        weight: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the warped image and the explicit step, in the precision of ddf, also under AMP."""
        with torch.autocast(ddf.device.type, enabled=False):
            warped, gradient = warp_with_gradient(moving, ddf)
            own = self.rule.similarity.channels(ddf.shape[1])
            if fixed.shape[1] == own:
                terms = [Term(self.rule.similarity, fixed, warped, gradient)]
            else:  # learned features
                parts = zip(*(x.split([own, fixed.shape[1] - own], 1) for x in (fixed, warped, gradient)))
                terms = [Term(how, *part) for how, part in zip((self.rule.similarity, SSD()), parts)]
            step = self.rule.descend(chain(terms, guidance.terms(ddf, self.rule.similarity)), weight)
            step = step if weight is None else extend(step, weight)
            return warped, self.tau.to(ddf.dtype) * gaussian(step, self.rule.smoothing)


def fit_labels(ddf: torch.Tensor, guidance: Guidance) -> torch.Tensor:
    """Bring the borders of the labels together, by demons steps of their distances; without labels nothing changes.

    Args:
        ddf: displacement in voxels, shape (B, d, *spatial).
        guidance: on the same grid.
    """
    if guidance.labels is None:
        return ddf
    rule = Demons("ssd", smoothing=LABEL_SMOOTHING)
    for _ in range(LABEL_STEPS):
        step = LABEL_TAU * gaussian(rule.descend(guidance.label_terms(ddf)), rule.smoothing)
        ddf = gaussian(warp(ddf, step) + step, LABEL_DDF_SMOOTHING)
    return guidance.correct(ddf)


def _over_channels(values: torch.Tensor) -> torch.Tensor:
    return values.sum(1) if values.shape[1] > 1 else values.squeeze(1)


def _motion_gate(ddf: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return 0 where neither the displacement nor the explicit step moves anything in the window, up to 1 elsewhere."""
    motion = window_mean((ddf.square() + step.square()).sum(1, keepdim=True), GATE_WINDOW)
    return motion / (motion + GATE_MOTION**2)
