"""Pairs that are unlike the others of a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .tables import Row

__all__ = ["FEWEST", "LIMIT", "MEASURES", "find_outliers", "robust_scores"]

MEASURES = {
    "ncc.after": "correlation",
    "dice.after.mean": "Dice",
    "folding.whole_grid.std_log_jacobian": "std log|J|",
    "evidence.displacement": "displacement in voxels",
    "evidence.compression": "compression, log|J|",
}
FEWEST = 10  # pairs with a measure, from which on it says which of them are unlike the others
LIMIT = 3.5  # of a robust z-score, as Iglewicz and Hoaglin (1993) advise
TO_SIGMA = 0.6745  # the MAD of a normal distribution, in standard deviations


def robust_scores(values: Sequence[float]) -> np.ndarray:
    """Return how far each value lies from the median, in robust standard deviations: 0.6745 (x - median) / MAD.

    MAD is the median of the absolute deviations from the median. Where it is 0, as where most values are the same,
    nothing can be said, and all scores are 0.
    """
    deviations = np.asarray(values, dtype=float) - np.median(values)
    mad = float(np.median(np.abs(deviations)))
    return TO_SIGMA * deviations / mad if mad > 0 else np.zeros_like(deviations)


def find_outliers(rows: Sequence[Row], measures: Mapping[str, str] = MEASURES) -> dict[int, str]:
    """Find the pairs with a robust z-score above :data:`LIMIT` in some measure, in either direction.

    Args:
        rows: the flattened measures of each pair.
        measures: the columns to look at, with their names. Those that fewer than :data:`FEWEST` pairs have are not.

    Returns:
        for the index of each such pair, the reason: each measure, its value, the median, and the score.
    """
    reasons: dict[int, list[str]] = {}
    for column, name in measures.items():
        known: list[tuple[int, Any]] = [(i, row.get(column)) for i, row in enumerate(rows)]
        known = [(i, value) for i, value in known if isinstance(value, int | float) and np.isfinite(value)]
        if len(known) < FEWEST:
            continue
        values = [value for _, value in known]
        for (index, value), score in zip(known, robust_scores(values)):
            if abs(score) > LIMIT:
                text = f"{name} {value:.3f}, median {np.median(values):.3f}, z = {score:.1f}"
                reasons.setdefault(index, []).append(text)
    return {index: "; ".join(texts) for index, texts in sorted(reasons.items())}
