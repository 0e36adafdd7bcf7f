"""Registration of pairs: from two images to all that is known of the pair, for one pair and for many."""

from .pair import Registration
from .preprocessing import preprocess_pair
from .transform import RegisterImaged

__all__ = ["RegisterImaged", "Registration", "preprocess_pair"]
