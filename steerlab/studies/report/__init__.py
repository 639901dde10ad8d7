"""`steerlab report`: the page of whatever a folder holds, the main job, a sweep or CLaS-Bench."""

from pathlib import Path

from steerlab.core.errors import SteerlabError
from steerlab.studies.main.page import write_report
from steerlab.studies.report.page import write_rows_report


def write(folder: Path) -> Path:
    """Write `report.html` into the folder of a finished run, sweep or CLaS-Bench; gives the file.

    Raises `SteerlabError` where the folder holds none of them, or what it holds is not finished.
    """
    if not folder.is_dir():
        raise SteerlabError(
            f"there is no folder {folder}; give one that `steerlab run`, `steerlab sweep` or "
            "`steerlab clas` wrote"
        )
    if (folder / "sweep.json").is_file() or (folder / "scores.csv").is_file():
        return write_rows_report(folder)
    return write_report(folder)
