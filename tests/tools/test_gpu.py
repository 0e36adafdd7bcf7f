"""The training on one GPU, on the CPU with arrays of a few voxels: samples by hand, steps, continuation."""

import numpy as np
import pytest
import torch
from monai.transforms import ScaleIntensityRangePercentiles

from scripts.tools.gpu.pack import pack
from scripts.tools.gpu.samples import Sampler, majority, paint, scale_to_percentiles
from scripts.tools.gpu.tasks import Variation, read_config, task_names
from scripts.tools.gpu.train import GpuTraining

from ..conftest import SAMPLES

CPU = torch.device("cpu")
STILL = {"rotation": 0, "motion_rotation": 0, "shift": 0, "motion_shift": 0, "scale": 0, "elastic": 0, "motion": 0}
MUCH = Variation(30, 10, 2, 2, 0.1, 1.0, 1.0, flips=(0,))
IDS = torch.tensor([0, 2, 3, 10])  # background, white matter, cortex, thalamus


def generator(seed):
    return torch.Generator().manual_seed(seed)


def nested_balls(size, dims):
    """Positions 0 to 3 in ``IDS``, from the outside to the middle."""
    lattice = torch.meshgrid(*[torch.arange(size) - (size - 1) / 2] * dims, indexing="ij")
    radius = sum(x**2 for x in lattice).sqrt() / size
    return (radius < 0.45).to(torch.uint8) + (radius < 0.3).to(torch.uint8) + (radius < 0.15).to(torch.uint8)


def arrays(dims=3, frames=1, size=24, painted=False):
    """Three subjects; an image is brighter by a third of the range from one label to the next."""
    label = nested_balls(size, dims).expand(3, frames, *[size] * dims).clone()
    return {"label": label, "label_ids": IDS} | ({} if painted else {"image": label * 85})


@pytest.mark.parametrize(("dims", "frames"), [(2, 2), (3, 1)])
def test_the_samples_depend_on_the_generator_alone(dims, frames):
    samplers = [Sampler(arrays(dims, frames), MUCH if dims == 3 else Variation(**STILL), [-1] * dims, CPU)] * 2
    first, again, other = (s.draw(generator(n), 2) for s, n in zip([*samplers, samplers[0]], (1, 1, 2)))
    assert first["image"].shape == (2, 2, *[24] * dims)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["image"], other["image"])


@pytest.mark.parametrize(("dims", "frames"), [(2, 2), (3, 1)])
def test_labels_move_with_their_images(dims, frames):
    variation = Variation(30, 10, 2, 2, 0.1, 1.0, 1.0, gamma=(1, 1), flips=(0,))
    batch = Sampler(arrays(dims, frames), variation, [-1] * dims, CPU).draw(generator(0), 4)
    for channel, key in enumerate(("label_moving", "label_fixed")):
        image, label = batch["image"][:, channel], batch[key][:, 0]
        assert set(label.unique().tolist()) == set(IDS.tolist())
        # the middle of an image is its bright part, whatever bias field, blur and noise do to it
        assert ((image > 0.15) == (label > 0)).float().mean() > 0.95
        assert image[label == 10].mean() > image[label == 3].mean() > image[label == 2].mean() > 0.2
    moving, fixed = batch["label_moving"], batch["label_fixed"]
    assert 0.01 < (moving != fixed).float().mean() < 0.5, "the moving image has a motion of its own"


def explained(image, label):
    """Share of the variance of an image that is between the classes of a label map."""
    within = sum(((image[label == c] - image[label == c].mean()) ** 2).sum() for c in IDS.tolist())
    return 1 - within / ((image - image.mean()) ** 2).sum()


def test_a_painted_image_has_the_boundaries_of_its_labels():
    sampler = Sampler(arrays(size=48, painted=True), MUCH, [40, 40, 40], CPU)
    outside = []
    for seed in range(6):
        batch = sampler.draw(generator(seed), 2)
        assert batch["image"].shape == (2, 2, 20, 20, 20), "half of the size of the label maps"
        labels = torch.cat([batch["label_moving"], batch["label_fixed"]], 1)
        for image, label in zip(batch["image"].flatten(0, 1), labels.flatten(0, 1)):
            shifted = [label.roll(step, axis) for axis in range(3) for step in (-1, 1)]
            assert explained(image, label) > max(explained(image, other) for other in shifted)
            outside.append(((image > 0) == (label > 0)).float().mean())
    # three images in ten are blurred, which brightens the background next to the brain
    assert torch.stack(outside).median() > 0.98


def test_a_painted_background_is_exactly_zero_and_t1_has_the_order_of_its_tissues():
    label = nested_balls(32, 3)[None, None].long()
    image = paint(label, IDS, generator(0), t1=True)
    small = majority(label.to(torch.uint8))
    assert torch.all(image[small == 0] == 0)
    white, cortex = image[small == 1].mean(), image[small == 2].mean()
    assert white > cortex > 0


def test_the_majority_by_hand():
    block = torch.tensor([[[7, 1], [2, 2]], [[1, 2], [0, 2]]]).view(1, 1, 2, 2, 2)
    assert majority(block).tolist() == [[[[[2]]]]]  # four of eight
    tie = torch.tensor([[[5, 5], [3, 3]], [[3, 3], [5, 5]]]).view(1, 1, 2, 2, 2)
    assert majority(tie).item() == 5  # of equally many the first
    both = torch.cat([block, tie], 4)
    assert majority(both).flatten().tolist() == [2, 5]


def test_the_percentiles_are_those_of_the_preprocessing():
    image = torch.rand(2, 1, 101, 11, generator=generator(0))[:, :, :, :1].contiguous()  # 101: percentiles are values
    image[1] = 40 * image[1] - 3
    expected = torch.stack([ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True)(each) for each in image])
    torch.testing.assert_close(scale_to_percentiles(image), expected.as_tensor())


def small_config(task):
    config = read_config(task)
    config.update({"batch_size": 1, "crop_size": [-1, -1, -1], "initial_weights": None, "label_classes": [2, 3, 10]})
    return config


def packed(dims=3, frames=1, size=24, painted=False):
    one = arrays(dims, frames, size, painted)
    ids = one.pop("label_ids")
    return {f"{s}_{key}": value for s in ("train", "validation") for key, value in one.items()} | {"label_ids": ids}


@pytest.mark.parametrize(
    ("task", "form"), [("cardiac", {"dims": 2, "frames": 2, "size": 32}), ("hippocampus", {"size": 16})]
)
def test_a_training_runs_and_the_next_call_continues_it(tmp_path, task, form):
    def training():
        config = small_config(task)
        if task == "hippocampus":
            config["feature_classes"] = [[2], [3, 10]]
        return GpuTraining(config, packed(**form), tmp_path, CPU)

    first = training()
    start = {name: value.clone() for name, value in first.network.state_dict().items()}
    first.run(0.01)  # at least one step
    assert first.iteration >= 1
    assert any(not torch.equal(value, start[name]) for name, value in first.network.state_dict().items())
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "model.pt"}
    average = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(value, average[name]) for name, value in first.average.state_dict().items())

    second = training()
    assert second.iteration == first.iteration
    assert all(torch.equal(v, second.network.state_dict()[name]) for name, v in first.network.state_dict().items())
    second.run(0.01)
    assert second.iteration > first.iteration
    assert second.spent > first.spent
    measures = second.validate()
    assert measures.keys() == {"before", "after", "folds", "there_and_back"}
    assert measures["before"] == 1.0, "all subjects are equal"


def test_every_task_has_what_the_training_reads():
    assert task_names() == ["cardiac", "hippocampus", "brain"]
    for task in task_names():
        config = read_config(task)
        options = config.get_parsed_content("gpu")
        assert isinstance(options["variation"], Variation)
        assert {"features_first", "consistency_weight", "capture", "painted"} < options.keys()
    override = read_config("brain", [SAMPLES.parents[1] / "configs" / "published.yaml"])
    assert override["max_epochs"] == 500


def test_what_is_packed_are_the_preprocessed_images_and_positions_of_their_labels():
    config = read_config("hippocampus")
    config.update({"dataset_dir": str(SAMPLES / "hippocampus"), "validation": 1, "test": 0})
    packed = pack(config)
    assert packed["train_image"].shape == packed["train_label"].shape == (3, 1, 48, 64, 48)
    assert packed["validation_image"].shape == (1, 1, 48, 64, 48)
    assert packed["label_ids"].tolist() == [0, 1, 2]
    assert {packed[key].dtype for key in packed if key != "label_ids"} == {np.dtype(np.uint8)}
    assert packed["train_image"].max() == 255
    assert np.unique(packed["train_label"]).tolist() == [0, 1, 2]


def test_the_slices_of_two_frames_are_packed_together():
    config = read_config("cardiac")
    config.update({"dataset_dir": str(SAMPLES / "sunnybrook"), "validation": 1, "test": 0})
    config["spatial_size"] = [48, 40, -1]
    packed = pack(config)
    assert packed["train_image"].shape[1:] == (2, 48, 40)
    assert packed["train_label"].shape == packed["train_image"].shape
    assert not np.array_equal(packed["train_image"][:, 0], packed["train_image"][:, 1])
