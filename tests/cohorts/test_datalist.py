"""One pair from options, many from a datalist."""

import json

import pytest

from scripts.cohorts.datalist import add_displacements, read_pairs, take_shard
from scripts.support.errors import InputError


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


def test_a_datalist_may_name_displacements(tmp_path):
    path = write(
        tmp_path, [{"fixed": "f.nii", "moving": "m.nii", "displacement": "d.nii", "true_displacement": "t.nii"}]
    )
    pair = read_pairs({}, path)[0]
    assert (pair["displacement"], pair["true_displacement"]) == (str(tmp_path / "d.nii"), str(tmp_path / "t.nii"))


def test_displacements_are_found_by_the_name_of_the_pair(tmp_path):
    for file in ("a/displacement.nii.gz", "deep/b.nii.gz"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("")
    pairs = [{"name": "a"}, {"name": "deep/b"}]
    found = add_displacements(pairs, displacement=str(tmp_path), true_displacement=None)
    assert [pair["displacement"] for pair in found] == [
        f"{tmp_path}/a/displacement.nii.gz",
        f"{tmp_path}/deep/b.nii.gz",
    ]
    assert "true_displacement" not in found[0]
    assert pairs == [{"name": "a"}, {"name": "deep/b"}]
    with pytest.raises(
        InputError, match=r"true_displacements: .* no field for the pair 'c': expected c/displacement.nii.gz or"
    ):
        add_displacements([{"name": "c"}], true_displacement=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ([], "is not a list of pairs"),
        ({"fixed": "f"}, "is not a list of pairs"),
        ([["f", "m"]], "entry 0 is a list: expected a dictionary"),
        ([{"fixed": "f"}], "entry 0 has no 'moving'"),
        ([{"fixed": "f", "moving": "m", "fixed_label": "l"}], "entry 0 has the unknown key 'fixed_label'"),
        ([{"fixed": "f", "moving": "m", "name": "../a"}], "has the name '../a': expected a folder name below"),
        ([{"fixed": "f", "moving": "m", "name": "a"}] * 2, "names 2 pairs 'a': expected each name once"),
        ([{"fixed": "f", "moving": "m", "name": n} for n in ("x", "./x/")], "names 2 pairs 'x': expected each name"),
        ([{"fixed": None, "moving": "m"}], "entry 0 has no 'fixed'"),
        ([{"fixed": [["f"]], "moving": "m"}], r"entry 0, fixed is \['f'\]: expected the name of a file"),
        ([{"fixed": [], "moving": "m"}], "entry 0, fixed is an empty list: expected one or more images"),
        ([{"fixed": "f\0", "moving": "m"}], r"entry 0, fixed: 'f\\x00' cannot be the name of a file"),
        ([{"fixed": "f" * 300, "moving": "m"}], r"cannot be the name of a file or a folder \(File name too long\)"),
        (
            [{"fixed": "~nobody_of_this_name/f", "moving": "m"}],
            "begins with the home folder of a user who does not exist",
        ),
        ([{"fixed": "f", "moving": "m", "name": "a\0"}], r"has the name 'a\\x00': expected a folder name"),
        ([{"fixed": "f", "moving": "m", "name": ["a"]}], r"has the name \['a'\]: expected a folder name"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_bad_datalists_are_named(tmp_path, content, message):
    with pytest.raises(InputError, match=f"pairs.json.*{message}"):
        read_pairs({}, write(tmp_path, content))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_datalist_in_any_encoding_of_json(tmp_path, encoding):
    entries = [
        {"name": "é", "fixed": "#$ü.nii", "moving": "m.nii"},
        {"name": None, "fixed": "f.nii", "moving": "m.nii"},
    ]
    (tmp_path / "pairs.json").write_bytes(json.dumps(entries, ensure_ascii=False).encode(encoding))
    pairs = read_pairs({}, str(tmp_path / "pairs.json"))
    assert pairs[0] == {"name": "é", "fixed": str(tmp_path / "#$ü.nii"), "moving": str(tmp_path / "m.nii")}
    assert pairs[1]["name"] == "pair_1"


def test_nothing_given_is_no_pair():
    assert read_pairs({"fixed": None, "moving": None}) == []


def test_missing_or_contradicting_options(tmp_path):
    with pytest.raises(InputError, match="--moving is missing: expected --fixed and --moving, or --datalist"):
        read_pairs({"fixed": "f.nii"})
    with pytest.raises(InputError, match="--datalist and --fixed were both given"):
        read_pairs({"fixed": "f.nii"}, write(tmp_path, []))
    with pytest.raises(InputError, match="none.json cannot be read"):
        read_pairs({}, str(tmp_path / "none.json"))


def sized(tmp_path, sizes):
    for name, size in sizes.items():
        (tmp_path / f"{name}.nii").write_bytes(b"0" * size)
    return [{"name": name, "fixed": f"{tmp_path}/{name}.nii", "moving": f"{tmp_path}/{name}.nii"} for name in sizes]


def test_parts_of_a_list_hold_each_pair_once_and_cost_about_the_same(tmp_path):
    # by cost: e 10, a and c 4, b 3, f 2, d 1: e | a | c, then b to a, f to c, and d, where 6 is least
    pairs = sized(tmp_path, {"a": 4, "b": 3, "c": 4, "d": 1, "e": 10, "f": 2})
    parts = [[pair["name"] for pair in take_shard(pairs, f"{part}/3")] for part in (1, 2, 3)]
    assert parts == [["e"], ["a", "b"], ["c", "d", "f"]]
    assert [pair["name"] for pair in take_shard(pairs[::-1], "3/3")] == ["f", "d", "c"]
    assert take_shard(pairs, None) == take_shard(pairs, "1/1") == pairs
    assert take_shard(pairs[:2], "3/3") == []
    missing = [{"name": "none", "fixed": "no.nii", "moving": "no.nii"}]
    assert take_shard(missing, "1/2") == missing


@pytest.mark.parametrize("shard", ["0/3", "4/3", "x", "3", "1/0", "-1/3", "1/3/4", 2, "1.5/3"])
def test_a_part_that_does_not_exist_is_refused(shard):
    with pytest.raises(InputError, match=f"--shard is '{shard}': expected a part and their number"):
        take_shard([], shard)
