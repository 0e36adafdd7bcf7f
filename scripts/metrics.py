"""Measures of one registered pair that MONAI does not give as needed; folding is in ``deformation.jacobian``."""

from __future__ import annotations

import numpy as np
import torch
from monai.metrics import compute_dice

__all__ = ["dice_per_class", "ncc", "uncounted_classes"]


def dice_per_class(
    warped: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor, background: int = 0
) -> dict[str, float]:
    """Dice of each class of two label maps, and their mean.

    Args:
        warped: the moving label on the fixed grid, any shape.
        fixed: the fixed label, of the same shape.
        moving: the moving label on its own grid: a class counts when it is in both *input* labels, and counts 0 when
            it vanished from ``warped``.
        background: class that is left out.

    Returns:
        Dice by class, and ``mean`` over the classes; NaN when no class is in both labels.
    """
    classes = sorted(_classes(fixed, background) & _classes(moving, background))
    if not classes:
        return {"mean": float("nan")}
    # the common background, most of a volume, changes nothing and costs time
    somewhere = (warped != background) | (fixed != background)
    warped, fixed = warped[somewhere], fixed[somewhere]
    values = torch.cat([compute_dice((warped == c)[None, None], (fixed == c)[None, None])[0] for c in classes])
    return {**{str(c): value.item() for c, value in zip(classes, values)}, "mean": values.mean().item()}


def uncounted_classes(fixed: torch.Tensor, moving: torch.Tensor, background: int = 0) -> dict[str, str]:
    """Classes that are in only one of the two input labels, and in which."""
    in_fixed, in_moving = _classes(fixed, background), _classes(moving, background)
    return {str(c): "only in label_fixed" if c in in_fixed else "only in label_moving" for c in in_fixed ^ in_moving}


def ncc(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor) -> float:
    """Pearson correlation of two images where the mask is true."""
    a, b = first[mask].double().numpy(), second[mask].double().numpy()
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _classes(label: torch.Tensor, background: int) -> set[int]:
    return {int(value) for value in label.unique().tolist()} - {background}
