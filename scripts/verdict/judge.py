"""The verdict on a registration: good, doubtful or failed, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..support.errors import InputError

__all__ = [
    "LEVELS",
    "REASONS",
    "Judge",
    "Measure",
    "Verdict",
    "check_level",
    "reaches",
    "read_judge",
    "read_learned",
    "refuse_verdicts",
]

Learned = TypeVar("Learned")

LEVELS = ("good", "doubtful", "failed")
FROM = (0.0, 0.1, 0.5)  # the probability of a failure at which each of them begins
FARTHEST = 6.0  # standard deviations from the mean; what is farther away counts as much

# what is bad about each measure: values below (-1) or above (1) those of good registrations
REASONS: dict[str, tuple[int, str]] = {
    "agreement": (-1, "the images are less alike than usual: agreement {value:.2f}, expected at least {limit:.2f}"),
    "correlation": (-1, "the images are less alike than usual: correlation {value:.2f}, expected at least {limit:.2f}"),
    "other_orientation": (
        1,
        "the images fit better than usual when one is flipped: {value:+.2f} in correlation, expected at most "
        "{limit:+.2f}; the moving image may be mirrored, turned, or of something else",
    ),
    "displacement": (
        1,
        "the displacement is longer than usual: {value:.1f} voxels of the network's grid, expected at most {limit:.1f}",
    ),
    "irregularity": (
        1,
        "the change of volume varies more than usual: std log|J| {value:.2f}, expected at most {limit:.2f}",
    ),
    "compression": (-1, "parts shrink more than usual: log|J| {value:.2f}, expected at least {limit:.2f}"),
}


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of a registration.

    Attributes:
        verdict: ``good``, ``doubtful`` or ``failed``.
        reasons: why it is not good, a sentence each.
        score: the probability of a failure, 0 to 1, for pairs like those that it was learned from; None where nothing
            was learned for the task.
    """

    verdict: str
    reasons: tuple[str, ...] = ()
    score: float | None = None

    def describe(self, said: Sequence[str] = ()) -> str:
        """Return the verdict and its reasons in one line, without the texts that were said before."""
        new = [reason for reason in self.reasons if reason not in said]
        return f"verdict {self.verdict}" + (f": {'; '.join(new)}" if new else ", see the warnings" if said else "")

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Measure:
    """How one measure of :func:`~scripts.verdict.evidence.find_evidence` counts.

    Args:
        center: the mean of good registrations.
        scale: their standard deviation.
        limit: the worst value among them.
        weight: of the measure in the score, for each standard deviation to the bad side of the mean.
    """

    center: float
    scale: float
    limit: float
    weight: float


@dataclass(frozen=True)
class Judge:
    """Judges the registrations of a task by what was learned from good ones and planted faults.

    Args:
        measures: how each measure counts; none means that nothing was learned, and only warnings count.
        offset: the score, before the logistic function, of a registration that is not worse than the mean in anything.
    """

    measures: Mapping[str, Measure]
    offset: float = 0.0

    def __call__(self, evidence: Mapping[str, float], warnings: Sequence[str] = ()) -> Verdict:
        """Judge a registration.

        Args:
            evidence: the measures of :func:`~scripts.verdict.evidence.find_evidence`.
            warnings: what is doubtful about the images; a registration with a warning is doubtful.
        """
        if not self.measures:
            return Verdict(LEVELS[1 if warnings else 0], tuple(warnings))
        if not all(math.isfinite(evidence.get(name, math.nan)) for name in self.measures):
            return Verdict("failed", ("there is nothing to compare: one of the images is empty", *warnings), 1.0)
        score = self.score(evidence)
        reasons = [
            REASONS[name][1].format(value=evidence[name], limit=measure.limit)
            for name, measure in self.measures.items()
            if REASONS[name][0] * (evidence[name] - measure.limit) > 0
        ]
        level = max(level for level, start in enumerate(FROM) if score >= start)
        if level and not reasons:
            reasons = [f"several measures are near the limit of what is usual: probability of a failure {score:.2f}"]
        if reasons or warnings:
            level = max(level, 1)
        return Verdict(LEVELS[level], (*reasons, *warnings), score)

    def score(self, evidence: Mapping[str, float]) -> float:
        """Return the probability of a failure."""
        distances = self.badness(evidence)
        total = self.offset + sum(measure.weight * distances[name] for name, measure in self.measures.items())
        return 1 / (1 + math.exp(-total))

    def badness(self, evidence: Mapping[str, float]) -> dict[str, float]:
        """Return how far each measure is on the bad side of the mean, in standard deviations."""
        return {
            name: min(FARTHEST, max(0.0, REASONS[name][0] * (evidence[name] - measure.center) / measure.scale))
            for name, measure in self.measures.items()
        }


def check_level(level: str | None) -> str | None:
    """Return a verdict that a run must not have, or None.

    Raises:
        InputError: when it is neither ``doubtful`` nor ``failed``.
    """
    if level not in (None, *LEVELS[1:]):
        raise InputError(f"--fail_on is '{level}': expected doubtful or failed, or no such option.")
    return level


def reaches(verdict: str, level: str) -> bool:
    """Return whether a verdict is as bad as another one, or worse."""
    return LEVELS.index(verdict) >= LEVELS.index(level)


def refuse_verdicts(verdicts: Mapping[str, str], level: str | None, kind: str) -> None:
    """Raise an error where results have a verdict, or a worse one.

    Args:
        verdicts: the verdict of each result by its name, which is empty or ``.`` if there is only one.
        level: the verdict; None allows all.
        kind: what the results are of, such as ``pair``.

    Raises:
        InputError: it names all of them.
    """
    if level is None:
        return
    bad = [name for name, verdict in verdicts.items() if reaches(verdict, level)]
    if bad:
        named = ", ".join(f"{f'this {kind}' if name in ('', '.') else name} ({verdicts[name]})" for name in bad)
        raise InputError(f"--fail_on {level}: {len(bad)} of {len(verdicts)} {kind}s: {named}.")


def read_learned(file: str | Path, task: str, build: Callable[[dict[str, Any]], Learned]) -> Learned | None:
    """Read what was learned for a task, by ``build`` from its entry of the file; None where there is no entry.

    Raises:
        InputError: when the file or the entry cannot be read.
    """
    try:
        content = json.loads(Path(file).read_text()).get(task)
        return None if content is None else build(content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"verdicts: {file} cannot be read ({error}): expected the file beside the weights.") from error


def read_judge(file: str | Path, task: str) -> Judge:
    """Read what was learned for a task; a task of the user's own has a judge for which only warnings count.

    Args:
        file: a JSON file that ``python -m scripts.tools.verdicts`` has written.
        task: name of the task.

    Raises:
        InputError: when the file cannot be read.
    """

    def build(content: dict[str, Any]) -> Judge:
        measures = {name: Measure(**values) for name, values in content["measures"].items()}
        return Judge(measures, content["offset"])

    return read_learned(file, task, build) or Judge({})
