"""The MONAI Label application: labels carried from atlases and between frames."""
