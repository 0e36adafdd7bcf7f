"""What is refused before a pair is registered."""

import numpy as np

from scripts.registration.preprocessing import preprocess_pair

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


def test_a_training_refuses_ids_that_single_precision_would_merge(save):
    image = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    labels = np.zeros((8, 8, 8), np.int32)
    labels[2:5], labels[5:7] = 312782574, 312782578
    files = {"fixed": save("f.nii", image), "moving": save("m.nii", image[::-1])}
    files |= {"label_fixed": save("lf.nii", labels), "label_moving": save("lm.nii", labels)}
    message = message_of(lambda: preprocess_pair(3, (1, 1, 1), (8, 8, 8), labels_on_grid=True)(files))
    assert message == (
        f"label_fixed: {files['label_fixed']} has the label 312782578: a training takes ids up to 16777216."
    )
    whole = preprocess_pair(3, (1, 1, 1), (8, 8, 8))(files)
    assert whole["label_fixed"].unique().tolist() == [0, 312782574, 312782578]
