"""Training on the studies that are being annotated, with ``train.yaml``."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from ..cohorts.tasks import find_task
from ..support.command_line import report_in_one_line
from ..support.errors import InputError
from ..support.files import PARTIAL, finite, remove_debris, replace_file, sha256
from .options import listed, read_options

__all__ = ["FineTuning"]

logger = logging.getLogger(__name__)
Pairs = list[dict[str, str]]


class FineTuning(TrainTask):
    """Continues the training of a task's weights on pairs of images from the datastore.

    Options of a request: ``images``, ids separated by commas, by default all images that make pairs; ``use_labels``,
    only use pairs whose images both have labels, and add the labels to the loss; ``max_epochs``,
    ``samples_per_epoch``, ``learning_rate`` and ``seed`` as in ``train.yaml``.

    Args:
        task: name of the task.
        make_pairs: makes the pairs of a datalist from the datastore, the ids of images and a folder for new files.
        model_dir: the folder for ``<task>.pt``, the best weights, from which the next training starts, and
            ``<task>.json``.
        label_ids: the labels that count in the loss.
    """

    def __init__(
        self,
        task: str,
        make_pairs: Callable[[Datastore, list[str], Path], Pairs],
        model_dir: Path,
        label_ids: list[int],
    ) -> None:
        super().__init__(f"Continues the training of the {task} network on the images of the datastore")
        self.task = task
        self.make_pairs = make_pairs
        self.weights = model_dir / f"{task}.pt"
        self.label_ids = label_ids

    def config(self) -> dict[str, Any]:
        return {
            "max_epochs": 10,
            "samples_per_epoch": 24,
            "learning_rate": 0.0005,
            "use_labels": False,
            "images": "",
            "seed": 0,
        }

    def stats(self) -> dict[str, Any]:
        """Return information on the last training."""
        path = self.weights.with_suffix(".json")
        return json.loads(path.read_text()) if path.is_file() else {}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; the new weights replace those of the last training once they are complete.

        Raises:
            InputError: when an option is not usable, or the images make no pair.
        """
        sys.excepthook = report_in_one_line  # this is a separate process, and the user sees its last lines
        start = time.perf_counter()
        options = read_options(self.config(), request)
        images, use_labels = options.pop("images"), options.pop("use_labels")
        self.weights.parent.mkdir(parents=True, exist_ok=True)
        remove_debris(self.weights.parent)  # a training that is stopped is killed
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=self.weights.parent) as folder:
            pairs = self._pairs(datastore, images, use_labels, Path(folder))
            logger.info("%s: training on %d pairs", self.task, len(pairs))
            metrics = self._train(pairs, options, Path(folder))
            replace_file(self.weights, lambda path: shutil.copyfile(Path(folder) / "model.pt", path))
        stats = {
            "pairs": len(pairs),
            **options,
            "validation": finite({name: round(float(value), 4) for name, value in metrics.items()}),
            "weights_sha256": sha256(self.weights),
            "seconds": round(time.perf_counter() - start, 1),
        }
        replace_file(self.weights.with_suffix(".json"), lambda path: path.write_text(json.dumps(stats, indent=2)))
        logger.info("%s: %s", self.weights.name, json.dumps(stats))
        return stats

    def _pairs(self, datastore: Datastore, images: str, use_labels: bool, folder: Path) -> Pairs:
        known = sorted(datastore.list_images())
        chosen = listed(images) or known
        for name in chosen:
            if name not in known:
                raise InputError(f"images: there is no '{name}' in the datastore.")
        pairs = self.make_pairs(datastore, chosen, folder)
        labels = ("label_fixed", "label_moving")
        if use_labels:
            pairs = [pair for pair in pairs if all(label in pair for label in labels)]
        else:
            pairs = [{key: value for key, value in pair.items() if key not in labels} for pair in pairs]
        if not pairs:
            wanted = "with labels of both images" if use_labels else "of images"
            raise InputError(f"images: {', '.join(chosen) or 'none'} make no pair {wanted}: expected at least one.")
        return pairs

    def _train(self, pairs: Pairs, options: Mapping[str, Any], folder: Path) -> dict[str, float]:
        datalist = folder / "pairs.json"
        datalist.write_text(json.dumps(pairs))
        labelled = "label_fixed" in pairs[0]
        overrides = {
            **options,
            "dataset_dir": str(datalist),
            "output_dir": str(folder),
            "initial_weights": str(self.weights) if self.weights.is_file() else str(find_task(self.task).weights_file),
            "validation": 0,  # use all of the few images for training; the best weights are those that fit them best
            "test": 0,
            "val_interval": max(1, options["max_epochs"] // 5),
            "val_metric": "dice" if labelled else "ncc",
            "feature_weight": 0,
            **({"label_weight": 1.0, "label_classes": self.label_ids} if labelled else {"label_weight": 0}),
        }
        workflow = ConfigWorkflow(
            config_file=find_task(self.task).config_files("train"),
            workflow_type="train",
            logging_file=False,
            **overrides,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        return workflow.parser.get_parsed_content("validate#evaluator").state.metrics
