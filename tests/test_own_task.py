"""A task of one's own, as docs/tasks.md describes it: lung CT, made up here, from its window to a result."""

import json
import re

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, run

from scripts.cohorts import TASKS
from scripts.cohorts.tasks import Task

from .conftest import ROOT, config_files, load_json

AIR, LUNG, TISSUE, BONE = -1024, -850, 40, 900  # Hounsfield units
TINY = {"spacing": [8, 8, 8], "spatial_size": [20, 16, 18], "device": "cpu"}


def thorax(lung_height):
    """A body with two lungs, vessels in them and a spine: intensities and labels (lungs 1, vessels 2) at 4 mm."""
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (40, 32, 36)), indexing="ij")
    body = (x / 18) ** 2 + (y / 13) ** 2 < 1
    lungs = ((np.abs(x) - 8) / 6) ** 2 + (y / 8) ** 2 + (z / lung_height) ** 2 < 1
    vessels = lungs & ((np.abs(np.abs(x) - 8) < 1) | (np.abs(y - z / 4) < 1))
    spine = (x**2 + (y + 9) ** 2) < 6
    image = np.select([spine, vessels, lungs, body], [BONE, TISSUE, LUNG, TISSUE], AIR).astype(np.int16)
    return image, lungs.astype(np.uint8) + vessels


def code_blocks(language):
    text = (ROOT / "docs" / "tasks.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def lung(tmp_path, monkeypatch, save):
    """The overlay and the entry of the document, and a pair of files."""
    (entry,), (overlay,) = code_blocks("python"), code_blocks("yaml")
    monkeypatch.setitem(TASKS, "lung", eval(entry, {"Task": Task}))
    monkeypatch.syspath_prepend(str(ROOT))
    path = tmp_path / "lung.yaml"
    path.write_text(overlay)
    affine = np.diag([4.0, 4, 4, 1])
    pair = {}
    for role, height in (("fixed", 12), ("moving", 15)):
        image, label = thorax(height)
        pair |= {role: save(f"{role}.nii.gz", image, affine), f"label_{role}": save(f"l_{role}.nii.gz", label, affine)}
    datalist = tmp_path / "lungs.json"
    datalist.write_text(json.dumps([{"name": "case_1", **pair}]))
    return str(path), str(datalist), pair


def window(image):
    return np.clip((image.astype(float) + 1000) / 1400, 0, 1)


def test_the_network_is_trained_on_the_window_of_the_task(lung):
    overlay, datalist, _ = lung
    parser = ConfigParser()
    parser.read_config([*config_files("train"), overlay])
    parser.update({"dataset_dir": datalist, "validation": 0, "test": 0, "augmentation": False, **TINY})
    parser["spacing"] = [4, 4, 4]
    parser["spatial_size"] = parser["crop_size"] = [40, 32, 36]
    image = parser.get_parsed_content("train#dataset")[0]["image"]
    levels, counts = torch.unique(image, return_counts=True)
    # air lies below the window, bone above it: 0 and 1; the window is 1400 HU wide
    expected = torch.tensor([0, (LUNG + 1000) / 1400, (TISSUE + 1000) / 1400, 1])
    torch.testing.assert_close(levels, expected)
    assert counts.min() > 100


@pytest.mark.slow
def test_a_task_of_ones_own_is_trained_and_used(lung, tmp_path):
    overlay, datalist, pair = lung
    training = {"dataset_dir": datalist, "validation": 0, "test": 0, "max_epochs": 1, "samples_per_epoch": 2}
    run(
        config_file=[*config_files("train"), overlay],
        **{**training, **TINY, "crop_size": [16, 16, 16], "output_dir": str(tmp_path / "train")},
    )
    weights = tmp_path / "train" / "model.pt"
    assert weights.is_file()
    files = {**pair, "weights": str(weights), "output_dir": str(tmp_path / "out")}
    run(config_file=[*config_files("inference"), overlay], **files, **TINY)

    metrics = load_json(tmp_path / "out" / "metrics.json")
    fixed, moving = (thorax(height)[0] for height in (12, 15))
    inside = fixed > AIR  # where similarity is measured
    difference = window(fixed)[inside] - window(moving)[inside]
    assert metrics["rmse"]["before"] == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-5)
    assert set(metrics["dice"]["after"]) == {"1", "2", "mean"}
