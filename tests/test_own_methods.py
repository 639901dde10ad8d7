"""A user's own directions, estimators and operators go where the package's go."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import steerlab as sl
from steerlab.analysis.choices import choose
from steerlab.analysis.results import result
from steerlab.core.corpus import Corpus, corpus
from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json
from steerlab.core.moments import Moments
from steerlab.edits import OPERATORS, Edit, Operator
from steerlab.estimate import estimator
from steerlab.figures import heatmap
from steerlab.models.model import Model
from steerlab.sweeps.grid import Grid
from steerlab.sweeps.own import take_own
from steerlab.sweeps.sweep import sweep

SHORT: dict[str, Any] = {
    "layers": [3],
    "limit": 2,
    "targets": ["de"],
    "strengths": [1.0],
    "new_tokens": 8,
}


@pytest.fixture(scope="module")
def texts() -> Corpus:
    return corpus(langs=["en", "de", "es"])


@pytest.fixture(scope="module")
def made(polyglot: Model, texts: Corpus) -> Directions:
    return sl.diffmean(sl.collect(polyglot, texts.split("estimate"), layers=[2, 3]))


def means(moments: Moments) -> Directions:
    return sl.diffmean(moments)


def turned(moments: Moments, *, source: str = "es") -> Directions:
    """Away from the source, which it needs to know; and the statistic that it needs."""
    assert source == "en"
    assert moments.covariance().isfinite().all()
    found = sl.diffmean(moments)
    return dataclasses.replace(found, vectors=-found.vectors)


turned.needs = ["scatter"]  # type: ignore[attr-defined]


def pushed(direction: Direction, *, strength: float) -> Edit:
    return sl.add(direction, strength=strength)


def outputs(rows: pd.DataFrame, method: str) -> list[str]:
    return list(rows.loc[rows["method"] == method, "output"])


# What a sweep makes of them


def test_own_methods_make_the_rows_that_the_packages_make(
    polyglot: Model, texts: Corpus, made: Directions, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {
        **SHORT,
        "estimators": ["diffmean", means, turned],
        "directions": {"made": made},
        "operators": {"add": None, "pushed": pushed},
    }
    rows = sweep(polyglot, texts, **keys)
    assert not rows.attrs.get("failed")
    assert set(rows["estimator"]) == {"diffmean", "means", "turned", "made"}
    expected = outputs(rows, "diffmean")
    for name in ("means", "made", "diffmean_pushed", "means_pushed", "made_pushed"):
        assert outputs(rows, name) == expected, name
    assert outputs(rows, "turned") != expected, "the other way is another output"
    # What reads rows takes them as it takes any.
    assert set(choose(rows)) == set(rows["method"])
    assert result(rows[rows["method"] == "made"])["n"] == 2
    assert heatmap(rows[rows["method"] == "made"]).data

    # A folder keeps the directions, and the same call finds everything done.
    out = tmp_path / "sweep"
    kept = sweep(polyglot, texts, out=out, **keys)
    assert list(kept["output"]) == list(rows["output"])
    files = {file.name.rpartition("-")[0]: file for file in (out / "directions").glob("*-*")}
    assert set(files) == {"diffmean", "means", "turned", "made"}
    assert Directions.load(files["made"]).digest == made.digest
    assert Directions.load(files["means"]).estimator == "means"
    before = sorted(file.stat().st_mtime_ns for file in (out / "rows").glob("*.jsonl*"))
    again = sweep(polyglot, texts, out=out, **keys)
    pd.testing.assert_frame_equal(again, kept)
    assert before == sorted(file.stat().st_mtime_ns for file in (out / "rows").glob("*.jsonl*"))

    # Another thing under the name is refused, before any work, and changes nothing.
    other = dataclasses.replace(made, vectors=-made.vectors)
    named: dict[str, Any] = {
        "means": functools.partial(turned),
        "pushed": lambda direction, *, strength: None,
    }
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("made", {"directions": {"made": other}}),
        ("means", {"estimators": [estimator(named["means"], name="means")]}),
        ("pushed", {"operators": {"pushed": named["pushed"]}}),
    ]
    state = read_json(out / "sweep.json")
    for name, changed in wrong:
        with pytest.raises(SteerlabError, match=f"holds rows of another '{name}'; give yours"):
            sweep(polyglot, texts, out=out, **{**keys, **changed})
    assert read_json(out / "sweep.json") == state
    # Under a name of its own it goes beside them.
    more = sweep(polyglot, texts, out=out, **SHORT, directions={"other": other})
    assert outputs(more, "other") == outputs(rows, "turned")


def test_directions_alone_take_no_pass_over_texts(
    polyglot: Model, texts: Corpus, made: Directions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(*_: Any, **__: Any) -> None:
        raise AssertionError("there is nothing to collect")

    monkeypatch.setattr("steerlab.sweeps.fits.collect", collect)
    keys = {name: value for name, value in SHORT.items() if name != "layers"}
    rows = sweep(polyglot, texts, directions={"made": made}, **keys)
    assert set(rows["method"]) == {"made"}
    assert set(rows["layer"]) == {2, 3}, "the layers that they have"
    with pytest.raises(AssertionError, match="nothing to collect"):
        sweep(polyglot, texts, **SHORT)


def test_keys_tell_own_operators_apart(polyglot: Model, texts: Corpus) -> None:
    from steerlab.sweeps.sweep import prepare

    def key(**changed: Any) -> str:
        grid = Grid(**{**SHORT, **changed})
        runner, cells = prepare(grid, polyglot, texts)
        return runner.key(cells[0])

    own = key(operators={"mine": pushed})
    assert own == key(operators={"mine": pushed})
    assert own != key(operators={"mine": lambda direction, *, strength: sl.add(direction)})
    assert own != key(operators=["add"])


# Which operators suit


def test_operators_suit_what_made_the_directions(made: Directions) -> None:
    from steerlab.sweeps.methods import suits

    def fits(operator: str, **changed: Any) -> bool:
        directions = dataclasses.replace(made, **changed)
        grid = Grid(directions={"made": directions}, estimators="leace,ellipsoid,lape")
        return suits(operator, "made", grid.own)

    def provenance(name: str) -> dict[str, Any]:
        return {"provenance": {"estimator": name}}

    assert fits("add")
    assert not fits("erase")
    assert not fits("neuron_add")
    assert fits("erase", **provenance("leace target"))
    assert fits("neuron_add", **provenance("lape"))
    assert not fits("add", **provenance("lape"))
    mask = {"mask": torch.ones(made.vectors.shape)}
    assert fits("neuron_add", **provenance("a selection of mine"), extra=mask)
    assert not fits("clamp", **provenance("a selection of mine"), extra=mask)
    grid = Grid(estimators=[means])
    assert suits("add", "means", grid.own)
    assert not suits("erase", "means", grid.own)


def test_a_record_brings_its_own_strengths() -> None:
    record = Operator(
        make=pushed, knob="strength", unit="gaps", grid=(0.5, 2.0), no_twin="it is mine"
    )
    grid = Grid(operators={"mine": record, "add": [3.0]})
    assert grid.operators == {"mine": record.grid, "add": (3.0,)}
    assert Grid(operators={"mine": pushed}, strengths=[0.5]).operators == {"mine": (0.5,)}


# What is refused


def test_names_that_clash_or_are_none_are_refused(made: Directions) -> None:
    record = estimator(means, name="twice")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"directions": {"lda": made}}, "directions: 'lda' is the package's own or given twice"),
        ({"directions": {"a/b": made}}, "directions: 'a/b' is no name for rows and files"),
        ({"directions": {"mine": made.vectors}}, "directions.mine: Directions are needed, not Ten"),
        ({"directions": made}, "directions: give them by name, such as"),
        ({"estimators": [lambda moments: made]}, "estimators: '<lambda>' is no name for rows"),
        ({"estimators": [record, record]}, "estimators: 'twice' is the package's own or given"),
        ({"estimators": [estimator(means, name="nju")]}, "estimators: 'nju' is the package's own"),
        ({"estimators": [3]}, "estimators: an estimator is a name or a function .*, not int"),
        ({"estimators": ["nix", means]}, "estimators: there is no estimator 'nix'; .*, means"),
        ({"operators": {"add": pushed}, "strengths": [1.0]}, "operators: 'add' is the package's"),
        ({"operators": {"mine": pushed}}, "operators.mine: it has no strengths of its own; give"),
        (
            {"operators": {"mine": lambda direction: None}, "strengths": [1.0]},
            "operators.mine: it has no keyword to vary",
        ),
    ]
    for keys, message in wrong:
        with pytest.raises(SteerlabError, match=message):
            Grid(**keys)
    taken, own = take_own({"directions": {"mine": made}, "estimators": ["diffmean", means]})
    assert taken["estimators"] == ["diffmean", "means", "mine"]
    assert own.fits == ("mine", "means")


def test_needs_are_statistics() -> None:
    assert estimator(turned).needs == ("scatter",)
    assert estimator(turned).sourced
    assert not estimator(means).sourced
    assert estimator(means, needs=["sample"]).needs == ("sample",)
    with pytest.raises(SteerlabError, match="no statistic 'variance' to collect; needs= takes sc"):
        estimator(means, needs=["variance"])
    with pytest.raises(SteerlabError, match="the package's own record of lda; give its name"):
        estimator(sl.estimate.VARIANTS["lda"])


def test_directions_of_another_model_are_refused_before_the_work(
    polyglot: Model, texts: Corpus, made: Directions, tmp_path: Path
) -> None:
    def changed(**fields: Any) -> Directions:
        return dataclasses.replace(made, **fields)

    wide = torch.nn.functional.pad
    another = {**made.provenance, "model": {"name": "other", "fingerprint": "abc"}}
    wider = {name: wide(getattr(made, name), (0, 1)) for name in ("vectors", "means", "basis")}
    wrong: list[tuple[Directions, dict[str, Any], str]] = [
        (changed(provenance=another), {}, "'mine' were made with other .abc., not with polyglot"),
        (changed(**wider), {}, "'mine' have width 257, and polyglot has 256 at resid_post"),
        (changed(layers=(2, 99)), {"layers": [2]}, "has layers 0 to .*; layer 99 was asked for"),
        (made, {"layers": [4]}, "'mine' are at layers 2, 3, and layer 4 was asked for"),
        (changed(source="de"), {}, "were fitted from 'de' only, and the source is 'en'"),
        (changed(langs=("en", "de", "fr")), {"targets": ["es"]}, "are of en de fr, and 'es' was"),
    ]
    for number, (directions, keys, message) in enumerate(wrong):
        out = tmp_path / str(number)
        with pytest.raises(SteerlabError, match=message):
            sweep(polyglot, texts, directions={"mine": directions}, out=out, **{**SHORT, **keys})
        assert not out.exists(), "nothing was begun"


def test_what_an_own_estimator_returns_is_checked(polyglot: Model, texts: Corpus) -> None:
    def nothing(moments: Moments) -> Any:
        return moments.mean

    def cut(moments: Moments) -> Directions:
        found = sl.diffmean(moments)
        kept = {name: getattr(found, name)[:2] for name in ("vectors", "means", "basis")}
        return dataclasses.replace(found, langs=found.langs[:2], **kept)

    with pytest.raises(SteerlabError, match="nothing returned Tensor; an estimator goes from Mom"):
        sweep(polyglot, texts, estimators=[nothing], **SHORT)
    with pytest.raises(SteerlabError, match="cut made directions of en de and none of 'es'"):
        sweep(polyglot, texts, estimators=[cut], **SHORT)


def test_a_folder_refuses_a_function_that_cannot_be_read(
    polyglot: Model, texts: Corpus, tmp_path: Path
) -> None:
    with open(Path(__file__), encoding="utf-8") as stream:

        def unreadable(moments: Moments) -> Directions:
            assert stream.name
            return sl.diffmean(moments)

        with pytest.raises(SteerlabError, match="what 'unreadable' does cannot be read"):
            sweep(polyglot, texts, estimators=[unreadable], out=tmp_path / "sweep", **SHORT)
        rows = sweep(polyglot, texts, estimators=[unreadable], **SHORT)
    assert set(rows["method"]) == {"unreadable"}


def test_an_operator_record_of_ones_own_needs_no_identity() -> None:
    one = Operator(make=pushed, knob="strength", unit="gaps", grid=(1.0,), no_twin="mine")
    assert not one.identity
    with pytest.raises(SteerlabError, match="leaves out identity"):
        dataclasses.replace(one, change=OPERATORS["add"].change)
