"""What a training needs in addition to MONAI's trainer: samples, losses, handlers, logs and pictures."""
