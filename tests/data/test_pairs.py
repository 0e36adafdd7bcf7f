"""One pair from options, many from a datalist."""

import json

import pytest

from scripts.data import read_pairs
from scripts.errors import InputError


def write(tmp_path, content):
    path = tmp_path / "pairs.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_one_pair():
    files = {"fixed": "f.nii", "moving": "m.nii", "label_fixed": None, "label_moving": "l.nii"}
    assert read_pairs(files) == [{"name": ".", "fixed": "f.nii", "moving": "m.nii", "label_moving": "l.nii"}]


def test_a_datalist_with_names_and_relative_paths(tmp_path):
    path = write(tmp_path, [{"name": "a", "fixed": "f.nii", "moving": "/m.nii"}, {"fixed": "g.nii", "moving": "n.nii"}])
    first, second = read_pairs({}, path)
    assert first == {"name": "a", "fixed": str(tmp_path / "f.nii"), "moving": "/m.nii"}
    assert second["name"] == "pair_1"
    assert read_pairs({}, path, "/data")[1]["moving"] == "/data/n.nii"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ([], "holds no list of pairs"),
        ({"fixed": "f"}, "holds no list of pairs"),
        ([["f", "m"]], "entry 0 is a list: expected a dictionary"),
        ([{"fixed": "f"}], "entry 0 has no 'moving'"),
        ([{"fixed": "f", "moving": "m", "fixed_label": "l"}], "entry 0 has the unknown key 'fixed_label'"),
        ([{"fixed": "f", "moving": "m", "name": "../a"}], "has the name '../a': expected a folder name below"),
        ([{"fixed": "f", "moving": "m", "name": "a"}] * 2, "names 2 pairs 'a': expected each name once"),
    ],
)
def test_bad_datalists_are_named(tmp_path, content, message):
    with pytest.raises(InputError, match=f"pairs.json.*{message}"):
        read_pairs({}, write(tmp_path, content))


def test_missing_or_contradicting_options(tmp_path):
    with pytest.raises(InputError, match="--moving is missing: expected --fixed and --moving, or --datalist"):
        read_pairs({"fixed": "f.nii"})
    with pytest.raises(InputError, match="--datalist and --fixed were both given"):
        read_pairs({"fixed": "f.nii"}, write(tmp_path, []))
    with pytest.raises(InputError, match="none.json cannot be read"):
        read_pairs({}, str(tmp_path / "none.json"))
