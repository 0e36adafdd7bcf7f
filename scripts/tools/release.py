"""The bundle as the MONAI Model Zoo and the Hugging Face Hub take it: ``dist/gradirn_v<version>.zip``.

    python -m scripts.tools.release

Equal files give an archive of equal bytes, wherever and whenever it is built.
"""

from __future__ import annotations

import argparse
import json
import posixpath
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import yaml
from monai.apps.utils import HashCheckError
from monai.bundle import ConfigParser, download_large_files

from ..support.bundle import BUNDLE_ROOT
from ..support.command_line import report_in_one_line
from ..support.errors import InputError
from ..support.files import prepare_folder, replace_file

__all__ = ["build", "contents", "main"]

NAME = "gradirn"
FILES = ("LICENSE", "README.md", "constraints.txt", "requirements*.txt", "large_files.*")
SAMPLES = ("tests/data/README.md", "tests/data/brain_synthetic", "tests/data/hippocampus", "tests/data/sunnybrook")
CONTENTS = (*FILES, "configs", "docs", "models", "scripts", *SAMPLES)
MADE_HERE = {".onnx", ".pyc", ".ts"}  # never part of a release
LEFT_OUT = (
    "scripts/tools/*",  # tools of the repository
    "scripts/label_app/[a-z]*/*",  # the folders that a server makes beside the application
)
MANUAL = "docs/manual.md"  # the repository's README.md, whose place the model card takes
TAGS = ["monai", "medical", "image-registration", "deformable-registration", "mri"]


def build(root: Path, output_dir: Path) -> Path:
    """Write the archive of the bundle in ``root`` and return its path.

    Raises:
        InputError: when a file of ``large_files.yml`` is not what it should be, or the archive cannot be written.
    """
    files = contents(root)
    version = json.loads(files["configs/metadata.json"])["version"]
    prepare_folder(output_dir)
    path = output_dir / f"{NAME}_v{version}.zip"
    replace_file(path, lambda temporary: _write(temporary, files))
    return path


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a release by its path in the bundle, in order.

    They are those of ``root``; beside each YAML configuration its twin in JSON, since ``monai.bundle.load`` reads no
    other; and as ``README.md`` the model card with the header of the Hugging Face Hub.
    """
    _fetch_large_files(root)
    files = {name: (root / name).read_bytes() for name in _names(root)}
    files["metadata.json"] = files["configs/metadata.json"]  # in the repository a link, which MONAI does not unpack
    return dict(sorted((files | _json_twins(files) | _documents(files)).items()))


def _names(root: Path) -> list[str]:
    tops = [top for pattern in CONTENTS for top in root.glob(pattern)]
    paths = [path for top in tops for path in (top, *top.rglob("*")) if path.is_file()]
    names = [path.relative_to(root) for path in paths if path.suffix not in MADE_HERE]
    names = [name for name in names if not any(fnmatch(name.as_posix(), pattern) for pattern in LEFT_OUT)]
    return [name.as_posix() for name in names if not any(part.startswith((".", "__pycache__")) for part in name.parts)]


def _json_twins(files: Mapping[str, bytes]) -> dict[str, bytes]:
    configs = {name: yaml.safe_load(data) for name, data in files.items() if re.fullmatch(r"configs/\w+\.yaml", name)}
    texts = {name: json.dumps(config, indent=4, allow_nan=False) for name, config in configs.items()}
    return {name.replace(".yaml", ".json"): f"{text}\n".encode() for name, text in texts.items()}


def _documents(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The model card twice, where the zoo looks for it and where the Hub does, and the repository's own README."""
    metadata, card = json.loads(files["configs/metadata.json"]), files["docs/README.md"].decode()
    header = {"library_name": "monai", "license": "apache-2.0", "model_name": metadata["name"], "tags": TAGS}
    hub_card = f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n{_moved(card, 'docs/README.md', 'README.md')}"
    manual = _moved(files["README.md"].decode(), "README.md", MANUAL)
    texts = {"README.md": hub_card, "docs/README.md": _moved(card, "docs/README.md", "docs/README.md"), MANUAL: manual}
    return {name: text.encode() for name, text in texts.items()}


def _fetch_large_files(root: Path) -> None:
    """Download what ``large_files.yml`` lists and ``root`` lacks, and verify the checksums of all of it."""
    for listing in root.glob("large_files.*"):
        for entry in ConfigParser.load_config_file(str(listing))["large_files"]:
            if not entry.get("hash_val"):
                raise InputError(f"{listing}: {entry['path']} has no hash_val: expected the checksum of the file.")
        try:
            download_large_files(str(root))
        except (HashCheckError, OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{listing}: {' '.join(str(error).split())}") from error


def _moved(text: str, source: str, target: str) -> str:
    """Markdown from ``source`` in the repository, with its links made to hold at ``target`` in a release."""

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        path = MANUAL if path == "README.md" else path
        return f"]({posixpath.relpath(path, posixpath.dirname(target) or '.')}"

    return re.sub(r"\]\((?![a-z]+:|#)([^)#\s]+)", link, text)


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    """Stored, not compressed, since zlib differs between machines; and nearly all of it is compressed as it is."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(f"{NAME}/{name}")  # dated 1980
            entry.create_system = 3  # Unix, on every machine
            entry.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
            archive.writestr(entry, data)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.tools.release", description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path(BUNDLE_ROOT) / "dist")
    print(build(Path(BUNDLE_ROOT), parser.parse_args(arguments).output_dir))


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
