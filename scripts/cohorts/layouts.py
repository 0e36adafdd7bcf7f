"""The known data sets: how they name their files, their labels, and the grid that fits them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from .labels import FREESURFER, MALPEM_TISSUES, SEG35

__all__ = ["DATALIST", "LAYOUTS", "SPLITS", "Cohort", "Form", "Layout", "Subject", "Table"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Subject:
    """The files of one subject.

    Args:
        name: name, unique in its data set.
        images: path of each frame (``ED``, ``ES``), modality (``T1``, ``T2``) or Learn2Reg channel (``0000``, ...).
        labels: path of each label map that exists, by the same keys.
        group: site, vendor or diagnosis, if the data set has it.
        split: ``train``, ``validation`` or ``test``, if the data set defines it.
    """

    name: str
    images: dict[str, str]
    labels: dict[str, str]
    group: str = ""
    split: str = ""


@dataclass(frozen=True)
class Table:
    """A CSV file with one row per subject: its possible paths, and its columns ("" is none)."""

    files: tuple[str, ...]
    name: str
    group: str = ""
    split: str = ""


@dataclass(frozen=True)
class Form:
    """How one release of a data set names its files, below the folder of its subjects.

    Args:
        subjects: glob pattern of the folders (ends in a slash) or files that stand for one subject each; they also
            give the subject's name.
        image: path of an image, with ``{name}`` for the subject, ``{key}`` for the frame or modality, and ``{info}``
            for the value of this key in the file ``info``.
        label: path of a label map, in the same form.
        keys: the frames or modalities.
        optional: the frames or modalities that a subject may lack.
        info: path of a file about a subject with lines ``key: value``; ``Group`` is the subject's group.
        table: a file about all subjects.
        folders: the folders of the data set that may contain subjects, each with the split of its subjects.
    """

    subjects: str
    image: str
    label: str
    keys: tuple[str, ...] = ("T1",)
    optional: tuple[str, ...] = ()
    info: str = ""
    table: Table | None = None
    folders: tuple[tuple[str, str], ...] = (("", ""),)


@dataclass(frozen=True)
class Layout:
    """What is known about a data set before it is read.

    Args:
        name: name for the user.
        expected: what a folder of this layout looks like, for error messages.
        label_names: name of each label id.
        spacing: default voxel size of the network's grid in mm; -1 keeps that of the image.
        spatial_size: default size of the network's grid in voxels; -1 keeps that of the image.
        forms: the releases of the data set; none for Learn2Reg, which describes itself in a JSON file.
        pairing: what makes a pair: ``frames``, two images of a subject, or ``subjects``, images of two subjects.
        fixed: key of the fixed image by default.
        moving: key of the moving image by default.
        priority: a layout is guessed only if no layout with a lower number fits.
    """

    name: str
    expected: str
    label_names: dict[int, str]
    spacing: tuple[float, ...]
    spatial_size: tuple[int, ...]
    forms: tuple[Form, ...]
    pairing: str = "subjects"
    fixed: str = "T1"
    moving: str = "T1"
    priority: int = 0


@dataclass(frozen=True)
class Cohort:
    """The subjects of a data set.

    Args:
        layout: layout of the data set; for Learn2Reg, label names and pairing come from its JSON file.
        subjects: the complete subjects, sorted by name.
        root: the folder.
        pairs: by split, the pairs that the data set itself defines: (subject, key) fixed and (subject, key) moving.
        skipped: the other subjects, each with the reason.
    """

    layout: Layout
    subjects: list[Subject]
    root: Path
    pairs: dict[str, list[tuple[tuple[str, str], tuple[str, str]]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def _cardiac(name: str, expected: str, labels: list[str], mm: float, *forms: Form) -> Layout:
    names, size = dict(enumerate(labels, start=1)), (160, 160, -1)
    forms = tuple(replace(form, keys=("ED", "ES")) for form in forms)
    return Layout(name, expected, names, (mm, mm, -1), size, forms, "frames", "ED", "ES")


def _brain(name: str, expected: str, labels: dict[int, str], form: Form, priority: int = 0) -> Layout:
    return Layout(name, expected, labels, (2, 2, 2), (96, 112, 96), (form,), priority=priority)


_T1_SEG = ("{name}/t1.nii.gz", "{name}/seg.nii.gz")
_FRAME_GT = ("{name}/{name}_{key}.nii.gz", "{name}/{name}_{key}_gt.nii.gz")
_MNMS2 = Form(
    "[0-9][0-9][0-9]/",
    "{name}/{name}_SA_{key}.nii.gz",
    "{name}/{name}_SA_{key}_gt.nii.gz",
    table=Table(("dataset_information.csv", "../dataset_information.csv"), "SUBJECT_CODE", group="VENDOR"),
    folders=(("", ""), ("dataset", "")),
)
_ACDC_RELEASE = Form(
    "patient*/",
    "{name}/{name}_frame{info:0>2}.nii.gz",
    "{name}/{name}_frame{info:0>2}_gt.nii.gz",
    info="{name}/Info.cfg",
    folders=(
        ("", ""),
        ("training", "train"),
        ("testing", "test"),
        ("database/training", "train"),
        ("database/testing", "test"),
    ),
)
_CAMCAN = Form(
    "*/", "{name}/{key}_brain.nii.gz", "{name}/T1_brain_MALPEM_tissues.nii.gz", ("T1", "T2"), optional=("T2",)
)

_ALL = (
    _cardiac(
        "ukbb",
        "<subject>/sa_ED.nii.gz, sa_ES.nii.gz, label_sa_ED.nii.gz, label_sa_ES.nii.gz",
        ["LV", "Myo", "RV"],
        1.8,
        Form("*/", "{name}/sa_{key}.nii.gz", "{name}/label_sa_{key}.nii.gz"),
    ),
    _cardiac(
        "mnms2",
        "001/001_SA_ED.nii.gz, 001_SA_ES.nii.gz, each with its _gt, and dataset_information.csv",
        ["LV", "Myo", "RV"],
        2.0,
        _MNMS2,
    ),
    _cardiac(
        "acdc",
        "patient001/Info.cfg, patient001_frame01.nii.gz, ... or patient001/patient001_ED.nii.gz, ..., with _gt",
        ["RV", "Myo", "LV"],
        1.5,
        _ACDC_RELEASE,
        Form("patient*/", *_FRAME_GT, table=Table(("subjects.csv",), "patient", group="group")),
    ),
    _cardiac(
        "sunnybrook",
        "SC-N-10/SC-N-10_ED.nii.gz, SC-N-10_ES.nii.gz, each with its _gt",
        ["LV"],
        1.5,
        Form("SC-*/", *_FRAME_GT, table=Table(("subjects.csv",), "subject", split="split")),
    ),
    Layout(
        "camcan",
        "<subject>/T1_brain.nii.gz, T2_brain.nii.gz, T1_brain_MALPEM_tissues.nii.gz",
        MALPEM_TISSUES,
        (1.375, 1.5, 1.375),  # 176 x 192 x 176 mm in 128^3 voxels
        (128, 128, 128),
        (_CAMCAN,),
    ),
    _brain(
        "oasis",
        "OASIS_OAS1_0001_MR1/aligned_norm.nii.gz, aligned_seg35.nii.gz",
        SEG35,
        Form("OASIS_OAS1_*/", "{name}/aligned_norm.nii.gz", "{name}/aligned_seg35.nii.gz"),
    ),
    Layout(
        "learn2reg",
        "<name>_dataset.json or a dataset.json with registration_val, and the images that it names",
        {},
        (-1, -1, -1),
        (-1, -1, -1),
        (),
        fixed="0000",
        moving="0000",
    ),
    Layout(
        "hippocampus",
        "imagesTr/hippocampus_001.nii.gz with labelsTr, or hippocampus_001/t1.nii.gz, seg.nii.gz",
        {1: "anterior", 2: "posterior"},
        (1, 1, 1),
        (48, 64, 48),
        (
            Form("imagesTr/hippocampus_*.nii.gz", "imagesTr/{name}.nii.gz", "labelsTr/{name}.nii.gz"),
            Form("hippocampus_*/", *_T1_SEG),
        ),
    ),
    _brain("ibsr", "IBSR_01/t1.nii.gz, seg.nii.gz", {1: "CSF", 2: "GM", 3: "WM"}, Form("IBSR_*/", *_T1_SEG)),
    _brain("brains", "<subject>/t1.nii.gz, seg.nii.gz", FREESURFER, Form("*/", *_T1_SEG), priority=1),
    _brain(
        "labelmaps",
        "only <subject>/seg.nii.gz, from which an image is synthesised",
        FREESURFER,
        Form("*/", "{name}/seg.nii.gz", "{name}/seg.nii.gz"),
        priority=2,
    ),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}
# a JSON list of pairs in place of a folder: each pair is a subject with these two images
DATALIST = _cardiac("datalist", "a JSON list of pairs, [{fixed: ..., moving: ...}, ...]", [], 1.5)
DATALIST = replace(DATALIST, fixed="fixed", moving="moving")
