"""Parts of a cohort, and what is made of them."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest

from scripts.collect import main
from scripts.results.names import USUAL
from scripts.results.summary import EvaluationSummary
from scripts.support.bundle import versions
from scripts.support.errors import InputError

from .conftest import ROOT, message_of

RESULTS = [
    {"name": name, "metrics": {"dice": {"after": {"mean": dice}}, "folding": {}}, "seconds": {"network": 2.0}}
    for name, dice in (("a", 0.5), ("b", 0.75), ("c", float("nan")))
]


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_parts_of_an_evaluation_become_the_tables_of_one_run(tmp_path, capsys):
    for folder, shard, results in (
        ("parts", "2/2", RESULTS[1:]),
        ("parts", "1/2", RESULTS[:1]),
        ("whole", None, RESULTS),
    ):
        summary = EvaluationSummary(tmp_path / folder, {1: "LV"}, about={"subset": "test"}, shard=shard)
        summary.prepare()
        summary.write(results, {}, 4.0)
    parts = tmp_path / "parts"
    assert sorted(path.name for path in parts.iterdir()) == ["shard_1_of_2.json", "shard_2_of_2.json"]
    assert main([str(parts)]) == 0
    assert (parts / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()
    found, expected = (json.loads((tmp_path / f / "summary.json").read_text()) for f in ("parts", "whole"))
    assert found.pop("seconds") == {"all_pairs": 8.0, "mean_of_a_pair": {"network": 2.0}}
    assert {**expected, "seconds": None} == {**found, "seconds": None}
    table = rows(parts / "cohort.csv")
    assert [row["pair"] for row in table] == ["a", "b", "c"]
    assert (table[1]["dice.after.mean"], table[1]["seconds.network"]) == ("0.75", "2")
    assert table[0]["version.gradirn"] == versions()["gradirn"]
    (parts / "shard_2_of_2.json").unlink()
    (parts / "shard_3_of_2.txt").write_text("")
    assert main([str(parts)]) == 1
    assert "missing: part 2/2" in capsys.readouterr().out
    EvaluationSummary(parts, shard="1/3").write(RESULTS[:1], {}, 1.0)
    with pytest.raises(InputError, match="has parts of 2 and of 3: expected one division"):
        main([str(parts)])


def test_failed_and_missing_pairs_are_named(tmp_path, capsys):
    said = {"verdict": "good", "score": 0.1, "reasons": []}
    EvaluationSummary(tmp_path, shard="1/1").write([{**RESULTS[0], "verdict": said}], {"z": "z.nii is damaged"}, 1.0)
    pairs = [{"name": name, "fixed": "f.nii", "moving": "m.nii"} for name in "abz"]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    assert main([str(tmp_path), "--datalist", str(tmp_path / "pairs.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == ["missing: pair z: z.nii is damaged", "missing: pair b", "missing in all: 2"]
    assert rows(tmp_path / "cohort.csv")[0]["verdict"] == "good"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no result of a registration"):
        main([str(tmp_path / "empty")])


def test_pairs_unlike_the_others_and_verdicts_are_in_the_table(tmp_path, capsys):
    correlations = [0.80, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87, 0.88, 0.40]  # their MAD is .025
    for index, value in enumerate(correlations):
        said = {"verdict": {"verdict": "failed", "score": 0.9, "reasons": ["It is wrong."]}} if index == 9 else {}
        record = {"ncc": {"after": value}, **said, "warnings": [], "seconds": {}, "versions": versions()}
        (tmp_path / f"pair{index}").mkdir()
        (tmp_path / f"pair{index}" / "metrics.json").write_text(json.dumps(record))
    assert main([str(tmp_path)]) == 0
    assert "outlier: pair pair9: correlation 0.400, median 0.835, z = -11.7" in capsys.readouterr().out
    table = rows(tmp_path / "cohort.csv")
    assert [row["outlier"] != "" for row in table] == [False] * 9 + [True]
    assert (table[9]["verdict"], table[9]["reasons"], table[0]["verdict"]) == ("failed", "It is wrong.", "")
    (tmp_path / "pair0" / "metrics.json").unlink()
    main([str(tmp_path)])
    assert "outliers: not looked for among 9 pairs, which needs 10" in capsys.readouterr().out


@pytest.mark.slow
def test_parts_give_the_files_of_one_run_in_any_order_and_again(infer, samples, tmp_path):
    pairs = str(samples / "sunnybrook" / "pairs.json")
    infer(datalist=pairs, output_dir=str(tmp_path / "whole"))
    for shard in ("2/2", "1/2", "2/3"):  # the last one has nothing left to do
        infer(datalist=pairs, output_dir=str(tmp_path / "parts"), shard=shard)
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*"))
    assert len(files) == 3 * (len(USUAL) - 1)  # without an alignment
    for file in files:
        if file.name != USUAL[-1]:  # which holds seconds
            assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert main([str(tmp_path / "parts"), "--datalist", pairs]) == 0
    assert len(rows(tmp_path / "parts" / "cohort.csv")) == 3
    infer(datalist=pairs, output_dir=str(tmp_path / "none"), shard="4/4")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_recipe_for_slurm(samples, tmp_path):
    """Without Slurm, whose two variables say which part it is."""
    pairs, out = samples / "sunnybrook" / "pairs.json", tmp_path / "out"
    for task in ("1", "2"):
        variables = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2", "PYTHON": sys.executable}
        command = ["bash", "docs/cohort/slurm.sh", str(pairs), str(out), "--outputs", "displacement"]
        subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=True)
    assert main([str(out), "--datalist", str(pairs)]) == 0


@pytest.mark.slow
def test_the_recipe_for_snakemake(samples, tmp_path):
    snakemake = os.environ.get("SNAKEMAKE") or shutil.which("snakemake")
    if not snakemake:
        pytest.skip("snakemake is not installed; SNAKEMAKE names it in another environment")
    pairs, out = samples / "sunnybrook" / "pairs.json", tmp_path / "out"
    settings = [f"pairs={pairs}", f"out={out}", "parts=2", f"python={sys.executable}"]
    command = [snakemake, "--snakefile", str(ROOT / "docs" / "cohort" / "Snakefile"), "--directory", str(ROOT)]
    for cores in ("2", "1"):  # the second time, there is nothing left to do
        subprocess.run([*command, "--cores", cores, "--nolock", "--config", *settings], cwd=ROOT, check=True)
    assert len(rows(out / "cohort.csv")) == 3
    shutil.rmtree(ROOT / ".snakemake", ignore_errors=True)


@pytest.mark.slow
def test_a_part_that_does_not_exist_is_one_line(infer, samples, tmp_path):
    pairs = str(samples / "sunnybrook" / "pairs.json")
    assert "--shard is '4/3'" in message_of(
        lambda: infer(datalist=pairs, output_dir=str(tmp_path / "out"), shard="4/3")
    )
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    options = ["--datalist", pairs, "--output_dir", str(tmp_path / "out"), "--shard", "0/3"]
    child = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 1
    assert child.stderr.splitlines()[-1].startswith("error: --shard is '0/3': expected a part")
    assert not (tmp_path / "out").exists()
