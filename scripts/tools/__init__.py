"""Tools of the repository, which are no part of a release."""
