"""Builds ``dist/gradirn_v<version>.zip``, the bundle for the MONAI Model Zoo and the Hugging Face Hub.

    python -m scripts.tools.release

The archive is reproducible, byte for byte, on any machine and at any time.
"""

from __future__ import annotations

import argparse
import json
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
SAMPLES = (
    "tests/data/README.md",
    *(f"tests/data/{name}" for name in ("brain_synthetic", "cine", "hippocampus", "sunnybrook")),
)
CONTENTS = (*FILES, "configs", "docs", "models", "scripts", *SAMPLES)
MADE_HERE = {".onnx", ".pyc", ".ts"}  # never part of a release
LEFT_OUT = (
    "scripts/tools/*",  # tools of the repository
    "scripts/label_app/[a-z]*/*",  # folders that a server makes next to the application
)
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
    """Return every file of a release by its path in the bundle, sorted by path.

    The files are those of ``root``, with two additions: each YAML configuration also exists as JSON, the only format
    that ``monai.bundle.load`` reads, and ``README.md`` begins with the header of the Hugging Face Hub.

    Raises:
        InputError: when a file of ``large_files.yml`` is not what it should be.
    """
    _fetch_large_files(root)
    files = {name: (root / name).read_bytes() for name in _names(root)}
    files["metadata.json"] = files["configs/metadata.json"]  # a link in the repository, which MONAI does not unpack
    files["README.md"] = _hub_header(files["configs/metadata.json"]) + files["README.md"]
    return dict(sorted((files | _json_twins(files)).items()))


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


def _hub_header(metadata: bytes) -> bytes:
    """What the Hugging Face Hub expects at the beginning of ``README.md``."""
    name = json.loads(metadata)["name"]
    header = {"library_name": "monai", "license": "apache-2.0", "model_name": name, "tags": TAGS}
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n".encode()


def _fetch_large_files(root: Path) -> None:
    """Download the files of ``large_files.yml`` that ``root`` lacks, and verify the checksums of all of them."""
    for listing in root.glob("large_files.*"):
        for entry in ConfigParser.load_config_file(str(listing))["large_files"]:
            if not entry.get("hash_val"):
                raise InputError(f"{listing}: {entry['path']} has no hash_val: expected the checksum of the file.")
        try:
            download_large_files(str(root))
        except (HashCheckError, OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{listing}: {' '.join(str(error).split())}") from error


def _write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write the archive without compression: zlib differs between machines, and most files are compressed already."""
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
