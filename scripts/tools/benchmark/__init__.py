"""Measurements of speed and memory: ``python -m scripts.tools.benchmark speed`` and ``... memory``."""
