"""What a person sees of a training: one line in the log per epoch, a progress bar, and TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data import Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import TensorBoardStatsHandler
from monai.utils import convert_to_tensor
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from ..networks import DeepSupervision, GraDIRN
from ..networks.kernels.sampling import warp
from ..support.files import user_path
from ..support.processes import rank_and_count
from .losses import RegistrationLoss

__all__ = ["EpochLog", "Monitor", "RegistrationBoard"]

logger = logging.getLogger(__name__)

GRID_LINES = 24


class Monitor:
    """Shows a training in the log, in a progress bar and in TensorBoard. Only the first process does so.

    Args:
        output_dir: the folder in which ``tensorboard`` is made.
        validator: the engine of the validation; attach it to the trainer before this handler.
        network: the network, without the wrappers of a training.
        loss: the loss of the training.
        dataset: the pairs of the validation; :class:`RegistrationBoard` shows the first one.
        interval: number of epochs between validations.
    """

    def __init__(
        self,
        output_dir: str | Path,
        validator: Engine,
        network: nn.Module,
        loss: RegistrationLoss,
        dataset: Dataset,
        interval: int,
    ) -> None:
        self.log_dir = user_path(output_dir, "output_dir") / "tensorboard"
        self.validator = validator
        self.network = network
        self.loss = loss
        self.dataset = dataset
        self.interval = interval

    def attach(self, engine: SupervisedTrainer) -> None:
        if rank_and_count()[0] > 0:
            return
        for each in (self.validator, engine):
            TensorBoardStatsHandler(log_dir=str(self.log_dir), iteration_log=False).attach(each)
        EpochLog(self.validator, self.interval).attach(engine)
        RegistrationBoard(self.log_dir, self.network, self.loss, self.dataset[0], self.interval).attach(engine)
        ProgressBar(desc="epoch", disable=None).attach(engine)  # shown only on a terminal


class EpochLog:
    """Logs one line per epoch: the metrics of the training and, if there was one, of the validation.

    Args:
        validator: the engine of the validation; attach it before this handler, so that its metrics are up to date.
        interval: number of epochs between validations.
    """

    def __init__(self, validator: Engine, interval: int) -> None:
        self.validator = validator
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        metrics = dict(engine.state.metrics)
        if engine.state.epoch % self.interval == 0:
            metrics |= {f"validation {name}": value for name, value in self.validator.state.metrics.items()}
        text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        seconds = engine.state.times[Events.EPOCH_COMPLETED.name]
        logger.info("epoch %d of %d: %s (%.1f s)", engine.state.epoch, engine.state.max_epochs, text, seconds)


class RegistrationBoard:
    """Writes to TensorBoard, every ``interval`` epochs:

    * ``tau/level_<l>_block_<b>``: the learned step sizes tau;
    * ``energy/step_<k>``: mean dissimilarity of a validation pair after each unrolled step, at full size;
    * ``registration``: a picture of this pair: fixed, moving, warped, grid, and the moving image after each step;
    * ``learning_rate``.

    Args:
        log_dir: folder of the event files.
        network: the network, on any device; for a network without steps, the picture only shows its result.
        loss: the loss whose dissimilarity is shown.
        pair: ``image``, shape (2, *spatial); or a stack for a 2D network, shape (2, X, Y, Z), whose middle slice is
            shown.
        interval: number of epochs.
    """

    def __init__(
        self,
        log_dir: str | Path,
        network: nn.Module,
        loss: RegistrationLoss,
        pair: Mapping[str, Any],
        interval: int,
    ) -> None:
        self.writer = SummaryWriter(str(Path(log_dir).expanduser()))
        self.network = network
        self.loss = loss
        self.pair = pair
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)
        engine.add_event_handler(Events.COMPLETED, lambda _: self.writer.close())

    def __call__(self, engine: SupervisedTrainer) -> None:
        epoch = engine.state.epoch
        device = next(self.network.parameters()).device
        image = _single(self.pair["image"], self.network).to(device)
        ddfs = _steps(self.network, image)
        moving, fixed = image.split(1, dim=1)
        warped = [warp(moving, ddf) for ddf in ddfs]
        if isinstance(self.network, GraDIRN):
            for name, value in self.network.taus().items():
                self.writer.add_scalar(f"tau/{name}", value, epoch)
        for step, energy in enumerate(self.loss.similarity(fixed, w).item() / fixed.numel() for w in (moving, *warped)):
            self.writer.add_scalar(f"energy/step_{step}", energy, epoch)
        self.writer.add_scalar("learning_rate", engine.optimizer.param_groups[0]["lr"], epoch)
        self.writer.add_figure("registration", _figure(fixed, moving, warped, ddfs[-1]), epoch)


def _single(image: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """Make a batch with one image; for a 2D network, with the middle slice of a stack."""
    image = convert_to_tensor(image, track_meta=False)
    return image[None, ..., image.shape[-1] // 2] if image.ndim == cast(int, network.spatial_dims) + 2 else image[None]


@torch.no_grad()
def _steps(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    training = network.training
    network.eval()
    ddfs = DeepSupervision(network)(image)["ddfs"] if isinstance(network, GraDIRN) else [network(image)]
    network.train(training)
    return ddfs


def _figure(fixed: torch.Tensor, moving: torch.Tensor, warped: list[torch.Tensor], ddf: torch.Tensor) -> Any:
    from matplotlib.figure import Figure  # slow to import, and only needed here

    images = {"fixed": fixed, "moving": moving, "warped": warped[-1]}
    images |= {f"step {index}": image for index, image in enumerate(warped[:-1], 1)}
    columns = 4
    rows = -(-(len(images) + 1) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.3 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (title, image) in zip(axes, images.items()):
        axis.imshow(_plane(image)[0].T, cmap="gray", vmin=0, vmax=1, origin="lower")
        axis.set_title(title, fontsize=8)
    _draw_grid(axes[len(images)], _plane(ddf)[:2])
    for axis in axes:
        axis.set_axis_off()
    return figure


def _draw_grid(axis: Any, ddf: np.ndarray) -> None:
    """Draw where the points of a regular grid are sampled in the moving image; ddf in voxels, shape (2, X, Y)."""
    i, j = np.meshgrid(*[np.arange(n) for n in ddf.shape[1:]], indexing="ij")
    x, y = i + ddf[0], j + ddf[1]
    step = max(1, max(x.shape) // GRID_LINES)
    axis.plot(x[::step].T, y[::step].T, color="black", linewidth=0.4)
    axis.plot(x[:, ::step], y[:, ::step], color="black", linewidth=0.4)
    axis.set(xlim=(-0.5, x.shape[0] - 0.5), ylim=(-0.5, x.shape[1] - 0.5), aspect=1.0)


def _plane(field: torch.Tensor) -> np.ndarray:
    """Convert (1, C, *spatial) to (C, X, Y); for a volume, this is the middle plane of the last axis."""
    array = field[0].detach().cpu().numpy()
    return array[..., array.shape[-1] // 2] if array.ndim == 4 else array
