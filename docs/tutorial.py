# %% [markdown]
"""
# From a download to measured registrations

Carry the segmentation of a heart from end-systole to end-diastole, look at it, and measure how good it is. In the
root of the repository, run the cells one after the other in VS Code or Jupyter (with Jupytext), or all at once:

    python docs/tutorial.py

The tutorial uses the newest `dist/gradirn_v*.zip`, which `make release` builds, or the file that the environment
variable `GRADIRN_ZIP` names. It writes everything to a folder `tutorial`. `requirements.txt` lists the packages that
it needs.
"""

# %%
import json
import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import monai.bundle
import nibabel as nib
import SimpleITK as sitk
import torch

# %% [markdown]
# ## Download
#
# MONAI downloads the archive from any address, here from this disk, and unpacks it. It does not download an archive
# again, so remove the folder `tutorial` when there is a newer one. The configurations use code of the bundle;
# therefore its folder goes on Python's path.

# %%
archive = os.environ.get("GRADIRN_ZIP") or max(Path("dist").glob("gradirn_v*.zip"), key=os.path.getmtime, default="")
assert archive, "there is no dist/gradirn_v*.zip: expected what `make release` builds, or its path in GRADIRN_ZIP"
monai.bundle.download(name="gradirn", url=Path(archive).resolve().as_uri(), bundle_dir="tutorial")
bundle = Path("tutorial/gradirn").resolve()
sys.path.insert(0, str(bundle))
configs, samples = bundle / "configs", bundle / "tests" / "data"
from scripts import Registration

# %% [markdown]
# ## Register
#
# The fixed image is a stack of short-axis slices at end-diastole, the moving image the same heart at end-systole. On
# the command line, this is `python -m monai.bundle run --config_file .../inference.yaml --fixed ... --moving ...`.
# Your own images may differ in size, spacing and orientation, and may be nibabel images or MetaTensors in place of
# files. For whole brains and hippocampus crops, load `"brain"` or `"hippocampus"`.

# %%
heart = samples / "sunnybrook" / "SC-HYP-09"
fixed, label_fixed = heart / "SC-HYP-09_ED.nii.gz", heart / "SC-HYP-09_ED_gt.nii.gz"
moving, label_moving = heart / "SC-HYP-09_ES.nii.gz", heart / "SC-HYP-09_ES_gt.nii.gz"
register = Registration.load("cardiac")
result = register(fixed, moving, label_moving)
result.save("tutorial/pair", overwrite=True)
print(*sorted(path.name for path in Path("tutorial/pair").iterdir()), sep="\n")

# %% [markdown]
# ## Look at it
#
# The picture shows three slices: the fixed and the moving image, the warped moving image, the differences before and
# after, the deformed grid, and the Jacobian determinant. White is 1, blue is compressed, red expands; a fold would be
# magenta.

# %%
plt.figure(figsize=(16, 7))
plt.imshow(plt.imread("tutorial/pair/overview.png"))
plt.axis("off")
plt.show()
ncc, folding = result.metrics["ncc"], result.metrics["folding"]["whole_grid"]
print(f"correlation {ncc['before']:.3f} before, {ncc['after']:.3f} after")
print(f"folded: {folding['folding_percent']:.4f} %")

# %% [markdown]
# ## Carry labels
#
# `result.label_warped` is the left ventricle at end-systole, carried to end-diastole. An expert has drawn it there,
# too, so we can compare. ITK, ANTs and 3D Slicer read the displacement file, and can carry any other image or label
# of the moving heart. Here, SimpleITK carries the same label.


# %%
def dice(first: torch.Tensor, second: torch.Tensor) -> float:
    """Overlap of two masks, from 0 to 1."""
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def mask(path: Path | str) -> torch.Tensor:
    """The left ventricle in a label map."""
    return torch.from_numpy(nib.load(path).get_fdata()) == 1


print(f"Dice {dice(mask(label_moving), mask(label_fixed)):.3f} before")
print(f"Dice {dice(result.label_warped[0] == 1, mask(label_fixed)):.3f} after")

field = sitk.ReadImage("tutorial/pair/displacement.nii.gz", sitk.sitkVectorFloat64)
carried = sitk.Resample(
    sitk.ReadImage(str(label_moving)),
    sitk.ReadImage(str(fixed)),
    sitk.DisplacementFieldTransform(field),
    sitk.sitkNearestNeighbor,
)
sitk.WriteImage(carried, "tutorial/carried_by_itk.nii.gz")
print(f"Dice {dice(mask('tutorial/carried_by_itk.nii.gz'), mask(label_fixed)):.3f} by SimpleITK")

# %% [markdown]
# ## Evaluate
#
# Measure all subjects of a folder in a known layout, with distances between surfaces and the regularity of the
# displacements: `metrics.csv` has one row per pair, `summary.json` the means, and there are plots.

# %%
monai.bundle.run(
    config_file=str(configs / "evaluate.yaml"),
    dataset_dir=str(samples / "sunnybrook"),
    subset="all",
    output_dir="tutorial/measured",
)
measures = json.loads(Path("tutorial/measured/summary.json").read_text())["measures"]
for measure in ("dice.before.mean", "dice.after.mean", "folding.whole_grid.folding_percent"):
    print(f"{measure:40} {measures[measure]['mean']:.3f}")

# %% [markdown]
# ## The network alone
#
# For your own code: the input is one tensor with two images, first moving, then fixed, scaled to [0, 1]; the output
# is a displacement in voxels.

# %%
network = monai.bundle.load("gradirn", bundle_dir="tutorial", workflow_type="inference", device="cpu").eval()
with torch.inference_mode():
    displacement = network(torch.rand(1, 2, 96, 96))
print(tuple(displacement.shape))

# %% [markdown]
# `README.md` in the bundle says how to go on: training, other data, and every option.
