"""The table of results."""

import json

from scripts.results.tables import results_table


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
