"""The application that ``monailabel start_server --app scripts/label_app`` loads.

Settings, ``--conf NAME VALUE``:

* ``atlases``: one folder or several, separated by commas, each a data set in a known layout and outside of the studies;
* ``model_dir``: the folder for fine-tuned weights, by default ``model`` next to this file;
* ``frame_labels``: the layout that names the labels of hearts (``sunnybrook``: LV; ``acdc``: RV, Myo, LV; ...).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # MONAI Label only knows the folder of this file
from scripts.cohorts.layouts import LAYOUTS
from scripts.label_app.atlases import AtlasPropagation, atlas_pairs, read_atlases
from scripts.label_app.datastore import Studies, check_image
from scripts.label_app.fine_tuning import FineTuning
from scripts.label_app.frames import FramePropagation, frame_pairs
from scripts.label_app.gate import BATCH, Gate
from scripts.label_app.options import listed, read_options
from scripts.label_app.selection import WorstExplained
from scripts.label_app.uploads import Uploads
from scripts.label_app.web import build_server
from scripts.support.bundle import versions
from scripts.support.errors import InputError, find_input_error


class GraDIRNApp(MONAILabelApp):
    """Carries labels from atlases and between frames.

    Args:
        app_dir: this folder.
        studies: the folder with the images to annotate.
        conf: the settings, see above.

    Raises:
        InputError: when a setting is not usable.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        folders = listed(conf.get("atlases", ""))
        self.atlases = [read_atlases(Path(folder).expanduser()) for folder in folders]
        layout = conf.get("frame_labels", "sunnybrook")
        if layout not in LAYOUTS or LAYOUTS[layout].pairing != "frames":
            known = ", ".join(name for name, known in LAYOUTS.items() if known.pairing == "frames")
            raise InputError(f"frame_labels is '{layout}': expected the layout of a cardiac data set, {known}.")
        self.frame_labels = LAYOUTS[layout].label_names
        self.model_dir = Path(conf.get("model_dir", Path(app_dir) / "model")).expanduser()
        self.uploads: Uploads | None = None  # set in the process of the server, which alone takes uploads
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="GraDIRN",
            description="Registration: carries labels from atlases and from other frames to the image",
            version=versions()["gradirn"],
        )

    def init_datastore(self) -> Any:
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return Studies(self.studies, auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD)

    def init_infers(self) -> dict[str, Any]:
        """Make ``frame_propagation``, ``atlas_propagation`` (first folder) and ``atlas_propagation_<folder>``."""
        self.frames = FramePropagation(self.datastore(), self.frame_labels, partial(self._weights, "cardiac"))
        self.sets = {
            f"atlas_propagation_{atlases.name}" if index else "atlas_propagation": AtlasPropagation(
                atlases, partial(self._weights, atlases.task), self.datastore()
            )
            for index, atlases in enumerate(self.atlases)
        }
        return {"frame_propagation": self.frames, **self.sets}

    def init_trainers(self) -> dict[str, Any]:
        """Make one training for each network that the inferences use, under the name of the inference."""
        trainers = {"frame_propagation": FineTuning("cardiac", frame_pairs, self.model_dir, list(self.frame_labels))}
        for name, task in self.sets.items():
            atlases = task.atlases
            if atlases.task not in {trainer.task for trainer in trainers.values()}:
                pairs = partial(atlas_pairs, atlases)
                trainers[name] = FineTuning(atlases.task, pairs, self.model_dir, list(atlases.label_names))
        return trainers

    def init_strategies(self) -> dict[str, Any]:
        return {"worst_explained": WorstExplained(self._similarity, self._state), **super().init_strategies()}

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Infer, as MONAI Label does, but only for an image of the datastore or an upload.

        Raises:
            InputError: when the request is not usable.
        """
        datastore = datastore or self.datastore()
        image = str(request.get("image", ""))
        stored = self.uploads is None or image not in self.uploads
        if stored:
            check_image(datastore, image)
        label = request.get("label")
        if label and (self.uploads is None or label not in self.uploads):
            raise InputError("label: expected a file that is uploaded with the request, not a name.")
        path = datastore.get_image_uri(image) if stored else image
        try:
            # a path, because MONAI Label would use a file in its working folder whose name is the id
            result = _without_wrapping(super().infer, {**request, "image": path, "image_id": image}, datastore)
        except Exception:
            if self.uploads is not None:  # MONAI Label removes uploads only after a success
                self.uploads.remove(image, label)
            raise
        options = read_options(BATCH, request)
        if stored and options["save_label"]:
            information = {"model": request["model"], "params": result["params"]}
            result["label"] = datastore.save_label(image, result["file"], options["label_tag"], information)
        return result

    def batch_infer(self, request: Mapping[str, Any], datastore: Any = None) -> Any:
        # MONAI Label distributes the images over GPUs, and divides by their number
        options = {**read_options(BATCH, request), "multi_gpu": torch.cuda.is_available()}
        return super().batch_infer({**request, **options}, datastore)

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return _without_wrapping(super().next_sample, request)

    def on_init_complete(self) -> None:
        """Put the gate in front of every endpoint of the server, and uploads into a separate folder."""
        from monailabel.app import app

        super().on_init_complete()
        remote = self.studies.startswith(("http://", "https://"))
        self.uploads = Uploads(None if remote else Path(self.studies))
        if self.sessions() is not None:
            self._sessions = self.uploads.sessions
        gate = Gate(
            self.datastore(),
            self.sessions(),
            infers={name: task.config() for name, task in self._infers.items()},
            trainers={name: task.config() for name, task in self._trainers.items()},
            strategies={name: getattr(task, "config", dict)() for name, task in self._strategies.items()},
            remote=remote,
        )
        app.middleware_stack = build_server(gate.checks())

    def _weights(self, task: str) -> Path | None:
        """Return the path of the fine-tuned weights, or None."""
        path = self.model_dir / f"{task}.pt"
        return path if path.is_file() else None

    def _state(self) -> str:
        """Return a text that changes with the weights and atlases that a similarity depends on."""
        times = [f"{path.name} {path.stat().st_mtime_ns}" for path in sorted(self.model_dir.glob("*.pt"))]
        return ", ".join([*(f"{set_.name}/{next(iter(set_.files))}" for set_ in self.atlases), *times])

    def _similarity(self, image: str) -> float | None:
        """Compare an image with its other frame or, if there is none, with the most similar of the first atlases."""
        found = self.frames.similarity(image)
        if found is not None or not self.sets:
            return found
        path = Path(self.datastore().get_image_uri(image))
        values, errors = [], []
        for task in self.sets.values():
            try:
                values.append(task.similarity(path))
            except Exception as error:
                if find_input_error(error) is None:
                    raise
                errors.append(error)
        if not values:
            raise errors[0]
        return max(values)


def _without_wrapping(call: Any, *arguments: Any) -> Any:
    """Call a function; if a library wraps an InputError in its own exception, raise the InputError."""
    try:
        return call(*arguments)
    except Exception as error:
        raise find_input_error(error) or error from None
