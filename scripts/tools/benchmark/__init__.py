"""Benchmarks of accuracy, speed, memory and growth: ``python -m scripts.tools.benchmark --help``."""
