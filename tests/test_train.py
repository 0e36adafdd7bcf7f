"""``train.yaml`` on the shipped samples: each overlay, what it leaves behind, continuation, several processes."""

import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .conftest import ROOT, SAMPLES, config_files, message_of

# the smallest training that does all there is to do
SMOKE = {"max_epochs": 2, "samples_per_epoch": 2, "batch_size": 1, "val_interval": 1, "val_pairs": 1}
SMALL_2D = {"dataset_dir": str(SAMPLES / "sunnybrook"), "spatial_size": [48, 40, -1], **SMOKE}
SMALL_3D = {
    "dataset_dir": str(SAMPLES / "hippocampus"),
    "spatial_size": [24, 24, 24],
    "validation": 2,
    "test": 0,
    **SMOKE,
}
BRAINS = {
    "dataset_dir": str(SAMPLES / "brain_synthetic"),
    "spatial_size": [24, 28, 24],
    "spacing": [8, 8, 8],
    "validation": 0,  # two subjects in all: they are for training and validation at once
    "test": 0,
    **SMOKE,
}


def cnn(channels):
    return {"network_def#regularizer": {"_target_": "scripts.networks.CNN", "channels": channels}}


STEPS = {
    "network_def#num_blocks": [1, 0],
    "network_def#num_repeats": [2, 0],
    **cnn(4),
    "network_def#step": {"_target_": "scripts.networks.Gradient"},
    "taus": 1.0,
}


def scalars(folder):
    events = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        accumulator = EventAccumulator(str(path)).Reload()
        events |= {tag: [e.value for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}
        events |= dict.fromkeys(accumulator.Tags()["images"], "image")
    return events


def weights(path):
    state = torch.load(path, weights_only=True)
    return state.get("network", state)


def test_what_a_training_leaves_behind(bundle, tmp_path):
    bundle("train", **SMALL_2D, output_dir=str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "model.pt", "tensorboard"}
    events = scalars(tmp_path)
    for tag in ("loss", "similarity", "regularization", "dice", "ncc", "folding_percent", "learning_rate"):
        assert len(events[tag]) == 2, tag
    assert {f"tau/level_{level}_block_0" for level in range(3)} <= set(events)
    assert {f"energy/step_{step}" for step in range(10)} <= set(events), "before the first step and after each of nine"
    assert events["registration"] == "image"
    # the cosine of two epochs, half way and at its end
    assert events["learning_rate"] == pytest.approx([0.001, 0], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["hippocampus"], {**SMALL_3D, "label_weight": 0.5, "step_decay": 0.5}),
        (["hippocampus", "voxelmorph"], SMALL_3D),
        (["voxelmorph"], SMALL_2D),
        (["published"], {**SMALL_2D, "regularization": "bending", "amp": "true", "device": "cpu"}),
        (["brain"], BRAINS),
        (["brain"], {**BRAINS, "synthesis": "true", "bias_correction": "true"}),
    ],
)
def test_every_overlay_trains_and_its_weights_are_evaluated(bundle, tmp_path, names, options):
    bundle("train", *names, **options, output_dir=str(tmp_path / "train"))
    grid = {key: options[key] for key in ("dataset_dir", "spatial_size", "spacing") if key in options}
    trained = str(tmp_path / "train" / "model.pt")
    bundle("evaluate", *names, **grid, subset="all", num_pairs=1, weights=trained, output_dir=str(tmp_path / "test"))
    assert (tmp_path / "test" / "metrics.csv").read_text().count("\n") == 2


@pytest.mark.slow
def test_t1_to_t2_of_a_miniature_camcan(bundle, tmp_path):
    for name in ("synthetic_19", "synthetic_20"):
        folder, source = tmp_path / "camcan" / name, SAMPLES / "brain_synthetic" / name
        folder.mkdir(parents=True)
        image = nib.load(source / "t1.nii.gz")
        values, label = image.get_fdata(dtype=np.float32), np.asarray(nib.load(source / "seg.nii.gz").dataobj)
        turned = np.where(values > 0, values.max() + 20 - values, 0)  # dark white matter, bright CSF
        tissues = np.select([np.isin(label, (4, 43)), np.isin(label, (2, 41)), label > 0], [1, 3, 4]).astype(np.uint8)
        for file, array in (("T1_brain", values), ("T2_brain", turned), ("T1_brain_MALPEM_tissues", tissues)):
            nib.save(nib.Nifti1Image(array, image.affine), folder / f"{file}.nii.gz")
    options = {**BRAINS, "dataset_dir": str(tmp_path / "camcan"), "label_classes": [1, 2, 3, 4, 5]}
    bundle("train", "brain", **options, moving_image="T2", loss_similarity="mind", output_dir=str(tmp_path / "train"))
    grid = {key: options[key] for key in ("dataset_dir", "spatial_size", "spacing")}
    trained = str(tmp_path / "train" / "model.pt")
    measured = {"subset": "all", "num_pairs": 1, "weights": trained, "output_dir": str(tmp_path / "test")}
    bundle("evaluate", "brain", **grid, moving_image="T2", **measured)
    header, row = (tmp_path / "test" / "metrics.csv").read_text().splitlines()
    values = dict(zip(header.split(","), row.split(",")))
    assert 0.3 < float(values["dice.after.WM"]) < 1
    # white matter is dark in one image and bright in the other
    assert float(values["ncc.before"]) < 0.5


def test_the_training_learns(bundle, tmp_path):
    options = {**SMALL_2D, "max_epochs": 6, "samples_per_epoch": 40, "batch_size": 4, "augmentation": "false"}
    options |= {"spatial_size": [96, 96, -1], "validation": 1, "test": 0, "learning_rate": 0.002}
    bundle("train", **options, output_dir=str(tmp_path), **cnn(8))
    events = scalars(tmp_path)
    assert events["similarity"][-1] < events["similarity"][0] - 0.02
    assert events["energy/step_9"][-1] < events["energy/step_0"][-1] - 0.02
    assert events["dice"][-1] > events["dice"][0]


def test_the_same_seed_gives_the_same_weights(bundle, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        bundle("train", **{**SMALL_2D, **STEPS, "seed": seed}, output_dir=str(tmp_path / name))
    a, b, c = (weights(tmp_path / name / "checkpoint.pt") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def start(folder, *options):
    """The real command, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", *config_files("train")]
    arguments = {**SMALL_2D, **STEPS, "max_epochs": 10, "samples_per_epoch": 24, "batch_size": 2, "output_dir": folder}
    command += [str(part) for name, value in arguments.items() for part in (f"--{name}", value)] + list(options)
    return subprocess.Popen(
        command,
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell lets what it starts in the background ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_epoch(process, folder, epoch):
    """Until that epoch is complete and the next one runs."""
    while process.poll() is None:
        if (folder / "checkpoint.pt").is_file():
            saved = torch.load(folder / "checkpoint.pt", weights_only=True)["trainer"]["iteration"] // 12
            if saved >= epoch:
                return
        time.sleep(0.02)
    raise AssertionError(process.communicate())


@pytest.mark.slow
def test_a_training_killed_twice_ends_at_the_same_weights(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 0
    process = start(killed)
    wait_for_epoch(process, killed, 2)
    process.kill()
    process.wait()
    process = start(killed, "--resume", "true")
    wait_for_epoch(process, killed, 4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in errors
    assert errors.rstrip().endswith("interrupted; the same command with --resume true continues.")
    process = start(killed, "--resume", "true")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "continuing after epoch" in errors
    for name in ("checkpoint.pt", "model.pt"):
        expected, found = weights(whole / name), weights(killed / name)
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def torchrun(folder, *options, processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    files = [f"'{path}'" for path in config_files("train", "multi_gpu_train")]
    command += ["-m", "monai.bundle", "run", "--config_file", f"[{','.join(files)}]", *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def as_arguments(options):
    return [part for name, value in options.items() for part in (f"--{name}", value)]


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(bundle, tmp_path):
    options = {**SMALL_2D, **STEPS, "samples_per_epoch": 8, "step_decay": 0.5}
    process = torchrun(tmp_path, *as_arguments({**options, "batch_size": 2, "output_dir": tmp_path / "two"}))
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    bundle("train", **{**options, "batch_size": 4}, output_dir=str(tmp_path / "one"))
    one, two = scalars(tmp_path / "one"), scalars(tmp_path / "two")
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert two["dice"] == pytest.approx(one["dice"], abs=1e-3)
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == len(
        list((tmp_path / "one" / "tensorboard").iterdir())
    ), "only the first process writes"


@pytest.mark.slow
def test_when_one_process_is_killed_all_end(tmp_path):
    options = {**SMALL_2D, **STEPS, "max_epochs": 500, "samples_per_epoch": 24, "output_dir": tmp_path / "out"}
    process = torchrun(tmp_path, *as_arguments(options))
    while not (tmp_path / "out" / "checkpoint.pt").is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    workers = children_of(process.pid)
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)


def children_of(pid):
    return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]


def test_bad_input_ends_in_one_line(bundle, tmp_path):
    cases = {
        "--dataset_dir is missing": {"dataset_dir": None},
        "is not a folder": {"dataset_dir": str(tmp_path / "none")},
        "unknown layout 'bids'": {"layout": "bids"},
        "fits no known layout": {"dataset_dir": str(ROOT / "docs")},
        "train_limit is 0": {"train_limit": 0},
        "unknown loss similarity 'mi'": {"loss_similarity": "mi"},
        "unknown similarity 'mi'": {"network_def#step": {"_target_": "scripts.networks.Gradient", "similarity": "mi"}},
        "--resume is 'maybe'": {"resume": "maybe"},
        "weights: ": {"initial_weights": str(tmp_path / "none.pt")},
        "no subject has the image T1": {"fixed_image": "T1"},
        "no subject is left for train": {"validation": 2},
    }
    for expected, options in cases.items():
        message = message_of(
            lambda options=options: bundle("train", **{**SMALL_2D, **options}, output_dir=str(tmp_path / "out"))
        )
        assert expected in message, message
        assert not (tmp_path / "out" / "checkpoint.pt").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is present")
def test_half_precision_on_a_gpu(bundle, tmp_path):
    bundle("train", **{**SMALL_2D, "label_weight": 0.5, "step_decay": 0.5}, output_dir=str(tmp_path))
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "model.pt").values())


def test_a_loss_on_every_step_needs_steps(bundle, tmp_path):
    options = {**SMALL_2D, "step_decay": 0.5, "output_dir": str(tmp_path)}
    assert "needs a network with steps, got VoxelMorph" in message_of(lambda: bundle("train", "voxelmorph", **options))


@pytest.mark.parametrize("names", [["train"], ["train", "evaluate"], ["train", "hippocampus"], ["train", "brain"]])
def test_every_property_of_a_training_bundle_is_there(names, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    workflow = ConfigWorkflow(
        config_file=config_files(*names),
        workflow_type="train",
        logging_file=False,
        dataset_dir=str(SAMPLES / ("hippocampus" if "hippocampus" in names else "sunnybrook")),
        validation=2 if "hippocampus" in names else 1,
        output_dir=str(tmp_path / "out"),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.max_epochs == 200
