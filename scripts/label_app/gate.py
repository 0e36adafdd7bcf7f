"""Checks every request before an endpoint of MONAI Label sees it.

MONAI Label accepts files of any name, reads and writes where a request says, and passes its values on to the
environment of new processes. Here, a request names studies, tasks and options, but never a path, and every file is a
NIfTI file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request
from monailabel.endpoints import (
    activelearning,
    batch_infer,
    datastore,
    infer,
    info,
    logs,
    ohif,
    proxy,
    session,
    train,
)
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.utils.sessions import Sessions
from starlette.datastructures import UploadFile

from ..support.errors import InputError
from .datastore import check_image
from .options import check_options
from .values import check_file, check_name, quoted, read_object

__all__ = ["Gate"]

Tasks = Mapping[str, Mapping[str, Any]]  # the defaults of the options of each task, by its name
# options that viewers and MONAI Label's own examples send, and that have no effect here
VIEWER: dict[str, Any] = {
    "client_id": "",
    "device": ["cuda", "cpu"],
    "gpus": ["all"],
    "logging": ["INFO", "WARNING", "ERROR", "DEBUG"],
    "multi_gpu": False,
    "restore_label_idx": False,
    "result_compress": False,
    "result_dtype": ["uint16", "uint8", "float32"],
    "result_extension": [".nii.gz", ".nii", ".nrrd", ".seg.nrrd"],
}
SAVING: dict[str, Any] = {"save_label": False, "label_tag": "original"}
BATCH: dict[str, Any] = {**SAVING, "max_batch_size": 0, "max_workers": 1}
# information on images and label maps that only the server writes, or adds to its answers
RESERVED = ("id", "name", "path", "registration_similarity", "strategy", "ts", "weight")
CHECKSUM = re.compile(r"((SHA256|SHA512|MD5):)?[0-9a-fA-F]{1,128}")
GREATEST_NUMBER = 100_000  # for lines, seconds and cases


@dataclass(frozen=True)
class Gate:
    """Checks the requests for each group of endpoints; groups without a check are not offered.

    Attributes:
        datastore: the images that a request may name.
        sessions: the uploads that are kept for some time; None if the server keeps none.
        infers: the inferences, with their options.
        trainers: the trainings, with their options.
        strategies: the strategies that choose the next image, with their options.
        remote: whether the studies are on another server, for which MONAI Label is a proxy.
    """

    datastore: Datastore
    sessions: Sessions | None
    infers: Tasks
    trainers: Tasks
    strategies: Tasks
    remote: bool = False

    def checks(self) -> list[tuple[APIRouter, Callable[..., Any]]]:
        """Return the groups of endpoints that are offered, each with the check of its requests."""
        offered: list[tuple[APIRouter, Callable[..., Any]]] = [
            (info.router, self.check_nothing),
            (infer.router, self.check_infer),
            (batch_infer.router, self.check_batch),
            (train.router, self.check_train),
            (activelearning.router, self.check_strategy),
            (datastore.router, self.check_datastore),
            (session.router, self.check_session),
            (logs.router, self.check_logs),
            (ohif.router, self.check_page),
        ]
        return [*offered, (proxy.router, self.check_proxy)] if self.remote else offered

    async def check_nothing(self) -> None:
        """Accept every request: nothing that a client sends to these endpoints can do harm."""

    async def check_infer(
        self, request: Request, model: str, image: str = "", session_id: str = "", output: str = ""
    ) -> None:
        """Accept one image, from the datastore, a session or an upload, and options in the form's ``params``."""
        if model not in self.infers:
            raise InputError(f"there is no model {quoted(model)}: expected one of {', '.join(self.infers)}.")
        form = await read_form(request)
        if session_id:
            self._find_session(session_id)
        elif "file" not in form.files:
            check_image(self.datastore, image)
        if output == "dicom_seg":
            if not self.remote:
                raise InputError("output is dicom_seg: expected image, json or all, the studies are no DICOM.")
            form.params.pop("label_info", None)  # for MONAI Label, which describes the segments with it
        if "image" in form.params:
            raise InputError("params: image is no option: expected its id in the datastore, in the address.")
        if "label" in form.params:
            raise InputError("params: label is no option: expected a file that is uploaded with the request.")
        self._check_task({**VIEWER, **SAVING, **self.infers[model]}, form.params)

    async def check_batch(self, request: Request, model: str = "", run_sync: bool = False) -> None:
        """Accept options and ``images``, a list of ids, as a JSON object."""
        if request.method != "POST":
            return
        if model not in self.infers:
            raise InputError(f"there is no model {quoted(model)}: expected one of {', '.join(self.infers)}.")
        refuse_waiting(run_sync)
        options = await read_body(request)
        images = options.pop("images", [])
        if not isinstance(images, list):
            raise InputError(f"images is {quoted(images)}: expected a list of ids.")
        for image in images:
            check_image(self.datastore, image)
        self._check_task({**VIEWER, **BATCH, **self.infers[model]}, options)

    async def check_train(self, request: Request, model: str = "", run_sync: bool = False) -> None:
        """Accept options as a JSON object; for all trainings, one such object per name of a training."""
        if request.method != "POST":
            return
        refuse_waiting(run_sync)
        options = await read_body(request)
        if "model" in request.path_params:
            options = {model: options}
        else:
            check_options({"client_id": ""}, {"client_id": options.pop("client_id", "")})
        for name, values in options.items():
            if name not in self.trainers:
                raise InputError(f"training: there is no {quoted(name)}: expected one of {', '.join(self.trainers)}.")
            if not isinstance(values, dict):
                raise InputError(f"{name} is {quoted(values)}: expected a JSON object.")
            check_options({**VIEWER, **self.trainers[name]}, values)

    async def check_strategy(self, request: Request, strategy: str) -> None:
        """Accept options as a JSON object."""
        if strategy not in self.strategies:
            raise InputError(f"there is no strategy {quoted(strategy)}: expected one of {', '.join(self.strategies)}.")
        check_options({**VIEWER, **self.strategies[strategy]}, await read_body(request))

    async def check_datastore(
        self,
        request: Request,
        image: str | None = None,
        id: str | None = None,
        label: str | None = None,
        tag: str | None = None,
        check_sum: str | None = None,
        limit_cases: int | None = None,
    ) -> None:
        """Accept ids of the datastore, and a plain name for a new image, by default that of its file."""
        form = await read_form(request)
        if request.scope["endpoint"] is datastore.api_add_image:
            check_name("image", Path(form.files.get("file", "")).name.partition(".")[0] if image is None else image)
            image = None
        for value in (image, id, label):
            if value is not None and value not in self.datastore.list_images():
                raise ImageNotFoundException(f"Image {value[:80]} not found")
        if tag:
            check_name("tag", tag)
        if check_sum and not CHECKSUM.fullmatch(check_sum):
            raise InputError(f"check_sum is {quoted(check_sum)}: expected SHA256:, SHA512: or MD5: and hexadecimals.")
        check_numbers(limit_cases=limit_cases)
        for name in RESERVED:
            if name in form.params:
                raise InputError(f"{name} is written by the server: expected other information on an image or label.")

    async def check_session(
        self, request: Request, session_id: str = "", uncompress: bool = False, expiry: int = 0
    ) -> None:
        """Accept one NIfTI file, but no archive: MONAI Label would let an archive write anywhere."""
        if request.method != "PUT":
            self._find_session(session_id)
            return
        form = await read_form(request)
        if uncompress:
            raise InputError("uncompress is true: expected a NIfTI file as it is, archives are not unpacked.")
        if form.count != 1:
            raise InputError(f"{form.count} files were sent: expected one NIfTI file.")
        check_numbers(expiry=expiry)

    async def check_logs(self, request: Request, lines: int = 0, refresh: int = 0) -> None:
        """Accept the number of lines of the log; answer 404 for the GPU if there is none."""
        check_numbers(lines=lines, refresh=refresh)
        if request.scope["endpoint"] is logs.gpu_info and shutil.which("nvidia-smi") is None:
            raise HTTPException(404, "There is no nvidia-smi on the server.")

    async def check_page(self, path: str) -> None:
        """Accept a file of OHIF, but no folder, which MONAI Label cannot serve."""
        pages = os.path.join(os.path.dirname(ohif.__file__), "static", "ohif")
        if path and os.path.isdir(os.path.join(pages, path.replace("/", os.pathsep))):
            raise HTTPException(404, "There is no such page.")

    async def check_proxy(self, path: str) -> None:
        """Accept a path below that of the studies on their own server."""
        if re.search(r"[%\\]|(^|/)\.\.?(/|$)", path):
            raise InputError(f"path is {quoted(path)}: expected one without ., .., % and backslashes.")

    def _find_session(self, session_id: str) -> None:
        try:
            UUID(session_id)
            found = self.sessions is not None and self.sessions.get_session(session_id)
        except ValueError:
            found = False
        if not found:
            raise HTTPException(404, f"Session ({session_id[:80]}) Not Found")

    @staticmethod
    def _check_task(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        check_options(config, options)
        if options.get("label_tag"):
            check_name("label_tag", options["label_tag"])


@dataclass
class Form:
    """The parts of a form.

    Attributes:
        files: the file name of each part that is a file.
        count: number of files.
        params: the object in ``params`` or ``info``.
    """

    files: dict[str, str]
    count: int
    params: dict[str, Any]


async def read_form(request: Request) -> Form:
    """Read and check the parts of a form.

    Raises:
        InputError: when a file is not named as a NIfTI file, or ``params`` or ``info`` is not one JSON object.
    """
    form, objects = Form({}, 0, {}), []
    if request.method not in ("POST", "PUT"):
        return form
    for name, part in (await request.form()).multi_items():
        if isinstance(part, UploadFile):
            check_file(name, part)
            form.files[name] = part.filename or ""
            form.count += 1
        elif name in ("params", "info"):
            objects.append(read_object(name, part or "{}"))
    if len(objects) > 1:  # of which MONAI Label would read another one than is checked
        raise InputError(f"params and info are given {len(objects)} times: expected one of them, once.")
    form.params = objects[0] if objects else {}
    return form


async def read_body(request: Request) -> dict[str, Any]:
    """Read the JSON object in the body of a request; an empty body gives an empty object.

    Raises:
        InputError: when the body is something else.
    """
    body = await request.body()
    return {} if body.strip() in (b"", b"null") else read_object("params", body)


def refuse_waiting(run_sync: bool) -> None:
    """Refuse to wait for a task that takes minutes, because the server answers one request at a time."""
    if run_sync:
        raise InputError("run_sync is true: expected false, a task runs in the background.")


def check_numbers(**numbers: int | None) -> None:
    """Raise an :class:`InputError` unless these are whole numbers that the server can count to."""
    for name, value in numbers.items():
        if value is not None and not 0 <= value <= GREATEST_NUMBER:
            raise InputError(f"{name} is {quoted(value)}: expected 0 to {GREATEST_NUMBER}.")
