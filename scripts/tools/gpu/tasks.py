"""The tasks of the GPU training: what each packs, and how its samples vary."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TASKS", "Task", "Variation"]


@dataclass(frozen=True)
class Variation:
    """The random variation of samples: motion, in degrees and in voxels of the packed grid, and contrast.

    Args:
        rotation: largest angle of both images, about each axis, in degrees.
        motion_rotation: largest further angle of the moving image alone.
        shift: largest shift of both images, in voxels.
        motion_shift: largest further shift of the moving image alone.
        scale: largest relative change of size.
        elastic: standard deviation of a smooth random displacement of both images, in voxels.
        motion: the same for the moving image alone.
        gamma: range of the exponent of the contrast.
        flips: axes along which both images may be mirrored.
    """

    rotation: float
    motion_rotation: float
    shift: float
    motion_shift: float
    scale: float
    elastic: float
    motion: float
    gamma: tuple[float, float] = (0.6, 1.6)
    flips: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task: what is packed of its data set, and how it is trained.

    Args:
        spatial_dims: 2 or 3, as the network.
        overlays: overlays of ``train.yaml``, which define network and loss.
        frames: keys of the images of a subject; none if images are painted from label maps.
        spacing: voxel size of the packed grid, in mm; -1 keeps that of the image.
        spatial_size: size of the packed grid, in voxels; -1 keeps that of the image.
        validation: subjects that are set aside for validation.
        test: subjects that are set aside for the published figures.
        batch_size: pairs per step; each pair is registered in both directions.
        variation: the random variation of the samples.
        crop: size of a training sample, in voxels, from the middle of the grid.
    """

    spatial_dims: int
    overlays: tuple[str, ...]
    frames: tuple[str, ...]
    spacing: tuple[float, ...]
    spatial_size: tuple[int, ...]
    validation: int | float
    test: int
    batch_size: int
    variation: Variation
    crop: tuple[int, ...] | None = None


TASKS = {
    "cardiac": Task(
        2, (), ("ED", "ES"), (1.5, 1.5, -1), (160, 160, -1), 3, 15, 24,
        Variation(180, 0, 6, 1, 0.3, 3.0, 1.2, (0.5, 2.0), (0, 1)), (128, 128),
    ),
    "hippocampus": Task(
        3, ("hippocampus.yaml",), ("T1",), (1, 1, 1), (48, 64, 48), 17, 40, 10,
        Variation(12, 12, 3, 3, 0.12, 1.2, 0.0, (0.6, 1.6), (0,)),
    ),
    "brain": Task(
        3, ("brain.yaml",), (), (1, 1, 1), (192, 224, 192), 2, 2, 1,
        Variation(8, 16, 4, 16, 0.1, 4.0, 0.0),
    ),
}  # fmt: skip
