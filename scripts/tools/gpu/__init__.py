"""A training that keeps all its data on one GPU, for machines that are available for minutes only."""
