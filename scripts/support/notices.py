"""Warnings about the images of a pair: they go to the screen, and to the results of the pair."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["collect_warnings", "image_name", "warn"]

logger = logging.getLogger("scripts")

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


def warn(text: str) -> None:
    """Warn of something that the user should know about an image or a result, in one line that names the file."""
    logger.warning(text)
    texts = _collected.get()
    if texts is not None:
        texts.append(text)


@contextmanager
def collect_warnings(texts: list[str]) -> Iterator[None]:
    """Add the warnings that come up inside to a list."""
    token = _collected.set(texts)
    try:
        yield
    finally:
        _collected.reset(token)


def image_name(image: Any) -> str:
    """Return the name of the file of a MetaTensor, for messages."""
    return str(image.meta.get("filename_or_obj", "the image in memory"))
