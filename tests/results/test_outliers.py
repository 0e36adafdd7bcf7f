"""Pairs that are unlike the others."""

import pytest

from scripts.results.outliers import find_outliers, robust_scores

# median .835; deviations .035 .025 .015 .005 .005 .015 .025 .035 .045 .435, whose median is .025
VALUES = [0.80, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87, 0.88, 0.40]


def test_the_scores_are_those_of_the_formula():
    scores = robust_scores(VALUES)
    assert scores[9] == pytest.approx(0.6745 * -0.435 / 0.025)  # -11.74
    assert scores[8] == pytest.approx(0.6745 * 0.045 / 0.025)
    assert robust_scores([1.0, 1.0, 1.0, 5.0]).tolist() == [0, 0, 0, 0]  # nothing can be said


def test_a_pair_that_is_unlike_the_others_has_its_reasons():
    rows = [{"ncc.after": value, "dice.after.mean": 0.9} for value in VALUES]
    assert find_outliers(rows) == {9: "correlation 0.400, median 0.835, z = -11.7"}
    rows[0]["ncc.after"] = (
        1.27  # the median becomes .845, the deviations .425 .035 .025 .015 .005 .005 .015 .025 .035 .445
    )
    assert find_outliers(rows)[0] == f"correlation 1.270, median 0.845, z = {0.6745 * 0.425 / 0.025:.1f}"


def test_few_pairs_and_undefined_values_say_nothing():
    rows = [{"ncc.after": value} for value in VALUES]
    assert find_outliers(rows[1:]) == {}
    rows[0]["ncc.after"] = None
    assert find_outliers(rows) == {}
    assert find_outliers([*rows, {"ncc.after": float("nan")}]) == {}
    assert list(find_outliers([*rows, {"ncc.after": 0.8}])) == [9]
