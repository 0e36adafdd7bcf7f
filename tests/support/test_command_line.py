"""Options that nobody defined, and errors in one line."""

import json
import os
import subprocess
import sys

import pytest

from scripts.support.command_line import check_options, flag, number, refuse_imports, report_in_one_line, texts
from scripts.support.errors import InputError, find_input_error

from ..conftest import ROOT

CONFIGS = ["--config_file", f"['{ROOT}/configs/inference.yaml','{ROOT}/configs/brain.yaml']"]


def test_known_options_pass():
    check_options(
        [*CONFIGS, "--fixed", "a.nii", "--label-moving=b.nii", "--network_def#similarity", "ncc", "--run_id", "x"]
    )


def test_a_misspelt_option_is_named_with_the_nearest_one():
    with pytest.raises(InputError, match="unknown option --movng: did you mean --moving?"):
        check_options([*CONFIGS, "--movng", "a.nii"])
    with pytest.raises(InputError, match=r"unknown option --zzz: expected one of .*fixed"):
        check_options([*CONFIGS, "--zzz", "a.nii"])


def test_switches_come_as_text_from_the_command_line():
    assert [flag("amp", value) for value in (True, "true", "True", False, "false")] == [True, True, True, False, False]
    with pytest.raises(InputError, match="--overwrite is 'yes': expected true or false"):
        flag("overwrite", "yes")


def test_without_a_configuration_nothing_is_known_and_nothing_checked():
    check_options(["--args_file", "args.json", "--anything", "1"])


def test_a_wrapped_input_error_is_found_and_printed_alone(capsys):
    error = RuntimeError("failed to instantiate")
    error.__cause__ = InputError("fixed: a.nii is empty.")
    assert find_input_error(error) is error.__cause__
    report_in_one_line(type(error), error, None)
    assert capsys.readouterr().err == "error: fixed: a.nii is empty.\n"


def test_a_defect_keeps_its_traceback(capsys):
    error = KeyError("x")
    assert find_input_error(error) is None
    report_in_one_line(KeyError, error, None)
    assert "KeyError: 'x'" in capsys.readouterr().err


def test_names_on_the_command_line_are_taken_letter_by_letter():
    """What fire makes numbers, tuples and lists of, and what MONAI evaluates or splits."""
    words = ("2026", "1e3", "run,2", "a#b", "$x.nii", "@fixed", "%y.json", "[1,2]", "'q'", "True", "None", "-1", "a=b")
    for word in words:
        assert texts([*CONFIGS, "--output_dir", word, "--datalist=" + word]) == {"output_dir": word, "datalist": word}
    assert texts(["run", *CONFIGS, "-weights", "01", "--label-fixed", "02", "--spacing", "[1,1]"]) == {
        "weights": "01",
        "label_fixed": "02",
    }
    assert texts(["--fixed", "a", "--fixed", "b"]) == {"fixed": "b"}


@pytest.mark.parametrize("words", [["--fixed"], ["--fixed", "--moving=b"], ["--fixed="]])
def test_a_name_that_is_missing_is_an_error(words):
    with pytest.raises(InputError, match="--fixed has no value"):
        texts(words)


def test_the_options_of_an_args_file_count_too(tmp_path):
    (tmp_path / "args.json").write_text(json.dumps({"config_file": CONFIGS[1], "fixed": "$a#b", "moving": "m"}))
    arguments = ["--args_file", str(tmp_path / "args.json"), "--moving", "n"]
    assert texts(arguments) == {"fixed": "$a#b", "moving": "n"}
    check_options(arguments)
    with pytest.raises(InputError, match="unknown option --movng"):
        check_options([*arguments, "--movng", "1"])


@pytest.mark.slow
def test_the_command_is_known_however_python_is_called(tmp_path):
    """A text that MONAI would run as Python names a file, and a misspelt option is an error."""
    code = f"$open('{tmp_path}/ran', 'w').write('x')"
    for options, message in (
        (["--fixed", code, "--moving", "@fixed"], f"error: fixed: {code} does not exist"),
        (["--fixd", "a"], "error: unknown option --fixd: did you mean --fixed?"),
    ):
        python = [sys.executable, "-W", "ignore", "-u"]
        command = [*python, "-m", "monai.bundle", "run", *CONFIGS, *options, "--output_dir", tmp_path]
        result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith(message)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [0, -1, "abc", True, None, "nan", "inf", [1]])
def test_a_number_that_is_none_is_named(value):
    with pytest.raises(InputError, match=r"--memory_limit is .*: expected a number above 0"):
        number("memory_limit", value, above=0)
    assert number("memory_limit", "2.5", above=0) == 2.5
    with pytest.raises(InputError, match="expected a whole number above -1"):
        number("refine_steps", 1.5, above=-1, whole=True)


def test_an_interrupt_is_told_in_words_that_fit(capsys):
    report_in_one_line(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "interrupted; the same command continues.\n"


def test_an_error_is_one_line_whatever_a_name_holds(capsys):
    error = InputError("fixed: a\nb.nii does not exist.")
    report_in_one_line(InputError, error, None)
    assert capsys.readouterr().err == "error: fixed: a b.nii does not exist.\n"


@pytest.mark.parametrize(
    "value", ["$import os", "$from os import path", "'$import os'", "['a','$import os']", "$important"]
)
def test_names_that_would_be_executed_as_imports_are_refused(value):
    for arguments in (["--output_dir", value], [f"--fixed={value}"]):
        with pytest.raises(InputError, match=r"which MONAI would execute: write \./ before a name with \$"):
            refuse_imports([*CONFIGS, *arguments])


def test_other_names_with_a_dollar_pass():
    refuse_imports([*CONFIGS, "--output_dir", "./$import os", "--fixed", "$x.nii", "--moving", "a$import.nii"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inference", "evaluate", "train"])
def test_an_import_in_a_name_is_not_executed(name, tmp_path):
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(ROOT / f"configs/{name}.yaml")]
    options = ["--output_dir", "$import stranger"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([*command, *options], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith(
        "error: --output_dir is '$import stranger', which MONAI would execute"
    )
    assert not (tmp_path / "executed").exists()


def test_several_images_are_a_list_with_quotes_or_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = ("['a.nii.gz','$b']", "[a.nii.gz,$b]", '["a.nii.gz", "$b"]')
    assert [texts(["--fixed", word])["fixed"] for word in written] == [["a.nii.gz", "$b"]] * 3
    assert texts(["--fixed", "[a]", "--output_dir", "[b]"]) == {"fixed": ["a"], "output_dir": "[b]"}
    (tmp_path / "[a]").touch()
    assert texts(["--fixed", "[a]"]) == {"fixed": "[a]"}
