"""Handlers of a training: batches, gradient clipping, and checkpoints from which it continues exactly."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver, EarlyStopping
from ignite.metrics import Average
from monai.data import DataLoader
from monai.engines import IterationEvents, SupervisedTrainer
from monai.utils import CommonKeys

from ..support.errors import InputError
from ..support.files import prepare_folder, remove_debris, replace_file, user_path
from ..support.processes import rank_and_count
from .losses import RegistrationLoss

__all__ = ["ClipGradients", "SetEpoch", "TrainingState", "prepare_batch", "term_metrics"]

logger = logging.getLogger(__name__)

LAST, BEST = "checkpoint.pt", "model.pt"


def prepare_batch(
    batch: Mapping[str, torch.Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Give MONAI's trainer the input of the network, ``image``, and of the loss, the whole batch."""
    moved = {key: value.to(device, non_blocking=non_blocking, **kwargs) for key, value in batch.items()}
    return moved[CommonKeys.IMAGE], moved


def term_metrics(loss: RegistrationLoss, names: Sequence[str]) -> dict[str, Average]:
    """Make an ignite metric of each named term of a loss: its mean over an epoch, without its weight."""

    def value(output: Any, name: str) -> float:
        return loss.terms[name].item()

    return {name: Average(partial(value, name=name)) for name in names}


class SetEpoch:
    """Tells the data set and its sampler the number of the epoch that begins."""

    def __init__(self, loader: DataLoader) -> None:
        self.parts: tuple[Any, Any] = (loader.dataset, loader.sampler)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        for part in self.parts:
            part.set_epoch(engine.state.epoch)


class ClipGradients:
    """Clips the norm of the gradient before each update.

    Args:
        max_norm: largest norm of the gradient of all parameters together.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Clip the gradient. Under AMP, the scaler handles infinite gradients.

        Raises:
            InputError: when the loss is not finite.
        """
        loss = engine.state.output[CommonKeys.LOSS].item()
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} in epoch {engine.state.epoch}: expected a finite number; "
                "try a smaller --learning_rate."
            )
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_norm)


class _Saver(DiskSaver):
    """Replaces the old file by renaming the new one; ignite would remove the old file first, and could lose both."""

    def remove(self, filename: str) -> None:
        pass

    def _save_func(self, checkpoint: Mapping[str, Any], path: Path, func: Callable[..., None]) -> None:
        try:
            replace_file(path, partial(func, checkpoint))
        except RuntimeError as error:  # of torch, as on a full disk
            raise InputError(f"{path} cannot be written ({str(error).splitlines()[0]}).") from error


class TrainingState:
    """Writes ``checkpoint.pt``, from which a training continues, and ``model.pt``, the best weights so far.

    After each epoch, one process writes both under another name and then renames them.

    Args:
        output_dir: the folder to write to.
        state: the state of the training in addition to the trainer: network, optimizer, lr_scheduler, ...
        validator: engine whose ``metric`` decides which weights are the best.
        metric: name of this metric; larger is better.
        patience: end the training after this many validations without improvement; 0 means never.
        resume: continue from ``checkpoint.pt`` if it exists; without ``resume``, it must not exist.
        map_location: device for the loaded state.

    Raises:
        InputError: when the folder has another training, or a checkpoint that does not fit this training.
    """

    def __init__(
        self,
        output_dir: str | Path,
        state: Mapping[str, Any],
        validator: Engine,
        metric: str = "dice",
        patience: int = 0,
        resume: bool = False,
        map_location: torch.device | str = "cpu",
    ) -> None:
        self.path = user_path(output_dir, "output_dir") / LAST
        self.state = dict(state)
        self.validator = validator
        self.metric = metric
        self.patience = patience
        self.resume = resume
        self.map_location = map_location

    def attach(self, engine: SupervisedTrainer) -> None:
        if rank_and_count()[0] == 0:
            prepare_folder(self.path.parent)
            remove_debris(self.path.parent)
        best = self._checkpoint({"network": self.state["network"]}, BEST, self.score)
        self.state |= {"trainer": engine, "best": best}
        if engine.scaler is not None:
            self.state["scaler"] = engine.scaler
        engine.add_event_handler(Events.STARTED, self.load)
        self.validator.add_event_handler(Events.COMPLETED, best)
        if self.patience:
            self.state["early_stopping"] = EarlyStopping(self.patience, self.score, engine)
            # its own attach would start to count again with each validation
            self.validator.add_event_handler(Events.COMPLETED, self.state["early_stopping"])
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._checkpoint(self.state, LAST))

    def score(self, validator: Engine) -> float:
        """Return the metric of the validation.

        Raises:
            InputError: when the validation has no finite value of it.
        """
        value = validator.state.metrics.get(self.metric, math.nan)
        if not math.isfinite(value):
            raise InputError(
                f"val_metric is '{self.metric}', and the validation gave {value}: "
                "expected a metric that the pairs have; ncc needs no labels."
            )
        return float(value)

    def _checkpoint(self, what: Mapping[str, Any], name: str, score: Any = None) -> Checkpoint:
        saver = _Saver(str(self.path.parent), atomic=True, require_empty=False, save_on_rank=0)
        return Checkpoint(what, saver, filename_pattern=name, score_function=score)

    def load(self, engine: Engine) -> None:
        """Continue from the last checkpoint, if there is one.

        Raises:
            InputError: when there is a checkpoint without ``resume``, or it does not fit this training.
        """
        if not self.path.is_file():
            if self.path.with_name(BEST).exists() and not self.resume:
                raise InputError(
                    f"output_dir: {self.path.parent} holds {BEST} of something else: expected another folder."
                )
            return
        if not self.resume:
            raise InputError(
                f"output_dir: {self.path.parent} already has a training: "
                "expected --resume true, which continues it, or another folder."
            )
        max_epochs = engine.state.max_epochs
        try:
            checkpoint = torch.load(self.path, map_location=self.map_location, weights_only=True)
            Checkpoint.load_objects(to_load=self.state, checkpoint=checkpoint)
        except Exception as error:  # torch, pickle, zipfile and ignite have different errors
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"resume: {self.path} does not continue this training ({reason}).") from error
        engine.state.max_epochs = max_epochs
        logger.info("continuing after epoch %d of %s", engine.state.epoch, max_epochs)
