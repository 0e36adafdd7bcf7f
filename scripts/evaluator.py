"""The engine that registers a list of pairs and writes the results."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from ignite.engine import Engine
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Transform

from .errors import InputError, find_input_error
from .output import RegistrationWriter

__all__ = ["PairEvaluator"]

logger = logging.getLogger(__name__)


class PairEvaluator(SupervisedEvaluator):
    """Registers the pairs of a data set one after the other.

    A pair that is done is skipped; one that fails is reported, and the others go on. ``run`` ends in an
    :class:`InputError` when any failed.

    Args:
        dataset: pairs with ``fixed``, ``moving`` and ``name``; its transform is the preprocessing.
        writer: where the results go.
        postprocessing: from ``ddf`` to what the writer takes.
        kwargs: of ``monai.engines.SupervisedEvaluator``: device, network, inferer, val_handlers, amp, ...
    """

    def __init__(self, dataset: Dataset, writer: RegistrationWriter, postprocessing: Transform, **kwargs: Any) -> None:
        super().__init__(val_data_loader=range(len(dataset)), epoch_length=len(dataset), decollate=False, **kwargs)
        self.dataset = dataset
        self.writer = writer
        self.to_native = postprocessing
        self.failures: dict[str, Exception] = {}
        self.skipped: list[str] = []

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Register all pairs.

        Raises:
            InputError: when the output folder cannot be written to, or after the last of several pairs when any
                failed; what went wrong with a single pair is raised itself.
        """
        self.failures, self.skipped = {}, []
        self.writer.prepare()
        super().run(global_epoch)
        if len(self.dataset) == 1 and self.failures:
            raise next(iter(self.failures.values()))
        done = len(self.dataset) - len(self.failures) - len(self.skipped)
        logger.info(
            "registered %d, skipped %d that were done, failed %d: results in %s",
            *(done, len(self.skipped), len(self.failures), self.writer.output_dir),
        )
        if self.failures:
            raise InputError(f"{len(self.failures)} of {len(self.dataset)} pairs failed: {', '.join(self.failures)}.")

    def _iteration(self, engine: Engine, batchdata: int) -> dict[str, Any]:  # type: ignore[override]
        try:
            return self._register(batchdata)
        except Exception as error:  # whatever goes wrong with one pair, the others go on
            name = self.dataset.data[batchdata]["name"]
            self.failures[name] = error
            if len(self.dataset) > 1:
                known = find_input_error(error)
                logger.error("pair %s failed: %s", name, known or repr(error), exc_info=None if known else error)
            return {}

    def _register(self, index: int) -> dict[str, Any]:
        pair = self.dataset.data[index]
        if self.writer.is_done(pair):
            self.skipped.append(pair["name"])
            return {}
        times = [time.perf_counter()]
        data = self.dataset[index]
        times.append(time.perf_counter())
        data["ddf"] = self._predict(data["image"])
        times.append(time.perf_counter())
        result = self.to_native(data)
        times.append(time.perf_counter())
        stages = ("read", "network", "native_grid")
        seconds = {stage: end - start for stage, start, end in zip(stages, times, times[1:])}
        self.writer.write(pair, result, seconds)
        return {"metrics": result["metrics"]}

    def _predict(self, image: torch.Tensor) -> torch.Tensor:
        device = self.state.device
        with self.mode(self.network), torch.autocast(device.type, enabled=self.amp):
            ddf = self.inferer(image[None].to(device), self.network)[0].cpu()
        if not torch.isfinite(ddf).all():
            raise InputError("the network gave a displacement that is not finite: expected weights that fit its data.")
        return ddf
