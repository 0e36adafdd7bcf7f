"""Data sets that describe themselves in a JSON file, as Learn2Reg defines it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..support.errors import InputError
from .layouts import SPLITS, Cohort, Layout, Subject

__all__ = ["find_descriptions", "read_learn2reg"]


def find_descriptions(root: Path) -> list[Path]:
    """Find the JSON files that describe a Learn2Reg data set; the Decathlon's dataset.json is not one of them."""
    paths = [path for path in sorted(root.glob("*_dataset.json")) if not path.name.startswith((".", "_"))]
    plain = root / "dataset.json"
    if plain.is_file() and re.search(r'"(registration_|numPaired|training_paired)', plain.read_text(errors="replace")):
        paths.append(plain)
    return paths


def read_learn2reg(layout: Layout, root: Path) -> Cohort:
    """List the cases of a data set, its own pairs and its label names.

    Raises:
        InputError: when there is more than one description, or it does not have the expected form.
    """
    paths = find_descriptions(root)
    if not paths:
        return Cohort(layout, [], root)
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise InputError(
            f"{root} holds {len(paths)} descriptions of a Learn2Reg data set: found {names}, expected one."
        )
    try:
        return _parse_learn2reg(layout, root, json.loads(paths[0].read_text()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{paths[0]} does not describe a Learn2Reg data set ({reason}).") from error


def _parse_learn2reg(layout: Layout, root: Path, content: dict[str, Any]) -> Cohort:
    def entries(key: str) -> list[dict[str, str]]:
        listed = content.get(key) or []
        listed = [entry for part in listed.values() for entry in part] if isinstance(listed, dict) else listed
        return [{"image": entry} if isinstance(entry, str) else entry for entry in listed]

    images: dict[str, dict[str, Path]] = defaultdict(dict)
    labels: dict[str, dict[str, Path]] = defaultdict(dict)
    splits: dict[str, str] = {}  # if several lists name a case, the last one decides
    lists = {"training": "train", "test": "test", "registration_test": "test", "registration_val": "validation"}
    for key, split in lists.items():
        for entry in entries(key):
            for file in (entry[role] for role in ("image", "fixed", "moving") if role in entry):
                case, channel = _case(file)
                splits[case] = split
                images[case][channel] = root / file
                label = entry.get("label") or file.replace("images", "labels", 1)
                labels[case].setdefault(channel, root / label)
    subjects, skipped = [], {}
    for case, paths in sorted(images.items()):
        missing = next((path.name for _, path in sorted(paths.items()) if not path.is_file()), None)
        if missing:
            skipped[case] = f"no {missing}"
            continue
        found = {channel: str(path) for channel, path in sorted(paths.items())}
        known = {channel: str(labels[case][channel]) for channel in found if labels[case][channel].is_file()}
        subjects.append(Subject(case, found, known, split=splits[case]))
    complete = {subject.name for subject in subjects}
    pairs = {}
    for split, key in zip(SPLITS, ("training_paired_images", "registration_val", "registration_test")):
        listed = [(_case(entry["fixed"]), _case(entry["moving"])) for entry in entries(key)]
        pairs[split] = [pair for pair in listed if complete.issuperset((pair[0][0], pair[1][0]))]
    layout = replace(layout, label_names=_label_names(content.get("labels") or {}))
    if content.get("pairings") == "paired":
        direction = content.get("registration_direction") or {"fixed": 0, "moving": 1}
        fixed, moving = (f"{int(direction[role]):04d}" for role in ("fixed", "moving"))
        layout = replace(layout, pairing="frames", fixed=fixed, moving=moving)
    return Cohort(layout, subjects, root, {split: listed for split, listed in pairs.items() if listed}, skipped)


def _case(file: str) -> tuple[str, str]:
    """Split a file name into case and channel: ``imagesTr/OASIS_0001_0000.nii.gz`` is ``OASIS_0001``, ``0000``."""
    stem = Path(file).name.removesuffix(".nii.gz")
    match = re.fullmatch(r"(.+_\d{4})_(\d{4})", stem)
    return (match[1], match[2]) if match else (stem, "0000")


def _label_names(labels: dict[str, Any]) -> dict[int, str]:
    """Return the label names by id; some releases have one table per modality."""
    tables = [table for table in labels.values() if isinstance(table, dict)] or [labels]
    return {int(id_): str(name) for table in tables for id_, name in table.items() if int(id_) != 0}
