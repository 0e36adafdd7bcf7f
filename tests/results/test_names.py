"""The names of results, derived from those of the images by hand."""

import pytest

from scripts.results.names import OUTPUTS, check_scheme, every_name, file_names
from scripts.support.errors import InputError

CASES = {
    ("SC-N-10_ED.nii.gz", "SC-N-10_ES.nii.gz"): (
        "space-ED_desc-warped_ES.nii.gz",
        "from-ES_to-ED_mode-image_xfm.nii.gz",
    ),
    ("sub-01_ses-1_T1w.nii.gz", "/data/sub-01_ses-2_run-1_T1w.nii.gz"): (
        "sub-01_ses-2_run-1_space-ses1_desc-warped_T1w.nii.gz",
        "sub-01_ses-2_from-ses2run1_to-ses1_mode-image_xfm.nii.gz",
    ),
    ("sub-01_T1w.nii.gz", "sub-01_run-1_T1w.nii.gz"): (
        "sub-01_run-1_space-fixed_desc-warped_T1w.nii.gz",  # the fixed image has nothing of its own
        "sub-01_from-moving_to-fixed_mode-image_xfm.nii.gz",
    ),
    ("sub-01_ses-1_T1w.nii", "sub-01_ses-2_T1w.nii"): (
        "sub-01_ses-2_space-ses1_desc-warped_T1w.nii.gz",
        "sub-01_ses-2_from-ses2_to-ses1_mode-image_xfm.nii.gz",
    ),
    ("sub-01_acq-mprage_T1w.nii", "sub-01_acq-mprage_desc-preproc_T2w.nii"): (
        "sub-01_acq-mprage_space-T1w_desc-warped_T2w.nii.gz",
        "sub-01_acq-mprage_from-T2w_to-T1w_mode-image_xfm.nii.gz",
    ),
    ("tpl-MNI152NLin6Asym_T1w.nii.gz", "sub-control01_T1w.nii.gz"): (
        "sub-control01_space-MNI152NLin6Asym_desc-warped_T1w.nii.gz",
        "sub-control01_from-control01_to-MNI152NLin6Asym_mode-image_xfm.nii.gz",
    ),
    ("a/t1.nii.gz", "b/t1.nii.gz"): (
        "space-fixed_desc-warped_t1.nii.gz",
        "from-moving_to-fixed_mode-image_xfm.nii.gz",
    ),
    ("an image.nii.gz", "dicom-folder"): (
        "space-fixed_desc-warped_image.nii.gz",
        "from-moving_to-fixed_mode-image_xfm.nii.gz",
    ),
}


@pytest.mark.parametrize(("images", "expected"), CASES.items())
def test_names_of_bids(images, expected):
    inputs = dict(zip(("fixed", "moving"), images))
    names = file_names(inputs, "bids")
    assert tuple(names) == OUTPUTS
    assert (names["moving_warped.nii.gz"], names["displacement.nii.gz"]) == expected
    assert len(set(names.values())) == len(OUTPUTS)
    assert {*every_name(inputs)} == {*OUTPUTS, *names.values()}
    assert every_name(inputs)[-1] == "metrics.json"


def test_all_names_of_a_pair():
    assert file_names({"fixed": "sub-1_ses-1_T1w.nii", "moving": "sub-1_ses-2_T1w.nii"}, "bids") == {
        "moving_warped.nii.gz": "sub-1_ses-2_space-ses1_desc-warped_T1w.nii.gz",
        "label_warped.nii.gz": "sub-1_ses-2_space-ses1_desc-labels_dseg.nii.gz",
        "displacement.nii.gz": "sub-1_ses-2_from-ses2_to-ses1_mode-image_xfm.nii.gz",
        "displacement_inverse.nii.gz": "sub-1_ses-2_from-ses1_to-ses2_mode-image_xfm.nii.gz",
        "jacobian_determinant.nii.gz": "sub-1_ses-2_space-ses1_desc-jacobian_map.nii.gz",
        "alignment.mat": "sub-1_ses-2_from-ses2_to-ses1_mode-image_desc-alignment_xfm.mat",
        "brain_mask_fixed.nii.gz": "sub-1_ses-2_space-ses1_desc-brain_mask.nii.gz",
        "brain_mask_moving.nii.gz": "sub-1_ses-2_space-ses2_desc-brain_mask.nii.gz",
        "error_mm.nii.gz": "sub-1_ses-2_space-ses1_desc-error_map.nii.gz",
        "overview.png": "sub-1_ses-2_from-ses2_to-ses1_mode-image_desc-overview_xfm.png",
        "metrics.json": "metrics.json",
    }


def test_images_in_memory_and_plain_names():
    assert (
        file_names({"fixed": object()}, "bids")["displacement.nii.gz"] == "from-moving_to-fixed_mode-image_xfm.nii.gz"
    )
    assert file_names({}, None) == {name: name for name in OUTPUTS}
    with pytest.raises(InputError, match="--names is 'BIDS': expected bids"):
        check_scheme("BIDS")
