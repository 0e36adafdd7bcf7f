"""Registration of pairs: from two images to all that is known of the pair, for one pair and for many."""

from .pair import Registration

__all__ = ["Registration"]
