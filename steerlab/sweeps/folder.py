"""The folder of a run: taken once, by one set of settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Take a folder that is empty, or whose manifest.json says that the same settings made it;
    others raise."""
    file = folder / "manifest.json"
    foreign = occupied(folder)
    if file.exists():
        made = read_json(file).get("settings", {})
        if other := [key for key, value in settings.items() if made.get(key) != value]:
            differences = ", ".join(
                f"{key} {made.get(key)!r} there, {settings[key]!r} here" for key in other
            )
            raise SteerlabError(
                f"{folder} holds a run with other settings ({differences}); give another --out or "
                "delete it"
            )
    elif foreign:
        raise SteerlabError(
            f"{folder} holds files, but no run; give an empty or a new folder as --out"
        )
    folder.mkdir(parents=True, exist_ok=True)


def occupied(folder: Path) -> bool:
    """Whether a folder holds anything beside files that were never finished."""
    return folder.is_dir() and any(path.suffix != ".new" for path in folder.iterdir())
