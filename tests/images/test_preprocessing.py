"""What is refused before a pair is read."""

import numpy as np

from scripts.images import preprocess_pair

from ..conftest import message_of


def test_a_pair_that_would_take_too_much_memory_is_refused_by_its_headers(save):
    files = {key: save(f"{key}.nii", np.zeros((100, 100, 100), np.uint8)) for key in ("fixed", "moving")}
    with open(files["fixed"], "r+b") as file:
        file.truncate(352)  # there are no voxels to read
    message = message_of(lambda: preprocess_pair(3, (1, 1, 1), (8, 8, 8), memory_limit=0.05)(files))
    # 50 and 40 bytes for each of a million voxels
    assert message == (
        f"fixed: {files['fixed']} has 100 x 100 x 100 voxels: the registration needs about 0.0838 GiB, "
        "and 0.05 are there (--memory_limit)."
    )
