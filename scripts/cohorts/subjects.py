"""Lists the subjects of data sets in known layouts, by their file names; no image is read."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ..support.errors import InputError
from ..support.files import user_path
from .datalist import read_pairs
from .layouts import DATALIST, LAYOUTS, SPLITS, Cohort, Form, Layout, Subject, Table
from .learn2reg import find_descriptions, read_learn2reg

__all__ = ["find_subjects"]

logger = logging.getLogger(__name__)


def find_subjects(dataset_dir: str | Path | None, layout: str | None = None) -> Cohort:
    """List the subjects of a data set.

    Args:
        dataset_dir: folder of the data set, or a JSON list of pairs (:func:`read_pairs`), each of which is a subject.
        layout: name of a layout in :data:`LAYOUTS`; by default guessed from the files.

    Returns:
        the subjects that have all their images, with or without labels; the log names those that were skipped.

    Raises:
        InputError: when the folder or layout does not exist, no layout or more than one fits, no subject is complete,
            or a file that describes the data set is not usable.
    """
    if dataset_dir is None:
        raise InputError("--dataset_dir is missing: expected a folder with a data set, or a JSON list of pairs.")
    root = user_path(dataset_dir, "dataset_dir")
    if root.suffix == ".json":
        return _read_datalist(root)
    if not root.is_dir():
        raise InputError(f"dataset_dir: {root} is not a folder: expected a folder with a data set.")
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"unknown layout '{layout}': expected one of {', '.join(LAYOUTS)}.")
    chosen = _guess(root) if layout is None else LAYOUTS[layout]
    cohort = _read_forms(chosen, root) if chosen.forms else read_learn2reg(chosen, root)
    skipped = ", ".join(f"{name} ({reason})" for name, reason in sorted(cohort.skipped.items()))
    if not cohort.subjects:
        found = f"skipped {skipped}" if skipped else f"found {_content(root)}"
        raise InputError(f"{root} has no subject in the layout {chosen.name}: {found}; expected {chosen.expected}.")
    if skipped:
        logger.warning("%s: skipped %s", root, skipped)
    without = [subject.name for subject in cohort.subjects if subject.labels.keys() != subject.images.keys()]
    logger.info(
        "%s: layout %s%s, %d subjects%s, %d skipped",
        root,
        chosen.name,
        " (guessed)" if layout is None else "",
        len(cohort.subjects),
        f", {len(without)} without all labels ({', '.join(without)})" if without and cohort.layout.label_names else "",
        len(cohort.skipped),
    )
    return cohort


def _read_datalist(path: Path) -> Cohort:
    keys = (DATALIST.fixed, DATALIST.moving)
    subjects = [
        Subject(
            pair["name"],
            {key: pair[key] for key in keys},
            {key: pair[f"label_{key}"] for key in keys if f"label_{key}" in pair},
        )
        for pair in read_pairs({}, str(path))
    ]
    return Cohort(DATALIST, sorted(subjects, key=lambda subject: subject.name), path)


def _guess(root: Path) -> Layout:
    for priority in sorted({layout.priority for layout in LAYOUTS.values()}):
        fitting = [layout for layout in LAYOUTS.values() if layout.priority == priority and _fits(layout, root)]
        if len(fitting) > 1:
            names = " and ".join(layout.name for layout in fitting)
            raise InputError(f"{root} fits the layouts {names}: found {_content(root)}; name one with --layout.")
        if fitting:
            return fitting[0]
    raise InputError(f"{root} fits no known layout: found {_content(root)}; expected one of {', '.join(LAYOUTS)}.")


def _fits(layout: Layout, root: Path) -> bool:
    return any(_form_fits(form, root) for form in layout.forms) if layout.forms else bool(find_descriptions(root))


def _content(folder: Path, first: int = 5) -> str:
    names = _visible(folder, "*")
    more = f" and {len(names) - first} more" if len(names) > first else ""
    return (", ".join(names[:first]) + more) or "nothing"


def _form_fits(form: Form, root: Path) -> bool:
    """Return whether any subject has any of its images."""
    return any(
        path.is_file()
        for base, _ in _bases(form, root)
        for name in _names(form, base)
        for path in _files(form, base, name)[0].values()
    )


def _bases(form: Form, root: Path) -> Iterator[tuple[Path, str]]:
    return ((root / folder, split) for folder, split in form.folders if (root / folder).is_dir())


def _visible(base: Path, pattern: str) -> list[str]:
    """Return the names that fit a pattern, without the hidden files of macOS and other tools."""
    return sorted(path.name for path in base.glob(pattern) if not path.name.startswith((".", "_")))


def _names(form: Form, base: Path) -> list[str]:
    return [name.removesuffix(".nii.gz") for name in _visible(base, form.subjects)]


def _files(form: Form, base: Path, name: str) -> tuple[dict[str, Path], dict[str, Path], str]:
    """Return images, labels and group of a subject; a file name contains "?" where ``info`` has no value."""
    info = {}
    path = base / form.info.format(name=name)
    if form.info and path.is_file():
        lines = (line.partition(":") for line in path.read_text(errors="replace").splitlines())
        info = {key.strip(): value.strip() for key, _, value in lines}
    images, labels = (
        {key: base / file.format(name=name, key=key, info=info.get(key, "?")) for key in form.keys}
        for file in (form.image, form.label)
    )
    return images, labels, info.get("Group", "")


def _read_forms(layout: Layout, root: Path) -> Cohort:
    form = next((form for form in layout.forms if _form_fits(form, root)), layout.forms[0])
    subjects, skipped = [], {}
    for base, split in _bases(form, root):
        rows = _read_table(form.table, base) if form.table else {}
        names = _names(form, base)
        for name in names:
            images, labels, group = _files(form, base, name)
            info = [base / form.info.format(name=name)] if form.info else []
            required = info + [path for key, path in images.items() if key not in form.optional]
            missing = next((path.name for path in required if not path.is_file()), None)
            if missing:
                skipped[name] = f"no {missing}"
                continue
            found = {key: str(path) for key, path in images.items() if path.is_file()}
            known = {key: str(labels[key]) for key in found if labels[key].is_file()}
            row = {"group": group, "split": split} | rows.get(name.lstrip("0"), {})
            subjects.append(Subject(name, found, known, **row))
        if names and form.subjects.endswith("/"):
            others = set(_visible(base, "*/")) - {*names, *(folder.split("/")[0] for folder, _ in form.folders)}
            skipped |= dict.fromkeys(others, f"is not named {form.subjects[:-1]}")
    return Cohort(layout, sorted(subjects, key=lambda subject: subject.name), root, skipped=skipped)


def _read_table(table: Table, base: Path) -> dict[str, dict[str, str]]:
    """Read group and split of each subject, by its name without leading zeros; nothing without a table."""
    paths = (Path(os.path.normpath(base / file)) for file in table.files)  # ".." by name, not through a link
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {}
    columns = {key: column for key, column in (("group", table.group), ("split", table.split)) if column}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file, restval="")
        for column in (table.name, *columns.values()):
            if column not in (reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise InputError(f"{path} has no column '{column}': found {found}.")
        rows = {
            row[table.name].strip().lstrip("0"): {key: row[column].strip() for key, column in columns.items()}
            for row in reader
        }
    for name, row in rows.items():
        if "split" in row:
            row["split"] = row["split"].lower()
            if row["split"] not in SPLITS:
                raise InputError(f"{path} puts {name} in the split '{row['split']}': expected {', '.join(SPLITS)}.")
    return rows
