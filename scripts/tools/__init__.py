"""Tools of the repository, which are not part of a release."""
