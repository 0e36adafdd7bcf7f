"""A MONAI Label server on the samples, for the tests of this folder."""

import gzip
import json
import os
import socket
import subprocess
import sys
import time

import nibabel as nib
import pytest

from scripts.label_app.samples import write_samples

from ..conftest import ROOT

requests = pytest.importorskip("requests", reason="a part of the environment of monailabel")


class Server:
    """A server on a free loopback port, and the requests that a viewer sends."""

    def __init__(self, folder, **environment):
        write_samples(folder)
        self.studies = folder / "studies"
        self.app = ROOT / "scripts" / "label_app"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        atlases = ",".join(str(folder / "atlases" / name) for name in ("brain", "hippocampus", "cardiac"))
        conf = {"atlases": atlases, "model_dir": folder / "model", "zoo_source": "local", "sam2": "false"}
        command = [
            sys.executable,
            "-m",
            "monailabel.main",
            "start_server",
            "--app",
            self.app,
            "--studies",
            self.studies,
        ]
        command += ["--host", "127.0.0.1", "--port", self.url.rpartition(":")[2]]
        for name, value in conf.items():
            command += ["--conf", name, value]
        self.log = folder / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **environment},
            )

    def wait(self, seconds=300):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                return requests.get(f"{self.url}/info/", timeout=60).json()
            except requests.ConnectionError:
                time.sleep(1)
        pytest.fail(f"the server did not answer:\n{self.log.read_text()[-3000:]}")

    def stop(self):
        self.process.terminate()
        self.process.wait(30)

    def infer(self, model, image, label=None, output="all", **params):
        """The NIfTI image and the parameters of the answer."""
        files = {"label": ("label.nii.gz", label)} if label else None
        answer = self.post(
            f"/infer/{model}?image={image}&output={output}", data={"params": json.dumps(params)}, files=files
        )
        assert answer.status_code == 200, answer.text
        parts = multipart(answer)
        return read(parts["image"]), json.loads(parts["params"])

    def post(self, path, **kwargs):
        return requests.post(self.url + path, timeout=600, **kwargs)

    def error(self, path, status=400, method="post", **kwargs):
        answer = requests.request(method, self.url + path, timeout=600, **kwargs)
        assert answer.status_code == status, (answer.status_code, answer.text)
        detail = answer.json()["detail"]
        assert "\n" not in detail
        return detail


def multipart(answer):
    """The fields of a multipart answer, by name."""
    from requests_toolbelt.multipart import decoder

    names = {}
    for part in decoder.MultipartDecoder.from_response(answer).parts:
        name = part.headers[b"Content-Disposition"].split(b'name="')[1].split(b'"')[0].decode()
        names[name] = part.content
    return names


def read(content):
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def to_bytes(image):
    return gzip.compress(image.to_bytes())
