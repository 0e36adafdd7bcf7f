"""Statistics, tables and files of many pairs."""

import csv
import math

import pytest
from matplotlib.image import imread

from scripts.results.summary import EvaluationSummary, distinct_names, statistics
from scripts.results.tables import summary_table
from scripts.support.errors import InputError

from ..conftest import load_json

FILES = ["dice.png", "metrics.csv", "regularity.png", "summary.json"]


def result(name, dice=None, folding=0.01, **more):
    folded = {"folding_percent": folding, "ndv_percent": 0.0, "std_log_jacobian": 0.2}
    metrics = {"ncc": {"before": 0.5, "after": 0.75}, "folding": {"whole_grid": folded}, **more}
    if dice is not None:
        metrics["dice"] = {"before": {"1": 0.4, "mean": 0.4}, "after": {"1": dice, "2": dice, "mean": dice}}
    return {"name": name, "metrics": metrics, "seconds": {"read": 1.0, "network": 2.0}}


def test_statistics_by_hand():
    # the worst 30 % of four pairs are two: the lowest Dice, and the highest distances
    found = statistics("dice.after.mean", [0.8, 0.5, 0.9, 0.6])
    assert found == pytest.approx(
        {"mean": 0.7, "std": math.sqrt(0.1 / 4), "median": 0.7, "worst_30_percent": 0.55, "count": 4}
    )
    assert statistics("hausdorff_mm.after.LV", [8.0, 5, 9, 6])["worst_30_percent"] == 8.5
    assert statistics("ncc.after", [0.5])["worst_30_percent"] == 0.5


def test_all_files_with_names_of_the_labels_and_gaps(tmp_path, capsys):
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    summary = EvaluationSummary(tmp_path / "out", {1: "LV"}, weights, {"layout": "acdc"})
    summary.prepare()
    distance = {"before": {"1": 4.0, "mean": 4.0}, "after": {"1": float("nan"), "mean": float("nan")}}
    rows = [
        result("a", 0.8, 0.01, dice_not_counted={"3": "only in label_fixed"}, distance_undefined={"after": 1}),
        result("b", 0.5, 0.03, hausdorff_mm=distance, distance_undefined={"after": 0}),
        result("c"),
    ]
    summary.write(rows, {"d": "it failed"}, 12.5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES

    with (tmp_path / "out" / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["pair"] for row in table] == ["a", "b", "c"]
    assert [row["dice.after.LV"] for row in table] == ["0.8", "0.5", ""]
    assert table[0]["dice_not_counted.3"] == "only in label_fixed"
    assert table[1]["hausdorff_mm.after.LV"] == ""

    content = load_json(tmp_path / "out" / "summary.json")
    assert content["layout"] == "acdc"
    assert content["pairs"] == 3
    assert content["failed"] == {"d": "it failed"}
    assert len(content["weights"]["sha256"]) == 64
    assert content["seconds"] == {"all_pairs": 12.5, "mean_of_a_pair": {"read": 1, "network": 2}}
    measures = content["measures"]
    assert measures["dice.after.LV"] == {
        "mean": 0.65, "std": pytest.approx(0.15), "median": 0.65, "worst_30_percent": 0.5, "count": 2
    }  # fmt: skip
    assert measures["folding.whole_grid.folding_percent"]["worst_30_percent"] == 0.03
    assert measures["distance_undefined.after"]["mean"] == 0.5
    assert "hausdorff_mm.after.LV" not in measures
    assert all(imread(tmp_path / "out" / name).std() > 0 for name in FILES if name.endswith("png"))
    assert "LV" in capsys.readouterr().out


def test_without_labels_there_is_no_dice(tmp_path, capsys):
    summary = EvaluationSummary(tmp_path)
    summary.write([result("a", 0.5)], {}, 1.0)
    summary.write([result("a"), result("b")], {}, 1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name for name in FILES if name != "dice.png"]
    assert load_json(tmp_path / "summary.json")["weights"] is None
    assert "Dice" not in capsys.readouterr().out.split("\n\n\n")[-1]


def test_a_failure_while_writing_leaves_the_old_files_whole(tmp_path, monkeypatch):
    summary = EvaluationSummary(tmp_path)
    summary.write([result("a", 0.5)], {}, 1.0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("scripts.results.summary._draw_dice", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        summary.write([result("b", 0.6)], {}, 1.0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_printed_table():
    def of(value):
        return {"mean": value}

    measures = {
        **{"dice.before.LV": of(0.5), "dice.before.mean": of(0.5), "dice.after.LV": of(0.75)},
        **{"dice.after.mean": of(0.75), "hausdorff95_mm.before.LV": of(9.0), "hausdorff95_mm.after.LV": of(4.5)},
        **{"hausdorff95_mm.after.mean": of(4.5), "ncc.before": of(0.9), "ncc.after": of(0.95)},
        "distance_undefined.after": of(0.25),
        **{"folding.whole_grid.folding_percent": of(0.0123), "end_point_error.whole_grid.mean_mm": of(1.5)},
    }
    lines = [line.split() for line in summary_table(measures).splitlines() if line]
    assert lines[0] == ["class", "Dice", "before", "after", "HD95", "mm", "before", "after"]
    assert lines[1] == ["LV", "0.500", "0.750", "9.000", "4.500"]
    assert lines[2] == ["mean", "0.500", "0.750", "-", "4.500"]
    assert lines[3][-1] == "0.25"
    assert ["NCC", "0.900", "0.950"] in lines
    assert ["|J|", "<=", "0,", "%", "0.0123", "-"] in lines
    assert ["end-point", "error,", "mm", "1.5000", "-"] in lines


def test_classes_that_share_a_name_stay_apart(tmp_path):
    names = {1: "LV", 2: "LV", 3: "mean", 4: "2", 5: "", 6: "RV"}
    assert list(distinct_names(names).values()) == ["LV (1)", "LV (2)", "mean (3)", "2 (4)", "(5)", "RV"]
    values = {"1": 0.5, "2": 0.75, "3": 0.25, "mean": 0.5}
    rows = [{"name": "a", "metrics": {"dice": {"before": values, "after": values}}, "seconds": {"read": 1.0}}]
    EvaluationSummary(tmp_path, names).write(rows, {}, 1.0)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    found = {name: float(row[f"dice.after.{name}"]) for name in ("LV (1)", "LV (2)", "mean (3)", "mean")}
    assert found == {"LV (1)": 0.5, "LV (2)": 0.75, "mean (3)": 0.25, "mean": 0.5}


def test_files_that_are_not_those_of_an_evaluation_are_kept(tmp_path):
    (tmp_path / "metrics.csv").write_text("mine")
    with pytest.raises(InputError, match=r"has a file metrics.csv that no evaluation wrote: .*--overwrite true"):
        EvaluationSummary(tmp_path).prepare()
    assert (tmp_path / "metrics.csv").read_text() == "mine"
    EvaluationSummary(tmp_path, overwrite=True).prepare()
    EvaluationSummary(tmp_path, overwrite=True).write([result("a")], {}, 1.0)
    (tmp_path / ".partial_x").mkdir()
    EvaluationSummary(tmp_path).prepare()
    EvaluationSummary(tmp_path).write([result("b")], {}, 1.0)
    assert "b,0.5" in (tmp_path / "metrics.csv").read_text()
    assert not (tmp_path / ".partial_x").exists()


def test_an_output_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output_dir: .*file/out cannot be written to \(Not a directory\)"):
        EvaluationSummary(tmp_path / "file" / "out").prepare()
