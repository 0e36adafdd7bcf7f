"""The engine that registers a list of pairs, in inference, in evaluation and in the validation of a training."""

from __future__ import annotations

import logging
import math
import operator
import time
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from ignite.engine import Engine
from ignite.metrics import VariableAccumulation
from monai.data import Dataset
from monai.engines import SupervisedEvaluator

from ..results.measures import flatten
from ..results.names import ERROR_MAP
from ..results.registered import UNKNOWN_ERRORS
from ..results.summary import EvaluationSummary
from ..results.writer import RegistrationWriter
from ..support.errors import InputError, find_input_error
from ..support.processes import rank_and_count
from ..verdict import check_level, refuse_verdicts
from .pair import Registration

if TYPE_CHECKING:
    from ..report import ReportWriter

__all__ = ["MeanOverPairs", "PairEvaluator"]

logger = logging.getLogger(__name__)


class PairEvaluator(SupervisedEvaluator):
    """Registers the pairs of a data set one after the other.

    Finished pairs are skipped. A pair that fails is reported, and the others continue; ``run`` ends in an
    :class:`InputError` if any pair has failed. Several processes share the pairs, and all of them know all failures.

    ``state.output`` has ``name``, ``metrics`` and ``seconds`` of a pair; it is empty for a pair that was skipped or has
    failed. :class:`MeanOverPairs` makes an ignite metric of it.

    Args:
        dataset: pairs with ``fixed``, ``moving`` and ``name``; its transform is the preprocessing of the registration.
            A pair with ``displacement`` does not go through the network.
        registration: registers and measures each pair.
        writer: writes the files of each pair; None writes no files.
        summary: summarizes all pairs; None makes no summary.
        report: writes a report of all pairs, which a ``writer`` has written; None writes none.
        fail_on: ``doubtful`` or ``failed``: ``run`` ends in an :class:`InputError` if a pair has this verdict, or a
            worse one; None means that verdicts are only reported.
        kwargs: further arguments of ``monai.engines.SupervisedEvaluator``: key_val_metric, val_handlers, ...
    """

    def __init__(
        self,
        dataset: Dataset,
        registration: Registration,
        writer: RegistrationWriter | None = None,
        summary: EvaluationSummary | None = None,
        report: ReportWriter | None = None,
        fail_on: str | None = None,
        **kwargs: Any,
    ) -> None:
        rank, processes = rank_and_count()
        # all processes take the same number of turns, because they wait for each other; turns past the end do nothing
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
        self.report = report
        self.fail_on = check_level(fail_on)
        self._forget()

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Register all pairs.

        Raises:
            InputError: when there is no pair, an output folder cannot be written to, or, after the last pair, if any
                pair has failed, or has a verdict that ``fail_on`` names. If there is only one pair, its own error is
                raised.
        """
        if not len(self.dataset):
            raise InputError("there is nothing to register: expected --fixed and --moving, or --datalist.")
        self._forget()
        start = time.perf_counter()
        if self.writer is not None:
            if ERROR_MAP in self.writer.outputs and self.registration.error_model is None:
                raise InputError(UNKNOWN_ERRORS)
            self.writer.prepare(self.dataset.data)
        if self.summary is not None:
            self.summary.prepare()
        if self.report is not None:
            self.report.prepare()
        super().run(global_epoch)
        self._look_again()
        self._gather()
        if rank_and_count()[0] == 0:
            self._write(time.perf_counter() - start)
        if rank_and_count()[1] > 1:
            dist.barrier()  # torchrun ends all processes when one fails
        self._report()

    def _write(self, seconds: float) -> None:
        """Write the summary and the report of all pairs."""
        failures = {name: _message(error) for name, error in self.failures.items()}
        if self.summary is not None and self.rows:
            self.summary.write([self.rows[index] for index in sorted(self.rows)], failures, seconds)
        if self.report is not None:
            self.report.write(self.dataset.data, failures)

    def _forget(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.failures: dict[str, Exception] = {}
        self.skipped: list[str] = []
        self.verdicts: dict[str, str] = {}

    def _gather(self) -> None:
        """Share the results of each process with all processes."""
        if rank_and_count()[1] == 1:
            return
        # not every exception can be sent to another process
        failures = {name: InputError(_message(error)) for name, error in self.failures.items()}
        gathered: list[Any] = [None] * rank_and_count()[1]
        dist.all_gather_object(gathered, (self.rows, failures, self.skipped, self.verdicts))
        self._forget()
        for rows, failures, skipped, verdicts in gathered:
            self.rows |= rows
            self.failures |= failures
            self.skipped += skipped
            self.verdicts |= verdicts

    def _look_again(self) -> None:
        """Count a pair as failed if its results were removed in the meantime."""
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
                "registered %d, skipped %d finished, failed %d: results in %s",
                *(len(self.rows), len(self.skipped), len(self.failures), self.writer.output_dir),
            )
        if self.failures:
            raise InputError(f"{len(self.failures)} of {len(self.dataset)} pairs failed: {', '.join(self.failures)}.")
        refuse_verdicts(self.verdicts, self.fail_on, "pair")

    def _iteration(self, engine: Engine, batchdata: int) -> dict[str, Any]:  # type: ignore[override]
        if batchdata >= len(self.dataset):
            return {}
        try:
            return self._register(batchdata)
        except Exception as error:  # whatever goes wrong with one pair, the others continue
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
            if self.fail_on is not None:
                self.verdicts[pair["name"]] = self.writer.verdict(pair)
            return {}
        start = time.perf_counter()
        data = self.dataset[index]  # may come from a cache
        seconds = time.perf_counter() - start
        result = self.registration.register(pair, data)
        del data  # large, and not needed any more
        result.seconds = {"read": seconds, **result.seconds}
        verdict = result.verdict
        self.verdicts[pair["name"]] = verdict.verdict
        level = logging.INFO if verdict.verdict == "good" else logging.WARNING
        logger.log(level, "%s: %s", pair["name"] or "pair", verdict.describe(result.warnings))
        row = {
            "name": pair["name"],
            "metrics": result.metrics,
            "verdict": verdict.as_dict(),
            "seconds": dict(result.seconds),
        }
        if self.writer is not None:
            self.writer.write(result)
        self.rows[index] = row
        return row


class MeanOverPairs(VariableAccumulation):
    """An ignite metric: the mean of a measure over the pairs of all processes that have it; NaN if no pair has it.

    Args:
        measure: key of the measure in the metrics of a pair, such as ``dice.after.mean`` or
            ``folding.whole_grid.folding_percent``.
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
