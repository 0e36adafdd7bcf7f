"""What the model zoo's continuous integration and MONAI's applications do with a bundle, in a process of their own.

    PYTHONPATH=BUNDLE python tests/zoo_checks.py BUNDLE SCHEMA

in an empty folder, so that the bundle's code runs and not the repository's.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow, ckpt_export, create_workflow, load, verify_metadata, verify_net_in_out

MONAI_LABEL = ("bundle_root", "device", "network_def", "preprocessing", "inferer")
TRAINING = ("train#dataset#data", "train#handlers", "train#preprocessing", "train#key_metric")
TRAINING += ("validate#evaluator", "validate#dataset#data", "validate#handlers", "validate#key_metric", "val_interval")


def check(bundle: Path, schema: Path) -> None:
    metadata(bundle, schema)
    inference_without_data(bundle)
    loaded_and_exported_network(bundle)
    workflows(bundle)


def metadata(bundle: Path, schema: Path) -> None:
    configs = bundle / "configs"
    both = [str(configs / "metadata.json"), str(configs / "metadata_3d.json")]
    for overlays, files in (([], both[:1]), (["hippocampus"], both), (["brain"], both)):
        config = [str(configs / f"{name}.json") for name in ("inference", *overlays)]
        verify_net_in_out("network_def", meta_file=files, config_file=config, device="cpu", bundle_root=str(bundle))
        if schema.is_file():
            shutil.copy(schema, "schema.json")  # where it would be downloaded to
            verify_metadata(files, filepath="schema.json")


def inference_without_data(bundle: Path) -> None:
    for suffix in ("json", "yaml"):
        workflow = create_workflow(
            workflow_type="inference",
            bundle_root=str(bundle),
            config_file=str(bundle / "configs" / f"inference.{suffix}"),
            logging_file=str(bundle / "configs" / "logging.conf"),
            meta_file=str(bundle / "configs" / "metadata.json"),
        )
        assert workflow.check_properties() == []
        for name in MONAI_LABEL:
            workflow.add_property(name, True, name)
        assert workflow.check_properties() == []
        assert workflow.version == json.loads((bundle / "configs" / "metadata.json").read_text())["version"]


def loaded_and_exported_network(bundle: Path) -> None:
    network = load(bundle.name, bundle_dir=bundle.parent, workflow_type="inference", device="cpu")
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[key], value) for key, value in network.state_dict().items())
    assert type(network).__module__ == "scripts.networks.gradirn"
    assert Path(sys.modules["scripts"].BUNDLE_ROOT) == bundle
    ckpt_export(
        "network_def",
        filepath="model.ts",
        ckpt_file=str(bundle / "models" / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
    )
    torch.manual_seed(0)
    image = torch.rand(2, 2, 37, 44)
    with torch.inference_mode():
        torch.testing.assert_close(torch.jit.load("model.ts")(image), network.eval()(image), atol=1e-3, rtol=0)


def workflows(bundle: Path) -> None:
    """Train for two steps, evaluate what was trained, register with the shipped weights."""
    samples = bundle / "tests" / "data" / "sunnybrook"
    trained = {"max_epochs": 1, "samples_per_epoch": 2, "batch_size": 1, "val_pairs": 1, "output_dir": "trained"}
    measured = {"subset": "all", "weights": "trained/model.pt", "output_dir": "measured", "surfaces": False}
    listed = {"datalist": str(samples / "pairs.json"), "output_dir": "registered"}
    for name, kind, options in (
        ("train", "train", {"dataset_dir": str(samples), **trained}),
        ("evaluate", "evaluation", {"dataset_dir": str(samples), **measured}),
        ("inference", "inference", listed),
    ):
        workflow = ConfigWorkflow(str(bundle / "configs" / f"{name}.json"), workflow_type=kind, **options)
        workflow.initialize()
        torch.manual_seed(0)  # looking at the properties makes the network, before the run's own seed
        assert workflow.check_properties() == []
        assert all(key in workflow.parser for key in (TRAINING if name == "train" else ("output_dir", "handlers")))
        workflow.run()
        workflow.finalize()


if __name__ == "__main__":
    torch.set_num_threads(1)
    check(Path(sys.argv[1]), Path(sys.argv[2]))
