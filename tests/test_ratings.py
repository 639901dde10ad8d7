"""Outputs drawn for a rater: no score in sight, every stratum met, and ratings kept as they are."""

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import synthetic_rows

from steerlab.core.errors import SteerlabError

SCRIPT = Path(__file__).parents[1] / "experiments" / "ratings.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows = synthetic_rows()
    rows = rows.assign(question=rows["prompt"].str.strip(), reference=rows["cell"])
    rows.to_parquet(folder / "rows.parquet")
    return folder


def drawn(folder: Path) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    with (folder / "rate.csv").open(encoding="utf-8", newline="") as file:
        form = list(csv.DictReader(file))
    lines = (folder / "drawn.jsonl").read_text("utf-8").splitlines()
    return form, [json.loads(line) for line in lines]


def test_a_rater_sees_no_score_and_both_models(
    script: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    script["draw"](tmp_path, [f"one:echo:{run}", f"two:line:{run}"], count=61, seed=3)
    form, lines = drawn(tmp_path)
    assert list(form[0]) == ["id", "sentence", "reference", "target", "output", "rating"]
    assert {row["rating"] for row in form} == {""}
    assert [row["output"] for row in form] == [line["output"] for line in lines]
    models = [line["model"] for line in lines]
    assert (models.count("one"), models.count("two")) == (30, 31)
    assert models != sorted(models)  # mixed
    assert {line["form"] for line in lines if line["model"] == "one"} == {"echo"}
    assert len({line["target"] for line in lines}) > 10


def test_the_same_seed_draws_the_same(script: dict[str, Any], run: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        script["draw"](tmp_path / name, [f"one:line:{run}"], count=20, seed=seed)
    first, second, third = (drawn(tmp_path / name)[1] for name in "abc")
    assert first == second != third


def test_ratings_are_kept_only_when_all_are_there(
    script: dict[str, Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script["draw"](tmp_path, [f"one:line:{run}"], count=3, seed=0)
    with pytest.raises(SteerlabError, match="may hold ratings"):
        script["draw"](tmp_path, [f"one:line:{run}"], count=3, seed=0)
    monkeypatch.setitem(script["keep"].__globals__, "KEPT", tmp_path / "kept")
    with pytest.raises(SteerlabError, match="3 of 3 outputs have no rating"):
        script["keep"](tmp_path, rater="a test")
    form, lines = drawn(tmp_path)
    with (tmp_path / "rate.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(form[0]))
        table.writeheader()
        # In another order, as a spreadsheet may leave it.
        table.writerows(row | {"rating": int(row["id"]) % 3} for row in reversed(form))
    kept = script["keep"](tmp_path, rater="a test").read_text("utf-8").splitlines()
    expected = [line | {"rating": line["id"] % 3, "rater": "a test"} for line in lines]
    assert [json.loads(line) for line in kept] == expected


def test_more_than_there_is_raises(script: dict[str, Any], run: Path, tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="draw at most"):
        script["draw"](tmp_path, [f"one:line:{run}"], count=10**6, seed=0)
