"""Random transforms of a pair that MONAI does not have."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import RandomizableTransform

__all__ = ["RandSwapd"]


class RandSwapd(RandomizableTransform):
    """Let fixed and moving change places: the channels of ``image``, and the labels.

    Args:
        prob: how often.
    """

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__(prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        if self._do_transform:
            result["image"] = data["image"].flip(0)
            if "label_fixed" in data:
                result |= {"label_fixed": data["label_moving"], "label_moving": data["label_fixed"]}
        return result
