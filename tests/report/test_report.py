"""What a report holds, and which files it may replace."""

import json
import os
import re

import pytest

from scripts.report.__main__ import main
from scripts.report.entries import Entry, find_entries, worst_first
from scripts.report.tables import COLUMNS, histograms, tables_of
from scripts.support.bundle import versions
from scripts.support.errors import InputError

from ..conftest import message_of


def entry(name, verdict=None, score=None, dice=None, ncc=None, **row):
    record = {"folding": {}, "dice": {"after": {"mean": dice}}, "ncc": {"after": ncc}, **row}
    return Entry(name, None, record | ({"verdict": {"verdict": verdict, "score": score}} if verdict else {}))


def test_the_worst_come_first():
    entries = [
        *(entry("g", "good", 0.1), entry("f1", "failed", 0.8), entry("f2", "failed", 0.9), entry("d", "doubtful", 0.5)),
        *(entry("n1", dice=0.9, ncc=0.1), entry("n2", dice=0.2, ncc=0.9), entry("n3", ncc=0.5), entry("n4")),
        *(entry("f3", "failed"), entry("strange", "perfect")),
    ]
    expected = ["f2", "f1", "f3", "d", "n2", "n3", "n1", "n4", "strange", "g"]
    assert [e.name for e in sorted(entries, key=worst_first)] == expected


def test_a_histogram_counts_the_pairs_of_each_verdict():
    values = [("good", 0.01), ("good", 0.02), ("good", 0.06), ("doubtful", 0.31), ("failed", 0.32)]
    (histogram,) = histograms([entry(str(i), verdict, score) for i, (verdict, score) in enumerate(values)])
    # bins of .02, the smallest round width with which the extent of .31 needs at most 16
    assert [bar.title for bar in histogram.bars] == [
        "0.00 to 0.02: 1 good",
        "0.02 to 0.04: 1 good",
        "0.06 to 0.08: 1 good",
        "0.30 to 0.32: 1 doubtful",
        "0.32 to 0.34: 1 failed",
    ]
    assert histogram.column is COLUMNS[0]
    assert [text for _, text in histogram.ticks] == ["0.00", "0.34"]
    assert (histogram.median, histogram.count) == ("0.06", 5)
    assert not histograms([entry(str(i), ncc=0.5) for i in range(4)])
    (constant,) = histograms([entry(str(i), ncc=0.5) for i in range(5)])
    assert [(bar.y, bar.height) for bar in constant.bars] == [(0, 90)]


def test_a_report_names_what_failed_and_shows_no_other_results(registered, tmp_path, capsys):
    out = tmp_path / "out"
    registered(out / "a", "good", 0.1)
    registered(out / "b", "failed", 0.9)
    about = {"versions": versions()}
    (out / "summary.json").write_text(json.dumps({"failed": {"c": "c.nii is damaged", "a": "old"}, **about}))
    (out / "other").mkdir()
    (out / "other" / "metrics.json").write_text(json.dumps({"accuracy": 3, **about}))
    pairs = [{"name": name, "fixed": "f.nii", "moving": "m.nii"} for name in "abcd"]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    main([str(out), "--datalist", str(tmp_path / "pairs.json"), "--most", "1"])
    said = capsys.readouterr().out.splitlines()
    assert said == ["1 failed, 1 good", "not registered: 2", f"report: {out / 'report.html'}"]
    text = (out / "report.html").read_text("utf-8")
    assert "2 pairs registered, 2 not" in text
    assert re.search(r"<th scope=\"row\">c</th><td>c.nii is damaged</td>", text)
    assert re.search(r"<th scope=\"row\">d</th><td>There is no result.</td>", text)
    assert "Pictures are shown of the worst pair; the others are in the table only." in text
    assert text.count('class="stage images"') == 3  # of one pair alone
    assert "http" not in re.sub(r"data:[^\"]*|http-equiv", "", text)


def test_equal_results_give_an_equal_report_in_place_of_the_old_one(registered, tmp_path):
    registered(tmp_path / "out")
    main([str(tmp_path / "out")])
    first = (tmp_path / "out" / "report.html").read_bytes()
    main([str(tmp_path / "out"), str(tmp_path / "out")])
    assert (tmp_path / "out" / "report.html").read_bytes() == first


def test_a_folder_whose_name_is_no_text_is_reported(registered, tmp_path):
    registered(tmp_path / "out" / os.fsdecode(b"caf\xe9"))
    main([str(tmp_path / "out")])
    assert "caf?" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_other_files_are_not_replaced(registered, tmp_path):
    registered(tmp_path / "out")
    path = tmp_path / "out" / "report.html"
    path.write_text("<p>mine</p>")
    assert "exists, and is not a report" in message_of(lambda: main([str(tmp_path / "out")]))
    main([str(tmp_path / "out"), "--overwrite"])
    assert "mine" not in path.read_text("utf-8")
    with pytest.raises(InputError, match="is a folder"):
        main([str(tmp_path / "out"), "--output", str(tmp_path)])
    (tmp_path / "empty").mkdir()
    for folder, text in (("empty", "there is no result"), ("nowhere", "is not a folder")):
        with pytest.raises(InputError, match=text):
            main([str(tmp_path / folder)])


def test_names_that_two_folders_share_stay_apart(registered, tmp_path):
    for folder in ("first", "second"):
        registered(tmp_path / folder / "a")
    entries = find_entries([tmp_path / "first", tmp_path / "second", tmp_path / "first" / "a"]).entries
    assert [e.name for e in entries] == ["a", str(tmp_path / "second" / "a")]


def test_a_run_writes_its_report_with_the_pairs_that_failed(infer, samples, tmp_path):
    heart = samples / "sunnybrook" / "SC-N-10"
    files = {key: str(heart / f"SC-N-10_{phase}.nii.gz") for key, phase in (("fixed", "ED"), ("moving", "ES"))}
    pairs = [{"name": "fine", **files}, {"name": "<b>broken", **files, "moving": "none.nii.gz"}]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    options = {"datalist": str(tmp_path / "pairs.json"), "output_dir": str(tmp_path / "out")}
    assert "1 of 2 pairs failed" in message_of(lambda: infer(report="true", **options))
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "1 pair registered, 1 not" in text
    assert "&lt;b&gt;broken" in text
    assert "none.nii.gz does not exist" in text
    infer(report="true", shard="1/2", **options)
    assert "fine" in (tmp_path / "out" / "report_1_of_2.html").read_text("utf-8")
    (tmp_path / "out" / "report.html").write_text("mine")
    assert "is not a report" in message_of(lambda: infer(report="true", **options))


def test_every_measure_of_a_pair_is_in_one_of_its_tables():
    measures = {
        "ncc": {"before": 0.25, "after": 0.5},
        "folding": {"whole_grid": {"folding_percent": 0.0, "std_log_jacobian": 0.00012345}},
        "dice": {"before": {"1": 0.5, "mean": 0.5}, "after": {"1": 0.75, "mean": 0.75}},
        "hausdorff95_mm": {"before": {"1": 4.0, "mean": 4.0}, "after": {"1": None, "mean": None}},
        "lost_labels": [3, 4],
        "seconds": {"read": 0.5},
    }
    found = {table.title: (table.columns, table.lines) for table in tables_of(Entry("a", None, measures))}
    unknown = "\N{EN DASH}"
    assert found == {
        "Labels": (
            ["Dice before", "Dice after", "HD95 (mm) before", "HD95 (mm) after"],
            [(name, ["0.5000", "0.7500", "4.0000", unknown]) for name in ("1", "mean")],
        ),
        "Images": (["before", "after"], [("NCC", ["0.2500", "0.5000"])]),
        "Displacement": (
            ["whole grid", "foreground"],
            [("|J| <= 0, %", ["0", unknown]), ("std log|J|", ["0.000123", unknown])],
        ),
        "Time": (["s"], [("read", ["0.50"])]),
        "Further measures": ([""], [("lost labels", ["3, 4"])]),
    }
