"""Grids: every cell is run once, also after a stop, and gives what the steps by hand give."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import steerlab.engine.collect
import steerlab.estimate
from steerlab.core.corpus import Corpus, corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.edits import add, rotate
from steerlab.edits.twins import Twin
from steerlab.engine import batching
from steerlab.engine.collect import collect
from steerlab.engine.decoding import decode, generate
from steerlab.estimate import controls
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.scores.judges import Likelihood, score
from steerlab.scores.langid import Identifier, identifier
from steerlab.scores.text import first_line
from steerlab.sweeps import decoding, fits, scoring
from steerlab.sweeps import runner as running
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.fits import fit
from steerlab.sweeps.runner import Runner, run_locally
from steerlab.sweeps.sweep import sweep
from steerlab.sweeps.twins import equalised

GRID: dict[str, Any] = {
    "targets": ["es", "de"],
    "layers": [3, 5],
    "strengths": [1.0],
    "limit": 2,
    "batch": 4,
}


def steered(**changes: Any) -> Cell:
    """A cell that steers from English to Spanish."""
    given: dict[str, Any] = {
        "method": "diffmean",
        "operator": "add",
        "layer": 3,
        "strength": 1.0,
        "source": "en",
        "target": "es",
        "split": "dev",
        "fits": ("diffmean",),
    }
    return Cell(**given | changes)


@pytest.fixture(scope="module")
def pair() -> Corpus:
    return corpus().select(["en", "de", "es"])


@pytest.fixture(autouse=True, scope="module")
def read_once() -> Iterator[None]:
    """The same corpus at the same layers is collected once: it is not what is tested here."""
    known: dict[tuple, Moments] = {}

    def cached(
        model: Model, part: Corpus, *, layers: list[int], also: list[str], **given: Any
    ) -> Moments:
        key = (model.fingerprint, part.hash, *layers, *also)
        if key not in known:
            known[key] = collect(model, part, layers=layers, also=also, **given)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fits, "collect", cached)
        patch.setattr(running, "GROUP", 1)  # so that a few rows are several groups
        yield


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call of decode was given."""
    calls: list[int] = []

    def count(model, prompts, **options):
        calls.append(len(prompts))
        return decode(model, prompts, **options)

    monkeypatch.setattr(decoding, "decode", count)
    return calls


def same(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    pd.testing.assert_frame_equal(a, b, check_exact=False, rtol=1e-4)
    return True


def test_a_sweep_is_the_steps_by_hand(polyglot, pair):
    rows = sweep(polyglot, pair, operators=["add", "rotate"], **GRID)
    assert len(rows) == 2 * 2 * 2 * 2
    assert list(rows.groupby("method").size().items()) == [("diffmean", 8), ("diffmean_rotate", 8)]
    directions = fit(polyglot, pair, ["diffmean"], layers=[3, 5], source="en")["diffmean"]
    dev = pair.split("dev").take(2)
    for row in rows.to_dict("records"):
        text = dev["en"][dev.numbers.index(row["sentence"])]
        step = directions.between("en", row["target"]).at(row["layer"])
        edit = add(step, strength=1.0) if row["operator"] == "add" else rotate(step, share=1.0)
        assert row["prompt"] == f"{text}\n"
        assert row["output"] == first_line(generate(polyglot, [row["prompt"]], edit=edit)[0])
        assert row["in_language"] == (row["language"] == row["target"])
        assert row["dose"] > 0
    assert set(rows["split"]) == {"dev"}


def test_columns(polyglot, pair):
    rows = sweep(polyglot, pair, **GRID)
    words = (
        "method estimator operator layer strength split source target sentence seed cell prompt "
        "output language"
    )
    numbers = (
        "in_language relevant joint chrf bits_per_byte_ratio repetition dose tokens batch_rows"
    )
    assert {*words.split(), *numbers.split()} <= set(rows.columns)
    for name in ("in_language", "relevant", "joint"):
        assert rows[name].dtype == bool
    assert rows["tokens"].between(0, running.NEW_TOKENS).all()
    assert not rows.duplicated(["cell", "sentence"]).any()


def test_a_finished_cell_is_never_run_again(polyglot, pair, tmp_path, decoded):
    first = sweep(polyglot, pair, out=tmp_path, **GRID)
    assert decoded == [4, 4]  # 8 rows, 4 a batch
    assert len(list(tmp_path.glob("rows/*.jsonl"))) == 1
    written = {file: file.read_bytes() for file in tmp_path.rglob("*.jsonl")}
    pd.testing.assert_frame_equal(sweep(polyglot, pair, out=tmp_path, **GRID), first)
    assert decoded == [4, 4]
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.jsonl")} == written
    more = sweep(polyglot, pair, out=tmp_path, **GRID | {"strengths": [1.0, 1.5]})
    assert sum(decoded) == 16
    assert len(more) == 16
    pd.testing.assert_frame_equal(more[more["strength"] == 1.0].reset_index(drop=True), first)


def test_a_stopped_sweep_goes_on(polyglot, pair, tmp_path, decoded, monkeypatch):
    whole = sweep(polyglot, pair, **GRID)
    monkeypatch.setattr(
        scoring, "score", lambda *a, **b: score(*a, **b) if len(decoded) < 4 else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        sweep(polyglot, pair, out=tmp_path, **GRID)
    assert len(list(tmp_path.glob("rows/*.jsonl"))) == 1
    monkeypatch.setattr(scoring, "score", score)
    assert same(sweep(polyglot, pair, out=tmp_path, **GRID), whole)
    assert decoded == [4, 4, 4, 4, 4]  # the whole took two, the stopped one two, the rest one


def test_what_decides_a_number_decides_the_cell(polyglot, pair, tiny, directions):
    cell = steered()

    def key(cell: Cell = cell, **changes: Any) -> str:
        given: dict[str, Any] = {
            "model": polyglot,
            "corpus": pair,
            "directions": {"diffmean": directions, "other": directions},
            "identifier": identifier(),
            "limits": {"dev": 2, "test": 2},
        }
        return Runner(**given | changes).key(cell)

    assert key() == key(batch=batching.ROWS)  # what is advised for polyglot
    others = [
        key(batch=7),
        key(steered(lines=(0,))),
        key(model=load(tiny("llama"))),
        key(corpus=pair.select(["en", "es"])),
        key(directions={"diffmean": directions.at(3)}),
        key(limits={"dev": 3}),
        key(fluency=True),
        key(steered(strength=1.5)),
        key(steered(split="test")),
        key(steered(form="instructed")),
    ]
    assert len({key(), *others}) == len(others) + 1


class NamedOtherwise(Identifier):
    """Another identifier, as far as a key can tell."""

    name, languages = "other", frozenset({"en", "es"})

    def _weigh(self, lines: list[str]) -> list[tuple[str, float]]:
        return [("es", 1.0) for _ in lines]


def test_what_is_replaced_after_a_key_changes_the_key(polyglot, pair, directions):
    """A runner remembers what its keys are made of: nothing of it may outlive a change, and
    nothing changes in place."""
    cell = steered()
    fits = {"diffmean": directions}
    made = Runner(polyglot, pair, fits, identifier(), {"dev": 2}, temperature=0.7)
    before = made.key(cell)
    changes: dict[str, Any] = {
        "judge": Likelihood(pair, polyglot),
        "seed": 1,
        "new_tokens": 5,
        "identifier": NamedOtherwise(),
        "fluency": True,
        "directions": {"diffmean": controls.random(directions, seed=0)},
        "batch": 7,
        "limits": {"dev": 1},
        "temperature": 0.9,
    }
    for name, value in changes.items():
        assert replace(made, **{name: value}).key(cell) != before, name
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, value)
    assert replace(made, workers=run_locally, retry=True).key(cell) == before, (
        "who works does not decide a number"
    )
    fits["diffmean"] = changes["directions"]["diffmean"]
    assert made.key(cell) == replace(made).key(cell) == before, (
        "nor does what the caller does with a table of its own"
    )


def test_a_cell_of_several_fits_takes_them_in_turn(polyglot, pair, directions):
    fits = {"a": directions, "b": directions, "c": directions}
    cell = steered(method="random", fits=("a", "b", "c"))
    runner = Runner(polyglot, pair, fits, identifier(), {"dev": 4})
    rows = runner.run([cell])
    assert rows["estimator"].tolist() == ["a", "b", "c", "a"]
    assert rows["seed"].tolist() == [0, 1, 2, 0]


def test_twins_of_a_cell_have_its_dose_and_their_rows_say_which_they_are(
    polyglot, pair, directions
):
    fits = {"diffmean": directions}
    runner = Runner(polyglot, pair, fits, identifier(), {"dev": 4})
    own = steered(operator="rotate", strength=1.0)
    other = replace(own, method="twin", twins=(Twin(0), Twin(1)))
    assert other.edit(fits, 0) != other.edit(fits, 1) != own.edit(fits, 0)
    assert other.edit(fits, 0) == other.edit(fits, 2), "sentences take them in turn"
    plain, scaled = equalised(runner, [own, other])
    assert plain == own
    assert [twin.seed for twin in scaled.twins] == [0, 1]
    assert all(twin.scale == float(f"{twin.scale:.4g}") for twin in scaled.twins)
    assert runner.key(scaled) != runner.key(own)
    rows = runner.run([own, scaled])
    by = dict(list(rows.groupby("method")))
    doses = by["twin"]["dose"].mean()
    assert doses == pytest.approx(by[own.method]["dose"].mean(), rel=0.06)
    assert by["twin"]["seed"].tolist() == [0, 1, 0, 1]
    assert by["twin"]["twin"].tolist() == [str(twin) for twin in scaled.twins * 2]
    assert set(by[own.method]["twin"]) == {""}


def test_a_row_says_where_its_edit_acts_and_what_it_moves(polyglot, pair, directions):
    """Neurons have the dose of what they write, and their own share in a column of its own."""
    width, langs = polyglot.width_of("mlp_post"), directions.langs
    shape = (len(langs), len(directions.layers), width)
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    neurons = replace(
        directions,
        vectors=values,
        basis=values[:, :, None],
        means=values,
        site="mlp_post",
        extra={"mask": (values > 0.98).float(), "values": 5 * values},
    )
    fits = {"diffmean": directions, "neurons": neurons}
    runner = Runner(polyglot, pair, fits, identifier(), {"dev": 3})
    whole: dict[str, Any] = {"method": "neurons", "operator": "neuron_add", "layer": -1}
    cells = [
        Cell.unsteered(source="en", target="es", split="dev"),
        steered(),
        replace(steered(), fits=("neurons",), **whole),
    ]
    by = dict(list(runner.run(cells).groupby("method")))
    assert {name: set(part["site"]) for name, part in by.items()} == {
        "unsteered": {""},
        steered().method: {"resid_post"},
        "neurons": {"mlp_post"},
    }
    assert (by["unsteered"][["dose", "displacement"]] == 0).all(axis=None)
    for name in (steered().method, "neurons"):
        assert (by[name][["dose", "displacement"]] > 0.01).all(axis=None), name
    assert (by["neurons"]["dose_mlp_post"] > 1.2 * by["neurons"]["dose"]).all()
    assert by[steered().method]["dose_mlp_post"].isna().all()
    assert by["unsteered"]["dose_mlp_post"].isna().all()


def test_cells_without_an_edit_and_of_other_forms(polyglot, pair, directions):
    cells = [
        Cell.unsteered(source="en", target="es", split="dev"),
        Cell.unsteered(source="en", target="de", split="dev"),
        Cell.unsteered(method="prompt", source="en", target="es", split="dev", form="instructed"),
        steered(method="removal", operator="ablate", source="es"),
        steered(),
    ]
    runner = Runner(
        polyglot, pair, {"diffmean": directions}, identifier(), {"dev": 3}, fluency=True
    )
    rows = runner.run(cells)
    by = dict(list(rows.groupby("method")))
    assert rows["method"].tolist() == [
        cell.method for cell in cells for _ in range(3)
    ]  # in the order of the cells
    assert (by["unsteered"]["dose"] == 0).all()
    spoken = by["unsteered"].groupby("target")["output"].apply(list)
    assert spoken["es"] == spoken["de"]  # nothing was asked of the model
    texts = by["unsteered"]["prompt"].drop_duplicates().tolist()
    assert spoken["es"] == [first_line(text) for text in generate(polyglot, texts)]
    assert by["prompt"]["prompt"].str.contains("\nSpanish:").all()
    assert by["removal"]["prompt"].tolist() == [
        f"{line}\n" for line in runner.lines(cells[3])["es"]
    ]
    assert np.isfinite(rows.loc[rows["output"] != "", "bits_per_byte_ratio"]).all()


@pytest.mark.parametrize("estimator", steerlab.estimate.__all__)
def test_what_an_estimator_needs_is_collected_however_large(estimator, polyglot, pair, monkeypatch):
    monkeypatch.setattr(steerlab.engine.collect, "FREE_BYTES", 0)
    few = pair.take(60)  # any number of texts is too large for no memory at all
    assert (
        fit(polyglot, few, [estimator], layers=[5], source="en")[estimator].estimator == estimator
    )


def test_what_a_sweep_refuses(polyglot, pair, tmp_path):
    def refused(told: str, **changes: Any) -> None:
        with pytest.raises(SteerlabError, match=told):
            sweep(polyglot, pair, **GRID | changes)

    refused(
        "there is no estimator 'magic'; there are diffmean, .*lda against source",
        estimators=["magic"],
    )
    refused("a sweep steers with add, rotate, .* not with 'multiply'", operators=["multiply"])
    refused("unknown language code 'xx'; known codes: en de", targets=["xx"])
    refused("corpus 'parallel' has no 'ru'; it has en de es", targets=["ru"])
    refused("the source 'en' is among the targets", targets=["de", "en"])
    refused("layers 0 to 7; layer 8 was asked for", layers=[8])
    refused("limit: input should be greater than or equal to 1, and 0 was given", limit=0)
    refused(
        "split: input should be 'estimate', 'dev' or 'test', and 'train' was given", split="train"
    )
    for empty in ("targets", "estimators", "operators", "layers", "strengths"):
        refused(f"{empty}: there is nothing in it; give at least one", **{empty: []})


def test_a_limit_takes_the_same_lines_for_every_cell(polyglot, pair):
    rows = sweep(polyglot, pair, **GRID)
    assert {tuple(part["sentence"]) for _, part in rows.groupby("cell")} == {
        pair.split("dev").take(2).numbers
    }


def test_what_reads_other_layers_or_another_source_gets_them(polyglot, pair):
    few, all_layers = (
        fit(polyglot, pair, ["sparse", "sparse monolingual"], layers=layers, source="de")
        for layers in ([2, 5], range(polyglot.n_layers))
    )
    for name, found in few.items():
        assert found.layers == (2, 5)
        assert (found.extra["mask"] == all_layers[name].at(2, 5).extra["mask"]).all(), name
    assert few["sparse"].source == "de"
    assert few["sparse"].between("de", "es").source == "de"
