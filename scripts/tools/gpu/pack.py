"""Packs the subjects of a task into one small file, for a bare machine with a GPU.

    python -m scripts.tools.gpu.pack TASK --dataset_dir DIR --output FILE.npz

The file has ``<subset>_image`` and ``<subset>_label`` for the subsets train and validation, with 8 bits and of shape
(items, frames, *spatial). An item is a slice of a heart in two frames, a crop of a hippocampus, or the label map of a
brain. Images are preprocessed as for the network. The values of label maps are positions in ``label_ids``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ...cohorts import find_subjects, select_subjects
from ...cohorts.layouts import Subject
from ...images import preprocess_pair, read_nifti
from .tasks import TASKS, Task

__all__ = ["main", "pack"]


def pack(task: Task, dataset_dir: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the file by name."""
    cohort = find_subjects(dataset_dir)
    arrays: dict[str, np.ndarray] = {}
    for subset in ("train", "validation"):
        subjects = select_subjects(cohort.subjects, subset, task.validation, task.test)
        items = [item for subject in subjects for item in _items(task, subject)]
        arrays[f"{subset}_label"] = np.stack([label for _, label in items])
        if task.frames:
            arrays[f"{subset}_image"] = np.stack([(image * 255).round().astype(np.uint8) for image, _ in items])
    labels = [key for key in arrays if key.endswith("label")]
    ids = np.unique(np.concatenate([np.unique(arrays[key]) for key in labels]))
    return {**arrays, **{key: np.searchsorted(ids, arrays[key]).astype(np.uint8) for key in labels}, "label_ids": ids}


def _items(task: Task, subject: Subject) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield image and label of each item, both of shape (frames, *spatial)."""
    if not task.frames:
        label = read_nifti(next(iter(subject.labels.values())), "label", 3, label=True).numpy().astype(np.int32)
        yield label, label
        return
    fixed, moving = task.frames[0], task.frames[-1]
    files = {"fixed": subject.images[fixed], "moving": subject.images[moving]}
    files |= {"label_fixed": subject.labels[fixed], "label_moving": subject.labels[moving]}
    preprocess = preprocess_pair(task.spatial_dims, task.spacing, task.spatial_size, labels_on_grid=True)
    data = preprocess({key: str(value) for key, value in files.items()})
    images = np.stack([data[key][0].numpy() for key in ("fixed", "moving")])
    labels = np.stack([data[f"label_{key}"][0].numpy().astype(np.int32) for key in ("fixed", "moving")])
    if task.spatial_dims == 3:
        yield images[:1], labels[:1]
        return
    for index in range(images.shape[-1]):
        yield images[..., index], labels[..., index]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tools.gpu.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    arrays = pack(TASKS[options.task], options.dataset_dir)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.output, allow_pickle=False, **arrays)
    print(", ".join(f"{key} {value.shape}" for key, value in arrays.items()))


if __name__ == "__main__":
    main()
