"""The gate's digests see every change of a result, and none of what is no result."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "bench"))

import digests

ROWS = {
    "cell": ["00a1b2c3d4e5f607", "10a1b2c3d4e5f607"],
    "seconds": [0.5, 0.25],
    "output": ["ja", "nein"],
    "dose": [0.5, float("nan")],
    "joint": [True, False],
}


def changes(**columns: Any) -> list[str]:
    """What differs when these columns stand in the place of the rows' own."""
    before, now = (
        {"rows": digests.of_frame(pd.DataFrame(rows))} for rows in (ROWS, ROWS | columns)
    )
    return digests.differences(before, now)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"dose": [0.5 + 1e-17, float("nan")]}, None),
        (
            {"dose": [0.5000000000000001, float("nan")]},
            "rows: dose: other values; the sum was 0.5 and is 0.5",
        ),
        ({"output": ["nein", "ja"]}, "rows: output: the same values in another order"),
        ({"output": ["ja", "nein "]}, "rows: output: other values"),
        ({"joint": [1, 0]}, "rows: joint: other values"),
        ({"score": [1, 2]}, "rows: new columns: score"),
        ({"dose": [0.5, None]}, None),
        ({"cell": ["20a1b2c3d4e5f607", "30a1b2c3d4e5f607"], "seconds": [7.0, 8.0]}, None),
        ({"row": ["20a1b2c3d4e5f607", "30a1b2c3d4e5f607"]}, None),
    ],
)
def test_what_counts_as_a_difference(columns: dict[str, Any], told: str | None) -> None:
    assert changes(**columns) == ([] if told is None else [told])


def test_arrays_have_their_shape_and_last_bit() -> None:
    one = np.arange(6, dtype=np.float32)
    same = digests.of_arrays({"a": one})
    assert digests.of_arrays({"a": one.astype(np.float64)}) == same
    assert digests.of_arrays({"a": one.reshape(2, 3)}) != same
    assert digests.of_arrays({"a": np.nextafter(one, np.float32(9))}) != same


def test_json_without_times_and_hashes() -> None:
    told = {"seconds": 3, "results": {"joint": [0.5, 1], "key": "x", "digest": "00a1b2c3d4e5f607"}}
    other = {"seconds": 4, "results": {"joint": [0.5, 1], "key": "y", "digest": "10a1b2c3d4e5f607"}}
    assert digests.of_json(told) == digests.of_json(other)
    other["results"] = {"joint": [1, 0.5]}
    assert digests.of_json(told) != digests.of_json(other)


def test_a_table_that_is_gone_is_told() -> None:
    table = digests.of_lines(["a", "b"])
    assert digests.differences({"a": table}, {"b": table}) == ["a: no longer there", "b: new"]
