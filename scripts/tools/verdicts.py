"""Learns the verdicts of a task from good registrations and planted faults, and measures how good they are.

python -m scripts.tools.verdicts record TASK --set chosen --output chosen.csv
python -m scripts.tools.verdicts learn chosen.csv ...
python -m scripts.tools.verdicts record TASK --set reported --output reported.csv
python -m scripts.tools.verdicts test reported.csv ...
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata

from ..cohorts import TASKS
from ..images.loading import open_nifti, read_nifti
from ..images.synthesis import RandSynthesizeT1d
from ..registration import Registration
from ..results.measures import common_classes, dice_per_class
from ..results.summary import write_csv
from ..support.bundle import BUNDLE_ROOT
from ..support.command_line import report_in_one_line
from ..support.errors import find_input_error
from ..support.files import replace_file
from ..verdict import Judge, read_judge
from ..verdict.judge import LEVELS, REASONS, Measure
from .faults import FAULTS, Fault, mirrored_sides, replace_organ, skull_on

Row = dict[str, Any]


class Pair(NamedTuple):
    """The files of a pair."""

    name: str
    fixed: Path
    moving: Path
    label_fixed: Path
    label_moving: Path


SHIPPED = Path(BUNDLE_ROOT) / "models" / "verdict.json"
DATA = Path(BUNDLE_ROOT).parent / "shared" / "data"
BRAINS = Path(BUNDLE_ROOT) / "eval" / "brains"  # where scripts.prepare puts the label maps
ORGAN = "another organ"
HARMLESS = 0.05  # of Dice; a fault that costs less is none
DECAY = 0.02  # of the weights
TEXTS = ("task", "pair", "fault", "refused")
BACKGROUND = 8.0  # of a painted image, whose maximum is 255
SIMPLE = ((-1, "correlation"), (1, "irregularity"))
STEPS = 2000
BLIND = 0.8  # area under the curve, below which a fault cannot be told from good registrations
PRIOR = 0.2  # share of failures; with it at most one in a hundred good registrations of the chosen sets has failed
MARGIN = 0.1  # of the range of good registrations, by which a limit is wider


def pairs_of(task: str, reported: bool, data: Path, brains: Path) -> list[Pair]:
    """Return the pairs of a task: those that limits are learned from, or those that no choice has seen."""
    if task == "cardiac":
        folders = [f for f in sorted(data.glob("acdc/patient*")) if int(f.name[-3:]) % 2 != reported]
        folders += [] if reported else sorted(data.glob("sunnybrook/SC*"))
        return [
            Pair(f"{f.name} {a}", *(f / f"{f.name}_{frame}{end}.nii.gz" for end in ("", "_gt") for frame in (a, b)))
            for f in folders
            for a, b in (("ED", "ES"), ("ES", "ED"))
        ]
    steps: Sequence[int]
    if task == "hippocampus":
        everyone = sorted(data.glob("hippocampus/hippocampus_*"))
        subjects, steps = (everyone[-40:], (1, 3, 7, 12)) if reported else (everyone[:-40], (1,))
    elif reported:
        subjects = [f for f in sorted(data.glob("ibsr18_mni2mm/IBSR_*")) if (f / "seg.nii.gz").exists()]
        steps = (1, 4, 7)
    else:
        subjects, steps = _paint(sorted(brains.glob("training_seg_*"))), (1,)
    others = [(f, subjects[(n + step) % len(subjects)]) for step in steps for n, f in enumerate(subjects)]
    return [
        Pair(f"{a.name} {b.name}", *(f / f"{kind}.nii.gz" for kind in ("t1", "seg") for f in (a, b))) for a, b in others
    ]


def faults_of(task: str, data: Path) -> dict[str, Fault]:
    """Return the faults of a task by name."""
    others = _others(task, data)

    def organ(image: nib.Nifti1Image, label: nib.Nifti1Image, random: np.random.Generator, dims: int) -> Any:
        return replace_organ(image, open_nifti(others[int(random.integers(len(others)))], "moving"))

    faults = {**FAULTS, ORGAN: organ}
    return faults if task != "brain" else {**faults, "skull on": skull_on, "mirrored sides": mirrored_sides}


def record(task: str, pairs: Sequence[Pair], faults: dict[str, Fault], number: int, path: Path) -> None:
    """Register all pairs as they are, and some of them with each fault; a file that is there is continued."""
    register = Registration.load(task, device="cpu")
    rows = _read([path]) if path.exists() else []
    known = {(row["pair"], row["fault"]) for row in rows}
    order = np.random.default_rng(0).permutation(len(pairs))
    jobs = [(pair, "") for pair in pairs]
    for n, fault in enumerate(faults):  # other pairs for each fault
        jobs += [(pairs[order[(n * number + k) % len(pairs)]], fault) for k in range(min(number, len(pairs)))]
    for index, (pair, fault) in enumerate(jobs):
        if (pair.name, fault) in known:
            continue
        random = np.random.default_rng([sum(map(ord, pair.name + fault))])
        rows.append({"task": task, "pair": pair.name, "fault": fault})
        rows[-1] |= _measure(register, pair, faults.get(fault), random)
        replace_file(path, partial(_write, rows))
        print(f"{index + 1}/{len(jobs)} {pair.name} {fault}: Dice {rows[-1]['dice']:.3f}", flush=True)


def learn(rows: Sequence[Row]) -> Judge:
    """Learn from all faults that can be told from good registrations; the others would make good ones doubtful."""
    judge = _fit(rows)
    good, bad = good_and_bad(rows)
    blind = [fault for fault in _faults(bad) if _areas(good, [r for r in bad if r["fault"] == fault], judge)[0] < BLIND]
    return _fit([row for row in rows if row["fault"] not in blind])


def _fit(rows: Sequence[Row]) -> Judge:
    """Find how each measure counts, by logistic regression with weights that are not negative, and its limit."""
    good, bad = good_and_bad(rows)
    measures = {}
    for name, (side, _) in REASONS.items():
        values = np.array([row[name] for row in good])
        limit = side * (side * values).max() + side * MARGIN * np.ptp(values)
        measures[name] = Measure(float(values.mean()), float(values.std()), float(limit), 0.0)
    plain = Judge(measures)
    table = [row for row in (*good, *bad) if all(isinstance(row.get(name), float) for name in REASONS)]
    far = torch.tensor([list(plain.badness(row).values()) for row in table])
    weights, offset = _regress(far, torch.tensor([float(bool(row["fault"])) for row in table]))
    named = zip(measures.items(), weights)
    learned = {name: replace(measure, weight=weight) for (name, measure), weight in named}
    return Judge(learned, offset + math.log(PRIOR / (1 - PRIOR)))


def good_and_bad(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the registrations without a fault, and those with a fault that did harm or that was refused."""
    good = [row for row in rows if not row["fault"]]
    dice = {row["pair"]: row["dice"] for row in good}
    return good, [row for row in rows if row["fault"] and row["dice"] < dice[row["pair"]] - HARMLESS]


def test(rows: Sequence[Row], judge: Judge) -> str:
    """Make a table: for each fault the verdicts, and the area under the ROC curve of the score and of simpler measures.

    A fault that was refused counts as seen by the score. The simpler measures are what a user has without verdicts: the
    correlation of the images, and how much |J| varies.
    """
    good, bad = good_and_bad(rows)
    planted = sum(bool(row["fault"]) for row in rows)
    lines = ["| | pairs | refused | good | doubtful | failed | ROC | correlation | std log\\|J\\| |", "|---" * 9 + "|"]
    groups = {"none": good, **{fault: [row for row in bad if row["fault"] == fault] for fault in _faults(bad)}}
    for name, group in {**groups, "all faults": bad}.items():
        seen = [row for row in group if not row.get("refused")]
        verdicts = [judge(row).verdict for row in seen]
        counts = [sum(verdict == level for verdict in verdicts) for level in LEVELS]
        areas = ["", "", ""] if name == "none" else [f"{value:.3f}" for value in _areas(good, group, judge)]
        cells = [name, len(group), len(group) - len(seen), *counts, *areas]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, f"\nfaults that did no harm, and are left out: {planted - len(bad)} of {planted}"])


def _faults(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["fault"] for row in rows))


def _areas(good: Sequence[Row], bad: Sequence[Row], judge: Judge) -> list[float]:
    """The areas under the ROC curves of the score, of the correlation, and of how much |J| varies."""
    seen = [row for row in bad if not row.get("refused")]
    refused = [2.0] * (len(bad) - len(seen))
    scores = [[judge(row).score or 0.0 for row in group] for group in (good, seen)]
    simple = [[[sign * row[key] for row in group] for group in (good, seen)] for sign, key in SIMPLE]
    return [
        _area(first, [*second, *(refused if which == 0 else [])])
        for which, (first, second) in enumerate([scores, *simple])
    ]


def _area(good: Sequence[float], bad: Sequence[float]) -> float:
    """The probability that a failure has the larger value; one half for equal ones."""
    if not bad:
        return float("nan")
    ranks = rankdata([*good, *bad])[len(good) :]
    return float((ranks.sum() - len(bad) * (len(bad) + 1) / 2) / (len(good) * len(bad)))


def _measure(register: Registration, pair: Pair, fault: Fault | None, random: np.random.Generator) -> Row:
    """Register a pair with a fault, and compare its labels by the classes that both have without the fault."""
    labels = [open_nifti(path, "label") for path in (pair.label_fixed, pair.label_moving)]
    classes, _ = common_classes(*(torch.from_numpy(np.asarray(found.dataobj).astype(np.int32)) for found in labels))
    image, label = open_nifti(pair.moving, "moving"), labels[1]
    if fault is not None:
        image, label = fault(image, label, random, register.spatial_dims)
    try:
        inputs = {"fixed": pair.fixed, "moving": image, "label_fixed": pair.label_fixed, "label_moving": label}
        result = register.register(inputs, register.preprocessing(inputs))
    except Exception as error:
        if find_input_error(error) is None:
            raise
        return {"dice": 0.0, "refused": str(find_input_error(error)).split(":")[-1].strip()}
    assert result.label_fixed is not None
    assert result.label_warped is not None
    fixed_ids, warped_ids = (found.as_tensor()[0] for found in (result.label_fixed, result.label_warped))
    dice = dice_per_class(fixed_ids, warped_ids, classes)["mean"]
    return {"dice": dice, "warnings": len(result.warnings), **result.evidence}


def _write(rows: Sequence[Row], path: Path) -> None:
    write_csv(rows, list(dict.fromkeys(column for row in rows for column in row)), path)


def _read(paths: Sequence[Path]) -> list[Row]:
    """Read what was recorded: numbers, and the texts of the first columns and of ``refused``."""
    rows = []
    for path in paths:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                rows.append(
                    {
                        key: value if key in TEXTS else float(value)
                        for key, value in row.items()
                        if value or key == "fault"
                    }
                )
    return rows


def _paint(subjects: Sequence[Path]) -> list[Path]:
    """Paint an image for each label map, 2 mm, next to it; one that is there stays."""
    painted = []
    for folder in subjects:
        target = folder.with_name(f"painted_{folder.name}")
        painted.append(target)
        if (target / "t1.nii.gz").exists():
            continue
        label = read_nifti(folder / "seg.nii.gz", "label", label=True)
        data = RandSynthesizeT1d(seed=int(folder.name[-2:]))({"label_fixed": label, "label_moving": label})
        affine = label.affine.numpy().copy()
        affine[:3, 3] += affine[:3, :3].sum(1) / 2  # the middle of eight voxels
        affine[:3, :3] *= 2
        image = F.avg_pool3d(data["fixed"].as_tensor()[None].float(), 2)[0, 0].numpy()
        ids = data["label_fixed"].as_tensor()[0, ::2, ::2, ::2].numpy().astype(np.int32)
        target.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(ids, affine), target / "seg.nii.gz")
        nib.save(nib.Nifti1Image(image * (image > BACKGROUND), affine), target / "t1.nii.gz")
    return painted


def _others(task: str, data: Path) -> list[Path]:
    """The images of the other tasks."""
    images = {
        "cardiac": "sunnybrook/SC*/*_E?.nii.gz",
        "hippocampus": "hippocampus/*/t1.nii.gz",
        "brain": "ibsr*/*/t1.nii.gz",
    }
    return [path for name, pattern in images.items() if name != task for path in sorted(data.glob(pattern))]


def _regress(far: torch.Tensor, truth: torch.Tensor) -> tuple[list[float], float]:
    """Fit the probability of a failure where one of two registrations fails."""
    roots = torch.full((far.shape[1],), 0.5, requires_grad=True)  # weights are their squares
    offset = torch.tensor(-2.0, requires_grad=True)
    share = torch.where(truth > 0, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
    optimizer = torch.optim.LBFGS([roots, offset], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = far @ roots.square() + offset
        value = F.binary_cross_entropy_with_logits(logits, truth, share) + DECAY * roots.square().square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return roots.detach().square().tolist(), float(offset.detach())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tools.verdicts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="register pairs as they are, and with faults; continues a file")
    recording.add_argument("task", choices=TASKS)
    recording.add_argument("--set", choices=("chosen", "reported"), required=True, help="to learn from, or to report")
    recording.add_argument("--data", type=Path, default=DATA, help="folder with the data sets (default: %(default)s)")
    recording.add_argument("--brains", type=Path, default=BRAINS, help="label maps that scripts.prepare has prepared")
    recording.add_argument("--faults", type=int, default=20, help="pairs with each fault (default: %(default)s)")
    recording.add_argument("--output", type=Path, required=True)
    learning = commands.add_parser("learn", help="learn from recorded files, each of one task")
    testing = commands.add_parser("test", help="print what the verdicts on recorded files are worth")
    for command in (learning, testing):
        command.add_argument("files", type=Path, nargs="+")
        command.add_argument("--verdicts", type=Path, default=SHIPPED, help="default: %(default)s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.command == "record":
        logging.disable(logging.WARNING)  # of faults that are planted
        pairs = pairs_of(options.task, options.set == "reported", options.data, options.brains)
        record(options.task, pairs, faults_of(options.task, options.data), options.faults, options.output)
        return
    rows = {task: list(group) for task, group in groupby(_read(options.files), key=lambda row: str(row["task"]))}
    if options.command == "learn":
        known = json.loads(options.verdicts.read_text()) if options.verdicts.exists() else {}
        learned = {task: known.get(task, {}) | asdict(learn(of_task)) for task, of_task in rows.items()}
        write_rounded(known | learned, options.verdicts)
        return
    for task, of_task in rows.items():
        print(f"\n{task}\n\n{test(of_task, read_judge(options.verdicts, task))}")


def write_rounded(content: Row, file: Path) -> None:
    """Write what was learned for each task as JSON, with five digits of each number."""
    text = json.dumps(_rounded(content), indent=1) + "\n"
    replace_file(file, lambda path: path.write_text(text))


def _rounded(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_rounded(value) for value in content]
    return float(f"{content:.5g}")


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
