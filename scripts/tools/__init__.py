"""Tools of the repository, which the release leaves out."""
