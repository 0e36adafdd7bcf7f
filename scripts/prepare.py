"""Brings a folder of brains to the space and the grid that ``brain.yaml`` expects.

    python -m scripts.prepare --dataset_dir DIR --output_dir OUT

reads DIR/<subject>/t1.nii.gz and DIR/<subject>/seg.nii.gz, of which one may be missing, and writes files with the same
names below OUT. They are skull-stripped by the label map where it allows that, by brain_mask.nii.gz where there is one,
or by deepbet where it is installed; aligned to a template by an affine map, and sampled
once.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from .deformation.grid import apply_affine, lattice, sample
from .images.affine import find_affine
from .images.brains import check_brain, correct_bias
from .images.extraction import extract_brain
from .images.intensities import clamp_padding
from .images.loading import check_same_grid, open_nifti, read_nifti
from .images.synthesis import paint_t1, without_extracerebral
from .support.command_line import report_in_one_line
from .support.errors import InputError
from .support.files import prepare_folder, remove_debris, replace_files, sha256, user_path
from .support.fingerprint import fingerprint

__all__ = ["Target", "main", "prepare_subject", "prepare_subjects"]

logger = logging.getLogger(__name__)

IMAGE, LABEL = FILES = ("t1.nii.gz", "seg.nii.gz")
MASK = "brain_mask.nii.gz"
MNI152_CENTER = (0.0, -18.0, 8.0)  # mm; with 96 x 112 x 96 voxels of 2 mm the grid of the shipped samples
MARK = "gradirn.prepare "  # begins the description in the headers of the results
MIN_OVERLAP = 0.85  # Dice of brain and template; .91 to .96 if the alignment is right and both include CSF


@dataclass
class Target:
    """The space and the grid of the prepared brains.

    Args:
        template: a skull-stripped brain, shape (1, X, Y, Z), with a background of 0.
        affine: voxel to world (RAS, mm) of the grid, shape (4, 4).
        shape: the three sizes of the grid.
        code: NIfTI's name for this world: "mni" or "aligned".
    """

    template: MetaTensor
    affine: torch.Tensor
    shape: tuple[int, ...]
    code: str = "aligned"

    @classmethod
    def of(cls, template: str, spacing: float, spatial_size: Sequence[int]) -> Target:
        """Make a grid along the axes of the world, around the brain of a template: "mni152" or a file.

        Raises:
            InputError: when the template does not exist, or a size is not positive.
        """
        if spacing <= 0 or min(spatial_size) < 1:
            raise InputError(f"--spacing {spacing:g} and --spatial_size {spatial_size}: expected numbers above 0.")
        mni = template == "mni152"
        image = _mni152() if mni else _background_at_zero(read_nifti(template, "template"), "template")
        center = torch.tensor(MNI152_CENTER) if mni else _brain_center(image)
        affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
        affine[:3, 3] = center - spacing * (torch.tensor(spatial_size) - 1) / 2
        return cls(image, affine, tuple(spatial_size), "mni" if mni else "aligned")

    def resample(self, image: MetaTensor, alignment: torch.Tensor, label: bool = False) -> MetaTensor:
        """Sample once on the grid, with 0 outside: an image linearly, a label map by nearest neighbour.

        Args:
            image: shape (1, X, Y, Z), with a background of 0.
            alignment: the map from the template's to the image's world, shape (4, 4).
            label: whether ``image`` is a label map.
        """
        points = apply_affine(torch.linalg.solve(image.affine.double(), alignment @ self.affine), lattice(self.shape))
        values = sample(image.as_tensor(), points, "nearest" if label else "bilinear", fill=0)
        return MetaTensor(values, affine=self.affine, meta={"filename_or_obj": image.meta["filename_or_obj"]})


def prepare_subjects(
    dataset_dir: Path,
    output_dir: Path,
    target: Target,
    affine: bool = True,
    bias_correction: bool = False,
    overwrite: bool = False,
) -> None:
    """Prepare every subject of a folder. Finished subjects are skipped, failures are reported.

    Args:
        dataset_dir: holds one folder per subject.
        output_dir: where the results go.
        target: the space and the grid to bring the brains to.
        affine: align to the template; otherwise trust the files.
        bias_correction: see :func:`correct_bias`.
        overwrite: replace files that were prepared from other files or with other options, or not prepared at all.

    Raises:
        InputError: when there are no subjects; after the last subject, when any has failed.
    """
    names = sorted({path.parent.name for file in FILES for path in dataset_dir.glob(f"*/{file}")})
    if not names:
        raise InputError(f"dataset_dir: {dataset_dir} has no subjects: expected {dataset_dir}/<subject>/{IMAGE}.")
    prepare_folder(output_dir)
    failed, skipped = [], 0
    for number, name in enumerate(names, 1):
        try:
            mark = _mark(dataset_dir / name, target, affine, bias_correction)
            if not overwrite and _is_prepared(output_dir / name, mark):
                skipped += 1
                continue
            results = prepare_subject(dataset_dir / name, target, affine, bias_correction)
            _write(results, output_dir / name, target.code, mark)
        except (InputError, OSError, RuntimeError) as error:
            logger.error(f"{name} failed: {str(error).splitlines()[0]}")
            failed.append(name)
            continue
        if IMAGE in results:
            check_brain(results[IMAGE], f"{name}/{IMAGE}")
        logger.info(f"{number}/{len(names)} {name}: {_describe_overlap(results, target)}")
    logger.info(f"prepared {len(names) - skipped - len(failed)}, skipped {skipped} finished, failed {len(failed)}")
    if failed:
        raise InputError(f"{len(failed)} of {len(names)} subjects failed: {', '.join(failed)}.")


def prepare_subject(
    folder: Path, target: Target, affine: bool = True, bias_correction: bool = False
) -> dict[str, MetaTensor]:
    """Prepare one subject.

    SynthSeg's extra-cerebral ids (500 to 999) are removed from the label map and, if there are any, from the image. A
    label map without an image is registered as an image with typical tissue intensities. The minimum of an image
    becomes 0.

    Returns:
        the volumes on the target's grid, by their file names.

    Raises:
        InputError: when a file is not usable, or cannot be registered.
    """
    volumes = _read(folder)
    image = volumes.get(IMAGE)
    if image is not None and bias_correction:
        image = volumes[IMAGE] = correct_bias(image)
    alignment = torch.eye(4, dtype=torch.float64)
    if affine:
        alignment = find_affine(target.template, paint_t1(volumes[LABEL]) if image is None else image)
    return {file: target.resample(volume, alignment, label=file == LABEL) for file, volume in volumes.items()}


def _read(folder: Path) -> dict[str, MetaTensor]:
    """Read the volumes of a subject; set the image's minimum and everything outside of the brain to 0."""
    paths = {file: folder / file for file in FILES if (folder / file).is_file()}
    volumes = {file: read_nifti(path, file.partition(".")[0], label=file == LABEL) for file, path in paths.items()}
    if IMAGE in volumes:
        volumes[IMAGE] = _background_at_zero(volumes[IMAGE], "t1")
    if LABEL in volumes:
        whole, brain = volumes[LABEL], without_extracerebral(volumes[LABEL])
        if IMAGE in volumes:
            check_same_grid(whole, volumes[IMAGE], f"seg: {paths[LABEL]}", str(paths[IMAGE]))
            if not torch.equal(brain, whole) and not (folder / MASK).is_file():
                stripped = torch.where(brain.as_tensor() > 0, volumes[IMAGE].as_tensor(), 0)
                volumes[IMAGE] = MetaTensor(stripped, meta=volumes[IMAGE].meta)
        volumes[LABEL] = brain
    if IMAGE in volumes:
        mask = str(folder / MASK) if (folder / MASK).is_file() else None
        volumes[IMAGE] = _background_at_zero(extract_brain(volumes[IMAGE], "t1", mask=mask)[0], "t1")
    return volumes


def _describe_overlap(results: dict[str, MetaTensor], target: Target) -> str:
    """Compare the brain with the template's: a high Dice means that the alignment is right."""
    brain = results[IMAGE if IMAGE in results else LABEL] > 0
    template_brain = target.resample(target.template, torch.eye(4, dtype=torch.float64)) > 0
    dice = float(2 * (brain & template_brain).sum() / (brain.sum() + template_brain.sum()))
    return f"overlap with the template {dice:.3f}" + (", check this one" if dice < MIN_OVERLAP else "")


def _mark(folder: Path, target: Target, affine: bool, bias_correction: bool) -> str:
    """What the headers of the results say: it differs where the files of a subject or the options differ."""
    files = {file: sha256(folder / file) for file in (*FILES, MASK) if (folder / file).is_file()}
    template = hashlib.sha256(target.template.as_tensor().numpy().tobytes()).hexdigest()
    grid = target.affine.tolist(), target.shape, target.code
    return MARK + fingerprint(files, template, grid, affine, bias_correction)


def _is_prepared(folder: Path, mark: str) -> bool:
    """Whether a folder holds the results of the same files and options.

    Raises:
        InputError: when it holds others.
    """
    remove_debris(folder)
    marks = []
    for path in (folder / file for file in FILES if (folder / file).exists()):
        marks.append(bytes(open_nifti(path, path.name).header["descrip"].item()).decode(errors="replace"))
        if marks[-1] != mark:
            found = "prepared from other files or with other options" if marks[-1].startswith(MARK) else "not prepared"
            raise InputError(f"{path} was {found}: expected another --output_dir, or --overwrite.")
    return bool(marks)


def _write(results: dict[str, MetaTensor], folder: Path, code: str, mark: str) -> None:
    with replace_files(folder, FILES) as temporary:
        for file, image in results.items():
            array, affine = image.as_tensor()[0].numpy(), image.affine.numpy()
            if file == LABEL:
                smallest = (np.min_scalar_type(int(end)) for end in (array.min(), array.max()))
                array = array.astype(np.result_type(*smallest))
            nifti = nib.Nifti1Image(array, affine, dtype=array.dtype)
            nifti.set_sform(affine, code)
            nifti.set_qform(affine, code)
            nifti.header["descrip"] = mark.encode()
            nib.save(nifti, temporary / file)


def _mni152() -> MetaTensor:
    """Load nilearn's MNI152 template, 1 mm, skull-stripped."""
    try:
        from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
    except ImportError as error:
        raise InputError(
            "--template mni152 needs nilearn, which is not installed: pip install nilearn, or --template FILE."
        ) from error
    template, mask = load_mni152_template(resolution=1), load_mni152_brain_mask(resolution=1)
    brain = torch.from_numpy(template.get_fdata(dtype=np.float32) * (mask.get_fdata(dtype=np.float32) > 0.5))
    affine = torch.from_numpy(np.asarray(template.affine, dtype=np.float64))
    return MetaTensor(brain[None], affine=affine, meta={"filename_or_obj": "mni152"})


def _background_at_zero(image: MetaTensor, role: str) -> MetaTensor:
    values = clamp_padding(image, role).as_tensor()
    if values.min() == values.max():
        raise InputError(f"{role}: {image.meta['filename_or_obj']} is constant: expected an image.")
    return MetaTensor(values - values.min(), meta=image.meta)


def _brain_center(image: MetaTensor) -> torch.Tensor:
    """Return the centre of the bounding box of everything above the background, in world coordinates."""
    inside = torch.nonzero(image.as_tensor()[0] > 0).double()
    return apply_affine(image.affine, (inside.amin(0) + inside.amax(0)) / 2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder with one folder per subject")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--template", default="mni152", help="mni152 (from nilearn) or a skull-stripped T1 image")
    parser.add_argument("--spacing", type=float, default=2.0, help="size of the voxels, in mm")
    parser.add_argument("--spatial_size", type=int, nargs=3, default=(96, 112, 96), help="size of the grid, in voxels")
    parser.add_argument("--bias_correction", action="store_true", help="N4, for images with a strong bias field")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in the output folder")
    parser.add_argument(
        "--affine",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="align to the template by an affine map; otherwise trust the files",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    dataset_dir, output_dir = (user_path(getattr(options, name), name) for name in ("dataset_dir", "output_dir"))
    target = Target.of(options.template, options.spacing, options.spatial_size)
    prepare_subjects(dataset_dir, output_dir, target, options.affine, options.bias_correction, options.overwrite)


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
