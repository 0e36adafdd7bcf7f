"""Files that are written together or not at all."""

import pytest

from scripts.support.files import replace_file, replace_files


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_are_replaced_together_and_what_is_not_written_again_goes(tmp_path):
    folder = tmp_path / "new" / "folder"
    for names in (("a", "b", "seal"), ("b", "seal")):
        with replace_files(folder, ("a", "b", "seal")) as temporary:
            for name in names:
                (temporary / name).write_text(str(names))
        assert contents(folder) == dict.fromkeys(names, str(names))


def test_other_files_stay(tmp_path):
    (tmp_path / "own").write_text("mine")
    with replace_files(tmp_path, ("a", "b")) as temporary:
        (temporary / "a").write_text("new")
    assert contents(tmp_path) == {"own": "mine", "a": "new"}


def test_after_an_error_nothing_has_changed(tmp_path):
    (tmp_path / "a").write_text("old")

    def write(path):
        path.write_text("half")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="full"):
        replace_file(tmp_path / "a", write)
    assert contents(tmp_path) == {"a": "old"}


def test_the_last_file_is_there_only_when_all_are(tmp_path, monkeypatch):
    """A kill between two moves: the seal of the old files must not stand over a mixture of old and new ones."""
    for name in ("a", "b", "seal"):
        (tmp_path / name).write_text("old")

    def stop(source, target):
        raise KeyboardInterrupt

    def write():
        with replace_files(tmp_path, ("a", "b", "seal")) as temporary:
            for name in ("a", "b", "seal"):
                (temporary / name).write_text("new")

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert set(contents(tmp_path)) == {"a", "b"}
