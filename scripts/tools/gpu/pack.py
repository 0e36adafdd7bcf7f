"""Packs the subjects of a task into one small file, for a machine with a GPU and nothing else.

    python -m scripts.tools.gpu.pack TASK --dataset_dir DIR --output FILE.npz

The file holds ``<subset>_image`` and ``<subset>_label`` for the subsets train and validation, 8 bits each, of shape
(items, frames, *spatial): the two frames of a slice of a heart, one crop of a hippocampus, one label map of a brain.
Images are preprocessed as for the network. Label maps hold positions in ``label_ids``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from ...cohorts import select_subjects
from ...cohorts.layouts import Cohort, Subject
from ...images import read_nifti
from .tasks import read_config, task_names

__all__ = ["main", "pack"]


def pack(config: ConfigParser) -> dict[str, np.ndarray]:
    """Return the arrays of the file, by name.

    Args:
        config: what :func:`read_config` gives, with a ``dataset_dir``.
    """
    cohort: Cohort = config.get_parsed_content("cohort")
    painted: bool = config.get_parsed_content("gpu#painted")
    preprocess = config.get_parsed_content("train#deterministic_transforms")
    arrays: dict[str, np.ndarray] = {}
    for subset in ("train", "validation"):
        subjects = select_subjects(cohort.subjects, subset, config["validation"], config["test"])
        if painted:
            arrays[f"{subset}_label"] = np.stack([_label_map(subject) for subject in subjects])
            continue
        items = [item for subject in subjects for item in _items(cohort, subject, preprocess)]
        arrays[f"{subset}_label"] = np.stack([label for _, label in items])
        arrays[f"{subset}_image"] = np.stack([(image * 255).round().astype(np.uint8) for image, _ in items])
    labels = [key for key in arrays if key.endswith("label")]
    ids = np.unique(np.concatenate([np.unique(arrays[key]) for key in labels]))
    return {**arrays, **{key: np.searchsorted(ids, arrays[key]).astype(np.uint8) for key in labels}, "label_ids": ids}


def _label_map(subject: Subject) -> np.ndarray:
    """Return the label map that images are painted from, (1, *spatial)."""
    return read_nifti(next(iter(subject.labels.values())), "label", label=True).numpy().astype(np.int32)


def _items(cohort: Cohort, subject: Subject, preprocess: Compose) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield image and label of each item, (frames, *spatial): slices of two frames, or one volume."""
    frames = cohort.layout.pairing == "frames"
    roles = {"fixed": cohort.layout.fixed, "moving": cohort.layout.moving if frames else cohort.layout.fixed}
    files = {role: subject.images[key] for role, key in roles.items()}
    data = preprocess({**files, **{f"label_{role}": subject.labels[key] for role, key in roles.items()}})
    images = np.stack([data[role][0].numpy() for role in roles])
    labels = np.stack([data[f"label_{role}"][0].numpy().astype(np.int32) for role in roles])
    if not frames:
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
    parser.add_argument("task", choices=task_names())
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    config = read_config(options.task)
    config["dataset_dir"] = str(options.dataset_dir)
    arrays = pack(config)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.output, allow_pickle=False, **arrays)
    print(", ".join(f"{key} {value.shape}" for key, value in arrays.items()))


if __name__ == "__main__":
    main()
