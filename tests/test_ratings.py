"""Outputs drawn for a rater: no score in sight, every stratum met, and ratings kept as they are."""

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from synthetic_run import synthetic_rows

from steerlab.core.errors import SteerlabError
from steerlab.scores.judges.ratings import agreement_with_ratings, auc, ratings

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


# what is kept, and how far scores agree with it


def test_kept_ratings_are_loaded_and_checked(tmp_path: Path) -> None:
    line = {"id": 1, "model": "m", "form": "line", "source": "en", "target": "de", "sentence": 3}
    line |= {"question": "a", "reference": "b", "output": "c", "rating": 2, "rater": "a test"}
    with pytest.raises(SteerlabError, match="there are no ratings"):
        ratings(tmp_path)
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps(line) + "\n" + json.dumps(line | {"rating": 0}) + "\n", "utf-8")
    assert ratings(tmp_path)["rating"].tolist() == [2, 0]
    file.write_text(json.dumps(line | {"rating": 3}) + "\n", "utf-8")
    with pytest.raises(SteerlabError, match="has a rating of 3; the ratings are"):
        ratings(tmp_path)
    del line["rater"]
    file.write_text(json.dumps(line) + "\n", "utf-8")
    with pytest.raises(SteerlabError, match="lacks rater"):
        ratings(tmp_path)


def rated(count: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rating = rng.integers(0, 3, count)
    return pd.DataFrame(
        {
            "rating": rating,
            "sentence": np.arange(count) % 40,
            "perfect": rating * 10.0,
            "same": rating == 2,
            "noise": rng.random(count),
            "coin": rng.random(count) < 0.5,
            "few": np.where(np.arange(count) < 60, rating, np.nan),
        }
    )


def test_agreement_is_full_for_the_rating_itself_and_none_for_noise() -> None:
    table = agreement_with_ratings(rated(), ["perfect", "same", "noise", "coin", "few"])
    lines: list[Any] = table.to_dict("records")
    found: dict[str, Any] = {line["score"]: line for line in lines}
    perfect, same, noise, coin = (found[name] for name in ("perfect", "same", "noise", "coin"))
    assert perfect["spearman"] == pytest.approx(1)
    assert (perfect["auc_part"], perfect["auc_same"]) == (1, 1)
    assert np.isnan(perfect["share"])  # not a score that is yes or no
    assert same["kappa_same"] == pytest.approx(1)
    assert 0 < same["kappa_part"] < 1
    assert same["share"] == same["share_same"]
    for measure, none in (("spearman", 0.0), ("auc_part", 0.5), ("auc_same", 0.5)):
        assert noise[f"{measure}_low"] < none < noise[f"{measure}_high"], measure
        assert abs(coin[measure] - none) < 0.2
    assert abs(coin["kappa_same"]) < 0.2
    assert {name: line["n"] for name, line in found.items() if name != "few"} == dict.fromkeys(
        ("perfect", "same", "noise", "coin"), 240
    )
    assert found["few"]["n"] == 60
    assert noise["sentences"] == 40


def test_auc_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 5, 80).astype(float)  # with ties
    truth = rng.random(80) < 0.3
    assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    assert np.isnan(auc(scores, np.ones(80, dtype=bool)))
