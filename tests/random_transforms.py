"""Random images and transforms as files, in 2D and 3D, and the command that uses them."""

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from scripts.deformation.formats import ddf_to_itk
from scripts.transform import main


def random_image(random, shape=None, dims=3):
    """Noise on an oblique, flipped, permuted, anisotropic grid around the origin of the world."""
    shape = random.integers(6, 14, dims) if shape is None else shape
    rotation = np.linalg.qr(random.normal(size=(dims, dims)))[0][:, random.permutation(dims)]
    affine = np.eye(4)
    affine[:dims, :dims] = rotation * random.uniform(0.7, 3, dims) * random.choice([-1, 1], dims)
    affine[:dims, 3] = random.normal(size=dims) - affine[:dims, :dims] @ (np.array(shape) - 1) / 2
    image = nib.Nifti1Image(random.normal(size=shape).astype(np.float32), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image


def random_field(random, path, dims=3):
    grid = random_image(random, (9, 8, 7)[:dims], dims)
    ddf = random.normal(size=(3, *(*grid.shape, 1)[:3])).astype(np.float32)
    nib.save(ddf_to_itk(ddf, grid), path)
    return grid


def random_affine(random, path, dims=3):
    transform = sitk.AffineTransform(dims)
    transform.SetMatrix((np.eye(dims) + 0.1 * random.normal(size=(dims, dims))).flatten().tolist())
    transform.SetTranslation(random.normal(size=dims).tolist())
    transform.SetCenter(random.normal(size=dims).tolist())
    sitk.WriteTransform(transform, str(path))
    return transform


def itk_field(path):
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def run(command, **options):
    words = [command]
    for name, value in options.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
    main(words)
