"""The studies: which trainings and evaluations they run, and what they make of the results."""

import csv
import json

import pytest

from scripts.studies import Study, main
from scripts.support.errors import InputError

from .conftest import SAMPLES


def option(command, name):
    return command[command.index(name) + 1]


@pytest.fixture
def calls(monkeypatch):
    """Every call of the bundle, (configs, options), answered with a Dice of 0.01 for each call so far."""
    made = []

    def run(self, configs, *options):
        made.append((list(configs), list(options)))
        if configs[0] == "evaluate":
            measures = {"dice.before.mean": 0.5, "dice.after.mean": len(made) / 100}
            measures["folding.whole_grid.folding_percent"] = 0.25
            folder = self.output_dir / option(options, "--output_dir")
            folder.mkdir(parents=True)
            content = {"measures": {key: {"mean": value} for key, value in measures.items()}}
            (folder / "summary.json").write_text(json.dumps(content))

    monkeypatch.setattr(Study, "_run", run)
    return made


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_data_efficiency_trains_each_method_on_each_number_of_subjects(calls, tmp_path, capsys):
    arguments = ["data_efficiency", "--dataset_dir", "D", "--limits", "1", "25%", "--output_dir", str(tmp_path)]
    arguments += ["--methods", "gradirn", "voxelmorph", "--overlays", "hippocampus"]
    main([*arguments, "--train_options", "--max_epochs 3", "--evaluate_options", "--num_pairs 4"])
    assert [configs for configs, _ in calls] == [
        *[["train", "hippocampus"], ["evaluate", "hippocampus"]] * 2,
        *[["train", "hippocampus", "voxelmorph"], ["evaluate", "hippocampus", "voxelmorph"]] * 2,
    ]
    train, evaluate = calls[2][1], calls[3][1]
    assert option(train, "--train_limit") == "25%"
    assert (option(train, "--max_epochs"), option(train, "--resume")) == ("3", "true")
    assert option(evaluate, "--weights") == option(train, "--output_dir") + "/model.pt"
    assert (option(evaluate, "--subset"), option(evaluate, "--num_pairs")) == ("test", "4")
    assert rows(tmp_path / "data_efficiency.csv") == [
        ["method", "subjects", "dice_before", "dice", "folding_percent"],
        ["gradirn", "1", "0.5", "0.02", "0.25"],
        ["gradirn", "25%", "0.5", "0.04", "0.25"],
        ["voxelmorph", "1", "0.5", "0.06", "0.25"],
        ["voxelmorph", "25%", "0.5", "0.08", "0.25"],
    ]
    assert (tmp_path / "data_efficiency.png").stat().st_size > 5000
    assert "| gradirn | 25% | 0.5000 | 0.0400 | 0.2500 |" in capsys.readouterr().out


def test_domain_shift_tests_each_training_on_every_data_set(calls, tmp_path):
    main(["domain_shift", "--datasets", "/data/a", "/data/b", "--output_dir", str(tmp_path)])
    assert [configs for configs, _ in calls] == [["train"], ["evaluate"], ["evaluate"]] * 2
    evaluations = [options for configs, options in calls if configs == ["evaluate"]]
    assert [(option(o, "--dataset_dir"), option(o, "--subset")) for o in evaluations] == [
        *[("/data/a", "test"), ("/data/b", "test")],
        *[("/data/a", "test"), ("/data/b", "test")],
    ]
    assert [row[1:5] for row in rows(tmp_path / "domain_shift.csv")[1:]] == [
        *[["a", "a", "0.5", "0.02"], ["a", "b", "0.5", "0.03"]],
        *[["b", "a", "0.5", "0.05"], ["b", "b", "0.5", "0.06"]],
    ]
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"domain_shift.csv", "domain_shift.png"}


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="--datasets are a, a: expected two or more folders with different names"):
        main(["domain_shift", "--datasets", "x/a", "y/a", "--output_dir", str(tmp_path)])
    arguments = ["data_efficiency", "--dataset_dir", "D", "--limits", "1", "--methods", "elastix"]
    with pytest.raises(InputError, match=r"configs/elastix.yaml does not exist: expected a method or an overlay"):
        main([*arguments, "--output_dir", str(tmp_path)])


@pytest.mark.slow
def test_a_study_on_real_files_and_again(tmp_path, capfd):
    smoke = "--max_epochs 1 --samples_per_epoch 2 --batch_size 1 --val_interval 1 --validation 1 --test 1"
    arguments = ["data_efficiency", "--dataset_dir", str(SAMPLES / "sunnybrook"), "--limits", "1"]
    arguments += ["--output_dir", str(tmp_path), "--train_options", f"{smoke} --spatial_size '[48,48,-1]'"]
    arguments += ["--evaluate_options", "--test 1 --spatial_size '[48,48,-1]'"]
    main(arguments)
    first = rows(tmp_path / "data_efficiency.csv")
    assert 0 < float(first[1][3]) < 1
    stamp = (tmp_path / "gradirn_1" / "train" / "model.pt").stat().st_mtime_ns
    main(arguments)
    assert rows(tmp_path / "data_efficiency.csv") == first
    assert (tmp_path / "gradirn_1" / "train" / "model.pt").stat().st_mtime_ns == stamp, "nothing is trained twice"


@pytest.mark.slow
def test_a_study_ends_when_a_step_of_it_fails(tmp_path):
    with pytest.raises(InputError, match="a step of the study failed, see above"):
        main(["data_efficiency", "--dataset_dir", str(tmp_path), "--limits", "1", "--output_dir", str(tmp_path)])
