"""Random transforms of a pair that MONAI does not have: who is its other half, and which is which."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import RandomizableTransform

from ..support.errors import InputError

__all__ = ["RandPartnerd", "RandSwapd"]


class RandPartnerd(RandomizableTransform):
    """Give an item with ``name``, ``fixed``, ``label_fixed`` the moving half of a random other subject.

    Args:
        partners: what :func:`partners` lists.

    Raises:
        InputError: when an item has no other subject to go with.
    """

    def __init__(self, partners: Sequence[Mapping[str, str]]) -> None:
        super().__init__()
        self.partners = list(partners)
        self._place = {partner["name"]: place for place, partner in enumerate(self.partners)}
        self._drawn = 0

    def randomize(self, data: Mapping[Hashable, Any]) -> None:
        super().randomize(None)
        own = self._place.get(data["name"])
        others = len(self.partners) - (own is not None)
        if others < 1:
            raise InputError(f"{data['name']} has no partner: expected two subjects to make a pair.")
        self._drawn = int(self.R.randint(others))
        if own is not None and self._drawn >= own:
            self._drawn += 1

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize(data)
        partner = self.partners[self._drawn]
        return {**data, **{key: value for key, value in partner.items() if key != "name"}}


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
