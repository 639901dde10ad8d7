"""Digests of results: a hash for each table and each of its columns, of what is a result and
nothing else."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

Column = dict[str, Any]
Table = dict[str, Any]

# What differs from run to run, from machine to machine, or with how the work is dealt out, is no
# result.
_NAMES = re.compile(
    r"((processor_)?seconds|memory|(peak_)?rss|.*_bytes|bytes|at|time|date|started|format|cell|key|worker|host|path|file|folder"
    r"|command|digest|hash|sha256|fingerprint|batch|batch_rows)",
    re.IGNORECASE,
)
_HASH = re.compile(r"(?=.*\d)[0-9a-f]{12,64}")
_LOOPBACK = re.compile(r"127\.0\.0\.1:\d+")
_FILE_HASH = re.compile(r"-[0-9a-f]{8,}(?=\.|$)")


def of_folder(folder: Path, patterns: Sequence[str]) -> dict[str, Table]:
    """A digest of every file that one of the patterns finds, by its path in the folder without
    the hash in it."""
    found: dict[str, Table] = {}
    for pattern in patterns:
        files = sorted(folder.glob(pattern))
        if not files:
            raise FileNotFoundError(f"the job wrote no {pattern}")
        for file in files:
            name = _FILE_HASH.sub("", file.relative_to(folder).as_posix())
            if name in found:
                raise ValueError(f"two files are called {name}")
            found[name] = _of_file(file, folder)
    return found


def _of_file(file: Path, folder: Path) -> Table:
    if file.suffix == ".parquet":
        return of_frame(pd.read_parquet(file))
    if file.suffix == ".csv":
        return of_frame(pd.read_csv(file))
    if file.suffix == ".json":
        return of_json(json.loads(file.read_text("utf-8")))
    if file.suffix == ".safetensors":
        return of_tensors(file)
    return of_lines(file.read_text("utf-8").replace(str(folder), "FOLDER").splitlines())


def of_frame(frame: pd.DataFrame) -> Table:
    """Each column by itself, its values in the table's order."""
    columns = {str(name): frame[name].astype(object).tolist() for name in frame.columns}
    return _table(
        {name: _column(values) for name, values in columns.items() if _told(name, values)}
    )


def of_arrays(arrays: Mapping[str, Any]) -> Table:
    """Arrays or tensors by name, each with its shape."""
    return _table({name: _array(np.asarray(value)) for name, value in arrays.items()})


def of_tensors(file: Path) -> Table:
    """The tensors of a safetensors file, and what its header says they are of."""
    with safe_open(file, framework="np") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}
        about = json.loads((opened.metadata() or {}).get("about", "{}"))
    made = {name: _array(value) for name, value in arrays.items()}
    return _table(made | {"about": _column(list(_leaves(about)))})


def of_json(value: Mapping[str, Any]) -> Table:
    """The keys of the top are the columns, and all that lies below them the values."""
    told = {name: list(_leaves(part)) for name, part in value.items() if not _NAMES.fullmatch(name)}
    return _table({name: _column(leaves) for name, leaves in told.items()})


def of_lines(lines: Iterable[str]) -> Table:
    """A text, line by line."""
    return _table({"line": _column(list(lines))})


def differences(before: Mapping[str, Table], now: Mapping[str, Table]) -> list[str]:
    """What differs, a line each: tables that are gone or new, and the columns of those that
    changed."""
    found = [f"{name}: no longer there" for name in before if name not in now]
    found += [f"{name}: new" for name in now if name not in before]
    for name in before:
        if name in now and before[name] != now[name]:
            found += [
                f"{name}: {line}"
                for line in _changes(before[name]["columns"], now[name]["columns"])
            ]
    return found


def dump(tables: Mapping[str, Table]) -> str:
    """JSON with a line for each column, so that a new baseline reads well as a diff."""
    parts = []
    for name, table in tables.items():
        columns = ",\n".join(
            f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in table["columns"].items()
        )
        top = f'  "sha256": {json.dumps(table["sha256"])}'
        parts.append(f' {json.dumps(name)}: {{\n{top},\n  "columns": {{\n{columns}\n  }}\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


# ---------------------------------------------------------------------------------------- the parts


def _told(name: str, values: Sequence[Any]) -> bool:
    """Whether a column is a result; one whose every value is a hash is a key under another name."""
    return not (_NAMES.fullmatch(name) or (values and all(map(_is_hash, values))))


def _table(columns: dict[str, Column]) -> Table:
    ordered = dict(sorted(columns.items()))
    return {
        "sha256": _sha(f"{name} {column['hash']}" for name, column in ordered.items()),
        "columns": ordered,
    }


def _column(values: Sequence[Any]) -> Column:
    """The hash of the values in order, of the same values sorted, how many, and the sum of those
    that are numbers."""
    told = [_canonical(value) for value in values]
    made: Column = {"rows": len(told), "hash": _sha(told)[:16], "sorted": _sha(sorted(told))[:16]}
    numbers = [float(value) for value in values if _is_number(value) and np.isfinite(value)]
    return made | ({"sum": float(f"{sum(numbers):.8g}")} if numbers else {})


def _array(value: np.ndarray) -> Column:
    """As a column; the shape is hashed with the values, of which -0 is 0."""
    flat = np.ascontiguousarray(value.astype(np.float64)).ravel() + 0.0
    told = hashlib.sha256(f"{value.shape}".encode() + flat.tobytes()).hexdigest()[:16]
    once = hashlib.sha256(np.sort(flat).tobytes()).hexdigest()[:16]
    return {
        "rows": value.size,
        "hash": told,
        "sorted": once,
        "sum": float(f"{np.nansum(np.abs(flat)):.8g}"),
    }


def _canonical(value: Any) -> str:
    """A word for a value that does not depend on how the table keeps it: 1 and 1.0 are one, and
    so are None and NaN."""
    if value is None or value is pd.NA:
        return "none"
    if isinstance(value, (bool, np.bool_)):
        return f"b{bool(value)}"
    if _is_number(value):
        return "none" if value != value else f"n{float(value) + 0.0!r}"
    return "s" + _LOOPBACK.sub("LOOPBACK", str(value))


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and bool(_HASH.fullmatch(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _leaves(value: Any, path: str = "") -> Iterable[Any]:
    """Each value of nested JSON after the path that leads to it."""
    if isinstance(value, Mapping):
        for name in sorted(value):
            if not _NAMES.fullmatch(name):
                yield from _leaves(value[name], f"{path}/{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{path}/{number}")
    elif not _is_hash(value):
        yield path
        yield value


def _sha(words: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(list(words), ensure_ascii=False).encode()).hexdigest()


def _changes(before: Mapping[str, Column], now: Mapping[str, Column]) -> Iterable[str]:
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    if gone:
        yield f"columns no longer there: {', '.join(gone)}"
    if new:
        yield f"new columns: {', '.join(new)}"
    for name in before:
        if name in now and before[name] != now[name]:
            yield f"{name}: {_change(before[name], now[name])}"


def _change(before: Column, now: Column) -> str:
    if before["rows"] != now["rows"]:
        return f"{before['rows']} values before, {now['rows']} now"
    if before["sorted"] == now["sorted"]:
        return "the same values in another order"
    if "sum" in before and "sum" in now:
        return f"other values; the sum was {before['sum']:.8g} and is {now['sum']:.8g}"
    return "other values"
