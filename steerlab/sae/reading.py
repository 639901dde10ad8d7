"""Which format the files of an autoencoder have, and who reads it.

A module of `steerlab.sae` that exports `RECORDS`, a dict of file names and `Format` records, adds
its formats; nothing else has to be told of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from steerlab.core.discovery import exported
from steerlab.core.errors import SteerlabError

Parts = dict[str, Any]  # the fields of an `SAE`


@dataclass(frozen=True, kw_only=True)
class Format:
    """The record of a format, which stands in its own file, in `RECORDS`, under the name of a file
    that only this format has: a folder with it is read so.

    Args:
        name: what errors call it.
        read: from the folder, and the layer and the hook that a user names or None, to the fields
            of an `SAE` and the digest that the file promises, if any.
    """

    name: str
    read: Callable[[Path, int | None, str | None], tuple[Parts, str | None]]


@cache
def formats() -> dict[str, Format]:
    """Every format by the file that it is known by."""
    return exported("steerlab.sae", "RECORDS")


def read(folder: Path, *, layer: int | None, hook: str | None) -> tuple[Parts, str | None]:
    """Read the autoencoder in a folder of any known format: (its fields, the digest that its file
    holds, if any).

    Raises `SteerlabError` for a folder that is not there or holds no known file.

    Args:
        folder: holds the files.
        layer: the layer that it reads, if the caller says so.
        hook: the hook name that it reads, if the caller says so.
    """
    if not folder.is_dir():
        raise SteerlabError(
            f"there is no folder {folder}; give the one that holds an autoencoder's files"
        )
    # Several formats have a cfg.json; the other files are of one alone.
    for file, format in sorted(formats().items(), key=lambda item: item[0].endswith("cfg.json")):
        if (folder / file).exists():
            return format.read(folder, layer, hook)
    names = [format.name for format in formats().values()]
    raise SteerlabError(
        f"{folder} holds no autoencoder: none of {', '.join(formats())}; give a folder of "
        f"{', '.join(names[:-1])} or {names[-1]}"
    )
