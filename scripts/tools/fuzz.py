"""Damaged and odd files, thousands of them: each must give a finite result or an error in one line.

    python -m scripts.tools.fuzz --count 10000 [--seed 0] [--only INDEX]

A case takes a small stack, its moving image and a label map, changes one of the files (bytes of the header or of the
compressed stream, fields of the header, voxels), and registers the pair with the cardiac model. These are findings: an
exception that is no :class:`InputError`, a result that is not finite or moves further than the image is large, a case
that takes more than 20 seconds, more memory than allowed. A finding prints its case, which ``--only`` repeats.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import math
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import nibabel as nib
import numpy as np

from ..registration.pair import Registration
from ..support.errors import InputError

__all__ = ["MUTATIONS", "Report", "fuzz", "main", "make_case"]

SECONDS = 20
GIB = 2**30
SHAPE = (40, 36, 2)
FILES = ("fixed", "moving", "label_moving")
EXTREMES = (0.0, -1.0, 1e-30, 1e30, 3.5e38, math.nan, math.inf, -math.inf)


class TooSlowError(Exception):
    """A case took longer than it may."""


@dataclass
class Report:
    """How the cases ended.

    Args:
        registered: those with a finite result.
        refused: errors in one line, by their first words.
        findings: index and text of what must not happen.
        peak_gib: peak of the memory of the process.
    """

    registered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    peak_gib: float = 0.0

    def __str__(self) -> str:
        lines = [f"{self.registered} registered, {self.refused.total()} refused, {len(self.findings)} findings, "]
        lines[0] += f"peak {self.peak_gib:.2f} GiB"
        return "\n".join([*lines, *(f"case {index}: {text}" for index, text in self.findings)])


def fuzz(indices: Sequence[int], seed: int = 0, memory_gib: float = 2.0) -> Report:
    """Run the cases of these indices; the same seed and index give the same case."""
    report = Report()
    register = Registration.load("cardiac", spatial_size=[40, 40, -1], refine_steps=2, device="cpu")
    previous = signal.signal(signal.SIGALRM, _too_slow)
    try:
        for index in indices:
            with tempfile.TemporaryDirectory() as folder:
                what, paths = make_case(Path(folder), seed, index)
                signal.alarm(SECONDS)
                try:
                    _check(register, paths)
                    report.registered += 1
                except InputError as error:
                    report.refused[" ".join(str(error).rpartition(".nii.gz")[-1].split()[:6])] += 1
                    if "\n" in str(error).strip():
                        report.findings.append((index, f"{what}: an error of several lines: {error}"))
                except Exception as error:
                    place = traceback.extract_tb(error.__traceback__)[-1]
                    text = f"{type(error).__name__}: {error}".splitlines()[0]
                    report.findings.append((index, f"{what}: {text} ({Path(place.filename).name}:{place.lineno})"))
                finally:
                    signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    report.peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    if report.peak_gib > memory_gib:
        report.findings.append((-1, f"the process took {report.peak_gib:.2f} GiB: expected at most {memory_gib:g}"))
    return report


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlowError(f"not done after {SECONDS} s")


def _check(register: Registration, paths: dict[str, Path]) -> None:
    result = register(paths["fixed"], paths["moving"], label_moving=paths["label_moving"])
    for name in ("ddf", "warped", "jacobian"):
        if not np.isfinite(np.asarray(getattr(result, name))).all():
            raise ArithmeticError(f"{name} is not finite")
    largest, size = float(np.abs(np.asarray(result.ddf)).max()), max(result.ddf.shape[1:])
    if largest > size:
        raise ArithmeticError(f"a displacement of {largest:g} voxels in an image of {tuple(result.ddf.shape[1:])}")


def make_case(folder: Path, seed: int, index: int) -> tuple[str, dict[str, Path]]:
    """Write the files of a case; return what was done to which of them, and the paths."""
    random = np.random.default_rng((seed, index))
    paths = {name: folder / f"{name}.nii.gz" for name in FILES}
    for name, image in _clean_pair(random).items():
        nib.save(image, paths[name])
    victim = FILES[random.integers(len(FILES))]
    mutation = list(MUTATIONS)[random.integers(len(MUTATIONS))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MUTATIONS[mutation](paths[victim], random)
    return f"{mutation} of {victim}", paths


def _clean_pair(random: np.random.Generator) -> dict[str, nib.Nifti1Image]:
    """A bright disc in a dark ring, larger in the fixed image; oblique grids with anisotropic voxels."""
    i, j, _ = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    distance = np.hypot(i - 20 + random.uniform(-3, 3), j - 18)
    angle = random.uniform(-0.5, 0.5)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = affine @ np.diag([1.5, 1.5, 8, 1])
    images = {}
    for name, radius in (("fixed", 10), ("moving", 7), ("label_moving", 7)):
        if name.startswith("label"):
            images[name] = nib.Nifti1Image((distance < radius).astype(np.int16), affine)
            continue
        values = 100 + 300 * (distance < radius) - 60 * ((distance >= radius) & (distance < radius + 4))
        images[name] = nib.Nifti1Image((values + random.normal(0, 8, SHAPE)).astype(np.float32), affine)
    return images


def _flip_bits_of_the_stream(path: Path, random: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    for place in random.integers(len(data), size=random.integers(1, 4)):
        data[place] ^= 1 << random.integers(8)
    path.write_bytes(data)


def _cut_the_stream(path: Path, random: np.random.Generator) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: random.integers(len(data))])


def _change_bytes_of_the_header(path: Path, random: np.random.Generator) -> None:
    data = bytearray(gzip.decompress(path.read_bytes()))
    for place in random.integers(352, size=random.integers(1, 5)):
        data[place] = random.integers(256)
    path.write_bytes(gzip.compress(data, mtime=0))


def _set_a_field_of_the_header(path: Path, random: np.random.Generator) -> None:
    data = bytearray(gzip.decompress(path.read_bytes()))
    header = np.frombuffer(data, dtype=nib.Nifti1Header.template_dtype, count=1).copy()
    names = ["dim", "pixdim", "scl_slope", "scl_inter", "vox_offset", "qform_code", "sform_code", "xyzt_units"]
    names += ["quatern_b", "quatern_c", "qoffset_x", "srow_x", "srow_y", "srow_z", "datatype", "bitpix", "intent_code"]
    for name in random.choice(names, size=random.integers(1, 4), replace=False):
        values = header[name][0]
        value = random.choice(EXTREMES) if random.random() < 0.5 else random.normal() * 10.0 ** random.integers(-3, 6)
        if values.dtype.kind in "iu":
            limits = np.iinfo(values.dtype)
            value = np.clip(np.nan_to_num(value), limits.min, limits.max).astype(values.dtype)
        if values.ndim:
            values[random.integers(len(values))] = value
        else:
            header[name][0] = value
    path.write_bytes(gzip.compress(header.tobytes() + bytes(data[348:]), mtime=0))


def _set_voxels(path: Path, random: np.random.Generator) -> None:
    image = nib.Nifti1Image.from_filename(path)
    data = np.asarray(image.dataobj).astype(np.float64)
    amount = random.choice([0.01, 0.3, 0.97, 1.0])
    value = random.choice([*EXTREMES, 1e39, -2000.0, -3024.0, 0.5, 2.0**31, 312782574.0])
    data[random.random(data.shape) < amount] = value
    nib.save(nib.Nifti1Image(data, image.affine), path)


def _scale_voxels(path: Path, random: np.random.Generator) -> None:
    image = nib.Nifti1Image.from_filename(path)
    data = np.asarray(image.dataobj).astype(np.float64)
    data = data * 10.0 ** random.integers(-40, 41) + random.choice([0, -1e5, 1e5])
    nib.save(nib.Nifti1Image(data, image.affine), path)


def _blank_a_slice(path: Path, random: np.random.Generator) -> None:
    image = nib.Nifti1Image.from_filename(path)
    data = np.array(image.dataobj)
    data[..., random.integers(data.shape[-1])] = random.choice([0, 7])
    nib.save(nib.Nifti1Image(data, image.affine), path)


def _reshape(path: Path, random: np.random.Generator) -> None:
    image = nib.Nifti1Image.from_filename(path)
    data = np.asarray(image.dataobj)
    shapes = [data[:1], data[..., :1], data[..., 0], data[..., None], data[:, :0], data.T, data[:9, :9], data[None]]
    nib.save(nib.Nifti1Image(np.ascontiguousarray(shapes[random.integers(len(shapes))]), image.affine), path)


def _change_the_affine(path: Path, random: np.random.Generator) -> None:
    image = nib.Nifti1Image.from_filename(path)
    affine = image.affine.copy()
    kind = random.integers(4)
    if kind == 0:
        affine[:3, :3] *= 10.0 ** random.integers(-6, 7)
    elif kind == 1:
        affine[:3, random.integers(3)] = 0
    elif kind == 2:
        affine[:3, 3] += random.normal(size=3) * 10.0 ** random.integers(0, 7)
    else:
        affine[:3, :3] = affine[:3, random.permutation(3)]
    changed = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    changed.set_sform(affine, int(random.integers(3)), update_affine=True)
    nib.save(changed, path)


def _be_no_image(path: Path, random: np.random.Generator) -> None:
    kinds = [b"", b"\x1f\x8b", gzip.compress(b"text", mtime=0), b"text", gzip.compress(bytes(348), mtime=0)]
    path.write_bytes(kinds[random.integers(len(kinds))])


MUTATIONS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "flipped bits of the stream": _flip_bits_of_the_stream,
    "cut stream": _cut_the_stream,
    "changed bytes of the header": _change_bytes_of_the_header,
    "changed fields of the header": _set_a_field_of_the_header,
    "extreme voxels": _set_voxels,
    "scaled voxels": _scale_voxels,
    "blank slice": _blank_a_slice,
    "other shape": _reshape,
    "other affine": _change_the_affine,
    "no image": _be_no_image,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tools.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="index of the one case to run")
    parser.add_argument("--memory_gib", type=float, default=2.0)
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    begin = time.monotonic()
    indices = range(options.count) if options.only is None else [options.only]
    report = fuzz(indices, options.seed, options.memory_gib)
    print(report)
    print("; ".join(f"{count} x {text}" for text, count in report.refused.most_common(20)))
    print(f"{len(indices)} cases in {time.monotonic() - begin:.0f} s")
    sys.exit(bool(report.findings))


if __name__ == "__main__":
    main()
