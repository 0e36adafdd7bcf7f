"""The engine that registers a list of pairs: for inference, for evaluation and for validation during a training."""

from __future__ import annotations

import logging
import math
import operator
import time
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine
from ignite.metrics import VariableAccumulation
from monai.data import Dataset
from monai.engines import SupervisedEvaluator

from ..results.measures import flatten
from ..results.summary import EvaluationSummary
from ..results.writer import RegistrationWriter
from ..support.errors import InputError, find_input_error
from ..support.processes import rank_and_count
from .pair import Registration

__all__ = ["MeanOverPairs", "PairEvaluator"]

logger = logging.getLogger(__name__)


class PairEvaluator(SupervisedEvaluator):
    """Registers the pairs of a data set one after the other.

    A pair that is done is skipped; one that fails is reported, and the others go on. ``run`` ends in an
    :class:`InputError` when any failed. Several processes share the pairs between them, and all know of all failures.

    ``state.output`` is what was found of the pair: ``name``, ``metrics`` and ``seconds``; of a pair that was skipped or
    failed it is empty. :class:`MeanOverPairs` makes an ignite metric of it.

    Args:
        dataset: pairs with ``fixed``, ``moving`` and ``name``; its transform is the registration's preprocessing. A
            pair with ``displacement`` does not go through the network.
        registration: registers and measures each pair.
        writer: of files for each pair; None writes none.
        summary: of all pairs; None makes none.
        kwargs: of ``monai.engines.SupervisedEvaluator``: key_val_metric, val_handlers, ...
    """

    def __init__(
        self,
        dataset: Dataset,
        registration: Registration,
        writer: RegistrationWriter | None = None,
        summary: EvaluationSummary | None = None,
        **kwargs: Any,
    ) -> None:
        rank, processes = rank_and_count()
        # as many turns in every process, as they meet in between; those past the end of the data set do nothing
        turns = range(rank, -(-len(dataset) // processes) * processes, processes)
        super().__init__(
            device=registration.device,
            network=registration.network,
            inferer=registration.inferer,
            val_data_loader=turns,
            epoch_length=len(turns),
            decollate=False,
            **kwargs,
        )
        self.dataset = dataset
        self.registration = registration
        self.writer = writer
        self.summary = summary
        self._forget()

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Register all pairs.

        Raises:
            InputError: when there is no pair, an output folder cannot be written to, or after the last of several
                pairs when any failed; what went wrong with a single pair is raised itself.
        """
        if not len(self.dataset):
            raise InputError("there is nothing to register: expected --fixed and --moving, or --datalist.")
        self._forget()
        start = time.perf_counter()
        if self.writer is not None:
            self.writer.prepare(self.dataset.data)
        if self.summary is not None:
            self.summary.prepare()
        super().run(global_epoch)
        self._look_again()
        self._gather()
        if rank_and_count()[0] == 0 and self.summary is not None and self.rows:
            failures = {name: _message(error) for name, error in self.failures.items()}
            rows = [self.rows[index] for index in sorted(self.rows)]
            self.summary.write(rows, failures, time.perf_counter() - start)
        if rank_and_count()[1] > 1:
            dist.barrier()  # the end of one process is the end of all
        self._report()

    def _forget(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.failures: dict[str, Exception] = {}
        self.skipped: list[str] = []

    def _gather(self) -> None:
        """Make what each process found known to all."""
        if rank_and_count()[1] == 1:
            return
        # not every exception survives the journey
        failures = {name: InputError(_message(error)) for name, error in self.failures.items()}
        gathered: list[Any] = [None] * rank_and_count()[1]
        dist.all_gather_object(gathered, (self.rows, failures, self.skipped))
        self._forget()
        for rows, failures, skipped in gathered:
            self.rows |= rows
            self.failures |= failures
            self.skipped += skipped

    def _look_again(self) -> None:
        """Results that somebody removed in the meantime are none."""
        if self.writer is None:
            return
        for index in list(self.rows):
            pair = self.dataset.data[index]
            if self.writer.missing(pair):
                text = f"output_dir: {self.writer.folder(pair)} was removed while the registration was running."
                self.failures[pair["name"]] = InputError(text)
                del self.rows[index]

    def _report(self) -> None:
        if len(self.dataset) == 1 and self.failures:
            raise next(iter(self.failures.values()))
        if self.writer is not None and rank_and_count()[0] == 0:
            logger.info(
                "registered %d, skipped %d that were done, failed %d: results in %s",
                *(len(self.rows), len(self.skipped), len(self.failures), self.writer.output_dir),
            )
        if self.failures:
            raise InputError(f"{len(self.failures)} of {len(self.dataset)} pairs failed: {', '.join(self.failures)}.")

    def _iteration(self, engine: Engine, batchdata: int) -> dict[str, Any]:  # type: ignore[override]
        if batchdata >= len(self.dataset):
            return {}
        try:
            return self._register(batchdata)
        except Exception as error:  # whatever goes wrong with one pair, the others go on
            name = self.dataset.data[batchdata]["name"]
            self.failures[name] = error
            if len(self.dataset) > 1:
                trace = None if find_input_error(error) else error
                logger.error("pair %s failed: %s", name, _message(error), exc_info=trace)
            return {}

    def _register(self, index: int) -> dict[str, Any]:
        pair = self.dataset.data[index]
        if self.writer is not None and self.writer.is_done(pair, self.registration.settings):
            self.skipped.append(pair["name"])
            return {}
        start = time.perf_counter()
        data = self.dataset[index]  # which may be in a cache
        seconds = time.perf_counter() - start
        result = self.registration.register(pair, data)
        result.seconds = {"read": seconds, **result.seconds}
        row = {"name": pair["name"], "metrics": result.metrics, "seconds": dict(result.seconds)}
        if self.writer is not None:
            self.writer.write(result)
        self.rows[index] = row
        return row


class MeanOverPairs(VariableAccumulation):
    """An ignite metric: the mean of one measure over the pairs that have it, of all processes; NaN when none has.

    Args:
        measure: its place in the pair's metrics, as in ``dice.after.mean`` or ``folding.whole_grid.folding_percent``.
    """

    def __init__(self, measure: str) -> None:
        super().__init__(operator.add, lambda output: flatten(output.get("metrics", {})).get(measure))

    def update(self, output: float | torch.Tensor | None) -> None:
        if output is not None and math.isfinite(output):
            super().update(output)

    def compute(self) -> float:  # type: ignore[override]
        total, count = super().compute()
        return float(total) / count if count else float("nan")


def _message(error: Exception) -> str:
    return str(find_input_error(error) or repr(error))
