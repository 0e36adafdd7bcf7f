"""Every known layout, as a miniature tree of links to the shipped samples; the real data where it is at hand."""

import json
import logging
import os
from collections import Counter
from pathlib import Path

import pytest

from scripts.cohorts.labels import FREESURFER, SEG35
from scripts.cohorts.layouts import LAYOUTS, Subject
from scripts.cohorts.subjects import find_subjects
from scripts.support.errors import InputError
from tests.conftest import ROOT, SAMPLES

STACK = SAMPLES / "sunnybrook" / "SC-N-10"
SAMPLE = {
    "ED": STACK / "SC-N-10_ED.nii.gz",
    "ES": STACK / "SC-N-10_ES.nii.gz",
    "ED_gt": STACK / "SC-N-10_ED_gt.nii.gz",
    "ES_gt": STACK / "SC-N-10_ES_gt.nii.gz",
    "hippocampus": SAMPLES / "hippocampus" / "hippocampus_327" / "t1.nii.gz",
    "hippocampus_gt": SAMPLES / "hippocampus" / "hippocampus_327" / "seg.nii.gz",
    "brain": SAMPLES / "brain_synthetic" / "synthetic_19" / "t1.nii.gz",
    "brain_gt": SAMPLES / "brain_synthetic" / "synthetic_19" / "seg.nii.gz",
}
REAL = ROOT.parent / "shared" / "data"


@pytest.fixture
def tree(tmp_path):
    """Link samples under names below the test's folder, and return the folder."""

    def make(*parts):
        for name, sample in [item for part in parts for item in part.items()]:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(SAMPLE[sample])
        return tmp_path

    return make


def stack(image, label):
    """The four files of a cardiac subject; FRAME stands for the frame."""
    images = {image.replace("FRAME", frame): frame for frame in ("ED", "ES")}
    return images | {label.replace("FRAME", frame): f"{frame}_gt" for frame in ("ED", "ES")}


def sunnybrook(name):
    return stack(f"{name}/{name}_FRAME.nii.gz", f"{name}/{name}_FRAME_gt.nii.gz")


def volume(name, image="t1.nii.gz", label="seg.nii.gz", sample="brain"):
    return {f"{name}/{image}": sample, f"{name}/{label}": f"{sample}_gt"}


def names(cohort):
    return [subject.name for subject in cohort.subjects]


def grid(cohort):
    return cohort.layout.spacing, cohort.layout.spatial_size


def test_ukbb(tree):
    root = tree(stack("1000001/sa_FRAME.nii.gz", "1000001/label_sa_FRAME.nii.gz"))
    cohort = find_subjects(root)
    assert cohort.layout is LAYOUTS["ukbb"]
    assert cohort.root == root
    assert cohort.subjects == [
        Subject(
            "1000001",
            {"ED": f"{root}/1000001/sa_ED.nii.gz", "ES": f"{root}/1000001/sa_ES.nii.gz"},
            {"ED": f"{root}/1000001/label_sa_ED.nii.gz", "ES": f"{root}/1000001/label_sa_ES.nii.gz"},
        )
    ]
    assert cohort.layout.label_names == {1: "LV", 2: "Myo", 3: "RV"}
    assert grid(cohort) == ((1.8, 1.8, -1), (160, 160, -1))
    assert (cohort.layout.pairing, cohort.layout.fixed, cohort.layout.moving) == ("frames", "ED", "ES")


@pytest.mark.parametrize(("below", "table"), [("", "."), ("", ".."), ("dataset/", "."), ("dataset/", "dataset")])
def test_mnms2_in_every_form_with_vendors_under_shortened_codes(tree, tmp_path, below, table):
    root = tmp_path / "mnms"
    for code in ("007", "160"):
        start = f"mnms/{below}{code}/{code}_SA_FRAME"
        tree(stack(f"{start}.nii.gz", f"{start}_gt.nii.gz"))
    rows = "SUBJECT_CODE,DISEASE,VENDOR,SCANNER,FIELD\n7,NOR,GE MEDICAL SYSTEMS,SIGNA,1.5\n160,HCM,SIEMENS,Avanto,1.5\n"
    (root / table / "dataset_information.csv").write_text(rows, encoding="utf-8-sig")
    cohort = find_subjects(root)
    assert cohort.layout is LAYOUTS["mnms2"]
    assert [(s.name, s.group, s.split) for s in cohort.subjects] == [
        ("007", "GE MEDICAL SYSTEMS", ""),
        ("160", "SIEMENS", ""),
    ]
    assert cohort.subjects[0].images["ES"] == f"{root}/{below}007/007_SA_ES.nii.gz"
    assert cohort.subjects[0].labels["ES"] == f"{root}/{below}007/007_SA_ES_gt.nii.gz"
    assert cohort.skipped == {}
    assert cohort.layout.label_names == {1: "LV", 2: "Myo", 3: "RV"}
    assert grid(cohort) == ((2.0, 2.0, -1), (160, 160, -1))


def acdc(folder, name, end_diastole, end_systole):
    """The original release: frames are numbered, and Info.cfg says which are which; 4d is the whole cine."""
    start = f"{folder}{name}/{name}"
    return {
        f"{folder}{name}/Info.cfg": "info",
        f"{start}_4d.nii.gz": "ED",
        f"{start}_frame{end_diastole:02d}.nii.gz": "ED",
        f"{start}_frame{end_diastole:02d}_gt.nii.gz": "ED_gt",
        f"{start}_frame{end_systole:02d}.nii.gz": "ES",
        f"{start}_frame{end_systole:02d}_gt.nii.gz": "ES_gt",
    }


@pytest.mark.parametrize("top", ["", "database/"])
def test_the_release_of_acdc_with_its_frames_groups_and_splits(tree, tmp_path, monkeypatch, top):
    info = tmp_path / "info"
    info.write_text("ED: 4\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n")
    monkeypatch.setitem(SAMPLE, "info", info)
    tree(acdc(f"acdc/{top}training/", "patient001", 4, 12), acdc(f"acdc/{top}testing/", "patient101", 4, 12))
    root = tmp_path / "acdc"
    cohort = find_subjects(root)
    assert cohort.layout is LAYOUTS["acdc"]
    start = f"{root}/{top}training/patient001/patient001"
    assert cohort.subjects[0] == Subject(
        "patient001",
        {"ED": f"{start}_frame04.nii.gz", "ES": f"{start}_frame12.nii.gz"},
        {"ED": f"{start}_frame04_gt.nii.gz", "ES": f"{start}_frame12_gt.nii.gz"},
        group="DCM",
        split="train",
    )
    assert [(s.name, s.split) for s in cohort.subjects] == [("patient001", "train"), ("patient101", "test")]
    assert cohort.layout.label_names == {1: "RV", 2: "Myo", 3: "LV"}
    assert grid(cohort) == ((1.5, 1.5, -1), (160, 160, -1))
    assert find_subjects(root / top / "training").subjects[0].split == ""


def test_acdc_without_its_frame_numbers_is_skipped(tree, tmp_path, monkeypatch, caplog):
    info = tmp_path / "info"
    info.write_text("ED: 1\nGroup: DCM\n")
    monkeypatch.setitem(SAMPLE, "info", info)
    first, second = acdc("acdc/", "patient001", 1, 12), acdc("acdc/", "patient002", 1, 12)
    del second["acdc/patient002/Info.cfg"]
    root = tree(first, second) / "acdc"
    with pytest.raises(
        InputError, match=r"no subject in the layout acdc: skipped patient001 \(no patient001_frame0\?.nii.gz\)"
    ):
        find_subjects(root)
    info.write_text("ED: 1\nES: 12\nGroup: DCM\n")
    assert names(find_subjects(root)) == ["patient001"]
    assert "skipped patient002 (no Info.cfg)" in caplog.text


def test_acdc_by_the_names_of_frames_with_its_table(tree):
    root = tree(sunnybrook("patient003"), sunnybrook("patient090"))
    (root / "subjects.csv").write_text('patient,group,shape\npatient003,DCM,"(1, 2)"\n')
    cohort = find_subjects(root)
    assert cohort.layout is LAYOUTS["acdc"]
    assert [(s.name, s.group) for s in cohort.subjects] == [("patient003", "DCM"), ("patient090", "")]
    assert cohort.subjects[0].labels["ED"] == f"{root}/patient003/patient003_ED_gt.nii.gz"


def test_sunnybrook_as_shipped_and_with_its_table(tree):
    shipped = find_subjects(SAMPLES / "sunnybrook")
    assert shipped.layout is LAYOUTS["sunnybrook"]
    assert [(s.name, s.split) for s in shipped.subjects] == [("SC-HF-NI-15", ""), ("SC-HYP-09", ""), ("SC-N-10", "")]
    assert shipped.subjects[2].images["ED"] == str(SAMPLE["ED"])
    assert shipped.subjects[2].labels["ES"] == str(SAMPLE["ES_gt"])
    root = tree(sunnybrook("SC-N-10"), sunnybrook("SC-HF-I-01"))
    (root / "subjects.csv").write_text("subject,split,n_slices\nSC-N-10,Test,8\nSC-HF-I-01,Train,9\n")
    cohort = find_subjects(root)
    assert [(s.name, s.split) for s in cohort.subjects] == [("SC-HF-I-01", "train"), ("SC-N-10", "test")]
    assert cohort.layout.label_names == {1: "LV"}
    assert grid(cohort) == ((1.5, 1.5, -1), (160, 160, -1))


def test_camcan_with_and_without_t2(tree):
    tissues = "T1_brain_MALPEM_tissues.nii.gz"
    root = tree(
        volume("CC110033", "T1_brain.nii.gz", tissues), {"CC110033/T2_brain.nii.gz": "brain"},
        volume("CC110037", "T1_brain.nii.gz", tissues),
    )  # fmt: skip
    cohort = find_subjects(root)
    assert cohort.layout is LAYOUTS["camcan"]
    label = f"{root}/CC110033/{tissues}"
    assert cohort.subjects[0] == Subject(
        "CC110033",
        {"T1": f"{root}/CC110033/T1_brain.nii.gz", "T2": f"{root}/CC110033/T2_brain.nii.gz"},
        {"T1": label, "T2": label},
    )
    assert cohort.subjects[1].images.keys() == cohort.subjects[1].labels.keys() == {"T1"}
    assert cohort.layout.label_names == {1: "ventricles", 2: "subcortical_GM", 3: "WM", 4: "cortical_GM", 5: "other"}
    assert grid(cohort) == ((1.375, 1.5, 1.375), (128, 128, 128))
    assert (cohort.layout.pairing, cohort.layout.fixed, cohort.layout.moving) == ("subjects", "T1", "T1")


def test_neurite_oasis(tree):
    root = tree(volume("OASIS_OAS1_0001_MR1", "aligned_norm.nii.gz", "aligned_seg35.nii.gz"))
    cohort = find_subjects(root)
    assert cohort.layout is LAYOUTS["oasis"]
    assert cohort.subjects[0].images == {"T1": f"{root}/OASIS_OAS1_0001_MR1/aligned_norm.nii.gz"}
    assert cohort.subjects[0].labels == {"T1": f"{root}/OASIS_OAS1_0001_MR1/aligned_seg35.nii.gz"}
    assert grid(cohort) == ((2, 2, 2), (96, 112, 96))


def test_names_of_structures():
    assert list(SEG35) == list(range(1, 36))
    # the first and last of each side and the midline, as neurite's table has them
    some = {1: "Left-Cerebral-White-Matter", 11: "3rd-Ventricle", 13: "Brain-Stem", 19: "Left-choroid-plexus"}
    some |= {20: "Right-Cerebral-White-Matter", 30: "Right-Hippocampus", 35: "Right-choroid-plexus"}
    assert {id_: SEG35[id_] for id_ in some} == some
    some = {2: "Left-Cerebral-White-Matter", 17: "Left-Hippocampus", 42: "Right-Cerebral-Cortex", 60: "Right-VentralDC"}
    assert {id_: FREESURFER[id_] for id_ in some} == some
    assert list(FREESURFER) == sorted(FREESURFER)


def test_hippocampus_in_both_forms(tree, tmp_path):
    shipped = find_subjects(SAMPLES / "hippocampus")
    assert shipped.layout is LAYOUTS["hippocampus"]
    assert names(shipped) == [f"hippocampus_{n}" for n in (327, 341, 361, 383)]
    assert shipped.subjects[0].images == {"T1": str(SAMPLE["hippocampus"])}
    assert shipped.layout.label_names == {1: "anterior", 2: "posterior"}
    assert grid(shipped) == ((1, 1, 1), (48, 64, 48))
    root = tree(
        {f"imagesTr/{start}hippocampus_{n}.nii.gz": "hippocampus" for n in ("003", "367") for start in ("", "._")},
        {"labelsTr/hippocampus_003.nii.gz": "hippocampus_gt", "imagesTs/hippocampus_002.nii.gz": "hippocampus"},
    )
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    decathlon = {"name": "Hippocampus", "labels": labels, "numTraining": 260, "training": [], "test": []}
    (root / "dataset.json").write_text(json.dumps(decathlon))
    cohort = find_subjects(root)
    assert cohort.layout is LAYOUTS["hippocampus"]
    assert cohort.subjects == [
        Subject(
            "hippocampus_003",
            {"T1": f"{root}/imagesTr/hippocampus_003.nii.gz"},
            {"T1": f"{root}/labelsTr/hippocampus_003.nii.gz"},
        ),
        Subject("hippocampus_367", {"T1": f"{root}/imagesTr/hippocampus_367.nii.gz"}, {}),
    ]


def test_ibsr_keeps_subjects_without_label_and_says_so(tree, caplog):
    caplog.set_level(logging.INFO)
    root = tree(volume("IBSR_01"), {"IBSR_02/t1.nii.gz": "brain"})
    cohort = find_subjects(root)
    assert cohort.layout is LAYOUTS["ibsr"]
    assert cohort.subjects[1] == Subject("IBSR_02", {"T1": f"{root}/IBSR_02/t1.nii.gz"}, {})
    assert cohort.layout.label_names == {1: "CSF", 2: "GM", 3: "WM"}
    assert grid(cohort) == ((2, 2, 2), (96, 112, 96))
    expected = f"{root}: layout ibsr (guessed), 2 subjects, 1 without all labels (IBSR_02), 0 skipped"
    assert caplog.messages == [expected]


def test_brains_and_label_maps(tree):
    brains = find_subjects(SAMPLES / "brain_synthetic")
    assert brains.layout is LAYOUTS["brains"]
    assert names(brains) == ["synthetic_19", "synthetic_20"]
    assert brains.subjects[0].labels == {"T1": str(SAMPLE["brain_gt"])}
    assert brains.layout.label_names == FREESURFER
    root = tree({"training_seg_01/seg.nii.gz": "brain_gt"})
    cohort = find_subjects(root)
    assert cohort.layout is LAYOUTS["labelmaps"]
    file = f"{root}/training_seg_01/seg.nii.gz"
    assert cohort.subjects == [Subject("training_seg_01", {"T1": file}, {"T1": file})]
    assert cohort.layout.label_names == FREESURFER
    assert grid(cohort) == grid(brains) == ((2, 2, 2), (96, 112, 96))


def learn2reg(root, file, /, **content):
    root.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps(content))


def entry(file, label=True):
    listed = {"image": f"./imagesTr/{file}.nii.gz"}
    return listed | ({"label": f"./labelsTr/{file}.nii.gz"} if label else {})


def pair(fixed, moving):
    return {"fixed": f"./imagesTr/{fixed}.nii.gz", "moving": f"./imagesTr/{moving}.nii.gz"}


def test_learn2reg_between_subjects(tree, tmp_path, caplog):
    files = [f"OASIS_000{n}_0000" for n in (1, 2, 3)]
    root = tree({f"imagesTr/{f}.nii.gz": "brain" for f in files}, {f"labelsTr/{f}.nii.gz": "brain_gt" for f in files})
    learn2reg(
        root,
        "OASIS_dataset.json",
        labels={"0": {"0": "background", "1": "Left-Cerebral-White-Matter", "2": "Left-Cerebral-Cortex"}},
        numTraining=3,
        training=[entry(file) for file in files],
        test=["./imagesTs/OASIS_0101_0000.nii.gz"],
        registration_val=[pair("OASIS_0002_0000", "OASIS_0003_0000")],
    )
    cohort = find_subjects(root)
    assert (cohort.layout.name, cohort.layout.pairing, grid(cohort)) == (
        "learn2reg",
        "subjects",
        ((-1,) * 3, (-1,) * 3),
    )
    assert cohort.layout.label_names == {1: "Left-Cerebral-White-Matter", 2: "Left-Cerebral-Cortex"}
    assert cohort.subjects[0] == Subject(
        "OASIS_0001",
        {"0000": f"{root}/imagesTr/OASIS_0001_0000.nii.gz"},
        {"0000": f"{root}/labelsTr/OASIS_0001_0000.nii.gz"},
        split="train",
    )
    # a case of the validation pairs is no training case, although the data set lists it under training
    assert [subject.split for subject in cohort.subjects] == ["train", "validation", "validation"]
    assert cohort.pairs == {"validation": [(("OASIS_0002", "0000"), ("OASIS_0003", "0000"))]}
    assert cohort.skipped == {"OASIS_0101": "no OASIS_0101_0000.nii.gz"}
    assert "skipped OASIS_0101 (no OASIS_0101_0000.nii.gz)" in caplog.text


def test_learn2reg_within_subjects(tree):
    """Paired scans, lists by modality, labels beside the images, a plain dataset.json."""
    files = [f"MRCT_000{case}_000{channel}" for case in (1, 2) for channel in (0, 1)]
    root = tree({f"imagesTr/{f}.nii.gz": "brain" for f in files}, {f"labelsTr/{files[2]}.nii.gz": "brain_gt"})
    learn2reg(
        root,
        "dataset.json",
        pairings="paired",
        registration_direction={"fixed": 1, "moving": 0},
        labels={"1": "liver"},
        training={"0": [entry(files[0], label=False)], "1": [entry(files[1], label=False)]},
        training_paired_images=[pair(files[1], files[0])],
        registration_val=[pair(files[3], files[2])],
        registration_test=[],
    )
    cohort = find_subjects(root)
    assert cohort.layout.label_names == {1: "liver"}
    assert (cohort.layout.pairing, cohort.layout.fixed, cohort.layout.moving) == ("frames", "0001", "0000")
    assert [(s.name, list(s.images), list(s.labels), s.split) for s in cohort.subjects] == [
        ("MRCT_0001", ["0000", "0001"], [], "train"),
        ("MRCT_0002", ["0000", "0001"], ["0000"], "validation"),
    ]
    assert cohort.pairs == {
        "train": [(("MRCT_0001", "0001"), ("MRCT_0001", "0000"))],
        "validation": [(("MRCT_0002", "0001"), ("MRCT_0002", "0000"))],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "A_dataset.json does not describe a Learn2Reg data set .JSONDecodeError: "),
        ("[]", "A_dataset.json does not describe a Learn2Reg data set .AttributeError: "),
        ('{"registration_val": [{"fixed": "a.nii.gz"}]}', "A_dataset.json does not describe .*KeyError: 'moving'"),
        ('{"labels": {"a": "b"}}', "A_dataset.json does not describe .*ValueError: invalid literal"),
        (
            '{"training": []}',
            "has no subject in the layout learn2reg: found A_dataset.json; expected <name>_dataset.json",
        ),
    ],
)
def test_bad_descriptions_of_learn2reg_are_named(tmp_path, content, message):
    (tmp_path / "A_dataset.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        find_subjects(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_descriptions_of_learn2reg_are_one_too_many(tmp_path):
    for name in ("A_dataset.json", "B_dataset.json"):
        learn2reg(tmp_path, name, training=[])
    with pytest.raises(InputError, match=r"holds 2 descriptions .* found A_dataset.json, B_dataset.json, expected one"):
        find_subjects(tmp_path)


def test_skipped_subjects_are_named_once_with_what_they_lack(tree, caplog):
    caplog.set_level(logging.INFO)
    broken, other = sunnybrook("SC-N-11"), sunnybrook("volunteer-1")
    del broken["SC-N-11/SC-N-11_ES.nii.gz"]
    root = tree(sunnybrook("SC-N-10"), broken, other, {".cache/x": "ED", "__MACOSX/x": "ED"})
    (root / "SC-N-12").mkdir()
    cohort = find_subjects(root)
    assert names(cohort) == ["SC-N-10"]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "WARNING",
            f"{root}: skipped SC-N-11 (no SC-N-11_ES.nii.gz), SC-N-12 (no SC-N-12_ED.nii.gz), "
            "volunteer-1 (is not named SC-*)",
        ),
        ("INFO", f"{root}: layout sunnybrook (guessed), 1 subjects, 3 skipped"),
    ]


def test_a_given_layout_is_not_guessed(tree, caplog):
    caplog.set_level(logging.INFO)
    root = tree(volume("IBSR_01"))
    cohort = find_subjects(str(root), layout="labelmaps")
    assert cohort.subjects[0].images["T1"] == f"{root}/IBSR_01/seg.nii.gz"
    assert caplog.messages == [f"{root}: layout labelmaps, 1 subjects, 0 skipped"]


def test_a_folder_of_two_layouts_needs_the_name_of_one(tree):
    root = tree(volume("IBSR_01"), sunnybrook("SC-N-10"))
    with pytest.raises(InputError, match="fits the layouts sunnybrook and ibsr: found IBSR_01, SC-N-10; name one with"):
        find_subjects(root)
    assert names(find_subjects(root, "ibsr")) == ["IBSR_01"]


def test_folders_that_hold_nothing_known_are_described(tree, tmp_path):
    with pytest.raises(InputError, match=r"fits no known layout: found nothing; expected one of ukbb, .*, labelmaps"):
        find_subjects(tmp_path)
    root = tree({f"{letter}/image.nii.gz": "brain" for letter in "abcdefg"})
    with pytest.raises(InputError, match="fits no known layout: found a, b, c, d, e and 2 more; expected one of"):
        find_subjects(root)
    with pytest.raises(
        InputError, match="no subject in the layout acdc: found a, b, c, d, e and 2 more; expected patient001"
    ):
        find_subjects(root, "acdc")
    with pytest.raises(
        InputError, match=r"no subject in the layout ukbb: skipped a \(no sa_ED.nii.gz\), b .*; expected <subj"
    ):
        find_subjects(root, "ukbb")


def test_other_decathlon_tasks_are_not_taken_for_learn2reg(tmp_path):
    learn2reg(tmp_path, "dataset.json", name="Heart", labels={"1": "left atrium"}, numTraining=20, training=[], test=[])
    with pytest.raises(InputError, match="fits no known layout: found dataset.json"):
        find_subjects(tmp_path)


def test_missing_folders_and_unknown_layouts(tmp_path):
    with pytest.raises(InputError, match="dataset_dir: .*/none is not a folder: expected a folder with a data set"):
        find_subjects(tmp_path / "none")
    with pytest.raises(
        InputError, match="unknown layout 'acdc2': expected one of ukbb, mnms2, acdc, sunnybrook, camcan"
    ):
        find_subjects(tmp_path, "acdc2")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,split\nSC-N-10,Test\n", "subjects.csv has no column 'subject': found name, split"),
        ("", "subjects.csv has no column 'subject': found nothing"),
        ("subject,split\nSC-N-10,held out\n", "puts SC-N-10 in the split 'held out': expected train, validation, test"),
        ("subject,split\nSC-N-10\n", "puts SC-N-10 in the split '': expected train"),
    ],
)
def test_bad_tables_are_named(tree, table, message):
    root = tree(sunnybrook("SC-N-10"))
    (root / "subjects.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        find_subjects(root)


def test_relative_folders_stay_relative(tree, monkeypatch):
    monkeypatch.chdir(tree(sunnybrook("SC-N-10")))
    image = find_subjects(".").subjects[0].images["ED"]
    assert (image, os.path.isfile(image)) == ("SC-N-10/SC-N-10_ED.nii.gz", True)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data is not at {REAL}")
@pytest.mark.parametrize(
    ("folder", "layout", "subjects", "labelled", "splits"),
    [
        ("acdc", "acdc", 80, 80, {"": 80}),
        ("sunnybrook", "sunnybrook", 45, 45, {"train": 30, "test": 15}),
        ("hippocampus", "hippocampus", 208, 208, {"": 208}),
        ("ibsr18_mni2mm", "ibsr", 18, 15, {"": 18}),
        ("synthseg_labelmaps", "labelmaps", 20, 20, {"": 20}),
    ],
)
def test_real_data(folder, layout, subjects, labelled, splits):
    cohort = find_subjects(REAL / folder)
    assert (cohort.layout.name, len(cohort.subjects), cohort.skipped) == (layout, subjects, {})
    assert sum(subject.labels.keys() == subject.images.keys() for subject in cohort.subjects) == labelled
    assert Counter(subject.split for subject in cohort.subjects) == splits
    groups = {"DCM", "HCM", "MINF", "NOR", "RV"} if layout == "acdc" else {""}
    assert {subject.group for subject in cohort.subjects} == groups
    assert all(Path(file).is_file() for subject in cohort.subjects for file in subject.images.values())


def test_a_list_of_pairs_in_place_of_a_folder(tmp_path):
    entries = [
        {"name": "b", "fixed": "1.nii.gz", "moving": "2.nii.gz", "label_moving": "l.nii.gz"},
        {"name": "a", "fixed": "3.nii.gz", "moving": "/4.nii.gz"},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(entries))
    cohort = find_subjects(tmp_path / "pairs.json")
    assert (cohort.layout.name, cohort.layout.pairing) == ("datalist", "frames")
    assert cohort.subjects == [
        Subject("a", {"fixed": f"{tmp_path}/3.nii.gz", "moving": "/4.nii.gz"}, {}),
        Subject(
            "b",
            {"fixed": f"{tmp_path}/1.nii.gz", "moving": f"{tmp_path}/2.nii.gz"},
            {"moving": f"{tmp_path}/l.nii.gz"},
        ),
    ]
    with pytest.raises(InputError, match="--dataset_dir is missing: expected a folder with a data set, or a JSON"):
        find_subjects(None)
