"""The files of one registration, written together or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from ..deformation.foreign_formats import Images
from ..deformation.formats import ddf_to_itk, image_like, label_type, save_image
from ..deformation.transform_files import write_transform
from ..deformation.transforms import Affine, Chain
from ..images.loading import as_nifti
from ..support.bundle import versions
from ..support.errors import InputError
from ..support.files import (
    finite,
    is_written,
    prepare_folder,
    read_record,
    remove_debris,
    replace_files,
    sha256,
    user_path,
)
from ..support.keys import CONTRASTS, FILES, IMAGES
from .names import ERROR_MAP, OUTPUTS, USUAL, check_scheme, every_name, file_names
from .overview import draw_overview

if TYPE_CHECKING:
    from .registered import RegisteredPair

__all__ = ["OUTPUTS", "RegistrationWriter", "choose_outputs", "write_results"]


def choose_outputs(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """Return the files of ``OUTPUTS`` with these names; ``metrics.json`` is always one of them.

    Args:
        names: names without their endings, such as ``displacement``; None means :data:`~.names.USUAL`.

    Raises:
        InputError: when there is no such file.
    """
    if names is None:
        return USUAL
    known = {file.partition(".")[0]: file for file in OUTPUTS}
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in known:
            raise InputError(f"--outputs has '{name}': expected some of {', '.join(known)}.")
    return tuple(file for name, file in known.items() if name in wanted or file == OUTPUTS[-1])


class RegistrationWriter:
    """Writes the results of pairs below an output folder, on the fixed image's own grid and with its header.

    The inverse is on the moving image's grid.

    Args:
        output_dir: the folder; each pair has its own, ``output_dir / name``.
        weights: file whose checksum is written to ``metrics.json``; None if no network is used.
        overwrite: replace existing files.
        again: replace existing results, but no other files.
        outputs: see :func:`choose_outputs`.
        names: None, or ``bids``; see :func:`scripts.results.names.file_names`.
    """

    def __init__(
        self,
        output_dir: str | Path,
        weights: str | Path | None,
        overwrite: bool = False,
        again: bool = False,
        outputs: Sequence[str] | str | None = None,
        names: str | None = None,
    ) -> None:
        self.output_dir = user_path(output_dir, "output_dir")
        self.weights = None if weights is None else user_path(weights, "weights")
        self.overwrite = overwrite
        self.again = again
        self.outputs = choose_outputs(outputs)
        self.names = check_scheme(names)

    def folder(self, pair: Mapping[str, Any]) -> Path:
        return self.output_dir / pair["name"]

    def prepare(self, pairs: Sequence[Mapping[str, Any]] = ()) -> None:
        """Make the output folder, before anything is registered.

        Args:
            pairs: all pairs that will be registered.

        Raises:
            InputError: when it cannot be written to, or an input has the name and place of a result.
        """
        inputs = {place: text for pair in pairs for place, text in _inputs(pair, self.weights).items()}
        for pair in pairs:
            _keep_inputs(self.folder(pair), every_name(pair), inputs)
        prepare_folder(self.output_dir)

    def is_done(self, pair: Mapping[str, Any], settings: str | None = None) -> bool:
        """Return whether the pair's folder holds the result of the same files, weights and options.

        Remains of a killed run are removed from the folder.

        Args:
            pair: the names of the input files.
            settings: a text that changes with every option that can change a result.

        Raises:
            InputError: when the folder holds another result, or other files, and may not be overwritten.
        """
        folder = self.folder(pair)
        if not all(file.exists() for file in _files(pair).values()):
            return False  # what is wrong is said where they are read
        # in this order: what another process moves in the meantime is seen as being written, or as a whole result
        there = [file for file in every_name(pair) if os.path.lexists(folder / file)]
        killed, busy = remove_debris(folder), is_written(folder)
        record = read_record(folder / OUTPUTS[-1])
        if busy and not record:
            return False  # both write the same bytes
        if killed and not record:  # while files were moved to their places
            for file in there:
                (folder / file).unlink()
            there = []
        if not there or self.overwrite or (self.again and record):
            return False
        if not record:
            found = f"{there[0]}, which is no result of a registration"
        elif record.get("sha256") != _checksums(pair, self.weights):
            found = "the result of other files or weights"
        elif record.get("settings") != settings or not self._written(pair) <= {*record.get("outputs", ())}:
            found = "the result of other options"
        else:
            return True
        raise InputError(f"output_dir: {folder} holds {found}: expected an empty folder, or --overwrite true.")

    def _written(self, pair: Mapping[str, Any]) -> set[str]:
        names = file_names(pair, self.names)
        return {names[file] for file in self.outputs}

    def write(self, result: RegisteredPair) -> None:
        """Write the files of a pair, which has a ``name``, to its folder; existing files are replaced."""
        write_results(result, self.folder(result.inputs), overwrite=True, outputs=self.outputs, names=self.names)

    def verdict(self, pair: Mapping[str, Any]) -> str:
        """Return the verdict on a pair that is done; a result of an older version, which has none, is doubtful."""
        return str(read_record(self.folder(pair) / OUTPUTS[-1]).get("verdict", {}).get("verdict", "doubtful"))

    def missing(self, pair: Mapping[str, Any]) -> bool:
        """Return whether a result was written and does not exist any more."""
        return not (self.folder(pair) / OUTPUTS[-1]).is_file()


def write_results(
    result: RegisteredPair,
    folder: Path,
    overwrite: bool = False,
    outputs: Sequence[str] = USUAL,
    names: str | None = None,
) -> None:
    """Write files of ``OUTPUTS``. ``metrics.json`` is the last one: if it exists, all files exist.

    Args:
        result: the registered pair.
        folder: the folder for the files; it is made if it does not exist.
        overwrite: replace existing files with these names.
        outputs: the files to write; nothing is computed for others.
        names: None, or ``bids``; see :func:`scripts.results.names.file_names`.

    Raises:
        InputError: when there are such files, one of them is an input, or the folder cannot be written to.
    """
    every, name_of = every_name(result.inputs), file_names(result.inputs, names)
    _keep_inputs(folder, every, _inputs(result.inputs, result.weights))
    prepare_folder(folder)
    if not overwrite and any((folder / name).exists() for name in every):
        raise InputError(f"{folder} holds the result of a registration: expected an empty folder, or overwrite.")
    metrics = result.metrics
    if ERROR_MAP in outputs:
        metrics = {**metrics, "expected_error_mm": result.expected_error_mm}
    start = time.perf_counter()
    checksums = _checksums(result.inputs, result.weights)
    fixed, moving = (as_nifti(result.inputs[key], key) for key in IMAGES)
    with replace_files(folder, every) as temporary:
        for file in outputs:
            _write(file, result, fixed, moving, temporary / name_of[file])
        result.seconds["write"] = time.perf_counter() - start
        content = {
            **metrics,
            "verdict": {**result.verdict.as_dict(), "evidence": result.evidence},
            "warnings": result.warnings,
            "seconds": result.seconds,
            "files": {key: str(path.resolve()) for key, path in _files(result.inputs).items()},
            "sha256": checksums,
            "settings": result.settings,
            "outputs": [name_of[file] for file in outputs],
            "versions": versions(),
        }
        (temporary / "metrics.json").write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def _files(inputs: Mapping[str, Any]) -> dict[str, Path]:
    """Return the inputs that were given as files, not as images in memory."""
    contrasts = {f"{key}_{n}": path for key in CONTRASTS for n, path in enumerate(inputs.get(key, ()), start=2)}
    given = {key: inputs.get(key) for key in FILES} | contrasts
    return {key: Path(value) for key, value in given.items() if isinstance(value, str | Path)}


def _inputs(pair: Mapping[str, Any], weights: Path | None) -> dict[Path, str]:
    """Describe the inputs of a pair, keyed by their places and by those of the links that lead to them."""
    files = {**_files(pair), **({} if weights is None else {"weights": weights})}
    return {place: f"{key}: {path}" for key, path in files.items() for place in (_entry(path), path.resolve())}


def _entry(path: Path) -> Path:
    """Return the place of a file, or of a link to it, with all links in its folder resolved."""
    return Path(os.path.realpath(path.parent), path.name)


def _keep_inputs(folder: Path, names: Sequence[str], inputs: Mapping[Path, str]) -> None:
    for name in names:
        text = inputs.get(_entry(folder / name))
        if text:
            raise InputError(f"{text} would be overwritten by a result: expected another output folder.")


def _checksums(inputs: Mapping[str, Any], weights: Path | None) -> dict[str, str]:
    paths = _files(inputs)
    if weights is not None and "displacement" not in inputs:  # a displacement replaces the network
        paths = {"weights": weights, **paths}
    return {key: sha256(path) for key, path in paths.items()}


def _write(file: str, result: RegisteredPair, fixed: nib.Nifti1Image, moving: nib.Nifti1Image, path: Path) -> None:
    """Write one file of ``OUTPUTS`` but the last; each is computed and written after the other to save memory."""

    def scalar(values: Any, dtype: Any = np.float32) -> None:
        array = np.asarray(values).reshape(fixed.shape[:3]).astype(dtype, copy=False)
        save_image(image_like(array, fixed), path)

    match file.partition(".")[0]:
        case "moving_warped":
            scalar(result.warped)
        case "label_warped" if result.label_warped is not None:
            scalar(result.label_warped, label_type(np.asarray(result.label_warped)))
        case "displacement":
            save_image(ddf_to_itk(np.asarray(result.ddf), fixed), path)
        case "displacement_inverse":
            save_image(ddf_to_itk(np.asarray(result.inverse), moving), path)
        case "jacobian_determinant":
            scalar(result.jacobian)
        case "error_mm":
            scalar(result.error_mm)
        case "alignment" if "displacement" not in result.inputs and not np.array_equal(result.alignment, np.eye(4)):
            write_transform(Chain([Affine(result.alignment)]), path, Images(fixed, moving))
        case "brain_mask_fixed" | "brain_mask_moving" as key if key in result.brain_masks:
            image, mask = (fixed if key.endswith("fixed") else moving), result.brain_masks[key]
            save_image(image_like(np.asarray(mask).reshape(image.shape[:3]).astype(np.uint8), image), path)
        case "overview":
            draw_overview(result, path)
