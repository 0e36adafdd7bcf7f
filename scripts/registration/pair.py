"""Registration of a pair as an object: from two images to all results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.networks.utils import eval_mode
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..cohorts.datalist import split_contrasts
from ..cohorts.tasks import find_task
from ..deformation.formats import read_displacement
from ..deformation.grid import to_native_ddf
from ..deformation.transforms import Transform, before_network
from ..images.loading import Source
from ..networks import LNCC, Demons, GraDIRN, initialise
from ..networks.guidance import GuidanceLayout
from ..networks.similarity import Similarity
from ..results.measures import MeasurePair
from ..results.registered import RegisteredPair
from ..support.command_line import number
from ..support.errors import InputError, unknown_option, unwrapped
from ..support.files import user_path
from ..support.fingerprint import fingerprint
from ..support.keys import BRAIN_MASKS, LANDMARKS
from ..support.notices import collect_warnings, image_name
from ..verdict import ErrorModel, Judge, find_evidence
from .expected_error import expect_error
from .inferer import RegistrationInferer
from .preprocessing import preprocess_pair

if TYPE_CHECKING:
    from ..heart import TrackedCine
    from ..heart.insertions import Insertions

__all__ = ["Registration"]

Data = Mapping[Any, Any]
Points = str | Path | np.ndarray

CLASSICAL_REPEATS = {2: (20, 20, 20, 10), 3: (20, 20, 10)}  # on each level, by spatial_dims
CLASSICAL_TAU = 4.0


class Registration:
    """Registers pairs of images: preprocessing, network, and resampling to the fixed image's own grid.

    It is used by ``inference.yaml``, ``evaluate.yaml``, the validation of a training, the MONAI Label application and
    the benchmark.

    Args:
        network: maps images (B, 2, *spatial), channel 0 moving and channel 1 fixed, to a ddf in voxels.
        preprocessing: makes the network's input of a pair, see :func:`scripts.registration.preprocess_pair`.
        inferer: runs the network, see :class:`scripts.registration.inferer.RegistrationInferer`.
        device: the device of the network.
        weights: file of the network's weights; its checksum is written with the results. None means no file.
        measure: computes the ``metrics`` of a result; by default those that ``inference.yaml`` writes.
        fill: intensity of a warped image outside of the moving image; None means the minimum of the moving image.
        judge: gives the ``verdict`` of a result; by default only warnings make it doubtful.
        error_model: gives the ``error_mm`` of a result; None means that there is none.

    Example::

        >>> register = Registration.load("hippocampus")
        >>> result = register("fixed.nii.gz", "moving.nii.gz", label_moving="labels.nii.gz")
        >>> result.label_warped.shape == result.fixed.shape
        True
        >>> result.save("out")
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Callable[[Data], Data],
        inferer: Inferer,
        device: torch.device | str = "cpu",
        weights: str | Path | None = None,
        measure: Callable[[RegisteredPair], dict[str, Any]] | None = None,
        fill: float | None = None,
        judge: Judge | None = None,
        error_model: ErrorModel | None = None,
    ) -> None:
        self.network = network
        self.preprocessing = preprocessing
        self.inferer = inferer
        self.device = torch.device(device)
        self.weights = None if weights is None else user_path(weights, "weights")
        self.spatial_dims: int = inferer.spatial_dims  # type: ignore[attr-defined]
        self.measure = measure or MeasurePair(self.spatial_dims, inverse=True)
        self.fill = None if fill is None else number("fill", fill)
        self._judge = judge or Judge({})  # what it has learned does not change a displacement
        self.error_model = error_model

    @classmethod
    def load(
        cls,
        task: str | Sequence[str | Path] = "cardiac",
        device: torch.device | str | None = None,
        amp: bool | str | None = None,
        memory_limit: float | None = None,
        **overrides: Any,
    ) -> Registration:
        """Make the registration that ``inference.yaml`` describes, with its weights.

        Args:
            task: ``cardiac``, ``hippocampus`` or ``brain``; or a list of configuration files, ``inference.yaml`` or
                one like it first, then overlays.
            device: by default the first GPU, or the CPU if there is none.
            amp: the option ``--amp`` of ``inference.yaml``.
            memory_limit: GiB that a registration may take.
            overrides: further options of ``inference.yaml``: ``weights``, ``alignment``, ``spacing``, ...

        Raises:
            InputError: when there is no such task, file or option, or the weights do not fit.
        """
        from monai.bundle import ConfigParser  # slow to import

        files = find_task(task).config_files("inference") if isinstance(task, str) else [str(file) for file in task]
        for file in files:
            if not Path(file).is_file():
                raise InputError(f"{file} does not exist: expected a configuration file.")
        parser = ConfigParser()
        parser.read_config(files)
        for name in overrides:
            if name.partition("#")[0] not in parser.get():
                raise unknown_option(name, parser.get())
        options = {"device": device, "amp": amp, "memory_limit": memory_limit}
        overrides |= {key: value for key, value in options.items() if value is not None}
        if "weights" in overrides:
            overrides["weights"] = Path(overrides["weights"])  # a text that begins with $ would be evaluated
        parser.update(overrides)
        with unwrapped():
            return parser.get_parsed_content("registration")

    @classmethod
    def classical(
        cls,
        spatial_dims: int,
        similarity: Similarity | str = "lncc",
        num_repeats: Sequence[int] | None = None,
        smoothing: float = 1.5,
        device: torch.device | str | None = None,
        memory_limit: float | None = None,
        **preprocessing: Any,
    ) -> Registration:
        """Make a registration without weights: only the explicit steps of the network, on the fixed image's own grid.

        These are composed demons steps on an image pyramid. On the shipped samples, mean Dice is .900 for the hearts
        (.932 with ``ssd``; .945 with the weights), .776 for the hippocampus (.832) and .732 for the brain (.738).

        Args:
            spatial_dims: 3 for volumes; 2 for images and for stacks, which are registered slice by slice.
            similarity: what the steps increase: ``ssd``, ``ncc``, ``lncc`` or an object of ``scripts.networks``.
            num_repeats: steps on each level of the pyramid, coarse to fine; the last level is the full resolution.
            smoothing: standard deviation, in voxels of each level, of a Gaussian filter of the steps: more gives
                smoother displacements.
            device: by default the first GPU, or the CPU if there is none.
            memory_limit: GiB that a registration may take.
            preprocessing: further arguments of :func:`~scripts.registration.preprocess_pair`: ``alignment``,
                ``spacing``, ``spatial_size``, ``intensity_range``, ...

        Raises:
            InputError: when an argument is out of its range.
        """
        num_repeats = CLASSICAL_REPEATS.get(spatial_dims, (1,)) if num_repeats is None else num_repeats
        if similarity == "lncc" and spatial_dims == 3:
            similarity = LNCC(5)
        step = Demons(similarity, smoothing)
        network = GraDIRN(spatial_dims, [1] * len(num_repeats), num_repeats, step, None, "compose", ddf_smoothing=0.5)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        grid: dict[str, Any] = {"spacing": [-1] * 3, "spatial_size": [-1] * 3, **preprocessing}
        return cls(
            initialise(network, taus=CLASSICAL_TAU).to(device),
            preprocess_pair(spatial_dims, memory_limit=memory_limit, **grid),
            RegistrationInferer(spatial_dims, memory_limit=memory_limit),
            device,
        )

    @cached_property
    def settings(self) -> str:
        """A text that changes with every option that can change a result."""
        return fingerprint(self.network, self.preprocessing, self.inferer, self.fill)

    def __call__(
        self,
        fixed: Source | Sequence[Source],
        moving: Source | Sequence[Source],
        label_moving: Source | None = None,
        label_fixed: Source | None = None,
        mask_fixed: Source | None = None,
        mask_moving: Source | None = None,
        brain_masks: tuple[Source | None, Source | None] | None = None,
        landmarks: tuple[Points, Points] | None = None,
        initial_transform: str | Path | Transform | np.ndarray | torch.Tensor | None = None,
    ) -> RegisteredPair:
        """Register one pair; each image is a path, a nibabel image, or a MetaTensor of shape (1, X, Y, Z) or (1, X, Y).

        Args:
            fixed: the image to which the other one is aligned; or several contrasts of the same subject in one world,
                the first of which the weights were trained for.
            moving: the image that is warped; or the same contrasts of the moving subject.
            label_moving: a label map on the moving image's grid, which is warped too.
            label_fixed: a label map on the fixed image's grid, with which the warped one is compared.
            mask_fixed: where the fixed image counts, not 0; the displacement continues smoothly elsewhere.
            mask_moving: the same for the moving image.
            brain_masks: for a registration of brains, the brain in the fixed and in the moving head; None finds it.
            landmarks: the same points in the fixed and in the moving image: a file, see
                :func:`~scripts.deformation.points.read_points`, or an array (N, 3), in RAS millimetres.
            initial_transform: where to start, in place of the alignment, from the fixed to the moving world: a file,
                see :func:`~scripts.deformation.transform_files.read_transform`, a transform, or a 4x4 matrix, in RAS
                millimetres.

        Raises:
            InputError: when an image is not usable, the two cannot be brought together, or the result is not finite.
        """
        pair = {
            **split_contrasts({"fixed": fixed, "moving": moving}),
            "label_fixed": label_fixed,
            "label_moving": label_moving,
            "mask_fixed": mask_fixed,
            "mask_moving": mask_moving,
            **dict(zip(BRAIN_MASKS, brain_masks or ())),
            **dict(zip(LANDMARKS, landmarks or ())),
            "initial_transform": initial_transform,
        }
        inputs: dict[str, Any] = {key: value for key, value in pair.items() if value is not None}
        start = time.perf_counter()
        with unwrapped():
            data = self.preprocessing(inputs)
        seconds = time.perf_counter() - start
        result = self.register(inputs, data)
        result.seconds = {"read": seconds, **result.seconds}
        return result

    def track(
        self,
        cine: Source,
        label: Source | None = None,
        label_frame: int = 0,
        label_layout: str | Mapping[int, str] | None = "acdc",
        rv_insertion: Insertions | None = None,
    ) -> TrackedCine:
        """Track a short-axis cine over the heart cycle, see :func:`scripts.heart.track`.

        Args:
            cine: an image of shape (X, Y, Z, T), or a folder of its DICOM files.
            label: label map of one frame.
            label_frame: the frame of the label, from 0.
            label_layout: the data-set layout that names the ids of the label, or the name of each id: ``LV``, ``Myo``
                and ``RV``; with None, any label is carried, and nothing is measured.
            rv_insertion: the anterior and the inferior insertion of the right ventricle in that frame, for the segments
                of strain: a file of points, or RAS millimetres (2, 3); None means as the label shows them.

        Raises:
            InputError: when the network is not for 2D images, or a file is not usable.
        """
        from ..heart import label_names, read_cine, register_frames, track

        if self.spatial_dims != 2:
            raise InputError(
                "a cine is tracked slice by slice: expected a registration for 2D images, such as cardiac."
            )
        names = label_names(label_layout) if isinstance(label_layout, str) else label_layout
        texts: list[str] = []
        with collect_warnings(texts):
            found = read_cine(cine, label, label_frame, names, rv_insertion)
            tracked = track(found, partial(register_frames, self))
            _ = tracked.strain  # it may warn, too
        tracked.warnings.extend(texts)
        return tracked

    def register(self, inputs: Mapping[str, Any], data: Data) -> RegisteredPair:
        """Register a preprocessed pair.

        Args:
            inputs: the pair as it was given. ``displacement`` is a field of another tool, see
                :func:`read_displacement`, and replaces the network; ``true_displacement`` is the field with which
                either is compared.
            data: the result of ``preprocessing``.
        """
        times, texts = [time.perf_counter()], list(data.get("warnings", ()))
        with collect_warnings(texts):
            ddf = (
                None
                if "displacement" in inputs
                else self.predict(data["image"], data.get("layout"), fine=data.get("fine", False))
            )
            evidence = {} if ddf is None else find_evidence(data["image"], ddf, self.spatial_dims)
            times.append(time.perf_counter())
            result = self.result(inputs, data, ddf)
        times.append(time.perf_counter())
        result.warnings = texts
        result.evidence = evidence
        result.judge = self._judge if ddf is not None else Judge({})
        result.seconds = {"network": times[1] - times[0], "native_grid": times[2] - times[1]}
        result.settings = self.settings
        if ddf is not None and self.error_model is not None:
            result.expect_error = partial(expect_error, self.predict, self.error_model, data, ddf, self.spatial_dims)
        return result

    def without_refinement(self) -> Registration:
        """Return this registration without the steps of the network that nothing was learned for, if it has others.

        A cine is refined by steps of its own, whatever ``--refine_steps`` says.
        """
        network = self.network
        if not isinstance(network, GraDIRN):
            return self
        levels = cast("list[nn.ModuleList]", network.levels)
        learned = [any(block.cnn is not None for block in blocks) for blocks in levels]
        result = copy(self)
        if any(learned):
            result.network = copy(network)  # with the same parameters
            result.network.num_repeats = tuple(n * kept for n, kept in zip(network.num_repeats, learned))
        return result

    def predict(self, image: torch.Tensor, layout: GuidanceLayout | None = None, fine: bool = False) -> torch.Tensor:
        """Return the network's ddf, on the CPU, in voxels of the grid of the image.

        Args:
            image: moving, fixed, and what guides the network, shape (C, *spatial).
            layout: what guides the network; None means that the image has two channels.
            fine: whether the grid of the image is twice as fine as the network's.

        Raises:
            InputError: when the network takes no guidance, or the displacement is not finite.
        """
        network = self.network
        # the wrapper of a distributed training would wait for processes that register fewer pairs
        network = network.module if isinstance(network, DistributedDataParallel) else network
        if layout is not None and not isinstance(network, GraDIRN):
            raise InputError(
                f"the network is a {type(network).__name__}: masks, contrasts, landmarks and labels need GraDIRN."
            )
        guided: dict[str, Any] = {} if layout is None else {"layout": layout}
        guided |= {"fine": True} if fine else {}
        with eval_mode(network):
            ddf = self.inferer(image[None].to(self.device), network, **guided)[0].cpu()
        if not torch.isfinite(ddf).all():
            raise InputError("the network gave a displacement that is not finite: expected weights that fit its data.")
        return ddf

    def result(self, inputs: Mapping[str, Any], data: Data, ddf: torch.Tensor | None) -> RegisteredPair:
        """Resample a ddf from the network's grid to the fixed image's own grid.

        Args:
            inputs: the pair as it was given.
            data: the result of ``preprocessing``.
            ddf: shape (3, *spatial); None if the pair has ``displacement``.

        Raises:
            InputError: when the ddf is longer than the fixed image along an axis.
        """
        grid = data["native_fixed"].affine, data["native_fixed"].shape[1:]
        fields = {
            key: read_displacement(inputs[key], key, *grid)
            for key in ("displacement", "true_displacement")
            if key in inputs
        }
        native = fields.get("displacement")
        if native is None:
            assert ddf is not None
            _check_size(ddf, data["fixed"].affine, data["native_fixed"])
            native = to_native_ddf(ddf, data["fixed"].affine, *grid, before_network(data))
        truth = fields.get("true_displacement")
        return RegisteredPair(inputs, data, native, self.spatial_dims, self.measure, self.weights, truth, self.fill)


def _check_size(ddf: torch.Tensor, affine: torch.Tensor, fixed: MetaTensor) -> None:
    """Raise an :class:`InputError` if a ddf, on a grid with this affine, leads beyond the fixed image from anywhere."""
    to_voxels = torch.linalg.solve(fixed.affine.double(), affine.double())[:3, :3].to(ddf.dtype)
    largest = torch.tensordot(to_voxels, ddf.flatten(1), dims=1).abs().amax(1).tolist()
    for length, size in zip(largest, fixed.shape[1:]):
        if length > size:
            raise InputError(
                f"fixed: {image_name(fixed)}: the network gave a displacement "
                f"of {length:.3g} voxels along an axis of {size}: expected images like those that it was trained on."
            )
