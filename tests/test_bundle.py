"""The bundle as MONAI sees it: metadata, properties, network format, overlays."""

import os
import re
import subprocess
import sys

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out

from .conftest import ROOT, load_json

CONFIGS = ROOT / "configs"
OVERLAYS = [[], ["hippocampus"], ["brain"]]


def test_the_root_metadata_is_a_link_to_the_real_one():
    assert (ROOT / "metadata.json").is_symlink()
    assert os.readlink(ROOT / "metadata.json") == "configs/metadata.json"


def test_metadata_follows_the_schema():
    from jsonschema import validate

    schema = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"
    if not schema.is_file():
        pytest.skip(f"{schema} is not there: MONAI's metadata schema, which is downloaded elsewhere")
    validate(load_json(CONFIGS / "metadata.json"), load_json(schema))


def test_metadata_versions_are_the_tested_ones():
    metadata = load_json(CONFIGS / "metadata.json")
    assert metadata["version"] in metadata["changelog"]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    bounds = dict(re.findall(r"^([\w-]+)>=(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    named = {name: metadata[f"{key}_version"] for name, key in (("torch", "pytorch"), ("monai",) * 2, ("numpy",) * 2)}
    for name, version in {**named, **metadata["required_packages_version"]}.items():
        assert pins[name] == bounds[name] == version


@pytest.mark.parametrize("overlays", OVERLAYS)
def test_inference_has_every_property_from_any_folder(overlays, tmp_path, monkeypatch, samples):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / f"{name}.yaml") for name in ("inference", *overlays)],
        workflow_type="inference",
        logging_file=False,
        datalist=str(samples / "sunnybrook" / "pairs.json"),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.bundle_root == str(ROOT)
    assert len(workflow.dataset) == 3
    assert workflow.network_def.minimum_size == (5 if overlays else 9)  # features, three levels; four levels
    assert not list(tmp_path.iterdir()), "nothing may be written before the run"


def load_config(name):
    return ConfigParser.load_config_file(str(CONFIGS / f"{name}.yaml"))


def test_overlays_replace_only_what_is_defined():
    own = {"brain": {"bias_correction", "brain_extraction", "synthesis", "fine_steps"}}
    train, inference, evaluate = (set(load_config(name)) for name in ("train", "inference", "evaluate"))
    for name in ("hippocampus", "brain", "voxelmorph", "published"):
        keys = set(load_config(name)) - own.get(name, set())
        assert keys <= train | {"weights"}
        # what is no matter of training alone is a matter of all
        model = keys & {"task", "weights", "spatial_dims", "spacing", "spatial_size", "alignment", "native_transforms"}
        model |= keys & {"network_transforms", "network_spacing", "fine_steps"}
        assert model <= inference & evaluate


def test_the_network_that_is_trained_is_the_one_that_is_used():
    trained, inference, evaluation = (load_config(name)["network_def"] for name in ("train", "inference", "evaluate"))
    assert trained == inference == evaluation
    parser = ConfigParser({"bundle_root": str(ROOT), "refine_steps": 0, "network_def": trained})
    network = parser.get_parsed_content("network_def")
    # as an overlay, the file gives the same
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in ("inference", "cardiac")])
    parser["refine_steps"] = 0
    assert str(parser.get_parsed_content("network_def")) == str(network)
    assert network.num_repeats == (3, 3, 1, 0)


def test_an_argument_of_the_network_can_be_replaced():
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.yaml"))
    parser["network_def#num_repeats"] = [1, 1, 1, 1]
    parser["network_def#regularizer"] = {"_target_": "scripts.networks.CNN", "channels": 4}
    network = parser.get_parsed_content("network_def")
    assert network.num_repeats == (1, 1, 1, 1)
    assert {blocks[0].regularizer.convs[0].out_channels for blocks in network.levels} == {4}


def test_the_number_of_refinement_steps_is_that_of_the_task_or_the_users():
    parser = ConfigParser()
    for overlays, steps in (([], 8), (["brain"], 10)):
        parser.read_config([str(CONFIGS / f"{name}.yaml") for name in ("inference", *overlays)])
        assert parser.get_parsed_content("network_def").num_repeats[-1] == steps
        parser["refine_steps"] = 2
        assert parser.get_parsed_content("network_def").num_repeats[-1] == 2


@pytest.mark.parametrize("overlays", OVERLAYS)
def test_the_network_takes_and_gives_what_the_metadata_says(overlays, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    metadata = ["metadata", "metadata_3d"] if overlays else ["metadata"]
    verify_net_in_out(
        net_id="network_def",
        meta_file=[str(CONFIGS / f"{name}.json") for name in metadata],
        config_file=[str(CONFIGS / f"{name}.yaml") for name in ("inference", *overlays)],
        device="cpu",
    )


def test_the_metadata_of_3d_networks_differs_in_what_has_an_axis_more():
    flat, deep = (
        ConfigParser.load_config_files([str(CONFIGS / f"{name}.json") for name in names])["network_data_format"]
        for names in (["metadata"], ["metadata", "metadata_3d"])
    )
    for tensor in (deep["inputs"]["image"], deep["outputs"]["pred"]):
        assert tensor["spatial_shape"].pop() == "16*n"
    assert deep["outputs"]["pred"].pop("num_channels") == flat["outputs"]["pred"].pop("num_channels") + 1 == 3
    assert "third axis" in deep["outputs"]["pred"]["channel_def"].pop("2")
    assert flat == deep


def test_inference_imports_nothing_of_training(samples):
    code = f"""
import sys
from monai.bundle import ConfigWorkflow
files = dict(datalist={str(samples / "sunnybrook" / "pairs.json")!r}, logging_file=False, workflow_type="inference")
workflow = ConfigWorkflow(config_file={str(CONFIGS / "inference.yaml")!r}, **files)
workflow.initialize()
workflow.parser.get_parsed_content("evaluator")
print(*sorted(name for name in sys.modules if name.startswith("scripts.")))
"""
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(child.stdout.splitlines()[-1].split())
    assert "scripts.networks.gradirn" in loaded
    parts = ("training", "studies", "prepare", "tools")
    assert not any(name.split(".")[1] in parts for name in loaded)
