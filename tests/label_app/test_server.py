"""The application in a real MONAI Label server, through its REST API: ``make test-label``.

Needs the environment of ``make label-server``; ``make test`` skips it.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest

from ..conftest import ROOT, SAMPLES

pytest.importorskip("monailabel", reason="monailabel has an environment of its own: make test-label")
import requests

from .server import read, to_bytes

pytestmark = pytest.mark.slow


def dice(first, second):
    """Mean over the labels of the second."""
    a, b = (np.asarray(image.dataobj) for image in (first, second))
    values = [2 * ((a == c) & (b == c)).sum() / ((a == c).sum() + (b == c).sum()) for c in np.unique(b) if c]
    return float(np.mean(values))


def assert_on_grid(result, reference):
    assert result.shape == reference.shape
    np.testing.assert_allclose(result.affine, reference.affine, atol=1e-4)
    assert result.header.get_data_dtype() == np.uint16


def ground_truth(subject, frame):
    return nib.load(SAMPLES / "sunnybrook" / subject / f"{subject}_{frame}_gt.nii.gz")


def test_info_names_the_models_their_labels_and_the_training(server):
    models = server.info["models"]
    sets = ["atlas_propagation", "atlas_propagation_hippocampus", "atlas_propagation_cardiac"]
    assert list(models) == ["frame_propagation", *sets]
    assert {model["type"] for model in models.values()} == {"segmentation"}
    assert models["frame_propagation"]["labels"] == {"LV": 1}
    assert models["atlas_propagation"]["labels"]["Left-Hippocampus"] == 17
    assert models["atlas_propagation_hippocampus"]["labels"] == {"anterior": 1, "posterior": 2}
    assert list(server.info["trainers"]) == ["frame_propagation", *sets[:2]]
    assert list(server.info["strategies"]) == ["worst_explained", "random"]


def test_frame_propagation_takes_the_stored_label_of_the_other_frame(server):
    label, params = server.infer("frame_propagation", "SC-N-10_ES")
    truth = ground_truth("SC-N-10", "ES")
    assert_on_grid(label, truth)
    assert dice(label, truth) > 0.85
    assert params["frames"] == ["SC-N-10_ED", "SC-N-10_ES"]
    mm3 = abs(np.linalg.det(truth.affine[:3, :3]))
    expected = [(np.asarray(image.dataobj) == 1).sum() * mm3 / 1000 for image in (ground_truth("SC-N-10", "ED"), label)]
    np.testing.assert_allclose(params["volumes_ml"]["LV"], expected, rtol=1e-3)
    fraction = 100 * (expected[0] - expected[1]) / expected[0]
    assert params["ejection_fraction_percent"]["LV"] == pytest.approx(fraction, abs=0.01)


def test_frame_propagation_takes_an_uploaded_label(server):
    upload = (SAMPLES / "sunnybrook" / "SC-HYP-09" / "SC-HYP-09_ES_gt.nii.gz").read_bytes()
    label, _ = server.infer("frame_propagation", "SC-HYP-09_ED", label=upload, source="SC-HYP-09_ES")
    assert dice(label, ground_truth("SC-HYP-09", "ED")) > 0.85


def test_frame_propagation_carries_a_label_to_every_frame_of_a_cine(server):
    cine = cine_of("SC-HF-NI-15")
    upload(server, "cine", cine)
    truth = ground_truth("SC-HF-NI-15", "ED")
    label, params = server.infer("frame_propagation", "cine", label=to_bytes(truth), frame=1)
    assert_on_grid(label, cine)
    frames = [nib.Nifti1Image(np.asarray(label.dataobj)[..., t], label.affine) for t in range(3)]
    np.testing.assert_array_equal(frames[1].dataobj, np.asarray(truth.dataobj))
    assert dice(frames[0], ground_truth("SC-HF-NI-15", "ES")) > 0.85
    assert dice(frames[2], ground_truth("SC-HF-NI-15", "ES")) > 0.85
    volumes = params["volumes_ml"]["LV"]
    assert params["frames"] == [0, 1, 2]
    assert volumes[1] == max(volumes)
    expected = 100 * (volumes[1] - min(volumes)) / volumes[1]
    assert params["ejection_fraction_percent"]["LV"] == pytest.approx(expected, abs=0.01)
    assert requests.delete(f"{server.url}/datastore/image?id=cine", timeout=60).status_code == 200


def cine_of(subject):
    """Systole, diastole, systole."""
    es, ed = (nib.load(SAMPLES / "sunnybrook" / subject / f"{subject}_{frame}.nii.gz") for frame in ("ES", "ED"))
    return nib.Nifti1Image(np.stack([np.asarray(image.dataobj) for image in (es, ed, es)], -1), ed.affine, ed.header)


def test_atlas_propagation_of_a_brain(server):
    label, params = server.infer("atlas_propagation", "synthetic_20")
    truth = nib.load(SAMPLES / "brain_synthetic" / "synthetic_20" / "seg.nii.gz")
    assert_on_grid(label, truth)
    assert dice(label, truth) > 0.7
    assert params["confidence"]["Left-Thalamus"] == 1.0  # of a single atlas
    assert params["atlases"]["synthetic_19"]["similarity"] > 0.85
    assert params["atlases"]["synthetic_19"]["verdict"] in ("good", "doubtful")


def test_several_atlases_are_fused_and_say_how_sure_they_are(server):
    truth = nib.load(SAMPLES / "hippocampus" / "hippocampus_383" / "seg.nii.gz")
    results = {}
    for fusion in ("weighted", "majority"):
        label, params = server.infer("atlas_propagation_hippocampus", "hippocampus_383", fusion=fusion)
        assert_on_grid(label, truth)
        results[fusion] = dice(label, truth)
        assert list(params["atlases"]) == ["hippocampus_327", "hippocampus_341", "hippocampus_361"]
    confidence, _ = server.infer(
        "atlas_propagation_hippocampus", "hippocampus_383", output_image="confidence", fusion="majority"
    )
    values = np.asarray(confidence.dataobj)
    assert values.shape == truth.shape
    np.testing.assert_allclose(np.unique(values.round(3)), [0.333, 0.667, 1], atol=1e-3)
    singles = [
        dice(server.infer("atlas_propagation_hippocampus", "hippocampus_383", atlas=f"hippocampus_{number}")[0], truth)
        for number in (327, 341, 361)
    ]
    assert min(results.values()) > np.mean(singles) > 0.75


def test_an_affine_alignment_brings_a_shifted_image_back(server):
    image = nib.load(SAMPLES / "hippocampus" / "hippocampus_383" / "t1.nii.gz")
    turned = image.affine.copy()
    turned[:3, 3] += (40, -20, 10)
    moved = nib.Nifti1Image(image.dataobj, turned, image.header)
    files = {"file": ("moved.nii.gz", to_bytes(moved))}
    params = {"params": json.dumps({"affine": True, "atlas": "hippocampus_361"})}
    answer = server.post("/infer/atlas_propagation_hippocampus?output=image", files=files, data=params)
    assert answer.status_code == 200, answer.text
    label = read(answer.content)
    np.testing.assert_allclose(label.affine, turned, atol=1e-4)
    assert dice(label, nib.load(SAMPLES / "hippocampus" / "hippocampus_383" / "seg.nii.gz")) > 0.7


def test_a_matrix_takes_the_place_of_an_alignment(server):
    name, atlas = "hippocampus_383", "hippocampus_361"
    ends = [nib.load(SAMPLES / "hippocampus" / x / "t1.nii.gz") for x in (name, atlas)]
    centers = [image.affine[:3] @ [*(np.array(image.shape) / 2 - 0.5), 1] for image in ends]
    matrix = np.eye(4)
    matrix[:3, 3] = centers[1] - centers[0]  # what the alignment of this task is
    text = ", ".join(str(value) for value in matrix.ravel())
    plain, _ = server.infer("atlas_propagation_hippocampus", name, atlas=atlas)
    given, _ = server.infer("atlas_propagation_hippocampus", name, atlas=atlas, initial_transform=text)
    np.testing.assert_array_equal(given.dataobj, plain.dataobj)
    message = server.error(f"/infer/atlas_propagation_hippocampus?image={name}", **form(initial_transform="1 0 0"))
    assert "initial_transform is '1 0 0': expected the 16 numbers of a 4x4 matrix, row by row" in message


def test_a_lesion_of_the_datastore_does_not_drive_the_registration(server):
    name, atlas = "hippocampus_383", "hippocampus_361"
    truth = nib.load(SAMPLES / "hippocampus" / name / "seg.nii.gz")
    lesion = to_bytes(nib.Nifti1Image((np.asarray(truth.dataobj) == 1).astype(np.uint8), truth.affine))
    answer = requests.put(
        f"{server.url}/datastore/label?image={name}&tag=lesion", files={"label": ("x.nii.gz", lesion)}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    plain, _ = server.infer("atlas_propagation_hippocampus", name, atlas=atlas)
    masked, _ = server.infer("atlas_propagation_hippocampus", name, atlas=atlas, lesion="lesion")
    assert 0 < (np.asarray(plain.dataobj) != np.asarray(masked.dataobj)).sum() < 0.02 * np.prod(plain.shape)
    message = server.error(f"/infer/atlas_propagation_hippocampus?image={name}", **form(lesion="tumour"))
    assert "lesion: there is no label map with the tag 'tumour' of this image" in message


def test_atlas_propagation_of_a_stack(server):
    label, _ = server.infer("atlas_propagation_cardiac", "SC-HF-NI-15_ED", atlas="SC-HYP-09")
    truth = ground_truth("SC-HF-NI-15", "ED")
    assert_on_grid(label, truth)
    assert dice(label, truth) > 0.5


def test_two_clients_at_once(server):
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(server.infer, "frame_propagation", f"{name}_ES") for name in ("SC-N-10", "SC-HYP-09")]
        alone = [server.infer("frame_propagation", f"{name}_ES") for name in ("SC-N-10", "SC-HYP-09")]
        for pending, (label, params) in zip(both, alone):
            found, found_params = pending.result()
            np.testing.assert_array_equal(found.dataobj, label.dataobj)
            assert found_params == params


def test_a_label_is_saved_where_monai_label_expects_it(server):
    truth = to_bytes(ground_truth("SC-HYP-09", "ES"))
    answer = requests.put(
        f"{server.url}/datastore/label?image=SC-HYP-09_ES", files={"label": ("x.nii.gz", truth)}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert (server.studies / "labels" / "final" / "SC-HYP-09_ES.nii.gz").is_file()
    assert requests.get(f"{server.url}/datastore/", timeout=60).json()["completed"] == 4
    label, _ = server.infer("frame_propagation", "SC-HYP-09_ED", source="SC-HYP-09_ES")
    assert dice(label, ground_truth("SC-HYP-09", "ED")) > 0.85


def test_a_batch_of_images_gets_original_labels(server):
    images = ["SC-N-10_ES", "SC-HF-NI-15_ES"]
    answer = server.post("/batch/infer/frame_propagation?images=unlabeled", json={"images": images})
    assert answer.status_code == 200, answer.text
    task = wait_for(server, "/batch/infer/")
    assert task["status"] == "DONE", task
    for image in images:
        label = server.studies / "labels" / "original" / f"{image}.nii.gz"
        assert dice(nib.load(label), ground_truth(image[:-3], "ES")) > 0.85
        assert requests.delete(f"{server.url}/datastore/label?id={image}&tag=original", timeout=60).status_code == 200


def test_the_next_image_is_the_one_that_registration_explains_worst(server):
    answer = server.post("/activelearning/worst_explained", json={"max_images": 10})
    assert answer.status_code == 200, answer.text
    images = requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"]
    found = {
        name: entry["image"]["info"]["registration_similarity"]["value"]
        for name, entry in images.items()
        if not entry["labels"].get("final")
    }
    assert set(found) == {"SC-N-10_ES", "SC-HF-NI-15_ES", "hippocampus_383", "synthetic_20"}
    assert answer.json()["id"] == min(found, key=found.get)
    assert answer.json()["id"] == "hippocampus_383"


def test_training_gives_the_next_inference_new_weights(server):
    before, _ = server.infer("frame_propagation", "SC-N-10_ES")
    shipped = (ROOT / "models" / "model.pt").read_bytes()
    upload(server, "cine", cine_of("SC-HF-NI-15"))
    params = {"max_epochs": 2, "samples_per_epoch": 8, "images": "SC-N-10_ED,SC-HYP-09_ED,cine"}
    (server.studies.parent / "model" / ".partial_x").mkdir(parents=True)  # as a training that was stopped leaves it
    assert server.post("/train/frame_propagation", json=params).status_code == 200
    task = wait_for(server, "/train/")
    assert task["status"] == "DONE", task
    lines = "\n".join(task["details"])
    assert "epoch 2 of 2" in lines
    after, _ = server.infer("frame_propagation", "SC-N-10_ES")
    assert not np.array_equal(after.dataobj, before.dataobj)
    assert dice(after, ground_truth("SC-N-10", "ES")) > 0.85
    assert (ROOT / "models" / "model.pt").read_bytes() == shipped
    stats = requests.get(f"{server.url}/info/", timeout=60).json()["train_stats"]["frame_propagation"]
    files = [path.name for path in (server.studies.parent / "model").iterdir()]
    assert sorted(files) == ["cardiac.json", "cardiac.pt"]
    assert stats["pairs"] == 4  # two hearts, and two frames of the cine to its first one
    assert stats["validation"]["ncc"] > 0.9
    assert requests.delete(f"{server.url}/datastore/image?id=cine", timeout=60).status_code == 200


def upload(server, name, image):
    """Store an image in the datastore."""
    files = {"file": (f"{name}.nii.gz", to_bytes(image))}
    answer = requests.put(f"{server.url}/datastore/image?image={name}", files=files, timeout=60)
    assert answer.status_code == 200, answer.text


def test_training_with_atlases(server):
    params = {"max_epochs": 1, "samples_per_epoch": 2, "images": "hippocampus_383"}
    assert server.post("/train/atlas_propagation_hippocampus", json=params).status_code == 200
    task = wait_for(server, "/train/")
    assert task["status"] == "DONE", task
    stats = requests.get(f"{server.url}/info/", timeout=60).json()["train_stats"]["atlas_propagation_hippocampus"]
    assert stats["pairs"] == 3
    weights = server.studies.parent / "model" / "hippocampus.pt"
    assert weights.is_file()
    weights.unlink()  # brings back the shipped ones


def wait_for(server, path, seconds=300):
    """The state of a task in the background, at its end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        task = requests.get(server.url + path, timeout=60).json()
        if task["status"] not in ("SUBMITTED", "RUNNING"):
            return task
        time.sleep(2)
    pytest.fail(f"{path} did not end: {task}")


def test_a_training_that_cannot_be_says_why(server):
    params = {"images": "SC-N-10_ED", "use_labels": True}
    assert server.post("/train/frame_propagation", json=params).status_code == 200
    task = wait_for(server, "/train/")
    assert task["status"] == "ERROR"
    assert "make no pair with labels of both images" in task["details"][-1]


def form(**params):
    return {"data": {"params": json.dumps(params)}}


def test_errors_are_one_readable_line(server):
    assert "no 'nobody' in the datastore" in server.error("/infer/frame_propagation?image=nobody", **form())
    assert "no model 'x'" in server.error("/infer/x?image=synthetic_20", **form())
    assert "atlas: there is no 'nobody'" in server.error(
        "/infer/atlas_propagation?image=synthetic_20", **form(atlas="nobody")
    )
    assert "fusion is 'mean'" in server.error("/infer/atlas_propagation?image=synthetic_20", **form(fusion="mean"))
    assert "'maybe'" in server.error("/infer/atlas_propagation?image=synthetic_20", **form(affine="maybe"))
    assert "no 'nobody' in the datastore" in server.error(
        "/infer/frame_propagation?image=SC-N-10_ES", **form(source="nobody")
    )
    assert "has no other frame" in server.error("/infer/frame_propagation?image=synthetic_20", **form())
    assert "has none in the datastore" in server.error("/infer/frame_propagation?image=SC-N-10_ED", **form())
    assert "valid JSON" in server.error("/infer/frame_propagation?image=SC-N-10_ES", data={"params": "{"})
    assert "there is no 'x'" in server.error("/train/x", json={})
    assert "'x'" in server.error("/activelearning/x", json={})
    nobody = server.error("/datastore/label?image=nobody", 404, "put", files={"label": ("x.nii.gz", b"1")})
    assert nobody == "Image nobody not found"


def test_a_wrong_dimension_is_one_readable_line(server):
    flat = nib.Nifti1Image(np.arange(600, dtype=np.float32).reshape(20, 30, 1), np.eye(4))
    answer = server.error("/infer/atlas_propagation", files={"file": ("flat.nii.gz", to_bytes(flat))}, **form())
    assert "is a 2D image of shape (20, 30, 1): this model expects 3D volumes" in answer
    broken = server.error("/infer/atlas_propagation", files={"file": ("x.nii.gz", b"no image")}, **form())
    assert "cannot be read as NIfTI" in broken


def test_a_request_cannot_name_a_path_of_the_server(server):
    secret = str(SAMPLES / "brain_synthetic" / "synthetic_20" / "t1.nii.gz")
    assert "in the datastore" in server.error(f"/infer/atlas_propagation?image={secret}", **form())
    assert "in the datastore" in server.error("/infer/atlas_propagation?image=synthetic_20", **form(image=secret))
    label = str(SAMPLES / "sunnybrook" / "SC-N-10" / "SC-N-10_ED_gt.nii.gz")
    assert "uploaded with the request" in server.error("/infer/frame_propagation?image=SC-N-10_ES", **form(label=label))
    assert "in the datastore" in server.error("/infer/frame_propagation?image=SC-N-10_ES", **form(source=secret))
    outside = {"files": {"file": ("x.nii.gz", b"1")}, "method": "put"}
    assert "expected a name, not a path" in server.error("/datastore/image?image=../x", **outside)
    label = {"files": {"label": ("x.nii.gz", b"1")}, "method": "put"}
    assert "expected a name, not a path" in server.error("/datastore/label?image=SC-N-10_ES&tag=../../x", **label)


def test_the_studies_are_left_as_monai_label_expects(server):
    left = {str(path.relative_to(server.studies)) for path in server.studies.rglob("*") if path.is_file()}
    expected = {f"SC-{name}_{frame}.nii.gz" for name in ("N-10", "HYP-09", "HF-NI-15") for frame in ("ED", "ES")}
    expected |= {"synthetic_20.nii.gz", "hippocampus_383.nii.gz", "datastore_v2.json"}
    labels = {f"labels/final/SC-{name}_ED.nii.gz" for name in ("N-10", "HYP-09", "HF-NI-15")}
    saved_above = {"labels/final/SC-HYP-09_ES.nii.gz", "labels/lesion/hippocampus_383.nii.gz"}
    assert left - {".lock"} - saved_above == expected | labels
