"""Volumes, strain, rotation and segments of hearts whose motion is known, and cines as files."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.collect import main
from scripts.heart import read_cine, track
from scripts.heart.insertions import parse_insertions
from scripts.heart.results import OUTPUTS, measures, write_cine_results
from scripts.heart.run import constants
from scripts.heart.strain import green, measure_strain
from scripts.heart.video import find_ffmpeg

from ..conftest import blobs, message_of

NAMES = {1: "RV", 2: "Myo", 3: "LV"}
SHAPE, COUNT, CENTER = (48, 50, 6), 12, np.array([24.0, 25.0])
# i to the patient's left, j to the front, slices from base to the apex, which lies below: as a scanner may have it
AFFINE = np.array([[-1.5, 0.1, 0, 40], [0.1, 1.5, 0, -30], [0, 0, -8, 60], [0, 0, 0, 1.0]])
RV_SIDE = 1.0  # the right ventricle lies on the patient's right, at larger i


def distance():
    i, j = np.meshgrid(*(np.arange(n) for n in SHAPE[:2]), indexing="ij")
    return i - CENTER[0], j - CENTER[1]


def heart_label():
    x, y = distance()
    r = np.hypot(x, y)
    label = np.zeros(SHAPE, np.uint8)
    for z in range(SHAPE[2]):
        inner = 10 - z * 0.7  # the apex is narrow
        label[(r >= inner + 5) & (r < inner + 12) & (x * RV_SIDE > 0) & (np.abs(y) < 9), z] = 1
        label[(r >= inner) & (r < inner + 5), z] = 2
        label[r < inner, z] = 3
    return label


def contraction():
    """From 0 to 1 and back over the cycle, in harmonics that the tracking keeps."""
    return 0.5 * (1 - np.cos(2 * np.pi * np.arange(COUNT) / COUNT))


def motion(shrink=0.0, degrees=0.0, twist=0.0):
    """The displacement of each frame: all points move to the centre and turn about it, the apex more than the base."""
    x, y = distance()
    fields = np.zeros((COUNT, 2, *SHAPE), np.float32)
    for t, part in enumerate(contraction()):
        for z in range(SHAPE[2]):
            angle = np.deg2rad(part * (degrees + twist * z / (SHAPE[2] - 1)))
            scale = 1 - shrink * part
            fields[t, 0, ..., z] = scale * (x * np.cos(angle) - y * np.sin(angle)) - x
            fields[t, 1, ..., z] = scale * (x * np.sin(angle) + y * np.cos(angle)) - y
    return torch.from_numpy(fields)


@pytest.fixture
def files(save):
    frames = np.stack([blobs(SHAPE, seed) for seed in range(COUNT)], -1)
    return save("cine.nii.gz", frames, AFFINE), save("label.nii.gz", heart_label(), AFFINE)


def tracked(files, fields, label_frame=0):
    """Track with a registration that knows the motion."""

    def register(cine, reference):
        assert reference == 0
        return fields

    return track(read_cine(*files, label_frame, NAMES), register)


def test_a_shrinking_heart(files):
    found = tracked(files, motion(shrink=0.2))
    strain = measure_strain(found)
    expected = -0.2 * contraction()
    for values in (*strain.circumferential.values(), *strain.radial.values()):
        np.testing.assert_allclose(values, expected, atol=1e-4)
    np.testing.assert_allclose(found.volumes["LV"] / found.volumes["LV"][0], (1 + expected) ** 2, atol=1e-4)
    voxel = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    assert found.volumes["LV"][0] == pytest.approx((heart_label() == 3).sum() * voxel)
    known = measures(found, strain)
    assert (known["end_diastole_frame"], known["end_systole_frame"]) == (0, COUNT // 2)
    assert known["ejection_fraction_percent"]["LV"] == pytest.approx(36, abs=0.01)
    assert known["myocardial_mass_g"] == pytest.approx(1.05 * (heart_label() == 2).sum() * voxel)
    assert green(-0.2) == pytest.approx(-0.18)
    carried = found.carry_label(COUNT // 2)
    assert (carried == 3).sum() / (heart_label() == 3).sum() == pytest.approx(0.64, abs=0.05)


def test_a_turning_and_twisting_heart_keeps_its_lengths(files):
    strain = measure_strain(tracked(files, motion(degrees=6, twist=10)))
    assert max(np.abs(values).max() for values in strain.circumferential.values()) < 2e-3
    # seen from the apex, which lies below: i runs to the left of the patient, so on the right of the viewer's left
    sign = np.sign(np.dot(np.cross(AFFINE[:3, 0], AFFINE[:3, 1]), AFFINE[:3, 2]))
    middle = COUNT // 2
    assert strain.rotation["basal"][middle] == pytest.approx(sign * (6 + 10 * 0.1), abs=0.05)
    assert strain.twist[middle] == pytest.approx(sign * 10 * 4 / 5, abs=0.1)


def test_the_segments_begin_in_front_and_pass_the_septum(files):
    segments = measure_strain(tracked(files, motion(shrink=0.1))).segments
    assert set(np.unique(segments)) == set(range(17))

    def place(number):
        """Where a segment lies: to the right and to the front of the centre, in mm of the patient."""
        i, j, _ = np.argwhere(segments == number).mean(0)
        return (AFFINE[:2, :2] @ (np.array([i, j]) - CENTER)).tolist()

    front, septal, back, lateral = (place(n) for n in (13, 14, 15, 16))
    assert front[1] > 5 > -5 > back[1]
    assert max(abs(front[0]), abs(back[0])) < 3
    towards_rv = (AFFINE[:2, :2] @ np.array([RV_SIDE, 0]))[0]
    assert septal[0] * towards_rv > 5 > -5 > lateral[0] * towards_rv
    for first in (1, 7):
        anterior, anteroseptal, inferoseptal, inferior = (place(first + n) for n in range(4))
        assert anterior[1] > 3 > -3 > inferior[1]
        assert anteroseptal[1] > 0 > inferoseptal[1]
        assert min(anteroseptal[0] * towards_rv, inferoseptal[0] * towards_rv) > 5


def towards(degrees, z=2):
    """The voxel 12 voxels from the centre in a direction from the first to the second axis."""
    angle = np.deg2rad(degrees)
    return [*(CENTER + 12 * np.array([np.cos(angle), np.sin(angle)])), z]


def millimetres(*voxels):
    return nib.affines.apply_affine(AFFINE, np.array(voxels)).tolist()


def test_the_segments_begin_at_the_insertions_that_are_given(save, tmp_path):
    """The septum is given from 60 to -60 degrees: all six segments of the base and the middle have 60 degrees."""
    label = heart_label()
    frames = np.stack([blobs(SHAPE, seed) for seed in range(COUNT)], -1)
    files = save("cine.nii.gz", frames, AFFINE), save("label.nii.gz", label * (label != 1), AFFINE)
    still = motion()
    assert measure_strain(track(read_cine(*files, 0, NAMES), lambda cine, reference: still)).segments is None
    ends = millimetres(towards(60), towards(-60))
    table = tmp_path / "ends.csv"
    table.write_text("".join("{},{},{}\n".format(*point) for point in ends))
    for given, first in ((ends, [8, 9, 10, 11, 12, 7]), (str(table), [8, 9, 10, 11, 12, 7]), (ends[::-1], None)):
        found = track(read_cine(*files, 0, NAMES, given), lambda cine, reference: still)
        segments = measure_strain(found).segments
        i, j = np.array([towards(30 - 60 * n) for n in range(6)])[:, :2].round().astype(int).T
        middle = segments[..., 2][i, j].tolist()
        # the other way round, the order from the anterior insertion is the reverse
        assert middle == (first or [9, 8, 7, 12, 11, 10])


def test_insertions_are_carried_with_the_label(files):
    scales = 1 - 0.2 * contraction()

    def register(cine, reference):
        x, y = (torch.from_numpy(d).float()[..., None].expand(SHAPE) for d in distance())
        return torch.stack([(scale / scales[reference] - 1) * torch.stack([x, y]) for scale in scales])

    found = track(read_cine(*files, 3, NAMES, millimetres(towards(60), towards(-60))), register)
    assert found.reference == 0
    np.testing.assert_allclose(
        found.cine.insertions[0, :2] - CENTER, 12 / scales[3] * np.array([0.5, 0.75**0.5]), atol=1e-3
    )


def test_wrong_insertions_are_said(files, tmp_path):
    (tmp_path / "three.csv").write_text("1,2,3\n" * 3)
    for given, expected in (
        ([[1, 2, 3]], "expected two points in mm"),
        ([[1, 2], [3, 4]], "expected two points in mm"),
        ("ends.txt", "is not named as a file of points"),
        (str(tmp_path / "three.csv"), "expected two points in mm"),
        ([[0, 0, 900], [0, 0, 0]], "(0, 0, 900) mm lies outside of the cine"),
        (millimetres(towards(20), towards(25)), "both points lie in the same direction"),
    ):
        message = message_of(
            lambda given=given: measure_strain(track(read_cine(*files, 0, NAMES, given), lambda *_: motion()))
        )
        assert expected in message
    assert "expected two points in mm" in message_of(lambda: parse_insertions("[[1,2"))
    assert parse_insertions("[[1,2,3],[4,5,6]]") == [[1, 2, 3], [4, 5, 6]]


def test_a_label_of_another_frame_is_carried_to_end_diastole(files, caplog):
    cine = read_cine(*files, 3, NAMES)
    fields = motion(shrink=0.2)
    scales = 1 - 0.2 * contraction()

    def register(cine, reference):
        x, y = (torch.from_numpy(d).float()[..., None].expand(SHAPE) for d in distance())
        return torch.stack([(scale / scales[reference] - 1) * torch.stack([x, y]) for scale in scales])

    found = track(cine, register)
    assert found.reference == 0
    assert "the cavity is largest in frame 0" in caplog.text
    assert found.volumes["LV"][6] / found.volumes["LV"][0] == pytest.approx(0.64, abs=1e-3)
    larger = (heart_label() == 3).sum() / scales[3] ** 2
    assert (found.cine.label == 3).sum().item() == pytest.approx(larger, rel=0.05)
    assert fields.shape[0] == COUNT


def test_a_basal_slice_that_leaves_the_heart_does_not_count(save):
    """In frame 1, the basal slice shows no dark wall any more; in frame 2 it does."""
    x, y = distance()
    r = np.hypot(x, y)
    label = np.zeros(SHAPE, np.uint8)
    label[(r >= 10) & (r < 15)] = 2
    label[r < 10] = 3
    frames = np.repeat(np.where(label == 2, 20.0, 100.0)[..., None], 3, -1) + y[:, :, None, None] / 10
    frames[..., 0, 1] = 100 + y
    files = save("cine.nii.gz", frames.astype(np.float32), AFFINE), save("label.nii.gz", label, AFFINE)
    still = torch.zeros(3, 2, *SHAPE)
    scale = 0.95  # in frames 1 and 2, whose determinant is its square
    still[1:] = torch.from_numpy(np.stack([(scale - 1) * d for d in (x, y)])[None, ..., None]).float()
    found = track(read_cine(*files, 0, NAMES), lambda cine, reference: still)
    assert found.departed == {1: 0}
    whole = found.volumes["LV"][0] * scale**2
    np.testing.assert_allclose(found.volumes["LV"][1:], [whole * 5 / 6, whole], rtol=1e-5)
    carried = found.carry_labels()
    assert not carried[..., 0, 1].any()
    assert carried[..., 1:, 1].any()
    assert (carried[..., 0, 2] == 2).any()


def test_without_a_label_end_diastole_is_found_and_said(save, caplog):
    frames = np.stack([blobs(SHAPE, seed) for seed in range(COUNT)], -1)
    cine = read_cine(save("cine.nii.gz", frames, AFFINE))
    scales = 1 - 0.2 * np.roll(contraction(), 4)  # end-diastole is frame 4

    def register(cine, reference):
        x, y = (torch.from_numpy(d).float()[..., None].expand(SHAPE) for d in distance())
        return torch.stack([(scale / scales[reference] - 1) * torch.stack([x, y]) for scale in scales])

    found = track(cine, register)
    assert (found.reference, found.end_systole) == (4, 10)
    assert "end-diastole is surely frame 4, and end-systole 10" in caplog.text
    assert measure_strain(found) is None


def test_the_files_of_a_cine(files, tmp_path):
    found = tracked(files, motion(shrink=0.2))
    strain = measure_strain(found)
    write_cine_results(found, strain, tmp_path / "out", {})
    expected = [name for name in OUTPUTS if name != "movie.mp4" or find_ffmpeg()]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(expected)
    field = nib.load(tmp_path / "out" / "displacement.nii.gz")
    assert field.shape == (*SHAPE, COUNT, 3)
    moved = np.asarray(found.ddf[6, :, 10, 30, 2])
    expected = (AFFINE[:3, :2] @ moved) * (-1, -1, 1)
    np.testing.assert_allclose(np.asarray(field.dataobj)[10, 30, 2, 6], expected, atol=1e-4)
    with (tmp_path / "out" / "strain_sax.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == COUNT * 20  # global, three levels, 16 segments
    (row,) = [row for row in rows if row["frame"] == "6" and row["segment"] == "global"]
    assert float(row["circumferential_percent"]) == pytest.approx(-20, abs=0.01)
    assert float(row["radial_green_percent"]) == pytest.approx(-18, abs=0.01)
    assert row["radial_percent_per_s"] == ""  # the header has no time
    message = message_of(lambda: write_cine_results(found, strain, tmp_path / "out", {}))
    assert "holds the result of a cine: expected an empty folder, or --overwrite true" in message


def test_the_settings_of_a_result_change_with_the_numbers_of_the_method(monkeypatch):
    before = constants()
    assert constants() == before
    for name in ("refinement.SMOOTHING", "frames.HARMONICS", "departure.LESS_SEPARATED", "results.DENSITY"):
        with monkeypatch.context() as changed:
            changed.setattr(f"scripts.heart.{name}", 2)
            assert constants() != before


def test_what_is_no_cine_is_named(files, save):
    cine, label = files
    values = heart_label()
    turned = AFFINE.copy()
    turned[:3, 0] *= 6
    cases = [
        ((label,), r"has shape \(48, 50, 6\): expected \(X, Y, Z, T\)"),
        ((save("one.nii.gz", np.zeros((*SHAPE, 1), np.float32), AFFINE),), "expected (X, Y, Z, T)"),
        ((cine, label, 12), "label_frame is 12: expected 0 to 11"),
        ((cine, save("small.nii.gz", values[:-1], AFFINE)), "has shape (47, 50, 6): expected (48, 50, 6)"),
        ((cine, save("empty.nii.gz", 0 * values, AFFINE)), "holds the ids [] in frame 0: expected the cavity"),
        ((cine, save("two.nii.gz", values * (values != 3), AFFINE)), "holds the ids [1, 2] in frame 0"),
        (
            (save("x.nii.gz", np.zeros((8, 48, 50, 3), np.float32) + blobs((8, 48, 50))[..., None], turned),),
            "third axis",
        ),
        ((save("flat.nii.gz", np.zeros((*SHAPE, 3), np.float32), AFFINE),), "frame 0 is constant"),
    ]
    for arguments, expected in cases:
        *paths, frame = arguments if len(arguments) == 3 else (*arguments, 0)
        message = message_of(lambda paths=paths, frame=frame: read_cine(*(*paths, None)[:2], frame, NAMES))
        assert expected.replace("\\", "") in message


def test_a_label_of_another_frame_than_is_said_is_noticed(save, caplog):
    """The cavity is bright, and small in frames 2 and 3; the label is that of frame 0."""
    x, y = distance()
    r = np.hypot(x, y)[..., None, None]
    radius = np.array([10, 10, 5, 5])
    frames = np.where(r < radius, 100.0, 20.0) + np.zeros((*SHAPE, 4)) + np.arange(SHAPE[1])[:, None, None] / 10
    label = np.broadcast_to(np.where(r < 10, 3, np.where(r < 14, 2, 0))[..., 0], SHAPE).astype(np.uint8)
    files = save("cine.nii.gz", frames.astype(np.float32), AFFINE), save("label.nii.gz", label, AFFINE)
    read_cine(*files, 1, NAMES)
    assert "fits frame" not in caplog.text
    read_cine(*files, 2, NAMES)
    assert "fits frame 0 of" in caplog.text
    assert "much better than frame 2, to which it is said to belong" in caplog.text


def test_bad_input_of_the_command_is_said(infer, samples, save, tmp_path):
    cine, label = (nib.load(samples / "cine" / f"{name}.nii.gz") for name in ("cine", "label"))
    frames, values, affine = np.asarray(cine.dataobj), np.asarray(label.dataobj), cine.affine
    turned = affine[:, [2, 0, 1, 3]]
    good = {"cine": cine.get_filename(), "label": label.get_filename()}
    (tmp_path / "list.json").write_text(json.dumps([{**good, "label_frame": "last"}]))
    in_all = np.zeros((*values.shape, frames.shape[3]), np.uint8)
    in_all[..., 0] = values
    for options, expected in (
        ({"cine": save("3d.nii.gz", frames[..., 0], affine)}, "expected (X, Y, Z, T)"),
        ({"cine": save("one.nii.gz", frames[..., :1], affine)}, "expected (X, Y, Z, T)"),
        ({"cine": save("axis.nii.gz", np.moveaxis(frames, 2, 0), turned)}, "expected its slices along the third axis"),
        ({"cine": str(tmp_path)}, "is a folder without DICOM images"),
        ({**good, "label": save("small.nii.gz", values[:-1], affine)}, "the grid of"),
        ({**good, "label": save("empty.nii.gz", 0 * values, affine)}, "holds the ids [] in frame 0"),
        ({**good, "label": save("all.nii.gz", in_all, affine), "label_frame": 3}, "holds the ids [] in frame 3"),
        ({**good, "label_frame": 99}, "label_frame is 99: expected 0 to 13"),
        ({**good, "label_frame": 1.5}, "--label_frame is '1.5': expected a whole number above -1"),
        ({"datalist": str(tmp_path / "list.json")}, "--label_frame is 'last': expected a whole number"),
    ):
        assert expected in message_of(lambda options=options: infer("cine", **options, output_dir=str(tmp_path / "o")))


@pytest.mark.slow
def test_a_real_heart_by_the_command(infer, samples, tmp_path):
    heart = samples / "sunnybrook" / "SC-N-10" / "SC-N-10"
    ed, es = (nib.load(f"{heart}_{frame}.nii.gz") for frame in ("ED", "ES"))
    values = [np.asarray(image.dataobj, np.float32) for image in (ed, es)]
    cine = nib.Nifti1Image(np.stack([values[0], values[1], values[1], values[0]], -1), ed.affine)
    nib.save(cine, tmp_path / "cine.nii.gz")
    (tmp_path / "list.json").write_text(
        json.dumps([{"cine": "cine.nii.gz", "name": "N10", "label": f"{heart}_ED_gt.nii.gz"}])
    )
    options = {
        "datalist": str(tmp_path / "list.json"),
        "label_layout": "sunnybrook",
        "output_dir": str(tmp_path / "out"),
    }
    infer("cine", **options)
    metrics = json.loads((tmp_path / "out" / "N10" / "metrics.json").read_text())
    truth = [(np.asarray(nib.load(f"{heart}_{frame}_gt.nii.gz").dataobj) == 1).sum() for frame in ("ED", "ES")]
    assert metrics["end_systole_frame"] in (1, 2)
    assert metrics["ejection_fraction_percent"]["LV"] == pytest.approx(
        100 * (1 - truth[1] / truth[0]), abs=10
    )  # basal slices leave the stack
    time = (tmp_path / "out" / "N10" / "metrics.json").stat().st_mtime_ns
    infer("cine", **options)  # is done
    assert (tmp_path / "out" / "N10" / "metrics.json").stat().st_mtime_ns == time


@pytest.mark.slow
def test_two_shards_of_cines_are_collected(infer, samples, tmp_path, capsys):
    sample = samples / "cine"
    entries = [{"name": n, "cine": str(sample / "cine.nii.gz"), "label": str(sample / "label.nii.gz")} for n in "ab"]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    options = {"datalist": str(tmp_path / "list.json"), "output_dir": str(tmp_path / "out")}
    infer("cine", **options, shard="1/2")
    assert main([options["output_dir"], "--datalist", options["datalist"]]) == 1
    assert "missing: pair b" in capsys.readouterr().out
    infer("cine", **options, shard="2/2")
    assert main([options["output_dir"], "--datalist", options["datalist"]]) == 0
    assert "GCS %" in capsys.readouterr().out
    with (tmp_path / "out" / "cohort.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["pair"] for row in rows] == ["a", "b"]
    # the law of the sample's motion shortens the middle of the wall by 18 %
    assert float(rows[0]["peak_circumferential_percent.global"]) == pytest.approx(-18, abs=1)
    assert float(rows[0]["ejection_fraction_percent.LV"]) > 30
