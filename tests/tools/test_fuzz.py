"""Damaged and odd files end in a finite result or in one line."""

import hashlib

import numpy as np
import pytest

from scripts.tools import fuzz
from scripts.tools.fuzz import MUTATIONS, main, make_case


def test_no_case_gives_a_finding():
    report = fuzz.fuzz(range(1000, 1120), memory_gib=8)  # the other tests of this process take memory too
    assert not report.findings, str(report)
    assert report.registered + report.refused.total() == 120
    # neither is everything refused, nor everything accepted
    assert report.registered > 30
    assert report.refused.total() > 30


def test_a_case_follows_from_seed_and_index(tmp_path):
    def digest(folder, index):
        folder.mkdir()
        what, paths = make_case(folder, 3, index)
        return what, [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.values()]

    first, again, other = digest(tmp_path / "a", 5), digest(tmp_path / "b", 5), digest(tmp_path / "c", 6)
    assert first == again
    assert first != other


def test_every_mutation_changes_the_file(tmp_path):
    for number, (name, mutate) in enumerate(MUTATIONS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, paths = make_case(folder, 0, 0)
        before = paths["moving"].read_bytes() if paths["moving"].is_file() else b""
        changed = []
        for seed in range(5):
            paths["moving"].write_bytes(before)
            mutate(paths["moving"], np.random.default_rng(seed))
            changed.append(paths["moving"].read_bytes() != before)
        assert any(changed), name


def test_a_finding_is_told_and_sets_the_exit_status(monkeypatch, capsys):
    def broken(register, paths):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(fuzz, "_check", broken)
    with pytest.raises(SystemExit) as end:
        main(["--only", "7", "--memory_gib", "100"])
    assert end.value.code
    assert "case 7: " in (text := capsys.readouterr().out)
    assert "ZeroDivisionError: by nothing" in text
