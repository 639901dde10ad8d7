"""The folder of a run, which belongs to one set of settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.core.files import is_unfinished, read_json
from steerlab.core.fingerprints import unlike
from steerlab.core.settings import shortened


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Take a folder for a run; raises where it holds a run with other settings, or other files.

    A folder that is empty, or does not exist, or whose manifest.json has the same settings, is
    taken; and so is one whose manifest is gone and whose rows are there. Settings
    that an older manifest has beside these are ignored.
    """
    file = folder / "manifest.json"
    # Before the manifest is looked for: another process may write it in between, and then the
    # folder is occupied by a run, not by foreign files.
    foreign = occupied(folder)
    if file.exists():
        existing = part(file, read_json(file), "settings")
        changed = [key for key, value in settings.items() if existing.get(key) != value]
        if changed:
            differences = ", ".join(
                f"{key} {shortened(existing.get(key))} there, {shortened(settings[key])} here"
                for key in changed
            )
            raise SteerlabError(
                f"{folder} holds a run with other settings ({differences}); give another --out or "
                "delete it"
            )
    elif foreign and not has_rows(folder / "cells"):
        raise SteerlabError(
            f"{folder} holds files, but no run; give an empty or a new folder as --out"
        )
    folder.mkdir(parents=True, exist_ok=True)


def part(file: Path, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object in the content of a run's file, empty where it has none; raises where it is
    something else."""
    found = content.get(key, {})
    if not isinstance(found, Mapping):
        raise SteerlabError(
            f"{file} holds under {key!r} no keys and values; it was damaged after it was written: "
            "restore it, or give another folder"
        )
    return found


def has_rows(folder: Path) -> bool:
    """Whether a folder holds finished work. Each row's key says all that decided it, so that rows
    whose manifest is gone are taken by the same run, and by no other."""
    return any(folder.glob("*.jsonl"))


def need_model(
    folder: Path, kind: str, earlier: Mapping[str, Any], model: Mapping[str, Any]
) -> None:
    """Raise where a folder holds rows of another model: their keys differ, so none would be taken
    for this one's, but its tables would take the place of theirs.

    Args:
        folder: the folder of the run.
        kind: what it holds, for the message.
        earlier: what the folder says of its model; empty where it says nothing.
        model: the metadata of the model that is to run.
    """
    unlike_keys = [key for key in model if earlier and earlier.get(key) != model[key]]
    if unlike_keys:
        differences = ", ".join(
            f"{key} {earlier.get(key)} there, {model[key]} here" for key in unlike_keys
        )
        why = unlike(earlier.get("fingerprint"), model.get("fingerprint"))
        raise SteerlabError(
            f"{folder} holds {kind} of another model ({differences}){why}; give another folder"
        )


def occupied(folder: Path) -> bool:
    """Whether a folder holds anything beside files that were never finished."""
    return folder.is_dir() and any(not is_unfinished(path) for path in folder.iterdir())
