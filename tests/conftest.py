"""Fixtures: the shipped samples, small volumes of known content, and the bundle run in this process."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run
from monai.data import MetaTensor

from scripts.support.errors import find_input_error

# one thread is the fastest for images as small as those of the tests, and it repeats exactly
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "data"


@pytest.fixture
def samples():
    return SAMPLES


@pytest.fixture
def save(tmp_path):
    """Write an array as NIfTI below the test's folder and return its path."""

    def write(name, array, affine=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.asarray(array), np.eye(4) if affine is None else affine), path)
        return str(path)

    return write


@pytest.fixture
def bundle(monkeypatch):
    """Run configurations by their names, as in ``("train", "hippocampus")``, in this process; restores what the run
    changes in Python."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.syspath_prepend(str(ROOT))

    def call(*names, **options):
        run(config_file=config_files(*names), logging_file=False, **options)

    return call


@pytest.fixture
def infer(bundle):
    """Run ``inference.yaml`` with overlays."""
    return partial(bundle, "inference")


def config_files(*names):
    return [str(ROOT / "configs" / f"{name}.yaml") for name in names]


def message_of(call):
    """The one line a user would see."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it in exceptions of its own
        call()
    error = find_input_error(caught.value)
    assert error is not None, caught.value
    assert "\n" not in str(error)
    return str(error)


def load_json(path):
    return json.loads(Path(path).read_text())


def meta(values, shift=0.0, spacing=1.0):
    """An image of these values, whose origin lies at ``shift`` mm along the first axis."""
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
    affine[0, 3] = shift
    return MetaTensor(values[None].float(), affine=affine)


def ramp(shape=(6, 4, 3)):
    """1, 2, 3, ... along the first axis."""
    return torch.arange(1.0, shape[0] + 1).view(-1, 1, 1).expand(shape).clone()


def blobs(shape, seed=0):
    """A smooth positive random volume, uint16, different along every axis."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = gaussian_filter(noise, [min(3, n / 8) for n in shape])
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.round(1000 * smooth).astype(np.uint16)


def oblique_affine(spacing, origin, degrees, flip):
    """Spacing in mm and sign of each axis, then a rotation about x and one about z, by (z, x) degrees."""
    a, b = np.deg2rad(degrees)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(np.array(spacing) * flip)
    affine[:3, 3] = origin
    return affine


class Shift(torch.nn.Module):
    """A network that moves everything by one vector, in voxels of its grid."""

    def __init__(self, voxels):
        super().__init__()
        self.voxels = voxels

    def forward(self, image):
        vector = torch.tensor(self.voxels, dtype=torch.float32).view(1, -1, *[1] * (image.ndim - 2))
        return vector.expand(len(image), -1, *image.shape[2:]).clone()
