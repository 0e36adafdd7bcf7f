"""A training that keeps all its data on one GPU, for machines that can be had for minutes only."""
