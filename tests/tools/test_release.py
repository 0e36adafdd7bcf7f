"""The release: what is in the archive, and that MONAI and the model zoo can use it where nothing of the repository is.

``make release`` has the archive that it built tested, named by ``GRADIRN_ZIP``.
"""

import os
import posixpath
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigParser, download

from scripts.results.names import USUAL
from scripts.support.errors import InputError
from scripts.support.files import sha256
from scripts.tools.release import CONTENTS, build, contents, main

from ..conftest import ROOT, load_json

METADATA = load_json(ROOT / "configs" / "metadata.json")
MADE = {"README.md", "metadata.json"}  # not copies of a file of that name
LISTED = {
    entry["path"]
    for listing in ROOT.glob("large_files.*")
    for entry in ConfigParser.load_config_file(str(listing))["large_files"]
}
PAIR = ROOT / "tests" / "data" / "sunnybrook" / "SC-N-10" / "SC-N-10"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    given = os.environ.get("GRADIRN_ZIP")
    return Path(given).resolve() if given else build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def files(archive):
    """The bytes of every file by its path in the bundle."""
    with zipfile.ZipFile(archive) as opened:
        return {name.removeprefix("gradirn/"): opened.read(name) for name in opened.namelist()}


@pytest.fixture(scope="module")
def bundle_dir(archive, tmp_path_factory):
    """The bundle as MONAI unpacks it."""
    folder = tmp_path_factory.mktemp("bundles")
    download("gradirn", url=archive.as_uri(), bundle_dir=folder, progress=False)
    return folder / "gradirn"


def small_bundle(folder):
    """What a release needs at least."""
    for name in ("LICENSE", "README.md", "docs/README.md", "configs/metadata.json", "models/model.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_equal_files_give_equal_bytes_whatever_else_lies_about(tmp_path, capsys):
    small_bundle(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "b").rglob("*"):
        os.utime(path, (0, 1e9))
        path.chmod(0o700)
    for name in (
        "models/model.ts",
        "models/.partial_model.pt",
        "docs/__pycache__/a.pyc",
        "eval/a.txt",
        ".venv/a.txt",
        "scripts/label_app/logs/a.log",
    ):
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / name).write_text("no")
    first, second = (build(tmp_path / name, tmp_path / "dist" / name) for name in ("a", "b"))
    assert first.name == f"gradirn_v{METADATA['version']}.zip"
    assert first.read_bytes() == second.read_bytes()
    main(["--output_dir", str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / first.name)


def test_an_archive_that_was_built_before_is_that_of_these_files(files):
    assert files == contents(ROOT)
    assert list(files) == sorted(files)


def test_what_git_tracks_is_released_and_nothing_that_it_ignores(files):
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository: which files belong to it is not known")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *CONTENTS]
    tracked = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    known = {name for name in tracked if (ROOT / name).exists() and not name.startswith("scripts/tools/")} | LISTED
    twins = {str(Path(name).with_suffix(".json")) for name in known if re.fullmatch(r"configs/.*\.yaml", name)}
    assert set(files) == known | twins | MADE
    assert all(files[name] == (ROOT / name).read_bytes() for name in known - MADE)


def test_names_and_sizes_are_those_of_the_zoo(archive, files):
    assert re.fullmatch(r"gradirn_v\d+\.\d+\.\d+\.zip", archive.name)
    with zipfile.ZipFile(archive) as opened:
        assert all(re.fullmatch(r"gradirn/[\w./-]+", entry.filename) for entry in opened.infolist())
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 for entry in opened.infolist()} == {0o644, 0o755}
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.json", "configs/train.json", "models/model.pt"):
        assert name in files
    assert {"docs/README.md", "docs/data_license.txt", "configs/logging.conf", "configs/evaluate.json"} <= set(files)
    assert files["metadata.json"] == files["configs/metadata.json"]
    for name in set(files) - LISTED:
        assert len(files[name]) < 25 * 2**20, f"{name}: the zoo takes no larger file, but by large_files.yml"


def test_the_version_is_the_newest_of_the_changelog():
    assert METADATA["version"] == next(iter(METADATA["changelog"]))
    versions = [tuple(map(int, version.split("."))) for version in METADATA["changelog"]]
    assert versions == sorted(versions, reverse=True)
    assert {len(version) for version in versions} == {3}


def test_every_configuration_has_an_equal_twin_without_a_path_of_this_machine(bundle_dir):
    configs = sorted((bundle_dir / "configs").glob("*.yaml"))
    assert len(configs) == len(list((ROOT / "configs").glob("*.yaml")))
    for path in configs:
        config = ConfigParser.load_config_file(str(path))
        twin = path.with_suffix(".json")
        assert ConfigParser.load_config_file(str(twin)) == config
        assert not re.search(r'": "(/|~|[A-Z]:)', twin.read_text()), "an absolute path"


def test_every_link_in_a_document_leads_to_a_file_and_heading_of_the_release(files):
    documents = {name: data.decode() for name, data in files.items() if name.endswith(".md")}
    assert {"README.md", "docs/README.md", "docs/options.md", "models/README.md"} <= set(documents)
    for name, text in documents.items():
        for link, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?", text):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link)) if link else name
            assert target in files, f"{name}: {link}"
            assert not heading or heading in anchors(documents[target]), f"{name}: {link}#{heading}"


def anchors(text):
    """The names that GitHub and the Hub give to the headings of a document."""
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}


def test_the_hub_finds_the_readme_with_its_header(files):
    _, header, readme = files["README.md"].decode().split("---\n", 2)
    header = yaml.safe_load(header)
    assert (header["library_name"], header["license"], header["model_name"]) == ("monai", "apache-2.0", "GraDIRN")
    assert {"monai", "medical"} <= set(header["tags"])  # as monai.bundle.push_to_hf_hub writes
    assert readme.removeprefix("\n") == (ROOT / "README.md").read_text()


def test_large_files_are_fetched_and_verified(tmp_path):
    root = small_bundle(tmp_path)
    weights = root / "models" / "model.pt"
    weights.unlink()
    entry = {"path": "models/model.pt", "url": (ROOT / "models" / "model.pt").as_uri(), "hash_type": "sha256"}

    def listed(**change):
        (root / "large_files.yml").write_text(yaml.safe_dump({"large_files": [{**entry, **change}]}))
        return contents(root)

    checksum = sha256(ROOT / "models" / "model.pt")
    for change, message in (
        ({"hash_val": ""}, r"models/model.pt has no hash_val"),
        ({"hash_val": "0" * 64}, r"sha256 hash check of downloaded file failed"),
        ({"hash_val": checksum, "url": "file:///none/model.pt"}, r"No such file"),
        ({"hash_val": checksum, "path": "../model.pt"}, r"[Pp]ath traversal"),
    ):
        with pytest.raises(InputError, match=rf"large_files.yml: .*{message}") as caught:
            listed(**change)
        assert "\n" not in str(caught.value)
        assert not weights.exists()
    files = listed(hash_val=checksum)
    assert files["models/model.pt"] == (ROOT / "models" / "model.pt").read_bytes()
    assert "large_files.yml" in files
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"hash check of existing file failed"):
        listed(hash_val=checksum)


def python(folder, *arguments, path=None):
    """Run Python in another folder, with the bundle's code on its path or without."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    command = [sys.executable, "-W", "ignore", *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_zoos_checks_pass_in_a_foreign_folder(bundle_dir, tmp_path):
    schema = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"
    python(tmp_path, ROOT / "tests" / "zoo_checks.py", bundle_dir, schema, path=bundle_dir)
    assert (tmp_path / "trained" / "model.pt").is_file()
    assert 0.5 < load_json(tmp_path / "measured" / "summary.json")["measures"]["dice.after.mean"]["mean"] < 1
    found = {path.parent.name: load_json(path)["dice"] for path in tmp_path.glob("registered/*/metrics.json")}
    assert len(found) == 3
    assert all(dice["after"]["mean"] > 0.9 > dice["before"]["mean"] for dice in found.values())
    if not schema.is_file():
        pytest.skip(f"all but the metadata's schema passed: {schema} is not there")


RECORD = """
import torch, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
"""
SAME = """
image = torch.rand(1, 2, 32, 48)
with torch.no_grad():
    assert torch.equal(network.eval()(image), same.eval()(image))
found = [str(warning.message) for warning in caught if "GHSA-873f-pvrv-4x83" in str(warning.message)]
print(len(found))
"""


@pytest.mark.slow
def test_monai_loads_the_network_with_a_configuration_or_without(bundle_dir, tmp_path):
    """The example of the document: MONAI warns where it executes a configuration, and there alone."""
    document = (ROOT / "docs" / "export.md").read_text()
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", document, re.DOTALL) if "bundle.load" in code)
    assert example.count("monai.bundle.load(") == 2
    example = example.replace("eval/download", str(bundle_dir.parent))
    assert python(tmp_path, "-c", RECORD + textwrap.indent(example, "    ") + SAME).split()[-1] == "1"
    # and where there is no configuration at all
    alone = tmp_path / "alone" / "gradirn"
    shutil.copytree(bundle_dir, alone)
    shutil.rmtree(alone / "configs")
    first, _, second = example.partition("network = ")
    second = second.partition("\n")[2].replace(str(bundle_dir.parent), str(alone.parent))
    python(tmp_path, "-c", f"{first}{second}print(sum(p.numel() for p in same.parameters()))")


@pytest.mark.slow
def test_the_commands_download_and_register_in_a_foreign_folder(archive, tmp_path):
    monai = ("-m", "monai.bundle")
    python(tmp_path, *monai, "download", "--name", "gradirn", "--url", archive.as_uri(), "--bundle_dir", "here")
    config = tmp_path / "here" / "gradirn" / "configs" / "inference.json"
    pair = ("--fixed", f"{PAIR}_ED.nii.gz", "--moving", f"{PAIR}_ES.nii.gz")
    python(tmp_path, *monai, "run", "--config_file", config, *pair, "--output_dir", "pair")
    assert {path.name for path in (tmp_path / "pair").iterdir()} == {*USUAL} - {
        "label_warped.nii.gz",
        "alignment.mat",
    }
    ncc = load_json(tmp_path / "pair" / "metrics.json")["ncc"]
    assert ncc["after"] > 0.95 > ncc["before"]


@pytest.mark.slow
def test_the_tutorial_runs_from_the_archive(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIRN_ZIP", str(archive))
    monkeypatch.setenv("MPLBACKEND", "agg")
    printed = python(tmp_path, ROOT / "docs" / "tutorial.py")
    before, after, by_itk = map(float, re.findall(r"^Dice (\d\.\d+)", printed, re.MULTILINE))
    assert before < 0.7
    assert after > 0.93
    assert by_itk == pytest.approx(after, abs=0.005)
    assert float(re.search(r"dice.after.mean +(\S+)", printed)[1]) == pytest.approx(
        0.946, abs=0.005
    )  # as in the README
    assert "\n(1, 2, 96, 96)\n" in printed
    assert {path.name for path in (tmp_path / "tutorial" / "pair").iterdir()} == {*USUAL} - {"alignment.mat"}
    assert (tmp_path / "tutorial" / "measured" / "metrics.csv").is_file()
