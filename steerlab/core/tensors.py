"""Files of tensors and numbers of which nothing is taken on trust: whatever is wrong with one is a
sentence that names it."""

import math
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.files import read_bytes


def read_safetensors(
    file: str | Path, *, again: str = "fetch it again"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(the tensors of a safetensors file, its header); `again` is the advice for a damaged one."""
    need_file(file)
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
            return tensors, dict(opened.metadata() or {})
    # A damaged header can name any type and any size, and what that raises has no class in common.
    except Exception as error:
        raise SteerlabError(
            f"{file} is truncated or no safetensors file ({first_line_of(error)}); {again}"
        ) from error


def need_file(file: str | Path) -> None:
    """Raise unless there is a regular file."""
    if not Path(file).exists():
        raise SteerlabError(f"there is no file {file}")
    if not Path(file).is_file():
        read_bytes(file)  # which says what it is


def number_in(value: Any, what: str, *, least: float | None = None) -> float:
    """A finite number in a file, which is `what`; `least` is what it has to be above."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain or not math.isfinite(value) or (least is not None and not value > least):
        bound = "" if least is None else f" above {least:g}"
        raise SteerlabError(f"{what} is {repr(value)[:60]}; it has to be a number{bound}")
    return float(value)


def whole_in(value: Any, what: str, *, least: int) -> int:
    """A whole number in a file, which is `what`, of `least` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SteerlabError(
            f"{what} is {repr(value)[:60]}; it has to be a whole number of {least} or more"
        )
    return value


def truth_in(value: Any, what: str) -> bool:
    """A truth value in a file, which is `what`: a word such as "no" would be true."""
    if not isinstance(value, bool):
        raise SteerlabError(f"{what} is {repr(value)[:60]}; it has to be true or false")
    return value


def word_in(value: Any, what: str) -> str:
    """A word in a file, which is `what`."""
    if not isinstance(value, str) or not value:
        raise SteerlabError(f"{what} is {repr(value)[:60]}; it has to be a word")
    return value


def object_in(value: Any, what: str) -> dict[str, Any]:
    """Keys and values in a file, which are `what`; None has none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SteerlabError(f"{what} is {repr(value)[:60]}; it has to be keys and values")
    return value
