"""What a training needs beside MONAI's trainer: batches, gradient clipping, and checkpoints that continue exactly."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver, EarlyStopping
from monai.data import DataLoader
from monai.engines import IterationEvents, SupervisedTrainer
from monai.utils import CommonKeys

from ..support.errors import InputError
from ..support.files import user_path

__all__ = ["ClipGradients", "SetEpoch", "TrainingState", "prepare_batch"]

logger = logging.getLogger(__name__)

LAST, BEST = "checkpoint.pt", "model.pt"


def prepare_batch(
    batch: Mapping[str, torch.Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What MONAI's trainer hands to the network, ``image``, and to the loss, the whole batch."""
    moved = {key: value.to(device, non_blocking=non_blocking, **kwargs) for key, value in batch.items()}
    return moved[CommonKeys.IMAGE], moved


class SetEpoch:
    """Tells the data set and its sampler which epoch begins."""

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
        max_norm: of all parameters together.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Clip; under AMP the scaler deals with infinite gradients, elsewhere they are an error.

        Raises:
            InputError: when the loss is not finite.
        """
        loss = engine.state.output[CommonKeys.LOSS].item()
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} in epoch {engine.state.epoch}: expected a finite one; try a smaller learning_rate."
            )
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_norm)


class _Saver(DiskSaver):
    """Renames the new file over the old one, which ignite would remove first: a kill in between would leave none."""

    def remove(self, filename: str) -> None:
        pass


class TrainingState:
    """Writes ``checkpoint.pt``, all that is needed to continue, and ``model.pt``, the best weights so far.

    Both are written under another name and then renamed, after each epoch and by one process alone.

    Args:
        output_dir: where to.
        state: what makes up the training beside the trainer: network, optimizer, lr_scheduler, ...
        validator: engine whose ``metric``, larger is better, tells the best weights.
        metric: name of that metric.
        patience: validations without improvement after which the training ends; 0 for never.
        resume: continue from ``checkpoint.pt`` if it is there; otherwise it must not be there.
        map_location: device of what is loaded.

    Raises:
        InputError: when the folder holds another training, or a checkpoint that does not fit this one.
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
        best = self._checkpoint({"network": self.state["network"]}, BEST, self.score)
        self.state |= {"trainer": engine, "best": best}
        if engine.scaler is not None:
            self.state["scaler"] = engine.scaler
        engine.add_event_handler(Events.STARTED, self.load)
        self.validator.add_event_handler(Events.COMPLETED, best)
        if self.patience:
            self.state["early_stopping"] = EarlyStopping(self.patience, self.score, engine)
            # not its own attach, which would begin to count anew with each validation
            self.validator.add_event_handler(Events.COMPLETED, self.state["early_stopping"])
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._checkpoint(self.state, LAST))

    def score(self, validator: Engine) -> float:
        """The validation's measure of how good the weights are."""
        value = validator.state.metrics.get(self.metric, math.nan)
        if not math.isfinite(value):
            raise InputError(
                f"val_metric is '{self.metric}' and the validation gave {value}: "
                "expected a measure that its pairs have; without labels, ncc."
            )
        return float(value)

    def _checkpoint(self, what: Mapping[str, Any], name: str, score: Any = None) -> Checkpoint:
        saver = _Saver(str(self.path.parent), atomic=True, require_empty=False, save_on_rank=0)
        return Checkpoint(what, saver, filename_pattern=name, score_function=score)

    def load(self, engine: Engine) -> None:
        """Continue where the last checkpoint was written."""
        if not self.path.is_file():
            return
        if not self.resume:
            raise InputError(
                f"output_dir: {self.path.parent} holds a training: "
                "expected --resume true, which continues it, or another folder."
            )
        max_epochs = engine.state.max_epochs
        try:
            checkpoint = torch.load(self.path, map_location=self.map_location, weights_only=True)
            Checkpoint.load_objects(to_load=self.state, checkpoint=checkpoint)
        except Exception as error:  # torch, pickle, zipfile and ignite each have their own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"resume: {self.path} does not continue this training ({reason}).") from error
        engine.state.max_epochs = max_epochs
        logger.info("continuing after epoch %d of %s", engine.state.epoch, max_epochs)
