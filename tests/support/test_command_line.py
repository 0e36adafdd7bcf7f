"""Options that nobody defined, and errors in one line."""

import pytest

from scripts.support.command_line import check_options, flag, report_in_one_line
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
