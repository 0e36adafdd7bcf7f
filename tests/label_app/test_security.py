"""Hostile clients: nothing outside of the studies is written, read or executed, and every refusal is one line.

Needs the environment of ``make label-server``; ``make test`` skips it.
"""

import hashlib
import http.client
import io
import json
import tarfile
import time
import zipfile
from pathlib import Path
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest

from ..conftest import ROOT, SAMPLES

pytest.importorskip("monailabel", reason="monailabel has an environment of its own: make test-label")
import requests
from fastapi.routing import APIRoute
from monailabel.client import MONAILabelClient
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

from .server import to_bytes

pytestmark = pytest.mark.slow

IMAGE = "SC-N-10_ED"
HEART = SAMPLES / "sunnybrook" / "SC-N-10"
VOLUME = (HEART / f"{IMAGE}.nii.gz").read_bytes()
LABEL = (HEART / f"{IMAGE}_gt.nii.gz").read_bytes()


class Opened(FileSystemEventHandler):
    """Notes which files of a folder are opened, changed or made."""

    def __init__(self):
        self.files = set()

    def on_any_event(self, event):
        self.files.add(f"{event.event_type} {event.src_path}")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """A folder of files that no request may read, run or change; what is run leaves a mark there."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "canary.nii.gz").write_bytes(VOLUME)
    (folder / "sitecustomize.py").write_text(f"open({str(folder / 'ran')!r}, 'w').write('ran')\n")
    (folder / "meta.info").write_text(json.dumps({"image": str(folder / "canary.nii.gz"), "path": str(folder)}))
    return folder


@pytest.fixture(autouse=True)
def untouched(server, secrets):
    """Fails where a test lets the server touch a secret, or leave anything outside of the studies or among them."""
    folders = (server.studies.parent, secrets, ROOT / "scripts", ROOT / "models")
    before, opened, observer = contents(*folders), Opened(), Observer()
    observer.schedule(opened, str(secrets), recursive=True)
    observer.start()
    yield
    observer.stop()
    observer.join()
    assert not opened.files
    assert before ^ contents(*folders) == set()
    assert server.process.poll() is None


def contents(*folders):
    """The files below these folders with their checksums; without logs, and what the server itself writes down."""
    skipped = {"logs", "__pycache__", "server.log", "dataset.zip", "datastore_v2.json", ".lock"}
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if not skipped.intersection(path.parts)]
    return {(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in kept}


def problem_of(answer):
    """What is wrong with the answer to a hostile request: 2xx, or 4xx with one line that says why, is right."""
    what = f"{answer.request.method} {answer.request.url[:150]} {str(answer.request.body)[:150]}: {answer.status_code}"
    if answer.status_code < (500 if answer.request.method == "HEAD" else 400):
        return []
    try:
        detail = answer.json()["detail"]
    except ValueError:
        detail = None
    line = isinstance(detail, str) and 0 < len(detail) < 1000 and "\n" not in detail
    return [] if answer.status_code < 500 and line else [f"{what} {answer.text[:300]}"]


def assert_refused(answer, text=""):
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert not problem_of(answer), problem_of(answer)
    assert text in answer.json()["detail"], answer.text


def operations():
    """Every method and path that MONAI Label has, also those that its list hides, with their parts in that list."""
    import monailabel.endpoints as endpoints
    from monailabel.app import app

    listed = {
        (method, path): operation
        for path, entry in app.openapi()["paths"].items()
        for method, operation in entry.items()
    }
    routers = [app, *(module.router for module in vars(endpoints).values() if hasattr(module, "router"))]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    hidden = {(method.lower(), route.path): {} for route in routes for method in route.methods}
    assert len(listed) > 30
    assert len(hidden) > len(listed)
    return {**hidden, **listed}


def offered(server):
    """The methods and paths in the list of this server."""
    paths = requests.get(f"{server.url}/openapi.json", timeout=60).json()["paths"]
    return {(method, path) for path, entry in paths.items() for method in entry}


def address_of(path, values):
    """A path with values in place of its parameters."""
    usual = {"model": "frame_propagation", "strategy": "random", "method": "dice", "session_id": "x", "path": "x"}
    for name, value in {**usual, **values}.items():
        path = path.replace(f"{{{name}:path}}", f"{{{name}}}").replace(f"{{{name}}}", quote(value, safe=""))
    return path


def hostile_texts(secrets):
    """Values for any place that takes text."""
    path, mark = str(secrets / "canary.nii.gz"), secrets / "ran"
    return [
        *(path, "../" * 12 + path.lstrip("/"), f"{path}\0.nii.gz", "..", "%2e%2e%2f", "\0", "a\nb", "x" * 5000),
        *(f"$(touch {mark})", f"$open({str(mark)!r}, 'w')", "@model", "{{7*7}}", "-1", "NaN", "9" * 400),
    ]


def test_every_endpoint_takes_hostile_addresses(server, secrets):
    usual = {"image": IMAGE, "label": IMAGE, "id": "nobody", "tag": "final"}
    session, problems, known = requests.Session(), [], offered(server)
    for (method, path), operation in operations().items():
        queries = [entry["name"] for entry in operation.get("parameters", []) if entry["in"] == "query"]
        names = [name for name in ("model", "strategy", "method", "session_id", "path") if f"{{{name}" in path]
        values = hostile_texts(secrets)
        for name in {*queries, *names}:
            for value in values if (method, path) in known else values[:3]:
                query = {key: usual.get(key, "") for key in queries if key in usual} | {name: value}
                address = address_of(path, {name: value})
                answer = session.request(
                    method, server.url + address, params=query if name in queries else None, json={"x": 1}, timeout=60
                )
                problems += problem_of(answer)
    assert not problems, "\n".join(problems[:20])
    assert requests.get(f"{server.url}/train/", timeout=60).status_code == 404  # nothing was started


@pytest.mark.parametrize("path", ["/session/..", "/session/../x", "/static/../../main.py", "//etc/passwd", "/ohif/.."])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_addresses_that_clients_tidy_up(server, method, path):
    connection = http.client.HTTPConnection(server.url.partition("//")[2], timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    assert 400 <= answer.status < 500
    assert "\n" not in json.loads(answer.read())["detail"]


def hostile_objects(secrets):
    """JSON for any place that takes an object: what must be refused everywhere, and options of no task."""
    path, deep = json.dumps(str(secrets / "canary.nii.gz")), "[" * 5000 + "]" * 5000
    broken = ["NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud800"', '"\\u0000"', deep, "[" * 50 + "]" * 50]
    keys = (
        "bundle_path",
        "PYTHONPATH",
        "conda",
        "image",
        "label",
        "model",
        "path",
        "gpus",
        "device",
        "session",
        "name",
    )
    refused = [
        *("{", "\0", "[]", "[1]", "1", path, "true", *broken, " " * 200_000 + "{}"),
        *(f'{{"client_id": {value}}}' for value in broken),
        f'{{"client_id": "{"x" * 200_000}"}}',
    ]
    return refused, [f'{{"{key}": {value}}}' for key in keys for value in (path, '{"a": 1}')]


def test_every_endpoint_takes_hostile_objects(server, secrets):
    session, problems = requests.Session(), []
    refused, options = hostile_objects(secrets)
    for (method, path), operation in operations().items():
        kinds = operation.get("requestBody", {}).get("content", {})
        address = server.url + address_of(path, {})
        query = {"image": "hostile" if path == "/datastore/image" else IMAGE, "label": IMAGE, "tag": "hostile"}
        part = {"/datastore/label": "label", "/session/": "files"}.get(path, "file")
        for value in [*refused, *options] if kinds else []:
            if "application/json" in kinds:
                body = {"data": value, "headers": {"Content-Type": "application/json"}}
            else:
                field = "info" if "/info" in path else "params"
                body = {"files": {field: (None, value), part: ("x.nii.gz", b"no image")}}
            answer = session.request(method, address, params=query, timeout=60, **body)
            problems += problem_of(answer)
            problems += [f"accepted at {path}: {value[:100]}"] if answer.ok and value in refused else []
            if answer.ok and path == "/session/":
                session.delete(f"{server.url}/session/{answer.json()['session_id']}", timeout=60)
    assert not problems, "\n".join(problems[:20])
    assert requests.get(f"{server.url}/train/", timeout=60).status_code == 404  # nothing was started
    for path in ("label?id=SC-N-10_ED&tag=hostile", "image?id=hostile"):
        assert requests.delete(f"{server.url}/datastore/{path}", timeout=60).status_code == 200


def test_a_client_cannot_run_code(server, secrets):
    """The way through 0.7.0: Python code as an image, and its folder on the path of a training's process."""
    code = b"print('hello')"
    for name in ("sitecustomize", "sitecustomize.py", "usercustomize"):
        for file in ("x.py", "x.nii.gz.py", "x.nii.gz\n.py", "x", ".py", "x.pth", "x.so", "x.NII.GZ.sh"):
            answer = requests.put(
                f"{server.url}/datastore/image?image={name}", files={"file": (file, code)}, timeout=60
            )
            assert_refused(answer)
    label = {"label": ("x.py", code)}
    assert_refused(requests.put(f"{server.url}/datastore/label?image={IMAGE}", files=label, timeout=60), "a NIfTI file")
    folders = (str(server.studies), str(secrets))
    for key in ("bundle_path", "PYTHONPATH", "conda", "env", "app_dir", "local_rank"):
        for path in ("train/frame_propagation", "batch/infer/frame_propagation", "activelearning/random", "train/x"):
            for folder in folders:
                options = {key: folder, "client_id": "x"}
                assert_refused(requests.post(f"{server.url}/{path}", json=options, timeout=60))
        both = {"frame_propagation": {key: folders[0]}}
        assert_refused(requests.post(f"{server.url}/train/", json=both, timeout=60), f"no option '{key}'")
    for path in ("scoring/dice", "scoring/", "model/frame_propagation", "reload"):
        assert_refused(requests.post(f"{server.url}/{path}", json={"bundle_path": folders[0]}, timeout=60))
    for task in ("train/", "batch/infer", "scoring/"):
        assert requests.get(f"{server.url}/{task}", timeout=60).status_code == 404  # none was started


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_epochs", 0),
        ("max_epochs", 10**9),
        ("max_epochs", True),
        ("max_epochs", 2.5),
        ("max_epochs", "$1"),
        ("max_epochs", [1]),
        ("samples_per_epoch", -1),
        ("learning_rate", "1e309"),
        ("learning_rate", "nan"),
        ("learning_rate", 10),
        ("seed", -1),
        ("seed", {"$": "x"}),
        ("use_labels", "$True"),
        ("images", ["SC-N-10_ED"]),
        ("gpus", "0"),
        ("device", "cuda; ls"),
        ("logging", "x"),
    ],
)
def test_options_of_a_training_have_types_and_ranges(server, option, value):
    answer = requests.post(f"{server.url}/train/frame_propagation", json={option: value}, timeout=60)
    assert_refused(answer, f"{option} is ")


def test_the_server_does_not_wait_for_a_task(server):
    for path in ("train/frame_propagation", "batch/infer/frame_propagation"):
        assert_refused(requests.post(f"{server.url}/{path}?run_sync=true", json={}, timeout=60), "in the background")


def test_what_is_checked_is_what_is_read(server):
    """MONAI Label reads the last of several parts or parameters of one name."""
    good, bad = {"client_id": "x"}, {"save_label": True, "label_tag": "../../x"}
    for first, second in ((good, bad), (bad, good)):
        for names in (("params", "params"), ("params", "info"), ("info", "params")):
            parts = [(name, (None, json.dumps(value))) for name, value in zip(names, (first, second))]
            answer = server.post("/infer/frame_propagation?image=SC-N-10_ES", files=parts)
            assert_refused(answer, "2 times")
    label = {"label": ("x.nii.gz", LABEL)}
    for query in (f"image={IMAGE}&tag=x&tag=../../x", f"image={IMAGE}&image=../x", f"tag=..&image={IMAGE}&tag=%2e%2e"):
        assert_refused(requests.put(f"{server.url}/datastore/label?{query}", files=label, timeout=60))
    twice = '{"client_id": "x", "bundle_path": "/x", "bundle_path": null}'
    headers = {"Content-Type": "application/json"}
    for body in (twice, twice.encode("utf-16"), twice.encode("utf-32")):
        answer = requests.post(f"{server.url}/train/frame_propagation", data=body, headers=headers, timeout=60)
        assert_refused(answer, "no option 'bundle_path'")


def archives(target):
    """Archives with a member outside of the folder that they are unpacked into."""
    packed, zipped = io.BytesIO(), io.BytesIO()
    name = "../" * 12 + str(target).lstrip("/")
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"mark"))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr(name, "mark")
    return {"x.tar.gz": packed.getvalue(), "x.zip": zipped.getvalue(), "x.nii.gz": packed.getvalue()}


def test_a_session_is_one_image(server, secrets):
    url, image = f"{server.url}/session/", ("x.nii.gz", VOLUME)
    for name, content in archives(secrets / "slipped").items():
        for unpack in ("true", "1", "yes"):
            answer = requests.put(f"{url}?uncompress={unpack}", files={"files": (name, content)}, timeout=60)
            assert_refused(answer)
    assert_refused(requests.put(f"{url}?uncompress=true", files={"files": image}, timeout=60), "not unpacked")
    for names in (["x.nii.gz", "y.nii.gz"], ["x.nii.gz", "meta.info"], ["meta.info"], ["../x.nii.gz"]):
        files = [("files", (name, VOLUME)) for name in names]
        assert_refused(requests.put(url, files=files, timeout=60))
    assert_refused(requests.put(f"{url}?expiry=-1", files={"files": image}, timeout=60), "expiry is -1")
    for session in (str(secrets), f"../{secrets.name}", "..", "x"):
        answer = requests.post(f"{server.url}/infer/frame_propagation?session_id={session}", timeout=60)
        assert_refused(answer, "Not Found")


def test_a_request_without_a_file_is_short(server):
    url = f"{server.url}/train/frame_propagation"
    form = "multipart/form-data; boundary=x"
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", form):
        for body in (b" " * 200_000, (b" " * 50_000 for _ in range(5))):  # the second one does not say its length
            answer = requests.post(url, data=body, headers={"Content-Type": kind}, timeout=60)
            assert_refused(answer, "more than 100000 bytes")


def test_no_path_of_the_server_is_taken_for_an_upload(server, secrets):
    temporary = server.studies.parent / "temporary"
    files = [temporary / "tmpsecret.nii.gz", next(server.studies.glob(".partial_*")) / "tmpsecret.nii.gz"]
    for file in files:
        file.write_bytes(VOLUME)
    for file in [*files, secrets / "canary.nii.gz", server.studies / f"{IMAGE}.nii.gz"]:
        for path in (f"infer/frame_propagation?image={file}", f"infer/atlas_propagation_cardiac?image={file}"):
            assert_refused(server.post(f"/{path}"), "in the datastore")
        for params in (
            {"image": str(file)},
            {"label": str(file)},
            {"source": str(file)},
            {"session": {"image": str(file)}},
        ):
            path = "/infer/frame_propagation?image=SC-N-10_ES"
            assert_refused(server.post(path, data={"params": json.dumps(params)}))
        for params in ({"images": [str(file)]}, {"images": IMAGE}, {"label": str(file)}):
            assert_refused(server.post("/batch/infer/frame_propagation", json=params))
    for file in files:
        file.unlink()


def test_an_id_is_no_path_of_the_working_folder(server):
    twin = server.studies.parent / "twin.nii.gz"
    twin.write_bytes(b"no image")
    upload = {"file": ("x.nii.gz", VOLUME)}
    assert requests.put(f"{server.url}/datastore/image?image=twin.nii.gz", files=upload, timeout=60).ok
    answer = server.post("/infer/frame_propagation?image=twin.nii.gz")
    assert_refused(answer, "has no other frame")  # it was read as the image that it is
    assert requests.delete(f"{server.url}/datastore/image?id=twin.nii.gz", timeout=60).ok
    twin.unlink()


@pytest.mark.parametrize(
    "name", ["..", "../x", "/x", "a\\b", ".x", "$x", "%x", "@x", "-x", "x\0", "x\n", "x,y", "x" * 300, ""]
)
def test_names_are_plain(server, name):
    image, label = {"file": ("x.nii.gz", VOLUME)}, {"label": ("x.nii.gz", LABEL)}
    assert_refused(requests.put(f"{server.url}/datastore/image", params={"image": name}, files=image, timeout=60))
    if name:  # else the tag is final
        query = {"image": IMAGE, "tag": name}
        assert_refused(requests.put(f"{server.url}/datastore/label", params=query, files=label, timeout=60))
        params = {"save_label": True, "label_tag": name}
        answer = server.post(f"/infer/frame_propagation?image={IMAGE}", data={"params": json.dumps(params)})
        assert_refused(answer, "label_tag is" if name.isprintable() else "")
    for file in (f"{name}.nii.gz", f"../{name}.nii.gz"):
        if name.isprintable() and ("/" not in name or ".." in name):  # of a path, only the end is taken
            assert_refused(requests.put(f"{server.url}/datastore/image", files={"file": (file, VOLUME)}, timeout=60))


def test_a_link_in_the_studies_is_read_and_left_as_it_is(server, tmp_path):
    target = tmp_path / "original.nii.gz"
    target.write_bytes(VOLUME)
    link, label = server.studies / "linked.nii.gz", server.studies / "labels" / "final" / "linked.nii.gz"
    for path in (link, label):
        path.symlink_to(target)
    wait_for(lambda: "linked" in requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"])
    assert requests.get(f"{server.url}/datastore/image?image=linked", timeout=60).content == VOLUME
    for method, path in [("put", "image?image=linked"), ("put", "label?image=linked"), ("delete", "image?id=linked")]:
        part = {path.partition("?")[0].replace("image", "file"): ("x.nii.gz", b"other")}
        assert_refused(requests.request(method, f"{server.url}/datastore/{path}", files=part, timeout=60), "is a link")
    assert target.read_bytes() == VOLUME
    for path in (link, label):
        assert path.is_symlink()
        path.unlink()


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_what_a_client_stores_cannot_break_later_answers(server):
    url = f"{server.url}/datastore"
    for info in (
        '{"x": NaN}',
        '{"x": "\\ud800"}',
        '{"strategy": 1}',
        '{"path": "/etc"}',
        '{"registration_similarity": 1}',
    ):
        assert_refused(requests.put(f"{url}/image/info?image={IMAGE}", data={"info": info}, timeout=60))
        query = f"image={IMAGE}&label={IMAGE}&tag=final"
        assert_refused(requests.put(f"{url}/label/info?{query}", data={"info": info}, timeout=60))
        upload = {"file": ("x.nii.gz", VOLUME)}
        assert_refused(requests.put(f"{url}/image?image=new", data={"params": info}, files=upload, timeout=60))
    for path in ("datastore/?output=all", "info/"):
        assert requests.get(f"{server.url}/{path}", timeout=60).ok
    assert server.post("/activelearning/random", json={}).ok


def test_an_archive_of_the_studies_replaces_the_last_one(server):
    for limit in (1, 2):
        answer = requests.get(f"{server.url}/datastore/dataset?limit_cases={limit}", timeout=60)
        assert len(zipfile.ZipFile(io.BytesIO(answer.content)).namelist()) == 2 * limit + 1
    next(server.studies.glob(".partial_*/dataset.zip")).unlink()


def test_failed_inferences_leave_no_upload(server):
    for content in (b"no image", VOLUME[:1000], to_bytes(nib.Nifti1Image(np.zeros((1, 2, 2)), np.eye(4)))):
        files = {"file": ("x.nii.gz", content), "label": ("y.nii", content)}
        assert_refused(server.post("/infer/atlas_propagation", files=files))


def test_pages_of_other_sites_get_no_answer(server):
    port = server.url.rpartition(":")[2]
    url = f"{server.url}/datastore/"
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", f"http://evil.example:{port}"):
        assert_refused(requests.get(url, headers={"Origin": origin}, timeout=60), "the origin is")
        preflight = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
        answer = requests.options(url, headers=preflight, timeout=60)
        assert_refused(answer, "the origin is")
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "", "[x"):
        headers = {"Host": host, "Origin": f"http://{host}"}  # a page whose own name leads here
        assert_refused(requests.get(url, headers=headers, timeout=60), "the host is")
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert requests.get(url, headers={"Host": host, "Origin": f"http://{host}"}, timeout=60).ok
        assert requests.get(url, headers={"Host": host}, timeout=60).ok


def test_named_origins_are_answered():
    from scripts.label_app.web import Entrance

    guard = Entrance(None, origins=["https://viewer.example:3000"])
    for origin, host, right in [
        ("https://viewer.example:3000", "127.0.0.1:8000", True),
        ("https://viewer.example:3000", "viewer.example", True),
        ("http://viewer.example:3000", "127.0.0.1:8000", False),
        ("https://viewer.example", "127.0.0.1:8000", False),
    ]:
        headers = [(b"host", host.encode()), (b"origin", origin.encode())]
        answer = guard.refuse({"type": "http", "path": "/", "query_string": b"", "headers": headers})
        assert (answer is None) == right


def test_the_client_of_3d_slicer_works_as_before(server, tmp_path):
    """What its module does with a volume of the user's own: a session, an inference, an image and a label."""
    client = MONAILabelClient(server.url, str(tmp_path), "user-1")
    volume, label = tmp_path / "tmp_volume.nii.gz", tmp_path / "drawn.nii.gz"
    volume.write_bytes(VOLUME)
    label.write_bytes(LABEL)
    session = client.create_session(str(volume))["session_id"]
    assert client.get_session(session)["name"] == session
    result, params = client.infer(
        "frame_propagation", "of no datastore", {"source": "SC-N-10_ES"}, label_in=str(label), session_id=session
    )
    assert params["label_names"] == {"LV": 1}
    assert nib.load(result).shape == nib.load(volume).shape
    client.remove_session(session)
    assert client.upload_image(str(volume), "a volume (1)")["image"] == "a volume (1)"
    client.save_label("a volume (1)", str(label), params={"label_info": [{"name": "LV", "idx": 1}]})
    downloaded = client.download_label("a volume (1)", "final")
    assert Path(downloaded).read_bytes() == LABEL
    assert client.next_sample("random", {})["id"] in client.datastore()["objects"]
    assert requests.delete(f"{server.url}/datastore/image", params={"id": "a volume (1)"}, timeout=60).ok


def test_damaged_cines_are_named_in_one_line(server):
    rng = np.random.default_rng(0)
    affine = nib.load(HEART / f"{IMAGE}.nii.gz").affine
    single, many = (nib.Nifti1Image(rng.random((20, 20, 5, n), np.float32), affine) for n in (1, 600))
    broken = to_bytes(nib.Nifti1Image(rng.random((160, 160, 7, 3), np.float32), affine))[:200_000]
    for cine, label, text in [
        (to_bytes(single), LABEL, "label has shape (160, 160, 7): expected (20, 20, 5)"),
        (to_bytes(many), LABEL, "expected at most 500"),
        (broken, LABEL, "cannot be read as NIfTI"),
        (broken, broken, "cannot be read as NIfTI"),
    ]:
        files = {"file": ("x.nii.gz", cine), "label": ("y.nii.gz", label)}
        assert_refused(server.post("/infer/frame_propagation", files=files), text)
