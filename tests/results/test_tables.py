"""The table of results."""

import json

from scripts.results.tables import measures_row, results_table


def test_the_table_has_a_line_a_pair_and_their_mean(tmp_path):
    folding = {"whole_grid": {"folding_percent": 0.0123, "ndv_percent": 0.001, "std_log_jacobian": 0.25}}
    for name, extra in (("a/one", {"dice": {"before": {"mean": 0.5}, "after": {"mean": 0.75}}}), ("b", {})):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.json").write_text(json.dumps({"folding": folding, **extra}))
    folding["whole_grid"]["folding_percent"] = 0.0323
    (tmp_path / "b" / "metrics.json").write_text(json.dumps({"folding": folding}))
    lines = results_table(tmp_path).splitlines()
    assert lines[1].split() == ["a/one", "0.500", "0.750", "0.0123", "0.0010", "0.250"]
    assert lines[2].split() == ["b", "-", "-", "0.0323", "0.0010", "0.250"]
    assert lines[3].split() == ["mean", "of", "2", "0.500", "0.750", "0.0223", "0.0010", "0.250"]


def test_verdicts_have_a_column_where_a_pair_has_one(tmp_path):
    folding = {"whole_grid": {"folding_percent": 0.0, "ndv_percent": 0.0, "std_log_jacobian": 0.25}}
    said = {"verdict": "doubtful", "score": 0.4, "reasons": ["One.", "Two."], "evidence": {"agreement": 0.5}}
    for name, extra in (("a", {"verdict": said}), ("b", {})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"folding": folding, **extra}))
    lines = [line.split() for line in results_table(tmp_path).splitlines()]
    assert [line[-1] for line in lines] == ["verdict", "doubtful", "-", "0.250"]
    assert measures_row("a", {"verdict": said}) == {
        **{"pair": "a", "verdict": "doubtful", "score": 0.4},
        **{"reasons": "One.; Two.", "evidence.agreement": 0.5},
    }
