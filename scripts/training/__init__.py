"""What a training needs beside MONAI's trainer: samples, losses, handlers, and what is seen of it."""
