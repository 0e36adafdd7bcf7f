"""What a saved transform is for: images and points that follow it, chains, inverses, volume changes, other formats.

    python -m scripts.transform apply --moving M.nii.gz --reference F.nii.gz --transform T.nii.gz --output W.nii.gz
    python -m scripts.transform apply --datalist jobs.json
    python -m scripts.transform points --points P.csv --transform T.nii.gz --output Q.csv
    python -m scripts.transform compose --transform A.tfm T.nii.gz --reference F.nii.gz --output both.nii.gz
    python -m scripts.transform invert --transform T.nii.gz --reference M.nii.gz --output back.nii.gz
    python -m scripts.transform convert --transform A.txt --output A.tfm
    python -m scripts.transform jacobian --transform T.nii.gz --reference F.nii.gz --output J.nii.gz

A transform maps points from the fixed to the moving image, and so brings the moving image to the fixed one. Several
are given in the order in which a point of the fixed image passes through them, which is also ANTs' order; --inverse
gives one that is passed backwards.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from .cohorts.jobs import Job, read_jobs
from .deformation.foreign_formats import Images
from .deformation.formats import image_like, label_type, save_image
from .deformation.grid import by_image
from .deformation.jacobian import jacobian_determinant
from .deformation.points import read_points
from .deformation.transform_files import read_transform, write_transform
from .deformation.transforms import INTERPOLATIONS, Chain, check_interpolation, ddf_on_grid, resample
from .images.frame import set_millimetres
from .images.loading import as_nifti, check_same_grid, read_nifti, read_voxels
from .support.command_line import report_in_one_line
from .support.errors import InputError
from .support.files import prepare_folder, replace_file, replace_files, user_path

__all__ = ["main"]

LABELS = ("nearest", "label")
IMAGES = "the registered images, for formats that do not hold their frames; by default --reference and --moving"


def apply(jobs: Sequence[Job]) -> None:
    """Bring images to the grids of their references.

    Raises:
        InputError: when a file is not usable, or the interpolation does not fit an image. Of several images, all are
            checked before the first result is written.
    """
    if sum(len(job.moving) for job in jobs) > 1:
        for job in jobs:
            _open(job)
            for source in job.moving:
                _frames(source, job.interpolation)
    for folder in {file.parent for job in jobs for file in job.output}:
        prepare_folder(folder)
    for job in jobs:
        grid, chain = _open(job)
        affine, shape = torch.from_numpy(grid.affine), (*grid.shape, 1, 1)[:3]
        for source, target in zip(job.moving, job.output):
            image, frames = _frames(source, job.interpolation)
            ddf = ddf_on_grid(chain, affine, shape, torch.from_numpy(image.affine))
            fill = job.fill if job.fill is not None else 0.0 if job.interpolation in LABELS else float(frames.min())
            found = [resample(frame, ddf, job.interpolation, fill) for frame in np.moveaxis(frames, 3, 0)]
            values = np.stack(found, axis=-1) if image.ndim > 3 else found[0].reshape(grid.shape[:3])
            _save(values, grid, image, target)


def _open(job: Job) -> tuple[nib.Nifti1Image, Chain]:
    """The reference and the transform of a job."""
    grid = as_nifti(job.reference, "reference")
    images = [as_nifti(file, "images") for file in job.images] or [grid, as_nifti(job.moving[0], "moving")]
    return grid, _read_chain(job.transform, Images(*images))


def _read_chain(transform: Sequence[tuple[Path, bool]], images: Images) -> Chain:
    steps = [(read_transform(file, images=images), backwards) for file, backwards in transform]
    return Chain([step.inverse() if backwards else step for step, backwards in steps])


def _frames(source: Path, interpolation: str) -> tuple[nib.Nifti1Image, np.ndarray]:
    """An image or a series, and its voxels (X, Y, Z, T): whole numbers for labels, float32 for intensities."""
    image = as_nifti(source, "moving")
    check_interpolation(interpolation, image.shape)
    if max((*image.shape, 1, 1)[4:], default=1) > 1:
        raise InputError(f"moving: {source} has shape {image.shape}: expected an image, or a series (X, Y, Z, T).")
    if interpolation in LABELS and image.ndim <= 3:
        return image, read_nifti(source, "moving", spatial_dims=2, label=True).numpy()[0][..., None]
    values = read_voxels(image, "moving").reshape((*image.shape, 1, 1)[:4])
    if not np.isfinite(values).all():
        raise InputError(f"moving: {source} holds NaN or infinite values: expected none.")
    if interpolation not in LABELS:
        return image, values.astype(np.float32)
    if not np.array_equal(values, np.round(values)):
        raise InputError(f"moving: {source} holds fractions: expected the whole numbers of a label map.")
    return image, values.astype(np.int64 if values.max() >= 2**31 else np.int32)


def _save(values: np.ndarray, grid: nib.Nifti1Image, image: nib.Nifti1Image, path: Path) -> None:
    dtype = np.float32 if values.dtype.kind == "f" else label_type(values)
    result = image_like(values.astype(dtype), grid)
    if values.ndim > 3:
        result.header.set_zooms((*result.header.get_zooms()[:3], image.header.get_zooms()[3]))
        set_millimetres(result.header, image.header)
    replace_file(path, lambda file: save_image(result, file))


def points(source: Path, chain: Chain, output: Path, frame: str = "ras") -> None:
    """Take points through a transform: a point of the fixed image to its place in the moving image.

    Args:
        source: see :func:`~scripts.deformation.points.read_points`.
        chain: the transform.
        output: a file of the same format.
        frame: ``ras`` or ``lps``, for formats that do not say it.

    Raises:
        InputError: when the file does not hold points, or the output has another format.
    """
    found = read_points(source, frame)
    if "".join(output.suffixes[-2:]) != "".join(source.suffixes[-2:]) and output.suffix != source.suffix:
        raise InputError(f"--output is {output}: expected the format of the points, {source.suffix}.")
    moved = chain(torch.from_numpy(found.points.T.copy())).numpy().T
    replace_file(output, lambda file: found.write(moved, file))


def jacobian(
    chain: Chain,
    reference: Path,
    output: Path,
    log: bool = False,
    label: Path | None = None,
    spatial_dims: int | None = None,
) -> None:
    """Write the Jacobian determinant of a transform on the grid of a reference, and the volume change of labels.

    Args:
        chain: the transform.
        reference: the fixed image.
        output: the image; with labels, a table beside it, ``.csv``, has one row per label.
        log: write the logarithm, which is NaN where the transform folds.
        label: label map on the grid of the reference. The table gives its volumes there and after the transform.
        spatial_dims: 2 for a stack that was registered slice by slice; by default 3, or 2 for a single slice.

    Raises:
        InputError: when a file is not usable, the reference is too thin, or the labels lie on another grid.
    """
    grid = as_nifti(reference, "reference")
    shape = (*grid.shape, 1)[:3]
    spatial_dims = spatial_dims or (3 if shape[2] > 1 else 2)
    if min(shape[:spatial_dims]) < 2:
        raise InputError(f"reference: {reference} has shape {grid.shape}: expected two voxels along each axis.")
    ddf = ddf_on_grid(chain, torch.from_numpy(grid.affine), shape)
    determinant = jacobian_determinant(by_image(ddf, spatial_dims))
    values = (determinant[0] if spatial_dims == 3 else determinant.movedim(0, -1)).numpy()
    rows = _volumes(values, label, grid) if label else []
    written = np.log(np.where(values > 0, values, np.nan)) if log else values
    table = _table(output).name
    with replace_files(output.parent, [table, output.name] if label else [output.name]) as temporary:
        save_image(image_like(written.reshape(grid.shape[:3]).astype(np.float32), grid), temporary / output.name)
        if label:
            with (temporary / table).open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["label", "volume_ml", "volume_moving_ml", "change_percent"])
                writer.writeheader()
                writer.writerows(rows)


def _table(output: Path) -> Path:
    """The table of volumes that belongs to an image of determinants."""
    return output.with_name(output.name.removesuffix(".gz").removesuffix(".nii") + ".csv")


def _volumes(determinant: np.ndarray, label: Path, reference: nib.Nifti1Image) -> list[dict[str, Any]]:
    labels = read_nifti(label, "label", spatial_dims=2, label=True)
    grid = MetaTensor(torch.from_numpy(determinant)[None], affine=torch.from_numpy(reference.affine))
    check_same_grid(labels, grid, f"label: {label}", "the reference")
    voxel = float(torch.linalg.det(grid.affine[:3, :3]).abs()) / 1000
    ids = labels.numpy()[0]
    rows = []
    for value in np.unique(ids[ids != 0]).tolist():
        inside = determinant[ids == value]
        before, after = inside.size * voxel, float(inside.sum()) * voxel
        change = 100 * (after / before - 1)
        rows.append({"label": value, "volume_ml": before, "volume_moving_ml": after, "change_percent": change})
    return rows


class _Passed(argparse.Action):
    """Keeps --transform and --inverse in the order in which they were given."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        passed = getattr(namespace, "passed", None) or []
        namespace.passed = [*passed, *((value, option_string == "--inverse") for value in values)]


@cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.transform", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "apply": "images to the grid of a reference",
        "points": "points of the fixed image to the moving image; --inverse takes them back",
        "compose": "one transform in place of several",
        "invert": "the inverse, on the grid of the moving image",
        "convert": "the same transform in another format",
        "jacobian": "Jacobian determinant on the grid of a reference, and volume changes of labels",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--transform", nargs="+", action=_Passed, help="in the order in which a point passes")
        command.add_argument("--inverse", nargs="+", action=_Passed, help="passed backwards, in its place in the order")
        command.add_argument("--images", nargs=2, metavar=("FIXED", "MOVING"), help=IMAGES)
        command.add_argument("--output", nargs="+" if name == "apply" else None, required=name != "apply")
        command.add_argument("--overwrite", action="store_true", help="replace what is there")
        if name != "points":
            command.add_argument("--reference", required=name == "jacobian", help="an image; its grid")
        if name in ("compose", "invert", "convert"):
            command.add_argument("--fsl", action="store_true", help="write .mat and .nii.gz as flirt and fnirt do")
        if name == "apply":
            command.add_argument("--moving", nargs="+", help="images, series or label maps")
            command.add_argument("--datalist", help="JSON list of dictionaries with such options, in place of them")
            command.add_argument("--interpolation", choices=list(INTERPOLATIONS), help="default: linear")
            command.add_argument("--fill", type=float, help="value outside; default: the smallest, 0 for labels")
        if name == "points":
            command.add_argument("--points", required=True, help="csv, fcsv, mrk.json, gii, vtk or vtp")
            command.add_argument("--frame", default="ras", choices=["ras", "lps"], help="of csv, vtk and vtp")
        if name == "jacobian":
            command.add_argument("--log", action="store_true", help="its logarithm")
            command.add_argument("--label", help="label map on the reference's grid")
            command.add_argument("--spatial_dims", type=int, choices=[2, 3], help="2: slice by slice")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    if options.command == "apply":
        jobs = _jobs(options)
        inputs = {file for job in jobs for file in job.inputs}
        _check_outputs([file for job in jobs for file in job.output], inputs, options)
        apply(jobs)
        return
    files, passed = _files(options), _passed(options)
    (output,) = files.pop("output")
    inputs = {file for paths in files.values() for file in paths} | {file for file, _ in passed}
    _check_outputs([output], inputs, options)
    reference = as_nifti(files["reference"][0], "reference") if "reference" in files else None
    images = Images(*(as_nifti(file, "images") for file in files["images"])) if "images" in files else Images(reference)
    chain = _read_chain(passed, images)
    prepare_folder(output.parent)
    if options.command == "points":
        points(files["points"][0], chain, output, options.frame)
    elif options.command == "jacobian":
        label = files["label"][0] if "label" in files else None
        jacobian(chain, files["reference"][0], output, options.log, label, options.spatial_dims)
    elif options.command == "invert":
        write_transform(chain.inverse(), output, Images(reference or images.moving, images.fixed), options.fsl)
    else:
        write_transform(chain, output, Images(reference or images.fixed, images.moving), options.fsl)


def _files(options: argparse.Namespace) -> dict[str, tuple[Path, ...]]:
    """The files of the command line but the transforms."""
    return {
        name: tuple(user_path(file, name) for file in ([value] if isinstance(value, str) else value))
        for name in ("moving", "reference", "points", "label", "images", "output")
        if (value := getattr(options, name, None))
    }


def _passed(options: argparse.Namespace) -> tuple[tuple[Path, bool], ...]:
    """The transforms of the command line, and whether they are passed backwards."""
    if not getattr(options, "passed", None):
        raise InputError("no transform is given: expected --transform FILE or --inverse FILE.")
    return tuple((user_path(file, "transform"), backwards) for file, backwards in options.passed)


def _jobs(options: argparse.Namespace) -> list[Job]:
    """What ``apply`` is to do: one job from the command line, or those of a datalist."""
    files = _files(options)
    if options.datalist:
        others = [name for name in ("passed", "interpolation", "fill") if getattr(options, name, None) is not None]
        if files or others:
            option = [*files, *others][0].replace("passed", "transform")
            raise InputError(f"--datalist and --{option} were both given: expected one or the other.")
        return read_jobs(options.datalist)
    for name in ("moving", "reference", "output"):
        if name not in files:
            raise InputError(f"--{name} is missing: expected --moving, --reference and --output, or --datalist.")
    return [
        Job(
            moving=files["moving"],
            reference=files["reference"][0],
            transform=_passed(options),
            output=files["output"],
            interpolation=options.interpolation or "linear",
            fill=options.fill,
            images=files.get("images", ()),
        )
    ]


def _check_outputs(outputs: Sequence[Path], inputs: set[Path], options: argparse.Namespace) -> None:
    """Refuse outputs that are inputs or that exist, before anything is computed."""
    places = Counter(file.resolve() for file in outputs)
    inputs = {path.resolve() for path in inputs}
    tables = [_table(file) for file in outputs] if getattr(options, "label", None) else []
    for file in outputs:
        if options.command in ("apply", "jacobian") and not file.name.endswith((".nii", ".nii.gz")):
            raise InputError(f"output: {file} is not named as a NIfTI file: expected .nii or .nii.gz.")
    for file in (*outputs, *tables):
        if places[file.resolve()] > 1:
            raise InputError(f"output: {file} is named twice: expected one file for each image.")
        if file.resolve() in inputs:
            raise InputError(f"output: {file} is an input: expected another name.")
        if file.exists() and not options.overwrite:
            raise InputError(f"output: {file} exists: expected another name, or --overwrite.")


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
