"""Results of small registrations, and a browser to look at their report."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.results.measures import MeasurePair
from scripts.results.registered import RegisteredPair

from ..conftest import blobs

SHAPE = (16, 14, 12)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1360,1000"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a GPU
)


@pytest.fixture
def registered(save, tmp_path):
    """Write the result of a pair to a folder: the moving image is the fixed one, one voxel further along i."""

    def write(
        folder, verdict=None, score=None, reasons=(), names=None, stem="", alignment=None, outputs=None, **changes
    ):
        image = blobs(SHAPE)
        arrays = {"fixed": image, "moving": np.roll(image, 1, 0)}
        arrays |= {f"label_{key}": (values > 500).astype(np.uint8) for key, values in arrays.items()}
        files = {key: save(f"inputs/{stem}{key}.nii.gz", values) for key, values in arrays.items()}
        tensors = {key: MetaTensor(torch.from_numpy(values.astype(np.int32))[None]) for key, values in arrays.items()}
        data = {f"native_{key}": tensors[key].float() for key in ("fixed", "moving")}
        data |= {key: value for key, value in tensors.items() if key.startswith("label")}
        data["alignment"] = torch.eye(4, dtype=torch.float64) if alignment is None else alignment
        ddf = torch.zeros(3, *SHAPE)
        ddf[0] = 1
        pair = RegisteredPair(files, data, ddf, 3, MeasurePair(3))
        pair.save(folder, outputs=outputs, names=names)
        path = Path(folder) / "metrics.json"
        record = json.loads(path.read_text()) | changes
        del record["verdict"]
        if verdict:
            record["verdict"] = {"verdict": verdict, "score": score, "reasons": list(reasons)}
        path.write_text(json.dumps(record))
        return files

    return write


def add_error_map(folder, errors):
    """Write an error map beside the other results of a pair."""
    reference = nib.load(folder / "moving_warped.nii.gz")
    nib.save(nib.Nifti1Image(errors.astype(np.float32), reference.affine), folder / "error_mm.nii.gz")
    path = folder / "metrics.json"
    record = json.loads(path.read_text())
    record["outputs"].insert(0, "error_mm.nii.gz")
    path.write_text(json.dumps(record))


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium, which looks for nothing on the network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("chromium and chromedriver are not installed: the page was not opened")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield opened
    opened.quit()


@pytest.fixture
def visit(browser):
    """Open a file; afterwards, nothing may be in the console, and nothing but the file may have been asked for."""

    def go(path, place=""):
        browser.get("about:blank")
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(path.resolve().as_uri() + place)
        return browser

    yield go
    assert [entry for entry in browser.get_log("browser") if entry["source"] != "rendering"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked
    assert {address.partition(":")[0] for address in asked} <= {"file", "data", "about"}
