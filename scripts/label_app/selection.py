"""Active learning: which image to annotate next."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from ..support.errors import find_input_error
from .options import read_options

__all__ = ["WorstExplained"]

logger = logging.getLogger(__name__)
KEY = "registration_similarity"  # in the datastore's information on an image


class WorstExplained(Strategy):
    """Chooses the image without a label that is least similar to its atlas, or its other frame, after registration.

    Similarities are kept in the datastore. A request measures at most ``max_images`` new ones, in the order of names.

    Args:
        similarity: function that returns the similarity of an image, by its id; None if there is nothing to compare.
        state: function that returns a text, which changes with the weights and atlases.
    """

    def __init__(self, similarity: Callable[[str], float | None], state: Callable[[], str]) -> None:
        super().__init__("The image that registration explains worst")
        self.similarity = similarity
        self.state = state

    def config(self) -> dict[str, Any]:
        """The options of a request, with their defaults."""
        return {"max_images": 4}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image; None when all have labels.

        Raises:
            InputError: when ``max_images`` is not a number.
        """
        left = read_options(self.config(), request)["max_images"]
        state, known = self.state(), {}
        for image in sorted(datastore.get_unlabeled_images()):
            stored = datastore.get_image_info(image).get(KEY, {})
            if stored.get("state") != state and left > 0:
                left -= 1
                stored = {"state": state, "value": self._measure(image)}
                datastore.update_image_info(image, {KEY: stored})
            if stored.get("state") == state:
                known[image] = stored["value"]
        compared = {image: value for image, value in known.items() if value is not None}
        # images without a similarity come last: usually they belong to no task of this server
        chosen = min(compared or known, key=lambda image: (compared.get(image, math.inf), image), default=None)
        return None if chosen is None else {"id": chosen, "weight": known[chosen]}

    def _measure(self, image: str) -> float | None:
        try:
            value = self.similarity(image)
        except Exception as error:
            known = find_input_error(error)
            if known is None:
                raise
            logger.warning("%s cannot be registered: %s", image, known)
            return None
        return None if value is None or math.isnan(value) else round(value, 4)
