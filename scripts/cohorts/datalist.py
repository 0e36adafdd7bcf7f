"""The files of pairs: one pair from options, or many pairs from a datalist."""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..support.errors import InputError
from ..support.files import user_path
from ..support.keys import CONTRASTS, FILES, IMAGES

__all__ = [
    "add_displacements",
    "folder_name",
    "name_entries",
    "read_json_list",
    "read_pairs",
    "read_shard",
    "split_contrasts",
    "take_shard",
]


def read_pairs(
    files: Mapping[str, Any], datalist: str | None = None, dataset_dir: str | None = None
) -> list[dict[str, Any]]:
    """List the pairs to register.

    Args:
        files: the files of one pair: ``fixed``, ``moving`` and optionally others of ``scripts.support.keys.FILES``;
            None means that a file is not given. Several contrasts of an image are a list.
        datalist: a JSON file with many pairs, in place of ``files``: a list of such dictionaries, each optionally with
            ``name``, with ``displacement``, a displacement field in place of the network, and ``true_displacement``.
        dataset_dir: the folder where relative paths in the datalist start; by default the folder of the datalist.

    Returns:
        one dictionary per pair. Its ``name`` is the folder of its results below the output folder, "." for one pair.
        Without files and datalist the list is empty, so that a configuration can be examined without data.

    Raises:
        InputError: when files are missing or given twice, or the datalist does not have this form.
    """
    paths = _paths({key: value for key, value in files.items() if value is not None})
    if datalist is None and not paths:
        return []
    if datalist is None:
        for key in IMAGES:
            if key not in paths:
                raise InputError(f"--{key} is missing: expected --fixed and --moving, or --datalist.")
        return [{"name": ".", **paths}]
    if paths:
        raise InputError(f"--datalist and --{next(iter(paths))} were both given: expected one or the other.")
    path = user_path(datalist, "datalist")
    root = user_path(dataset_dir, "dataset_dir") if dataset_dir else path.parent
    entries = read_json_list(path, "pairs", "[{fixed: ..., moving: ...}, ...]")
    pairs = [_check_entry(entry, f"{path}, entry {index}", root) for index, entry in enumerate(entries)]
    return name_entries(pairs, "pair", path)


def name_entries(entries: list[dict[str, Any]], kind: str, path: Path) -> list[dict[str, Any]]:
    """Name the entries of a datalist that have no ``name`` by their places, such as ``pair_07``.

    Args:
        entries: the entries, which are changed in place.
        kind: what they are.
        path: the datalist, for the message.

    Raises:
        InputError: when two of them have the same name.
    """
    digits = len(str(len(entries)))
    for index, entry in enumerate(entries):
        entry.setdefault("name", f"{kind}_{index:0{digits}d}")
    name, count = Counter(entry["name"] for entry in entries).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path} names {count} {kind}s '{name}': expected each name once.")
    return entries


def add_displacements(pairs: Iterable[Mapping[str, str]], **folders: str | None) -> list[dict[str, str]]:
    """Add the paths of displacement fields to all pairs.

    Args:
        pairs: the pairs, each with its ``name``.
        folders: ``displacement`` or ``true_displacement``, each a folder that has ``<name>/displacement.nii.gz`` or
            ``<name>.nii.gz`` for every pair; None adds nothing.

    Raises:
        InputError: when a folder lacks the file of a pair.
    """
    result = [dict(pair) for pair in pairs]
    for key, folder in folders.items():
        for pair in result if folder is not None else ():
            pair[key] = _find_displacement(user_path(folder or "", f"{key}s"), pair["name"], f"{key}s")
    return result


def take_shard(
    pairs: Sequence[Mapping[str, Any]], shard: str | None, images: Sequence[str] = IMAGES
) -> list[dict[str, Any]]:
    """Return one of several parts of the pairs, which together hold each pair once and cost about the same.

    The cost of a pair is the size of the files of its images. The most expensive pairs are dealt out first, each to the
    part that has cost least so far, so that the parts are the same wherever the files are.

    Args:
        pairs: all pairs, each with its ``name``.
        shard: see :func:`read_shard`; None returns all pairs.
        images: the keys of their images.

    Returns:
        the pairs of the part, in their order; none if there are fewer pairs than parts.
    """
    if shard is None:
        return [dict(pair) for pair in pairs]
    index, count = read_shard(shard)
    costs = {pair["name"]: sum(_size(pair[key]) for key in images) for pair in pairs}
    parts = [(0, part) for part in range(1, count + 1)]
    chosen = set()
    for name in sorted(costs, key=lambda name: (-costs[name], name)):
        total, part = parts[0]
        heapq.heapreplace(parts, (total + costs[name], part))
        if part == index:
            chosen.add(name)
    return [dict(pair) for pair in pairs if pair["name"] in chosen]


def read_shard(shard: object) -> tuple[int, int]:
    """Read the name of a part: ``3/100`` is the third of a hundred.

    Raises:
        InputError: when it does not have this form.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(shard))
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count:
        raise InputError(f"--shard is '{shard}': expected a part and their number, 1/3, 2/3 or 3/3.")
    return index, count


def _size(path: str) -> int:
    """The size of a file in bytes; 0 where there is none, which is said where it is read."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _find_displacement(folder: Path, name: str, option: str) -> str:
    files = (f"{name}/displacement.nii.gz", f"{name}.nii.gz")
    for path in (folder / file for file in files):
        if path.is_file():
            return str(path)
    raise InputError(f"{option}: {folder} has no field for the pair '{name}': expected {' or '.join(files)}.")


def read_json_list(path: Path, content: str, form: str) -> list[Any]:
    """Read a JSON file that holds a list.

    Args:
        path: the file.
        content: what it lists, for messages.
        form: how the list should look, for messages.

    Raises:
        InputError: when it cannot be read, or holds no list or an empty one.
    """
    try:
        entries = json.loads(path.read_bytes())  # UTF-8, UTF-16 or UTF-32, with a byte order mark or without
    except OSError as error:
        raise InputError(f"datalist: {path} cannot be read ({error.strerror}): expected a JSON file.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"datalist: {path} is not valid JSON ({error}).") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"datalist: {path} is not a list of {content}: expected {form}.")
    return entries


def _check_entry(entry: Any, where: str, root: Path) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is a {type(entry).__name__}: expected a dictionary with fixed and moving.")
    keys = ("name", *FILES)
    unknown = sorted(set(entry) - set(keys))
    if unknown:
        raise InputError(f"{where} has the unknown key '{unknown[0]}': expected {', '.join(keys)}.")
    values = {key: value for key, value in entry.items() if value not in (None, "")}
    for key in IMAGES:
        if key not in values:
            raise InputError(f"{where} has no '{key}': expected fixed and moving.")
    name = {"name": folder_name(values.pop("name"), where)} if "name" in values else {}
    return {**_paths(values, f"{where}, ", root), **name}


def split_contrasts(pair: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Move all but the first of several images of a side to ``contrasts_fixed`` or ``contrasts_moving``.

    Raises:
        InputError: when there is none.
    """
    result = dict(pair)
    for key, further in zip(IMAGES, CONTRASTS):
        if isinstance(result.get(key), list | tuple):
            if not result[key]:
                raise InputError(f"{where}{key} is an empty list: expected one or more images.")
            result[key], *others = result[key]
            result |= {further: others} if others else {}
    return result


def _paths(values: Mapping[str, Any], where: str = "", root: Path = Path()) -> dict[str, Any]:
    """Return the paths of a pair as text; relative ones start at ``root``."""

    def path(value: Any, key: str) -> str:
        return str(root / user_path(value, f"{where}{key}"))

    return {
        key: [path(item, key) for item in value] if key in CONTRASTS else path(value, key)
        for key, value in split_contrasts(values, where).items()
    }


def folder_name(name: Any, where: str) -> str:
    """Return the name of the folder of an entry's results in a normal form: ``./x/`` is ``x``.

    Raises:
        InputError: when it is not the name of a folder below the output folder.
    """
    folder = Path(str(name))
    usable = isinstance(name, str | int) and "\0" not in str(name)
    if not usable or not folder.parts or folder.is_absolute() or ".." in folder.parts:
        raise InputError(f"{where} has the name {name!r}: expected a folder name below the output folder.")
    return str(folder)
