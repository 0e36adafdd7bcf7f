"""The MONAI Label application: it carries labels from atlases and between frames."""
