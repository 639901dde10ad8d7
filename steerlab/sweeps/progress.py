"""How far a sweep is, read from its folder alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json
from steerlab.sweeps.folder import part
from steerlab.sweeps.ledger import Ledger


def progress_of(out: str | Path) -> dict[str, Any]:
    """What is done in a sweep's folder, without its model: cells, rows, failures, workers,
    damaged lines."""
    folder = Path(out)
    cells = read_json(folder / "cells.json")
    if not cells:
        raise SteerlabError(
            f"{folder} holds no sweep; give the folder that `steerlab sweep FILE --out` made"
        )
    if part(folder / "sweep.json", read_json(folder / "sweep.json"), "grid").get("race"):
        raise SteerlabError(
            f"{folder} holds a race, which reads what it needs; its progress is what it prints "
            "itself"
        )
    if not all(
        isinstance(part(folder / "cells.json", cells, key).get("rows"), int) for key in cells
    ):
        raise SteerlabError(
            f"{folder / 'cells.json'} holds what are no cells; run the sweep again to write it anew"
        )
    lines = {key: cell["rows"] for key, cell in cells.items()}
    ledger = Ledger(folder / "rows", lines)
    return {
        "cells": len(cells),
        "finished": len(ledger.whole),
        "rows": sum(lines.values()),
        "rows finished": ledger.count,
        "failed": {_name_of(cells[key]): message for key, message in ledger.failed.items()},
        "seconds of each worker": ledger.seconds,
        "damaged": ledger.problems,
    }


def _name_of(cell: Mapping[str, Any]) -> str:
    """What a report of progress calls a cell."""
    return (
        f"{cell['method']} layer {cell['layer']} strength {cell['strength']:g} "
        f"{cell['source']}→{cell['target']}"
    )
