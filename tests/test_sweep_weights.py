"""Changed weights in a sweep: an operator may give them, and its rows run by themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import write_json
from steerlab.edits import Operator
from steerlab.edits.digest import function_digest
from steerlab.edits.twins import Twin
from steerlab.models.model import Model
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.sweep import sweep

SHORT: dict[str, Any] = {
    "targets": ["de"],
    "layers": [5],
    "split": "dev",
    "limit": 4,
    "new_tokens": 8,
    "progress": False,
}


def everywhere(direction: Any, *, strength: float) -> Any:
    return sl.add(direction, strength=strength, positions="everywhere")


@pytest.fixture(scope="module")
def texts() -> Corpus:
    return sl.corpus(langs=["en", "de"])


@pytest.fixture(scope="module")
def made(polyglot: Model, texts: Corpus) -> Directions:
    few = texts.split("estimate").take(8)
    return sl.diffmean(sl.collect(polyglot, few, also=[], progress=False))


def test_baked_rows_say_what_hooked_ones_say(
    polyglot: Model, texts: Corpus, made: Directions, tmp_path: Path
) -> None:
    calls: list[float] = []

    def baked(direction: Any, *, strength: float) -> Any:
        calls.append(strength)
        return sl.bake(polyglot, everywhere(direction, strength=strength))

    def written(direction: Any, *, strength: float) -> Any:
        return sl.bake(polyglot, everywhere(direction, strength=strength))

    before = polyglot.fingerprint
    grid: dict[str, Any] = {"directions": {"made": made}, "strengths": [0.5, 1.0]}
    ways = {"baked": baked, "everywhere": everywhere, "add": None}
    rows = sweep(polyglot, texts, operators=ways, **grid, **SHORT)
    assert not rows.attrs.get("failed")
    assert len(calls) == 2, "once for a cell, not once for a row"
    said = {name: part.reset_index(drop=True) for name, part in rows.groupby("method")}
    assert said["made_baked"]["output"].tolist() == said["made_everywhere"]["output"].tolist()
    assert set(said["made_baked"]["site"]) == {"weights"}
    assert said["made_baked"][["dose", "displacement"]].isna().all(axis=None)
    assert polyglot.fingerprint == before
    # Rows beside them are what they are without them.
    alone = sweep(polyglot, texts, operators={"add": None}, **grid, **SHORT)
    columns = ["strength", "sentence", "output", "dose", "displacement", "joint"]
    for column in columns:
        here, there = said["made"][column], alone.reset_index(drop=True)[column]
        assert np.allclose(here, there) if here.dtype.kind == "f" else here.equals(there), column
    # A folder keeps them, also behind work that fills the package's own tables.
    ways = {"written": written}
    out = tmp_path / "out"
    first = sweep(polyglot, texts, operators=ways, out=out, **grid, **SHORT)
    files = sorted((out / "rows").glob("*.jsonl"))
    write_json(tmp_path / "other.json", {})
    again = sweep(polyglot, texts, operators=ways, out=out, **grid, **SHORT)
    pd.testing.assert_frame_equal(first, again)
    assert sorted((out / "rows").glob("*.jsonl")) == files


def test_a_block_more_runs_as_a_model_of_its_own(
    shaped: Callable[[str], Model], polyglot: Model, texts: Corpus
) -> None:
    model = shaped("gemma3")
    few = texts.split("estimate").take(4)
    means = sl.diffmean(sl.collect(model, few, also=[], progress=False))

    def written(direction: Any, *, strength: float) -> Any:
        edit = everywhere(direction, strength=strength)
        return sl.bake(model, edit, more_blocks=True)

    ways = {"written": written, "everywhere": everywhere}
    keys: dict[str, Any] = {**SHORT, "layers": [1], "strengths": [2.0]}
    rows = sweep(model, texts, directions={"made": means}, operators=ways, **keys)
    assert not rows.attrs.get("failed")
    said = rows.groupby("method")["output"].agg(list)
    assert said["made_written"] == said["made_everywhere"]
    plain = sl.generate(model, rows["prompt"][:4].tolist(), max_new_tokens=8)
    assert [text.split("\n")[0].strip() for text in plain] != said["made_written"]
    assert model.n_layers == 3
    made = written(means.between("en", "de").at(1), strength=2.0)
    with (
        pytest.raises(SteerlabError, match="these weights were changed in"),
        made.running(polyglot),
    ):
        pass


def test_steer2edit_is_chosen_by_rho_as_others_are_by_strength(
    polyglot: Model, texts: Corpus, made: Directions
) -> None:
    few = texts.split("estimate").take(8)
    readings = [
        sl.collect(polyglot, few, site=site, also=[], progress=False)
        for site in ("attn_z", "mlp_post")
    ]

    def weights(direction: Any, *, rho: float) -> Any:
        return sl.steer2edit(polyglot, *readings, source="en", target="de", rho_neurons=rho)

    record = Operator(
        make=weights, knob="rho", unit="1/√d", grid=(0.5, 8.0), whole=True, no_twin="none"
    )
    rows = sweep(polyglot, texts, operators={"weights": record}, directions={"made": made}, **SHORT)
    assert not rows.attrs.get("failed")
    assert set(rows["layer"]) == {-1}
    assert set(rows["strength"]) == {0.5, 8.0}
    by_rho = rows.groupby("strength")["output"].agg(list)
    assert by_rho[0.5] != by_rho[8.0]
    with weights(None, rho=8.0).on(polyglot):
        alone = sl.generate(polyglot, rows["prompt"][:4].tolist(), max_new_tokens=8)
    assert [text.split("\n")[0].strip() for text in alone] == by_rho[8.0]


def test_weights_have_no_twin_and_no_place_where_activations_are_asked_for(
    polyglot: Model, made: Directions
) -> None:
    record = Operator(
        make=lambda direction, *, strength: sl.bake(
            polyglot, everywhere(direction, strength=strength)
        ),
        knob="strength",
        unit="gaps",
        grid=(1.0,),
        no_twin="none",
    )
    keys: dict[str, Any] = {"source": "en", "target": "de", "split": "dev", "fits": ("made",)}
    cell = Cell(method="m", operator="own", layer=5, strength=1.0, **keys)
    with pytest.raises(SteerlabError, match="own changes weights, and an edit of activations"):
        cell.edit({"made": made}, 0, {"own": record})
    twin = Cell(method="m", operator="own", layer=5, strength=1.0, twins=(Twin(0, 1.0),), **keys)
    with pytest.raises(SteerlabError, match=r"no random twin; compare it with the same"):
        twin.change({"made": made}, 0, {"own": record})


def test_a_function_that_calls_the_engine_is_told_by_the_package(tmp_path: Path) -> None:
    """Not by what the package remembers of its work."""

    def written(direction: Any) -> Any:
        return sl.bake("polyglot", direction)

    def other(direction: Any) -> Any:
        return sl.steer2edit("polyglot", direction, source="en", target="de")

    before = function_digest(written)
    write_json(tmp_path / "a.json", {"a": 1})
    assert function_digest(written) == before != function_digest(other)
