"""The application that ``monailabel start_server --app scripts/label_app`` loads.

Settings, ``--conf NAME VALUE``: ``atlases``, one folder or several with commas between them, each a data set in a known
layout and all outside of the studies; ``model_dir``, which takes the fine-tuned weights, by default ``model`` beside
this file; ``frame_labels``, the layout whose label names the hearts have
(``sunnybrook``: LV; ``acdc``: RV, Myo, LV; ...).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastapi import Request
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelException

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # MONAI Label knows the folder of this file only
from scripts.cohorts.layouts import LAYOUTS
from scripts.label_app.atlases import AtlasPropagation, atlas_pairs, read_atlases
from scripts.label_app.fine_tuning import FineTuning
from scripts.label_app.frames import FramePropagation, frame_pairs
from scripts.label_app.options import Studies, check_image, is_upload, listed
from scripts.label_app.selection import WorstExplained
from scripts.support.bundle import versions
from scripts.support.errors import InputError, find_input_error


class GraDIRNApp(MONAILabelApp):
    """Labels carried from atlases and between frames.

    Args:
        app_dir: this folder.
        studies: the folder with the images to annotate.
        conf: see above.

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
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="GraDIRN",
            description="Registration: labels of atlases and of other frames, carried to the image",
            version=versions()["gradirn"],
        )

    def init_datastore(self) -> Any:
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        extensions, reload = settings.MONAI_LABEL_DATASTORE_FILE_EXT, settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD
        return Studies(self.studies, extensions=extensions, auto_reload=reload)

    def init_infers(self) -> dict[str, Any]:
        """``frame_propagation``; ``atlas_propagation`` of the first folder, and ``atlas_propagation_<folder>``."""
        self.frames = FramePropagation(self.datastore(), self.frame_labels, partial(self._weights, "cardiac"))
        self.sets = {
            f"atlas_propagation_{atlases.name}" if index else "atlas_propagation": AtlasPropagation(
                atlases, partial(self._weights, atlases.task)
            )
            for index, atlases in enumerate(self.atlases)
        }
        return {"frame_propagation": self.frames, **self.sets}

    def init_trainers(self) -> dict[str, Any]:
        """A training for each network that the inferences use, under the name of the inference."""
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
        """As MONAI Label does, of an image of the datastore or an upload alone.

        Raises:
            InputError: when the request is not usable.
        """
        image = str(request.get("image", ""))
        if not is_upload(image):
            check_image(self.datastore(), image)
        return _without_wrapping(super().infer, {**request, "image": image, "image_id": image}, datastore)

    def batch_infer(self, request: Mapping[str, Any], datastore: Any = None) -> Any:
        # MONAI Label deals the images out to GPUs, and divides by their number
        return super().batch_infer({"multi_gpu": torch.cuda.is_available(), **request}, datastore)

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return _without_wrapping(super().next_sample, request)

    def bundle_path(self, model: str | None) -> None:
        """Of no task here; MONAI Label asks before it starts a training, which is where an unknown one is noticed.

        Raises:
            InputError: when there is no such model.
        """
        known = {**self._infers, **self._trainers}
        if model is not None and model not in known:
            raise InputError(f"model: there is no '{model}': expected {', '.join(known)}.")

    def on_init_complete(self) -> None:
        """Let every endpoint of the server answer with the message of an error."""
        from monailabel.app import app

        super().on_init_complete()
        for kind in (InputError, MONAILabelException, json.JSONDecodeError, Exception):
            app.add_exception_handler(kind, answer_error)
        app.middleware_stack = app.build_middleware_stack()  # which the server has built before this is loaded

    def _weights(self, task: str) -> Path | None:
        """The fine-tuned weights, where there are any."""
        path = self.model_dir / f"{task}.pt"
        return path if path.is_file() else None

    def _state(self) -> str:
        """Tells apart the weights and atlases that a similarity depends on."""
        times = [f"{path.name} {path.stat().st_mtime_ns}" for path in sorted(self.model_dir.glob("*.pt"))]
        return ", ".join([*(f"{set_.name}/{next(iter(set_.files))}" for set_ in self.atlases), *times])

    def _similarity(self, image: str) -> float | None:
        """With the other frame, or else with the most alike of the sets' first atlases."""
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
    """Call, and raise the InputError itself that a library wrapped in its own exception."""
    try:
        return call(*arguments)
    except Exception as error:
        raise find_input_error(error) or error from None


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """The message of an error as JSON: 400 for a bad request, 500 with the server's log for a defect."""
    if isinstance(error, InputError):
        return JSONResponse({"detail": str(error)}, 400)
    if isinstance(error, MONAILabelException):
        return JSONResponse({"detail": error.msg}, 404 if "not found" in error.msg else 400)
    if isinstance(error, json.JSONDecodeError):
        return JSONResponse({"detail": f"params is not valid JSON ({error})"}, 400)
    return JSONResponse({"detail": f"a defect of the server, see its log: {type(error).__name__}: {error}"}, 500)
