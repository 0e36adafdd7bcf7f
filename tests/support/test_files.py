"""Files together or not at all, names from users, and records of results."""

import os
import socket

import pytest

from scripts.support.errors import InputError
from scripts.support.files import is_written, read_record, remove_debris, replace_files, user_path

NAMES = ("a.txt", "b.txt")


def test_files_are_replaced_together_or_not_at_all(tmp_path):
    def write(text, fail=False):
        with replace_files(tmp_path / "out", NAMES) as temporary:
            for name in NAMES:
                (temporary / name).write_text(text)
            if fail:
                raise ValueError

    write("old")
    with pytest.raises(ValueError):  # noqa: PT011 - any error
        write("new", fail=True)
    assert [(tmp_path / "out" / name).read_text() for name in NAMES] == ["old", "old"]
    write("new")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == list(NAMES)
    assert [(tmp_path / "out" / name).read_text() for name in NAMES] == ["new", "new"]


def test_only_our_debris_is_removed(tmp_path):
    for name in (".partial_file", ".hidden", "tmpabc"):
        (tmp_path / name).write_text("")
    (tmp_path / ".partial_link").symlink_to(tmp_path / "folder")
    (tmp_path / "folder").mkdir()
    assert remove_debris(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "folder", "tmpabc"]
    assert not remove_debris(tmp_path)
    assert not remove_debris(tmp_path / "none")


def test_what_another_process_is_writing_stays(tmp_path):
    here, parent = socket.gethostname(), os.getppid()
    other, old = tmp_path / ".partial_other-host-1_a", tmp_path / ".partial_other-host-1_b"
    for folder in (tmp_path / f".partial_{here}-{parent}_c", other, old, tmp_path / f".partial_{here}-{2**22 + 1}_d"):
        folder.mkdir()
    os.utime(old, (0, 0))
    assert is_written(tmp_path)
    assert remove_debris(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((f".partial_{here}-{parent}_c", other.name))
    assert not remove_debris(tmp_path)
    with replace_files(tmp_path, ["a"]) as temporary:
        assert remove_debris(tmp_path), "this process's own remains, as it writes one thing after the other"
        temporary.mkdir()


def test_names_that_no_file_can_have(tmp_path):
    assert user_path(f"{tmp_path}/a#1,[2]'$@%", "fixed") == tmp_path / "a#1,[2]'$@%"
    assert user_path("~", "fixed").is_dir()
    for value, message in (
        ("", "fixed is '': expected the name of a file or a folder"),
        (None, "fixed is None: expected the name"),
        (["a"], r"fixed is \['a'\]: expected the name"),
        ("a\0b", r"fixed: 'a\\x00b' cannot be the name of a file or a folder \(embedded null byte\)"),
        ("a" * 300, r"cannot be the name of a file or a folder \(File name too long\)"),
        (
            "~nobody_of_this_name/a",
            "fixed: ~nobody_of_this_name/a begins with the home folder of a user who does not exist",
        ),
    ):
        with pytest.raises(InputError, match=message):
            user_path(value, "fixed")


@pytest.mark.parametrize("content", ["[]", "{}", "1", '{"versions": []}', '{"versions": {"x": 1}}', "{" * 9000, "\x00"])
def test_the_record_of_somebody_else_is_none(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    assert read_record(tmp_path / "metrics.json") == {}
    assert read_record(tmp_path) == {}
