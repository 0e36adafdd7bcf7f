"""Subsets and pairs of made-up subjects, derived by hand."""

import logging
from collections import Counter
from itertools import pairwise

import pytest

from scripts.cohorts.layouts import LAYOUTS, Cohort, Subject
from scripts.cohorts.pairing import (
    atlas_pairs,
    frame_pairs,
    half_pairs,
    make_pairs,
    subject_pairs,
    training_items,
    training_partners,
)
from scripts.cohorts.selection import select_subjects
from scripts.cohorts.subjects import find_subjects
from scripts.support.errors import InputError
from scripts.training.augmentation import RandPartnerd
from tests.conftest import ROOT, SAMPLES

REAL = ROOT.parent / "shared" / "data"


def subject(name, keys=("T1",), labelled=True, group="", split=""):
    labels = {key: f"{name}/{key}_gt.nii.gz" for key in keys} if labelled else {}
    return Subject(name, {key: f"{name}/{key}.nii.gz" for key in keys}, labels, group, split)


def brains(count, **fields):
    return [subject(f"b{index:02d}", **fields) for index in range(count)]


def cohort(subjects, layout="brains", **fields):
    return Cohort(LAYOUTS[layout], subjects, SAMPLES, **fields)


def names(items):
    return [item["name"] if isinstance(item, dict) else item.name for item in items]


def test_fractions_are_the_last_ones_in_order_of_name():
    shuffled = brains(20)[::-1]
    # 20 % of 20 are 4; 10 % of the other 16 are 1.6, rounded 2
    assert names(select_subjects(shuffled, "test")) == ["b16", "b17", "b18", "b19"]
    assert names(select_subjects(shuffled, "validation")) == ["b14", "b15"]
    assert names(select_subjects(shuffled, "train")) == [f"b{index:02d}" for index in range(14)]
    assert names(select_subjects(shuffled)) == [f"b{index:02d}" for index in range(20)]


def test_numbers_and_none():
    ten = brains(10)
    assert names(select_subjects(ten, "test", test=3)) == ["b07", "b08", "b09"]
    assert names(select_subjects(ten, "validation", validation="1", test=3)) == ["b06"]
    assert len(select_subjects(ten, "train", validation=0, test=0)) == 10
    assert names(select_subjects(brains(3), "test")) == ["b02"]  # 0.6, but at least one
    assert names(select_subjects(brains(3), "validation")) == ["b01"]
    assert names(select_subjects(brains(3), "train")) == ["b00"]


def test_splits_of_the_data_set_come_first():
    subjects = [subject(f"b{n:02d}", split="train" if n % 2 else "test") for n in range(20)]
    assert names(select_subjects(subjects, "test", test=1)) == [f"b{n:02d}" for n in range(0, 20, 2)]
    # no validation split: the last one of the ten training subjects
    assert names(select_subjects(subjects, "validation")) == ["b19"]
    assert names(select_subjects(subjects, "train")) == [f"b{n:02d}" for n in range(1, 19, 2)]
    # no test split: the last of those for training, never of those for validation
    subjects = [subject(f"b{n}", split="train" if n < 5 else "validation") for n in range(10)]
    assert names(select_subjects(subjects, "test")) == ["b4"]
    assert names(select_subjects(subjects, "validation")) == ["b5", "b6", "b7", "b8", "b9"]


def test_a_group_does_not_change_who_is_held_out():
    """Names in order of group, as in ACDC: every group keeps its own last ones for test and validation."""
    subjects = [subject(f"b{n:02d}", group="A" if n < 10 else "B") for n in range(20)]
    assert names(select_subjects(subjects, "test")) == ["b08", "b09", "b18", "b19"]
    assert names(select_subjects(subjects, "test", group="A")) == ["b08", "b09"]
    assert names(select_subjects(subjects, "validation", group="B")) == ["b17"]
    assert names(select_subjects(subjects, "train", group="B")) == [f"b{n:02d}" for n in range(10, 17)]
    assert names(select_subjects(subjects, "test", test=2)) == ["b18", "b19"]
    parts = [names(select_subjects(subjects, subset, group="A")) for subset in ("train", "validation", "test")]
    assert [name for part in parts for name in part] == names(select_subjects(subjects, group="A"))


def test_a_larger_train_limit_contains_a_smaller_one():
    subjects = brains(100)
    limits = ["1", "5%", 10, 0.2, "0.5", 1.0]
    chosen = [names(select_subjects(subjects, "train", 0, 0, train_limit=limit)) for limit in limits]
    assert [len(part) for part in chosen] == [1, 5, 10, 20, 50, 100]
    assert all(set(smaller) < set(larger) for smaller, larger in pairwise(chosen))
    assert all(part == sorted(part) for part in chosen)
    assert chosen[3] != names(subjects)[:20]
    again, other = (select_subjects(subjects, "train", 0, 0, train_limit=10, seed=seed) for seed in (0, 1))
    assert names(again) == chosen[2] != names(other)
    assert len(select_subjects(subjects, "train", 0, 0, train_limit="0.1%")) == 1
    assert len(select_subjects(subjects, "test", 0, 5, train_limit=1)) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subset": "all of them"}, "unknown subset 'all of them': expected all, train, validation, test"),
        ({"group": "C"}, "unknown group 'C': expected A, B"),
        ({"subset": "test", "test": -1}, "test is -1: expected a number of subjects, or a fraction such as 0.05 or 5%"),
        ({"subset": "train", "validation": 1.5}, "validation is 1.5: expected a number"),
        ({"subset": "train", "validation": "200%"}, "validation is 200%: expected a number"),
        ({"subset": "train", "train_limit": "few"}, "train_limit is few: expected a number"),
        ({"subset": "train", "train_limit": True}, "train_limit is True: expected a number"),
        ({"subset": "train", "train_limit": float("nan")}, "train_limit is nan: expected a number"),
        ({"subset": "train", "train_limit": 0}, "train_limit is 0: expected 1 to 3 subjects, or a fraction"),
        ({"subset": "train", "train_limit": 4}, "train_limit is 4: expected 1 to 3 subjects, or a fraction"),
        (
            {"subset": "test", "test": 0},
            "no subject is left for test: found 6 subjects in all, with validation 0.1 and",
        ),
        ({"subset": "train", "test": 6}, "no subject is left for train: found 6 subjects in all, .* and test 6; expec"),
        (
            {"subset": "test", "test": 1, "group": "A"},
            "no subject of group A is left for test: found 6 subjects in all",
        ),
    ],
)
def test_bad_subsets_are_named(options, message):
    subjects = [subject(f"b{n}", group="AB"[n // 3]) for n in range(6)]
    with pytest.raises(InputError, match=message):
        select_subjects(subjects, **options)


def test_a_group_where_there_is_none():
    with pytest.raises(InputError, match="unknown group 'A': expected none, as no subject has one"):
        select_subjects(brains(2), group="A")


def test_frames_of_a_subject():
    subjects = [subject("p2", ("ED", "ES")), subject("p1", ("ED", "ES"), labelled=False)]
    first = {"name": "p1", "fixed": "p1/ED.nii.gz", "moving": "p1/ES.nii.gz"}
    second = {
        "name": "p2",
        "fixed": "p2/ED.nii.gz",
        "moving": "p2/ES.nii.gz",
        "label_fixed": "p2/ED_gt.nii.gz",
        "label_moving": "p2/ES_gt.nii.gz",
    }
    assert frame_pairs(subjects) == [first, second]
    assert frame_pairs(subjects, labelled=True) == [second]
    assert frame_pairs(subjects, fixed="ES", moving="ED")[0] == {
        **first,
        "fixed": first["moving"],
        "moving": first["fixed"],
    }


def test_a_ring_of_subjects():
    assert subject_pairs(brains(3)[::-1]) == [
        {
            "name": f"{moving}_to_{fixed}",
            "fixed": f"{fixed}/T1.nii.gz",
            "moving": f"{moving}/T1.nii.gz",
            "label_fixed": f"{fixed}/T1_gt.nii.gz",
            "label_moving": f"{moving}/T1_gt.nii.gz",
        }
        for fixed, moving in (("b00", "b01"), ("b01", "b02"), ("b02", "b00"))
    ]
    assert names(subject_pairs(brains(2))) == ["b01_to_b00", "b00_to_b01"]
    assert names(subject_pairs(brains(9), num_pairs=2)) == ["b01_to_b00", "b02_to_b01"]


def test_a_ring_across_modalities_leaves_out_who_has_one_only(caplog):
    subjects = [subject("a", ("T1", "T2")), subject("b"), subject("c", ("T1", "T2"))]
    pairs = subject_pairs(subjects, fixed="T1", moving="T2")
    assert [(pair["fixed"], pair["moving"]) for pair in pairs] == [
        ("a/T1.nii.gz", "c/T2.nii.gz"),
        ("c/T1.nii.gz", "a/T2.nii.gz"),
    ]
    assert caplog.messages == ["1 subjects without the image T1 and T2 are left out: b"]
    alone = subject_pairs(subjects[:1], fixed="T1", moving="T2", how="random")
    assert [(pair["name"], pair["moving"]) for pair in alone] == [("a_to_a", "a/T2.nii.gz")]


def test_random_pairs_are_different_and_the_same_for_a_seed():
    every = names(subject_pairs(brains(5), how="random", num_pairs=20))
    assert sorted(every) == sorted(f"b{m:02d}_to_b{f:02d}" for m in range(5) for f in range(5) if m != f)
    assert len(subject_pairs(brains(5), how="random", num_pairs=99)) == 20
    some = names(subject_pairs(brains(30), how="random"))
    assert len(set(some)) == 30
    assert some == names(subject_pairs(brains(30)[::-1], how="random", seed=0))
    assert some != names(subject_pairs(brains(30), how="random", seed=1))
    assert names(subject_pairs(brains(30), how="random", num_pairs=7)) == some[:7]


def test_an_atlas():
    subjects = [subject("a"), subject("b", labelled=False), subject("c")]
    pairs = atlas_pairs(subjects, "b")
    assert names(pairs) == ["a_to_b", "c_to_b"]
    assert pairs[0] == {
        "name": "a_to_b",
        "fixed": "b/T1.nii.gz",
        "moving": "a/T1.nii.gz",
        "label_moving": "a/T1_gt.nii.gz",
    }
    assert names(atlas_pairs(subjects, "a", labelled=True)) == ["c_to_a"]
    mixed = [subject("a", ("T2",)), subject("b"), subject("c")]
    assert [pair["fixed"] for pair in atlas_pairs(mixed, "a", fixed="T2")] == ["a/T2.nii.gz"] * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: subject_pairs(brains(1)), "only b00 has an image 'T1': expected two subjects to make a pair"),
        (lambda: subject_pairs(brains(2), moving="T2"), "no subject has the image T1 and T2: found T1"),
        (lambda: subject_pairs([]), "no subject has the image T1: found no subject"),
        (lambda: subject_pairs(brains(2), how="all"), "unknown pairing of subjects 'all': expected ring or random"),
        (
            lambda: subject_pairs(brains(7, labelled=False), labelled=True),
            "no subject has a label: found b00, b01, .* 2 m",
        ),
        (lambda: frame_pairs(brains(2)), "no subject has the image ED and ES: found T1"),
        (lambda: atlas_pairs(brains(2), "x"), "atlas 'x' is not a subject: found b00, b01"),
        (lambda: atlas_pairs(brains(1), "b00"), "atlas 'b00' is the only subject: expected others"),
        (lambda: atlas_pairs(brains(2), "b00", fixed="T2"), "no subject has the image T2: found T1"),
        (
            lambda: make_pairs(cohort(brains(2)), pairing="all"),
            "unknown pairing 'all': expected frames, subjects, ring",
        ),
        (
            lambda: make_pairs(cohort(brains(2)), pairing="atlas"),
            "pairing is atlas and atlas is None: expected pairing atlas",
        ),
        (
            lambda: make_pairs(cohort(brains(2)), pairing="ring", atlas="b00"),
            "pairing is ring and atlas is b00",
        ),
        (lambda: make_pairs(cohort(brains(2)), num_pairs=0), "num_pairs is 0: expected at least 1"),
        (
            lambda: RandPartnerd(half_pairs(brains(1), "moving"))({"name": "b00"}),
            "b00 has no partner: expected two subjects",
        ),
    ],
)
def test_pairs_that_cannot_be_made_are_named(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_make_pairs_follows_the_layout():
    cardiac = cohort([subject(f"p{n}", ("ED", "ES")) for n in range(10)], "ukbb")
    assert names(make_pairs(cardiac)) == [f"p{n}" for n in range(10)]
    assert make_pairs(cardiac)[0]["fixed"] == "p0/ED.nii.gz"
    assert names(make_pairs(cardiac, "test", num_pairs=8)) == ["p8", "p9"]
    ten = cohort(brains(10))
    assert names(make_pairs(ten, "test")) == ["b09_to_b08", "b08_to_b09"]
    assert make_pairs(ten, pairing="subjects") == make_pairs(ten, pairing="ring") == make_pairs(ten)
    assert make_pairs(ten, pairing="random", num_pairs=5, seed=3) == subject_pairs(
        brains(10), "T1", "T1", "random", 5, 3
    )
    assert names(make_pairs(ten, "test", atlas="b00")) == ["b08_to_b00", "b09_to_b00"]
    assert names(make_pairs(ten, "test", pairing="atlas", atlas="b09")) == ["b08_to_b09"]


def test_make_pairs_of_labelled_subjects_only(caplog):
    mixed = cohort([subject("a"), subject("b", labelled=False), subject("c")], "ibsr")
    assert names(make_pairs(mixed, labelled=True)) == ["c_to_a", "a_to_c"]
    assert caplog.messages == ["1 subjects without a label are left out: b"]
    pairs = make_pairs(mixed)
    assert [sorted(pair) for pair in pairs[:2]] == [
        ["fixed", "label_fixed", "moving", "name"],
        ["fixed", "label_moving", "moving", "name"],
    ]


def test_pairs_of_the_data_set_itself():
    keys = ("0000", "0001")
    scans = [subject(f"A_000{n}", keys, group="ab"[n % 2], split="train") for n in range(3)]
    scans += [subject("A_0003", keys, labelled=False, split="validation")]
    own = {
        "train": [((f"A_000{n}", "0001"), (f"A_000{n}", "0000")) for n in range(3)],
        "validation": [(("A_0003", "0000"), ("A_0003", "0001"))],
    }
    learn2reg = cohort(scans, "learn2reg", pairs=own)
    assert make_pairs(learn2reg, "validation") == [
        {"name": "A_0003_0001_to_A_0003_0000", "fixed": "A_0003/0000.nii.gz", "moving": "A_0003/0001.nii.gz"}
    ]
    train = make_pairs(learn2reg, "train", test=0, pairing="subjects")
    assert names(train) == [f"A_000{n}_0000_to_A_000{n}_0001" for n in range(3)]
    assert train[2]["label_moving"] == "A_0002/0000_gt.nii.gz"
    # of a group, those of the chosen subjects
    chosen = names(select_subjects(scans, "train", test=0, group="a"))
    assert chosen == ["A_0000", "A_0002"]
    pairs = make_pairs(learn2reg, "train", test=0, group="a")
    assert names(pairs) == [f"{name}_0000_to_{name}_0001" for name in chosen]
    # another pairing, other images or all subjects: none of the data set's own
    assert names(make_pairs(learn2reg, "train", test=0, pairing="ring", num_pairs=1)) == ["A_0001_to_A_0000"]
    assert names(make_pairs(learn2reg, "train", test=0, fixed="0001", num_pairs=1)) == ["A_0001_to_A_0000"]
    assert len(make_pairs(learn2reg)) == 4
    with pytest.raises(InputError, match="no pair is left for validation: expected at least one"):
        make_pairs(learn2reg, "validation", labelled=True)


def test_random_partners_are_other_subjects_and_depend_on_the_seed_only():
    subjects = brains(4)
    transform = RandPartnerd(half_pairs(subjects, "moving"))
    items = half_pairs(subjects, "fixed")
    assert items[1] == {"name": "b01", "fixed": "b01/T1.nii.gz", "label_fixed": "b01/T1_gt.nii.gz"}

    def draw(seed):
        transform.set_random_state(seed=seed)
        return [transform(item) for _ in range(50) for item in items]

    drawn = draw(0)
    assert drawn[1].keys() == {"name", "fixed", "moving", "label_fixed", "label_moving"}
    assert (drawn[1]["name"], drawn[1]["fixed"]) == ("b01", "b01/T1.nii.gz")
    assert all(pair["moving"].replace("T1", "T1_gt") == pair["label_moving"] for pair in drawn)
    met = Counter((pair["fixed"], pair["moving"]) for pair in drawn)
    assert len(met) == 4 * 3  # everyone else, and never itself
    assert min(met.values()) > 5
    assert drawn == draw(0) != draw(1)
    assert items == half_pairs(subjects, "fixed")


def test_random_partners_of_another_modality_or_without_label():
    subjects = [subject("a", ("T1", "T2")), subject("b", ("T1", "T2"), labelled=False)]
    pair = RandPartnerd(half_pairs(subjects, "moving", "T2"))(half_pairs(subjects, "fixed")[0])
    assert pair == {"name": "a", "fixed": "a/T1.nii.gz", "label_fixed": "a/T1_gt.nii.gz", "moving": "b/T2.nii.gz"}
    stranger = {"name": "x", "fixed": "x.nii.gz"}
    assert RandPartnerd(half_pairs(subjects[:1], "moving"))(stranger)["moving"] == "a/T1.nii.gz"
    assert (
        names(half_pairs(subjects, "moving", labelled=True))
        == names(half_pairs(subjects, "fixed", labelled=True))
        == ["a"]
    )


def test_a_training_draws_from_pairs_of_frames_or_completes_halves():
    hearts = [subject("p0", ("ED", "ES")), subject("p1", ("ED", "ES"))]
    cardiac = cohort(hearts, "acdc")
    assert training_items(cardiac, hearts) == frame_pairs(hearts)
    assert training_partners(cardiac, hearts) == []
    heads = brains(2)
    ibsr = cohort(heads, "ibsr")
    assert training_items(ibsr, heads) == half_pairs(heads, "fixed")
    assert training_partners(ibsr, heads) == half_pairs(heads, "moving")
    for what in (training_items, training_partners):
        with pytest.raises(InputError, match="unknown pairing 'ring' for training: expected frames or subjects"):
            what(ibsr, heads, "ring")


def test_the_keys_of_shipped_pairs(caplog):
    caplog.set_level(logging.INFO)
    for folder in ("sunnybrook", "hippocampus", "brain_synthetic"):
        for pair in make_pairs(find_subjects(SAMPLES / folder)):
            assert list(pair) == ["name", "fixed", "label_fixed", "moving", "label_moving"]
            # MONAI takes keys such as fixed_label for the metadata of fixed
            assert not [key for key in pair if key.startswith(("fixed_", "moving_"))]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data is not at {REAL}")
def test_real_data():
    ibsr = find_subjects(REAL / "ibsr18_mni2mm")
    pairs = make_pairs(ibsr, labelled=True)
    assert len(pairs) == 15
    assert names(pairs)[:2] == ["IBSR_03_to_IBSR_01", "IBSR_04_to_IBSR_03"]  # 02 has no label
    sunnybrook = find_subjects(REAL / "sunnybrook")
    assert [len(make_pairs(sunnybrook, subset)) for subset in ("train", "validation", "test")] == [27, 3, 15]
    acdc = find_subjects(REAL / "acdc")
    assert len(make_pairs(acdc, group="DCM")) == len(select_subjects(acdc.subjects, group="DCM"))
