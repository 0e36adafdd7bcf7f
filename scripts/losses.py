"""Training losses of a displacement: image dissimilarity, smoothness and, where labels are used, their overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.losses import BendingEnergyLoss, DiceLoss
from torch import nn

from .errors import InputError
from .networks.sampling import warp
from .networks.similarity import get_similarity

__all__ = ["RegistrationLoss", "diffusion"]

SIMILARITIES = {"mse": "ssd", "ncc": "ncc", "lncc": "lncc"}
REGULARIZATIONS = ("diffusion", "bending")


class RegistrationLoss(nn.Module):
    """Similarity + regularization_weight * regularization + label_weight * (1 - Dice), each a mean over the voxels.

    Published (Qiu et al., section 3): ``mse`` + 0.01 diffusion, or ``ncc`` + 0.1 diffusion, of the last displacement.

    Args:
        similarity: ``mse``; ``ncc``, the negative squared correlation of the whole images; ``lncc``, that in a window.
        window_size: of ``lncc``, odd, in voxels.
        regularization: ``diffusion`` (squared forward differences) or ``bending`` (squared second derivatives).
        regularization_weight: of the regularization.
        label_weight: of the label loss, 0 for none.
        classes: label values that the label loss compares.
        step_decay: with the displacements of all steps, a step weighs this factor of the one after it; 0 is the last
            displacement alone, as published.

    Raises:
        InputError: for an unknown name or a value out of its range.
    """

    def __init__(
        self,
        similarity: str = "mse",
        window_size: int = 9,
        regularization: str = "diffusion",
        regularization_weight: float = 0.01,
        label_weight: float = 0.0,
        classes: Sequence[int] = (),
        step_decay: float = 0.0,
    ) -> None:
        super().__init__()
        if similarity not in SIMILARITIES:
            raise InputError(f"unknown loss similarity '{similarity}': expected one of {', '.join(SIMILARITIES)}.")
        if regularization not in REGULARIZATIONS:
            raise InputError(
                f"unknown regularization '{regularization}': expected one of {', '.join(REGULARIZATIONS)}."
            )
        if min(regularization_weight, label_weight) < 0 or not 0 <= step_decay <= 1:
            raise InputError(
                f"regularization_weight {regularization_weight}, label_weight {label_weight}, step_decay {step_decay}: "
                "expected weights of at least 0 and a decay from 0 to 1."
            )
        if label_weight > 0 and not classes:
            raise InputError(f"label_weight is {label_weight}, but no classes are known: expected label names.")
        self.energy = get_similarity(SIMILARITIES[similarity], window_size).energy
        self.regularize = diffusion if regularization == "diffusion" else BendingEnergyLoss()
        self.regularization_weight = regularization_weight
        self.label_weight = label_weight
        self.classes = tuple(classes)
        self.step_decay = step_decay
        self.dice = DiceLoss()
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, pred: torch.Tensor | Sequence[torch.Tensor], target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch, a scalar; its parts, of the last displacement, stay in ``terms``.

        Args:
            pred: ddf in voxels, (B, d, *spatial), or the ddfs of all steps, first to last.
            target: ``image`` (B, 2, *spatial), moving and fixed, and for the label loss ``label_moving`` and
                ``label_fixed`` (B, 1, *spatial).
        """
        ddfs = [pred] if isinstance(pred, torch.Tensor) else list(pred)
        weights = [self.step_decay ** (len(ddfs) - 1 - index) for index in range(len(ddfs))]
        # 0 ** 0 is 1: without a decay the last step alone counts
        losses = [weight * self._loss(ddf.float(), target) for weight, ddf in zip(weights, ddfs) if weight > 0]
        return torch.stack(losses).sum() / sum(weights)

    def _loss(self, ddf: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        moving, fixed = target["image"].float().split(1, dim=1)
        similarity = self.energy(fixed, warp(moving, ddf)).mean() / fixed[0].numel()
        regularization = self.regularize(ddf)
        loss = similarity + self.regularization_weight * regularization
        self.terms = {"similarity": similarity.detach(), "regularization": regularization.detach()}
        if self.label_weight > 0:
            label = self._label_loss(ddf, target)
            loss = loss + self.label_weight * label
            self.terms["label"] = label.detach()
        return loss

    def _label_loss(self, ddf: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Soft Dice of the classes, each carried as an image of its own, linearly."""
        one_hot = [torch.cat([target[key] == c for c in self.classes], 1) for key in ("label_moving", "label_fixed")]
        moving, fixed = (value.float() for value in one_hot)
        return self.dice(warp(moving, ddf), fixed)


def diffusion(ddf: torch.Tensor) -> torch.Tensor:
    """Squared gradient |grad u|^2 by forward differences, mean over the voxels; ddf (B, d, *spatial), in voxels."""
    return torch.stack([ddf.diff(dim=axis).square().sum(1).mean() for axis in range(2, ddf.ndim)]).sum()
