"""One registration as an object: its stages by hand, the tasks by name, images in memory, and its files."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage
from scipy.ndimage import zoom

from scripts import InputError, Registration
from scripts.deformation.formats import ddf_to_itk
from scripts.registration.inferer import RegistrationInferer
from scripts.results.names import USUAL

from ..conftest import ROOT, Shift, load_json, meta, ramp

IDENTITY = torch.eye(4, dtype=torch.float64)


def read_pair(**changes):
    return {"native_fixed": meta(ramp()), "native_moving": meta(ramp()), "alignment": IDENTITY, **changes}


def along_the_first_axis(image):
    return image[0, :, 0, 0].tolist()


def registration(voxels=0.0):
    return Registration(Shift((voxels, 0, 0)), dict, RegistrationInferer(3))


def test_the_alignment_alone_is_the_state_before():
    alignment = IDENTITY.clone()
    alignment[0, 3] = 1.0
    data = read_pair(fixed=meta(ramp()), alignment=alignment, image=torch.zeros(2, 6, 4, 3))
    pair = registration().register({}, data)
    assert pair.ddf[:, 2, 2, 1].tolist() == [1, 0, 0]
    assert along_the_first_axis(pair.resampled) == [2, 3, 4, 5, 6, 1]  # outside is the minimum
    torch.testing.assert_close(pair.warped, pair.resampled)


def test_the_ddf_is_carried_from_the_networks_grid_to_the_fixed_one():
    # one voxel of 2 mm, flipped, is -2 voxels of 1 mm
    grid = meta(torch.zeros(3, 2, 2), shift=4.0, spacing=2.0)
    grid.affine[0, 0] = -2.0
    pair = registration(1.0).register({}, read_pair(fixed=grid, image=torch.rand(2, 3, 2, 2)))
    assert pair.ddf[:, 2, 2, 1].tolist() == [-2, 0, 0]
    assert set(pair.seconds) == {"network", "native_grid"}


def test_a_file_takes_the_place_of_the_network(tmp_path):
    field = np.zeros((3, 6, 4, 3), np.float32)
    field[0] = 1.5
    files = {}
    for key, factor in (("displacement", 1), ("true_displacement", 2)):
        image = ddf_to_itk(factor * field, nib.Nifti1Image(np.zeros((6, 4, 3), np.float32), np.eye(4)))
        files[key] = str(tmp_path / f"{key}.nii.gz")
        nib.save(image, files[key])
    pair = registration(100.0).register(files, read_pair())
    assert pair.ddf[:, 3, 2, 1].tolist() == [1.5, 0, 0]
    assert pair.true_ddf[:, 3, 2, 1].tolist() == [3, 0, 0]
    assert registration().register({"displacement": files["displacement"]}, read_pair()).true_ddf is None


def test_a_network_in_training_is_in_training_again_afterwards():
    register = registration()
    assert register.network.training
    assert not register.predict(torch.zeros(2, 6, 4, 3)).requires_grad
    assert register.network.training


def test_a_displacement_that_is_not_finite_is_an_error():
    with pytest.raises(InputError, match="not finite: expected weights that fit"):
        registration(float("nan")).predict(torch.rand(2, 6, 4, 3))


def test_the_fill_is_an_option_that_changes_the_results():
    filled = [Registration(Shift((3.0, 0, 0)), dict, RegistrationInferer(3), fill=fill) for fill in (None, -1000, 7)]
    data = read_pair(fixed=meta(ramp()), image=torch.rand(2, 6, 4, 3))
    warped = [along_the_first_axis(register.register({}, data).warped) for register in filled]
    assert warped == [[4, 5, 6, 1, 1, 1], [4, 5, 6, -1000, -1000, -1000], [4, 5, 6, 7, 7, 7]]
    assert len({register.settings for register in filled}) == 3
    with pytest.raises(InputError, match="--fill is 'air': expected a number"):
        Registration.load("cardiac", fill="air")


def test_a_displacement_larger_than_the_image_is_an_error():
    image = meta(ramp((12, 4, 3)))
    data = {"native_fixed": image, "native_moving": image, "fixed": image, "alignment": IDENTITY}
    data["image"] = torch.rand(2, 12, 4, 3)
    assert registration(11.9).register({}, data).ddf[0].max() == pytest.approx(11.9)
    with pytest.raises(
        InputError, match="the image in memory: the network gave a displacement of 13.5 voxels along an axis of 12"
    ):
        registration(13.5).register({}, data)


@pytest.mark.parametrize("constant", ["fixed", "moving"])
@pytest.mark.parametrize("alignment", ["world", "affine"])
def test_an_image_of_one_intensity_does_not_move(samples, tmp_path, constant, alignment):
    files = crops(samples, second=327)
    shape = nib.load(files["fixed"]).shape
    files[constant] = nib.Nifti1Image(np.full(shape, 7.0, np.float32), nib.load(files["fixed"]).affine)
    result = Registration.load("hippocampus", alignment=alignment)(**files)
    assert (result.ddf == 0).all()
    result.save(tmp_path)
    warnings = load_json(tmp_path / "metrics.json")["warnings"]
    assert warnings == [f"{constant}: the image in memory is constant where it is registered: nothing moves."]
    assert torch.equal(result.label_warped, result.label_moving.float())


def crops(samples, first=327, second=341):
    folders = [samples / "hippocampus" / f"hippocampus_{number}" for number in (first, second)]
    return {
        **{key: str(folder / "t1.nii.gz") for key, folder in zip(("fixed", "moving"), folders)},
        **{f"label_{key}": str(folder / "seg.nii.gz") for key, folder in zip(("fixed", "moving"), folders)},
    }


def heart(samples):
    path = samples / "sunnybrook" / "SC-N-10" / "SC-N-10"
    images = {"fixed": f"{path}_ED.nii.gz", "moving": f"{path}_ES.nii.gz"}
    return {**images, "label_fixed": f"{path}_ED_gt.nii.gz", "label_moving": f"{path}_ES_gt.nii.gz"}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cardiac", "hippocampus"])
def test_saving_writes_the_files_of_the_command_byte_for_byte(infer, samples, tmp_path, task):
    files = heart(samples) if task == "cardiac" else crops(samples)
    infer(*([] if task == "cardiac" else [task]), **files, output_dir=str(tmp_path / "command"))
    result = Registration.load(task)(**files)
    result.save(tmp_path / "python")
    aligned = task == "hippocampus"  # by default
    assert (tmp_path / "python" / "alignment.mat").exists() == aligned
    for name in {*USUAL[:-1]} - ({"alignment.mat"} if not aligned else set()):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name
    written, expected = (load_json(tmp_path / folder / "metrics.json") for folder in ("python", "command"))
    assert list(written.pop("seconds")) == list(expected.pop("seconds"))
    assert json.dumps(written) == json.dumps(expected)
    assert result.metrics["dice"] == expected["dice"]
    with pytest.raises(InputError, match="holds the result of a registration"):
        result.save(tmp_path / "python")


@pytest.mark.slow
def test_paths_nibabel_images_and_metatensors_give_the_same(samples, tmp_path):
    files = crops(samples)
    register = Registration.load([ROOT / "configs" / "inference.yaml", ROOT / "configs" / "hippocampus.yaml"])
    results = [
        register(**files),
        register(**{key: nib.load(path) for key, path in files.items()}),
        register(**{key: LoadImage(ensure_channel_first=True)(path) for key, path in files.items()}),
    ]
    for result in results[1:]:
        assert torch.equal(result.ddf.as_tensor(), results[0].ddf.as_tensor())
        assert torch.equal(result.label_warped.as_tensor(), results[0].label_warped.as_tensor())
        assert result.metrics == results[0].metrics
    results[2].save(tmp_path)
    saved, expected = nib.load(tmp_path / "moving_warped.nii.gz"), results[0].warped
    np.testing.assert_array_equal(saved.get_fdata(), expected[0].numpy())
    np.testing.assert_allclose(saved.affine, expected.affine)
    assert load_json(tmp_path / "metrics.json")["files"] == {}


def test_a_single_slice_in_memory(samples):
    images = {key: nib.load(path).slicer[..., 5:6] for key, path in heart(samples).items()}
    flat = {key: nib.Nifti1Image(np.asarray(image.dataobj)[..., 0], image.affine) for key, image in images.items()}
    result = Registration.load("cardiac")(**flat)
    assert result.warped.shape == (1, *flat["fixed"].shape, 1)
    assert result.metrics["dice"]["after"]["1"] > result.metrics["dice"]["before"]["1"]


def test_options_of_the_configuration(samples, caplog):
    files = {key: crops(samples)[key] for key in ("fixed", "moving")}
    with caplog.at_level("WARNING", "scripts"):
        Registration.load("hippocampus", device="cpu", memory_limit=0.01, alignment="world")(**files)
    assert "registered at half the resolution" in caplog.text
    whole, half = (Registration.load("hippocampus", amp=amp)(**files).ddf for amp in (False, True))
    assert 0 < (whole - half).norm(dim=0).mean() < 0.1


@pytest.mark.slow
def test_brains_of_one_millimetre_are_registered_at_one_millimetre(samples, tmp_path):
    files = {}
    for key, name in (("fixed", "19/t1"), ("moving", "20/t1"), ("label_fixed", "19/seg"), ("label_moving", "20/seg")):
        image = nib.load(samples / "brain_synthetic" / f"synthetic_{name}.nii.gz")
        order = 0 if "seg" in name else 1
        fine = zoom(np.asanyarray(image.dataobj).astype(np.float32), 2, order=order, grid_mode=True, mode="nearest")
        affine = image.affine @ np.diag([0.5, 0.5, 0.5, 1])
        affine[:3, 3] -= image.affine[:3, :3] @ np.full(3, 0.25)
        files[key] = str(tmp_path / f"{key}.nii.gz")
        nib.save(nib.Nifti1Image(fine.astype(np.uint8 if order == 0 else np.float32), affine), files[key])
    register = Registration.load("brain", device="cpu", alignment="world")
    data = register.preprocessing(files)
    assert data["image"].shape == (2, 191, 223, 191)
    fine = register.register(files, data)
    coarse = Registration.load("brain", device="cpu", alignment="world", spacing=[2, 2, 2])(**files)
    # labels of 2 mm, so that 1 mm cannot gain much; the two displacements must tell of the same anatomy
    assert fine.metrics["dice"]["after"]["mean"] > coarse.metrics["dice"]["after"]["mean"] - 0.002
    assert 0 < (fine.ddf - coarse.ddf).norm(dim=0).mean() < 0.5
    assert fine.metrics["folding"]["whole_grid"]["folding_percent"] < 0.01
    small = Registration.load("brain", device="cpu", alignment="world", memory_limit=1.4)(**files)
    assert any("registered at half the resolution, (96, 112, 96)" in text for text in small.warnings)
    # only the percentiles of the intensities differ
    assert (small.ddf - coarse.ddf).norm(dim=0).mean() < 0.02 < (fine.ddf - coarse.ddf).norm(dim=0).mean()


def test_what_cannot_be_loaded_or_registered_is_named(samples):
    for call, message in (
        (lambda: Registration.load("liver"), "unknown task 'liver': expected one of cardiac, hippocampus, brain"),
        (lambda: Registration.load(["none.yaml"]), "none.yaml does not exist"),
        (lambda: Registration.load("brain", aligment="affine"), r"unknown option aligment: did you mean alignment\?"),
        (lambda: Registration.load("cardiac", weights="$none.pt"), r"weights: \$none.pt does not exist"),
        (lambda: Registration.load("brain", alignment="nowhere"), "unknown alignment 'nowhere'"),
        (lambda: Registration.load("cardiac", spacing="auto"), "--spacing is 'auto': expected mm along each axis"),
        (lambda: Registration.classical(4), "spatial_dims must be 2 or 3, got 4"),
        (lambda: Registration.classical(3, "mi"), "unknown similarity 'mi'"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    register = Registration.classical(3)
    path = crops(samples)["fixed"]
    for image, found in (
        (np.zeros((8, 8, 8)), "moving is a ndarray: expected a path, a nibabel image, or a MetaTensor"),
        (torch.zeros(1, 8, 8, 8), r"moving is a Tensor of shape \(1, 8, 8, 8\): expected"),
        (meta(torch.zeros(8, 8, 8))[0], r"moving is a MetaTensor of shape \(8, 8, 8\): expected"),
    ):
        with pytest.raises(InputError, match=found):
            register(path, image)


@pytest.mark.parametrize(("similarity", "gain"), [("lncc", 0.15), ("ssd", 0.15), ("ncc", 0.15)])
def test_without_weights_the_steps_alone_register(samples, similarity, gain):
    register = Registration.classical(3, similarity, alignment="centers")
    metrics = register(**crops(samples)).metrics
    assert metrics["dice"]["after"]["mean"] > metrics["dice"]["before"]["mean"] + gain
    assert metrics["folding"]["whole_grid"]["folding_percent"] < 0.1


def test_without_weights_a_stack_is_registered_slice_by_slice(samples):
    result = Registration.classical(2)(**heart(samples))
    assert (result.ddf[2] == 0).all()
    assert result.metrics["dice"]["after"]["mean"] > result.metrics["dice"]["before"]["mean"] + 0.2
    assert "weights" not in result.metrics
    assert Registration.classical(2).weights is None


WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ignite", "matplotlib", "tensorboard", "SimpleITK"}:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Blocked())
from scripts import RegisterImaged, Registration
"""


def run(code):
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return child.stdout


@pytest.mark.slow
def test_it_needs_no_engine_and_draws_no_picture_until_it_saves(samples):
    """Registered where ignite and matplotlib are not installed, with no module of the training."""
    files = {key: crops(samples)[key] for key in ("fixed", "moving")}
    code = f"""{WITHOUT}
result = Registration.load("hippocampus")(**{files!r})
print(result.metrics["ncc"]["after"] > result.metrics["ncc"]["before"])
print(*sorted(name for name in sys.modules if name.startswith("scripts.")))
"""
    better, modules = run(code).splitlines()[-2:]
    assert better == "True"
    assert "scripts.registration.pair" in modules.split()
    for name in ("scripts.training", "scripts.registration.evaluator", "scripts.label_app", "scripts.tools"):
        assert not any(module.startswith(name) for module in modules.split())


def test_the_public_names_import_no_engine_no_plot_and_no_training_and_take_little_time():
    """MONAI imports ignite and matplotlib where they are installed, but nothing here needs them."""
    code = """
import sys, time
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ignite", "matplotlib", "tensorboard"}:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Blocked())
import monai.transforms, nibabel, PIL.ImageFont, scipy.ndimage, SimpleITK, torch
start = time.process_time()
from scripts import RegisterImaged, Registration
print(time.process_time() - start)
print(*sys.modules)
"""
    for _ in range(3):  # on a busy machine, the same import takes up to 1.5 times as long
        seconds, modules = run(code).splitlines()[-2:]
        if float(seconds) < 0.3:
            break
    assert float(seconds) < 0.3
    names = modules.split()
    assert "scripts.registration.pair" in names
    assert not {"ignite", "matplotlib", "tensorboard", "torch._dynamo"} & {*names}
    for name in ("scripts.training", "scripts.registration.evaluator", "scripts.label_app", "scripts.tools"):
        assert not any(module.startswith(name) for module in names)


def test_the_package_itself_imports_next_to_nothing():
    code = "import sys, scripts; print(scripts.BUNDLE_ROOT, scripts.InputError); print('torch' in sys.modules)"
    assert run(code).splitlines()[-1] == "False"
    import scripts

    assert all(getattr(scripts, name) for name in scripts.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        scripts.Nothing  # noqa: B018
