"""Training losses of a displacement: image dissimilarity, smoothness, folding and the overlap of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import BendingEnergyLoss, DiceLoss
from torch import nn

from ..deformation.jacobian import jacobian_determinant
from ..networks.kernels.sampling import corners_and_weights, warp
from ..networks.similarity import SIMILARITIES, Similarity, get_similarity
from ..support.errors import InputError

__all__ = ["RegistrationLoss", "diffusion", "folding", "soft_dice"]

REGULARIZATIONS = ("diffusion", "bending")
SMALLEST_DETERMINANT = 0.1  # :func:`folding` penalises determinants below this


class RegistrationLoss(nn.Module):
    """Similarity + regularization_weight * regularization + folding_weight * folding + label_weight * (1 - Dice).

    The first three terms are means over the voxels. The published losses (Qiu et al., section 3) are ``ssd`` + 0.01
    diffusion and ``ncc`` + 0.1 diffusion of the last displacement.

    Args:
        similarity: a similarity, or the name of one with its own defaults: ``ssd``; ``ncc``, the negative squared
            correlation of the whole images; ``lncc``, the same in a window; ...
        regularization: ``diffusion`` (squared forward differences) or ``bending`` (squared second derivatives).
        regularization_weight: weight of the regularization.
        folding_weight: weight of the penalty on small and negative Jacobian determinants; 0 means no penalty.
        label_weight: weight of the label loss; 0 means no label loss.
        classes: the label values that the label loss compares.
        feature_weight: weight of the segmentation loss of the learned features (1 - soft Dice, plus cross-entropy with
            the labels of the same image); 0 means no such loss.
        feature_classes: for each feature, the label values that it segments.
        step_decay: above 0, the loss includes the displacements of all steps; the weight of a step is this factor times
            the weight of the next step. 0 is the last displacement alone, as published.

    Raises:
        InputError: for an unknown name, or a value out of range.
    """

    def __init__(
        self,
        similarity: Similarity | str = "ssd",
        regularization: str = "diffusion",
        regularization_weight: float = 0.01,
        folding_weight: float = 0.0,
        label_weight: float = 0.0,
        classes: Sequence[int] = (),
        feature_weight: float = 0.0,
        feature_classes: Sequence[Sequence[int]] = (),
        step_decay: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(similarity, str) and similarity not in SIMILARITIES:
            raise InputError(f"unknown loss similarity '{similarity}': expected one of {', '.join(SIMILARITIES)}.")
        if regularization not in REGULARIZATIONS:
            raise InputError(
                f"unknown regularization '{regularization}': expected one of {', '.join(REGULARIZATIONS)}."
            )
        if min(regularization_weight, folding_weight, label_weight, feature_weight) < 0 or not 0 <= step_decay <= 1:
            raise InputError(
                f"regularization_weight {regularization_weight}, folding_weight {folding_weight}, label_weight "
                f"{label_weight}, feature_weight {feature_weight}, step_decay {step_decay}: expected weights of at "
                "least 0 and a decay from 0 to 1."
            )
        if label_weight > 0 and not classes:
            raise InputError(f"label_weight is {label_weight}, but no classes are known: expected label names.")
        self.similarity = get_similarity(similarity)
        self.regularize = diffusion if regularization == "diffusion" else BendingEnergyLoss()
        self.regularization_weight = regularization_weight
        self.folding_weight = folding_weight
        self.label_weight = label_weight
        self.classes = tuple(classes)
        self.feature_weight = feature_weight
        self.feature_classes = [tuple(values) for values in feature_classes]
        self.dice = DiceLoss()
        self.step_decay = step_decay
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, pred: torch.Tensor | Mapping[str, Any], target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch, a scalar; ``terms`` keeps its parts for the last displacement.

        Args:
            pred: the ddf in voxels, shape (B, d, *spatial), or the result of
                :class:`~scripts.networks.DeepSupervision`.
            target: ``image``, moving and fixed, shape (B, 2, *spatial), and for the label loss ``label_moving`` and
                ``label_fixed``, shape (B, 1, *spatial).
        """
        ddfs = [pred] if isinstance(pred, torch.Tensor) else pred["ddfs"]
        weights = [self.step_decay ** (len(ddfs) - 1 - index) for index in range(len(ddfs))]
        # 0 ** 0 is 1: without a decay, only the last step counts
        losses = [weight * self._loss(ddf.float(), target) for weight, ddf in zip(weights, ddfs) if weight > 0]
        loss = torch.stack(losses).sum() / sum(weights)
        if self.feature_weight > 0 and not isinstance(pred, torch.Tensor):
            features = self.feature_loss(pred["features"], target)
            loss = loss + self.feature_weight * features
            self.terms["features"] = features.detach()
        return loss

    def feature_loss(
        self, features: tuple[torch.Tensor, torch.Tensor], target: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        if features[0].shape[1] != len(self.feature_classes):
            raise InputError(
                f"the network has {features[0].shape[1]} features, but feature_classes has "
                f"{len(self.feature_classes)} groups of labels: expected the same number."
            )
        labels = torch.cat([target["label_moving"], target["label_fixed"]])
        one_hot = [torch.stack([labels == value for value in values]).any(0) for values in self.feature_classes]
        probabilities, truth = torch.cat(features).float(), torch.cat(one_hot, 1).float()
        cross_entropy = F.binary_cross_entropy_with_logits(probabilities.logit(eps=1e-6), truth)
        return self.dice(probabilities, truth) + cross_entropy

    def _loss(self, ddf: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        moving, fixed = target["image"].float().split(1, dim=1)
        similarity = self.similarity(fixed, warp(moving, ddf)).mean() / fixed[0].numel()
        regularization = self.regularize(ddf)
        loss = similarity + self.regularization_weight * regularization
        self.terms = {"similarity": similarity.detach(), "regularization": regularization.detach()}
        if self.folding_weight > 0:
            loss = loss + self.folding_weight * folding(ddf)
        if self.label_weight > 0:
            label = 1 - soft_dice(target["label_fixed"], target["label_moving"], ddf, self.classes)
            loss = loss + self.label_weight * label
            self.terms["label"] = label.detach()
        return loss


def diffusion(ddf: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared gradient |grad u|^2 by forward differences; ddf in voxels, shape (B, d, *spatial)."""
    return torch.stack([ddf.diff(dim=axis).square().sum(1).mean() for axis in range(2, ddf.ndim)]).sum()


def folding(ddf: torch.Tensor) -> torch.Tensor:
    """Compute how far |J|, by forward and by backward differences, is below 0.1; mean over the voxels."""
    backward = -ddf.flip(list(range(2, ddf.ndim)))
    shortfalls = [(SMALLEST_DETERMINANT - jacobian_determinant(field)).clamp(min=0) for field in (ddf, backward)]
    return torch.stack([shortfall.mean() for shortfall in shortfalls]).mean()


def soft_dice(fixed: torch.Tensor, moving: torch.Tensor, ddf: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
    """Compute the mean Dice of the classes that a pair has, as if each class were a linearly warped image.

    The 2^d corners of each point are looked up once, so that the cost does not grow with the number of classes.

    Args:
        fixed: label map, shape (B, 1, *spatial).
        moving: label map, shape (B, 1, *spatial).
        ddf: displacement in voxels, shape (B, d, *spatial).
        classes: the label values that count.
    """
    bins = len(classes) + 1
    fixed, moving = (_class_index(label.flatten(1), sorted(classes)) for label in (fixed, moving))
    corners, weights = corners_and_weights(ddf.shape[2:], ddf)
    corners, weights = corners.flatten(2), weights.flatten(2)
    intersection = warped_volume = ddf.new_zeros(len(ddf), bins)
    for corner, weight in zip(corners.unbind(1), weights.unbind(1)):
        label = moving.gather(1, corner)
        intersection = intersection + _sum_per_class(weight * (label == fixed), fixed, bins)
        warped_volume = warped_volume + _sum_per_class(weight, label, bins)
    one = weights.new_ones(fixed.shape)
    fixed_volume = _sum_per_class(one, fixed, bins)
    present = _sum_per_class(one, moving, bins) + fixed_volume > 0
    dice = 2 * intersection / (warped_volume + fixed_volume).clamp(min=1)
    counted = present[:, 1:]
    return ((dice[:, 1:] * counted).sum(1) / counted.sum(1).clamp(min=1)).mean()


def _sum_per_class(values: torch.Tensor, index: torch.Tensor, bins: int) -> torch.Tensor:
    """Sum the values, shape (B, N), of each class; the result has shape (B, bins)."""
    if values.is_cuda:  # otherwise all threads would wait to add to the same few numbers
        return torch.stack([(values * (index == number)).sum(1) for number in range(bins)], 1)
    return values.new_zeros(len(values), bins).scatter_add(1, index, values)


def _class_index(label: torch.Tensor, known: Sequence[int]) -> torch.Tensor:
    """Number the known labels 1, 2, ... in their order; all others become 0."""
    index = torch.zeros_like(label, dtype=torch.long)
    for number, value in enumerate(known, start=1):
        index = torch.where(label == value, number, index)
    return index
