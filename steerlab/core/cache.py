"""What is made once and kept for the user: a folder of the machine's cache, whole or not there."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from steerlab.core.files import explained

VARIABLE = "STEERLAB_CACHE"


def cache_folder() -> Path:
    """Where steerlab keeps what it can make again: `$STEERLAB_CACHE`, or the folder `steerlab` of
    the user's cache, such as ~/.cache/steerlab."""
    return Path(os.environ.get(VARIABLE) or user_cache_path("steerlab"))


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder; `make` fills it where it is not there yet.

    What is made gets its name when it is whole, in one step, so that a process that is killed
    leaves nothing half behind that name. Of several processes one makes it and the others wait.
    """
    if folder.is_dir():
        return folder
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = folder.with_name(f"{folder.name}.new")
        # A lock of the operating system, which goes with its process.
        with FileLock(f"{folder}.lock", fallback_to_soft=False):
            if folder.is_dir():  # another process was quicker
                return folder
            shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed
            fresh.mkdir()
            try:
                make(fresh)
                os.replace(fresh, folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return folder
