"""Verdicts by hand from one measure, from warnings, and from the shipped file."""

import json
import math

import pytest

from scripts.cohorts import TASKS
from scripts.support.bundle import BUNDLE_ROOT
from scripts.support.errors import InputError
from scripts.verdict import Judge, check_level, reaches, read_judge
from scripts.verdict.judge import REASONS, Measure

JUDGE = Judge({"agreement": Measure(center=0.8, scale=0.1, limit=0.55, weight=2.0)}, offset=-3.0)


def test_the_score_by_hand():
    assert JUDGE.score({"agreement": 0.7}) == pytest.approx(1 / (1 + math.exp(3 - 2 * 1)))
    assert JUDGE.score({"agreement": 0.5}) == pytest.approx(1 / (1 + math.exp(3 - 2 * 3)))
    # what is better than the mean is not better than good, and what is very bad not worse than six deviations
    assert JUDGE.score({"agreement": 0.95}) == pytest.approx(1 / (1 + math.exp(3)))
    assert JUDGE.score({"agreement": -9.0}) == pytest.approx(1 / (1 + math.exp(3 - 2 * 6)))


@pytest.mark.parametrize(("value", "verdict"), [(0.9, "good"), (0.7, "doubtful"), (0.5, "failed")])
def test_levels(value, verdict):
    assert JUDGE({"agreement": value}).verdict == verdict


def test_reasons_name_the_value_and_the_limit():
    assert JUDGE({"agreement": 0.9}).reasons == ()
    (reason,) = JUDGE({"agreement": 0.5}).reasons
    assert "0.50" in reason
    assert "0.55" in reason
    (reason,) = JUDGE({"agreement": 0.7}).reasons  # within the limit
    assert "0.27" in reason


def test_a_value_beyond_the_limit_is_doubtful_whatever_its_weight():
    judge = Judge({"displacement": Measure(center=2.0, scale=0.5, limit=4.0, weight=0.0)}, offset=-5.0)
    assert judge({"displacement": 3.9}).verdict == "good"
    assert judge({"displacement": 4.1}).verdict == "doubtful"


def test_a_warning_makes_it_doubtful_and_is_a_reason():
    verdict = JUDGE({"agreement": 0.9}, ["moving: x.nii is blank in some slices"])
    assert verdict.verdict == "doubtful"
    assert verdict.reasons == ("moving: x.nii is blank in some slices",)
    assert Judge({})({}, ["anything"]).verdict == "doubtful"
    assert Judge({})({}).score is None


def test_a_line_does_not_repeat_what_was_said():
    assert JUDGE({"agreement": 0.9}).describe() == "verdict good"
    both = JUDGE({"agreement": 0.5}, ["x is odd"])
    assert both.describe(["x is odd"]).startswith("verdict failed: the images are less alike")
    assert "odd" not in both.describe(["x is odd"])
    assert JUDGE({"agreement": 0.9}, ["x is odd"]).describe(["x is odd"]) == "verdict doubtful, see the warnings"


def test_without_evidence_it_has_failed():
    assert JUDGE({}).verdict == "failed"
    assert JUDGE({"agreement": math.nan}).score == 1


def test_the_order_of_verdicts():
    assert reaches("failed", "doubtful")
    assert reaches("doubtful", "doubtful")
    assert not reaches("good", "doubtful")
    assert not reaches("doubtful", "failed")
    with pytest.raises(InputError, match="expected doubtful or failed"):
        check_level("good")


def test_every_task_is_shipped_with_all_measures():
    for task in TASKS:
        judge = read_judge(f"{BUNDLE_ROOT}/models/verdict.json", task)
        assert set(judge.measures) == set(REASONS)
        assert judge.score({name: measure.center for name, measure in judge.measures.items()}) < 0.1


def test_a_task_of_the_users_own_and_a_broken_file(tmp_path):
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps({"cardiac": {"measures": {"agreement": {"center": 1}}}}))
    assert read_judge(path, "liver").measures == {}
    with pytest.raises(InputError, match=r"verdict\.json cannot be read"):
        read_judge(path, "cardiac")
