"""CPU seconds of a whole pair in a running process, by stage, and its peak memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform

from ...registration import Registration
from ...support.bundle import BUNDLE_ROOT
from .classical import greedy
from .machine import cpu_seconds, describe_machine, peak_resident, run_apart

__all__ = ["PAIRS", "STAGES", "measure_greedy", "measure_pair", "print_pairs"]

SAMPLES = Path(BUNDLE_ROOT) / "tests" / "data"
STAGES = ("read", "network", "native grid", "inverse", "measures", "write")
SIDE = 256  # voxels of 1 mm
PAIRS = {  # task, and fixed and moving images and labels, below the folder of the data sets or the samples
    "heart": ("cardiac", "acdc/patient002/patient002_{}.nii.gz", ("ED", "ES"), ("ED_gt", "ES_gt")),
    "hippocampus": ("hippocampus", "hippocampus/hippocampus_{}.nii.gz", ("327/t1", "341/t1"), ("327/seg", "341/seg")),
    "brain": ("brain", "ibsr18_mni2mm/IBSR_{}.nii.gz", ("01/t1", "03/t1"), ("01/seg", "03/seg")),
    "cube": ("brain", "ibsr18_mni2mm/IBSR_{}.nii.gz", ("01/t1", "03/t1"), ("01/seg", "03/seg")),
}
GREEDY = {  # the fast settings of the comparison of methods; a stack is registered slice by slice
    "heart": "-m NCC 4x4 -n 100x100x50 -s 2vox 0.5vox",
    "hippocampus": "-m NCC 2x2x2 -n 100x50 -s 2vox 0.5vox",
    "brain": "-m NCC 2x2x2 -n 100x50x10 -s 1.732vox 0.707vox",
    "cube": "-m NCC 2x2x2 -n 100x50x10 -s 1.732vox 0.707vox",
}
TITLES = {
    "heart": "heart, 10 slices",
    "hippocampus": "hippocampus crop",
    "brain": "brain, 2 mm",
    "cube": f"two heads, {SIDE}^3 at 1 mm",
}


def print_pairs(data: Path, runs: int) -> None:
    """Print a table with one line per pair; each has a process of its own.

    Args:
        data: folder with the data sets.
        runs: registrations of each pair, of which the fastest counts; the first of several does not.
    """
    print(f"{describe_machine()}\n\n| CPU seconds | {' | '.join(STAGES)} | all | peak, MiB | Greedy |")
    print(f"|---|{'---|' * (len(STAGES) + 3)}")
    for name, title in TITLES.items():
        found = run_apart("pairs", "--pair", name, "--data", str(data), "--runs", str(runs), environment={})
        *times, peak = (float(word) for word in found.split())
        cells = [f"{seconds:.2f}" for seconds in (*times, sum(times))]
        of_greedy = ""
        if find_spec("picsl_greedy"):
            of_greedy = run_apart("pairs", "--pair", name, "--greedy", "--data", str(data), environment={})
        print(f"| {title} | {' | '.join(cells)} | {peak:.0f} | {of_greedy} |", flush=True)


def measure_pair(name: str, data: Path, runs: int) -> str:
    """Return the CPU seconds of each stage of one pair, and the peak memory of this process in MiB, as text."""
    register = Registration.load(PAIRS[name][0])
    with tempfile.TemporaryDirectory() as folder:
        inputs = _inputs(name, data, Path(folder))
        found = [_times(register, inputs, Path(folder) / "out") for _ in range(runs)]
    best = min(found[1:] or found, key=sum)
    return " ".join(f"{value:.3f}" for value in (*best, peak_resident()))


def measure_greedy(name: str, data: Path) -> str:
    """Return the CPU seconds that Greedy takes for one pair from files to its field and the warped image and label."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = _inputs(name, data, Path(folder))
        start = cpu_seconds()
        if name == "heart":
            images: list[Any] = [nib.load(inputs[key]) for key in ("fixed", "moving")]
            fixed, moving = (image.get_fdata(dtype=np.float32) for image in images)
            for depth in range(fixed.shape[2]):
                greedy(fixed[..., depth], moving[..., depth], GREEDY[name])
        else:
            from picsl_greedy import Greedy3D

            tool, warp = Greedy3D(), f"{folder}/warp.nii.gz"
            both = f"{inputs['fixed']} {inputs['moving']}"
            tool.execute(f"-i {both} -o {warp} {GREEDY[name]} -wp 0 -threads 1 -V 0")
            warped = f"-rm {inputs['moving']} {folder}/image.nii.gz -ri NN"
            warped += f" -rm {inputs['label_moving']} {folder}/label.nii.gz"
            tool.execute(f"-rf {inputs['fixed']} {warped} -r {warp} -threads 1 -V 0")
        return f"{cpu_seconds() - start:.2f}"


def _times(register: Registration, inputs: dict[str, str], folder: Path) -> list[float]:
    times = []

    def timed(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = cpu_seconds()
        result = call(*arguments, **options)
        times.append(cpu_seconds() - start)
        return result

    data = timed(register.preprocessing, inputs)
    ddf = timed(register.predict, data["image"], fine=data.get("fine", False))
    result = timed(register.result, inputs, data, ddf)
    del data, ddf  # large, and not needed any more
    timed(getattr, result, "inversion")
    timed(getattr, result, "metrics")
    timed(result.save, folder, True)
    return times


def _inputs(name: str, data: Path, folder: Path) -> dict[str, str]:
    _, pattern, images, labels = PAIRS[name]
    roots = [root for root in (data, SAMPLES) if (root / pattern.format(images[0])).is_file()]
    keys = ("fixed", "moving", "label_fixed", "label_moving")
    files = {key: (roots or [data])[0] / pattern.format(part) for key, part in zip(keys, (*images, *labels))}
    if name == "cube":
        files = {
            key: _enlarged(file, folder / f"{key}.nii.gz", order=0 if "label" in key else 1)
            for key, file in files.items()
        }
    return {key: str(file) for key, file in files.items()}


def _enlarged(source: Path, path: Path, order: int) -> Path:
    """Write an image of 2 mm in the middle of a cube of 1 mm."""
    image: Any = nib.load(source)
    corner = (np.array(image.shape) - SIDE / 2) / 2
    grid = np.eye(4)
    grid[:3, :3], grid[:3, 3] = np.eye(3) / 2, corner
    values = affine_transform(np.asarray(image.dataobj, np.float32), grid, output_shape=(SIDE,) * 3, order=order)
    nib.save(nib.Nifti1Image(values.astype(np.uint8), image.affine @ grid), path)
    return path
