"""Ablating a language hurts that language, a random direction of the same dose hurts none in
particular."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from steerlab.analysis.effects.asymmetry import asymmetry
from steerlab.analysis.effects.dominance import dominance
from steerlab.analysis.effects.matrix import effect_matrix
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import (
    Edit,
    ablate,
    add,
    gate,
    neuron_add,
    neuron_set,
    neuron_zero,
    push,
    rotate,
)
from steerlab.edits.edit import edit as edit_of
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.language_effects import language_effects
from steerlab.engine.random_edits import doses, random_like
from steerlab.models.model import Model

LAYER = 4


@pytest.fixture(scope="module")
def held_out(lines: Corpus) -> Corpus:
    return lines.split("dev").take(4)


@pytest.fixture(scope="module")
def edits(directions: Directions) -> dict[str, Edit]:
    return {iso: ablate(directions[iso].at(LAYER)) for iso in directions.langs}


@pytest.fixture(scope="module")
def rows(polyglot: Model, held_out: Corpus, edits: dict[str, Edit]) -> pd.DataFrame:
    texts = [text for iso in held_out.langs for text in held_out[iso]]
    controls = {
        iso: random_like(polyglot, texts, edit, seed=place)
        for place, (iso, edit) in enumerate(edits.items())
    }
    return language_effects(polyglot, held_out, edits, controls=controls)


def test_a_languages_ablation_hurts_it_most_and_a_random_one_does_not(rows: pd.DataFrame) -> None:
    found, control = dominance(rows), dominance(rows, kind="control")
    assert (found.share, found.chance) == (1, 0.2)
    assert found.low > 0.3
    assert found.p == pytest.approx(1 / 120)
    assert found.labellings == control.labellings == 120
    assert control.share < 0.8
    assert control.p > 0.05
    assert abs(control.difference) < 0.1 * found.difference


def test_controls_have_the_dose_of_their_edits(rows: pd.DataFrame) -> None:
    given = rows.groupby(["kind", "edit"])["dose"].first()
    assert (given > 0.05).all()
    assert np.allclose(given["control"], given["edit"].reindex(given["control"].index), rtol=0.03)


def test_rows_are_the_cross_entropies(
    polyglot: Model, held_out: Corpus, edits: dict[str, Edit], rows: pd.DataFrame
) -> None:
    plain, steered = cross_entropy(polyglot, held_out["fr"], [Edit(()), edits["de"]])
    part = rows[(rows["kind"] == "edit") & (rows["edit"] == "de") & (rows["language"] == "fr")]
    assert part["sentence"].tolist() == list(held_out.numbers)
    assert part["rise"].to_numpy() == pytest.approx((steered - plain).numpy(), abs=1e-4)
    assert effect_matrix(rows).loc["fr", "de"] == pytest.approx(
        float((steered - plain).mean()), abs=1e-4
    )


def test_the_matrix_has_a_control_column(rows: pd.DataFrame) -> None:
    table, controls = effect_matrix(rows), effect_matrix(rows, kind="control")
    assert list(table.columns) == ["en", "de", "es", "fr", "ru", "control"]
    assert list(table.index) == ["en", "de", "es", "fr", "ru"]
    assert table["control"].to_numpy() == pytest.approx(controls.mean(axis=1).to_numpy())
    assert table["control"].max() < min(table.loc[iso, iso] for iso in table.index)


def test_an_edit_that_does_nothing_changes_nothing(
    polyglot: Model, held_out: Corpus, directions: Directions
) -> None:
    nothing = {iso: ablate(directions[iso].at(LAYER), fraction=0) for iso in ("de", "fr")}
    found = language_effects(polyglot, held_out.take(2), nothing)
    assert np.abs(found["rise"]).max() < 1e-5
    assert dominance(found).difference == pytest.approx(0, abs=1e-5)


def planted(square: np.ndarray, *, kind: str = "edit", sentences: int = 12) -> pd.DataFrame:
    """Rows of a matrix [language edit] with noise that sentences share."""
    isos = "en de es fr ru it pt pl".split()[: len(square)]
    random = np.random.default_rng(1)
    told = [
        {"edit": edit, "kind": kind, "language": iso, "sentence": s, "rise": square[i, j] + noise}
        for s, noise in enumerate(random.normal(0, 0.3, sentences))
        for i, iso in enumerate(isos)
        for j, edit in enumerate(isos)
    ]
    return pd.DataFrame(told)


def test_dominance_of_a_planted_matrix() -> None:
    square = np.arange(4.0)[:, None] + np.arange(
        4.0
    )  # fragile languages and strong edits, and no diagonal
    nothing = dominance(planted(square))
    assert nothing.p > 0.4
    assert nothing.share == 0.25
    found = dominance(planted(square + 3 * np.eye(4)))
    assert found.difference == pytest.approx(3)
    assert (found.low, found.high) == pytest.approx((3, 3)), (
        "what a sentence adds to all is no difference"
    )
    assert found.p == pytest.approx(1 / 24)
    many = dominance(planted(np.eye(8)), draws=200)
    assert many.labellings == 200
    assert many.p == pytest.approx(1 / 201)


@pytest.mark.parametrize("operator", ["add", "ablate", "push", "rotate"])
def test_a_random_edit_has_the_dose_of_its_model(
    operator: str, polyglot: Model, lines: Corpus, directions: Directions
) -> None:
    texts = lines.split("dev")["en"][:3]
    one = directions["de"].at(LAYER)
    edit = {
        "add": lambda: add(one, strength=0.5),
        "ablate": lambda: ablate(one),
        "push": lambda: push(one, strength=0.5),
        "rotate": lambda: rotate(one, share=0.5),
    }[operator]()
    made = random_like(polyglot, texts, edit, seed=3)
    wanted, found = doses(polyglot, texts, [edit, made]).tolist()
    assert found == pytest.approx(wanted, rel=0.03)
    assert wanted > 0.01
    again, other = (random_like(polyglot, texts, edit, seed=seed) for seed in (3, 4))
    keys = {"add": "shift", "ablate": "basis", "push": "basis", "rotate": "second"}
    key = keys[operator]
    mine, same, another, own = (
        made_edit.parts[0].tensors[key].flatten() for made_edit in (made, again, other, edit)
    )
    assert torch.equal(mine, same)
    for stranger in (another, own):
        assert abs(torch.nn.functional.cosine_similarity(mine, stranger, dim=0)) < 0.35


@pytest.mark.parametrize("operator", [neuron_add, neuron_set, neuron_zero])
def test_random_neurons_are_as_many_and_as_strong(
    operator: Callable[..., Edit], polyglot: Model, lines: Corpus
) -> None:
    texts, random = lines.split("dev")["en"][:3], torch.Generator().manual_seed(0)
    width = polyglot.config.intermediate_size
    mask = (torch.rand(1, width, generator=random) < 0.1).float()
    values = 0.2 * mask * torch.rand(1, width, generator=random)
    none, extra = torch.zeros(1, width), {"mask": mask, "values": values}
    about: dict[str, Any] = {
        "target": "de",
        "source": "en",
        "layers": (LAYER,),
        "site": "mlp_post",
        "extra": extra,
    }
    direction = Direction(**about, unit=values, gap=torch.ones(1), start=none, basis=none[:, None])
    edit = operator(direction)
    made = random_like(polyglot, texts, edit, seed=3)
    wanted, found = doses(polyglot, texts, [edit, made]).tolist()
    assert found == pytest.approx(wanted, rel=0.03)
    assert wanted > 0.002  # of the residual stream
    key = "shift" if operator is neuron_add else "weight"
    own, other = (one.parts[0].tensors[key][0] for one in (edit, made))
    assert other.count_nonzero() == own.count_nonzero() == mask.sum()
    assert (own * other).count_nonzero() < 0.3 * mask.sum()
    scale = other.sum() / own.sum()
    assert torch.allclose(other.sort().values, scale * own.sort().values, rtol=1e-4)
    if operator is neuron_set:  # a neuron's value goes with it
        tensors = made.parts[0].tensors
        assert torch.equal(tensors["shift"] != 0, tensors["weight"] != 0)


def test_a_random_gate_opens_where_its_model_does(
    polyglot: Model, lines: Corpus, directions: Directions
) -> None:
    texts, width = lines.split("dev")["en"][:3], polyglot.width
    reader = {
        "encoder": torch.eye(width)[None, :1],
        "bias": torch.zeros(1, 1),
        "threshold": torch.zeros(1, 1),
    }
    edit = gate(
        replace(directions.between("en", "de").at(LAYER), source_extra=reader), strength=0.5
    )
    made = random_like(polyglot, texts, edit)
    wanted, found = doses(polyglot, texts, [edit, made]).tolist()
    assert found == pytest.approx(wanted, rel=0.03)
    for name in reader:
        assert torch.equal(made.parts[0].tensors[name], edit.parts[0].tensors[name])
    mine, own = (one.parts[0].tensors["shift"].flatten() for one in (made, edit))
    assert abs(torch.nn.functional.cosine_similarity(mine, own, dim=0)) < 0.35


def test_a_random_edit_that_cannot_be_had_is_said(
    polyglot: Model, held_out: Corpus, edits: dict[str, Edit], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = edit_of(lambda h: 0 * h, layer=LAYER)
    with pytest.raises(SteerlabError, match="of the operator '<lambda>': it is your own function"):
        random_like(polyglot, held_out["en"], own)
    monkeypatch.setattr(
        "steerlab.engine.random_edits._TRIES", 1
    )  # a random axis holds a tenth of what the language's does
    with pytest.raises(
        SteerlabError,
        match=r"no random edit reached the dose 0.\d+ \(the last had 0.\d+\); take a weaker",
    ):
        random_like(polyglot, held_out["en"], edits["de"])


def test_doses_are_those_that_the_edit_counts(
    polyglot: Model, lines: Corpus, edits: dict[str, Edit]
) -> None:
    texts = lines.split("dev")["de"][:3]
    given = doses(polyglot, texts, [edits["de"], Edit(()), edits["en"]], batch=2)
    assert given[1] == 0
    with edits["en"].on(polyglot) as touched:
        ids = [
            polyglot.tokenizer(f"<s>{text}", add_special_tokens=False).input_ids for text in texts
        ]
        for row in ids:
            polyglot.body(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool))
    counts = torch.tensor([len(row) - 1.0 for row in ids])
    assert sum(touched.prefill.values()) == counts.sum()
    assert float(given[2]) == pytest.approx(float(touched.doses(1)[0]), rel=1e-4)


# ---------------------------------------------------------------------------------------- asymmetry


def both_ways(forward: float, backward: float, sentences: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    told = []
    for source, target, share in (("en", "de", forward), ("de", "en", backward), ("en", "fr", 0.5)):
        for s in range(sentences):
            shared = {"method": "m", "source": source, "target": target, "sentence": s}
            told.append(shared | {"joint": float(random.random() < share)})
    return pd.DataFrame(told)


def test_asymmetry_sees_what_was_planted() -> None:
    rows = both_ways(0.3, 0.95)
    line: Any = asymmetry(rows).iloc[0]
    assert len(asymmetry(rows)) == 1
    means = rows.groupby(["source", "target"])["joint"].mean()
    assert (line.method, line.a, line.b, line.n) == ("m", "de", "en", 40)
    assert (line.forward, line.backward) == pytest.approx((means["de", "en"], means["en", "de"]))
    assert line.difference == pytest.approx(line.forward - line.backward)
    assert 0 < line.difference_low < line.difference < line.difference_high
    assert line.p_holm == line.p < 0.01
    same: Any = asymmetry(both_ways(0.5, 0.5)).iloc[0]
    assert same.p > 0.05
    assert same.difference_low < 0 < same.difference_high


def test_asymmetry_corrects_over_its_table_and_groups() -> None:
    rows = pd.concat([both_ways(0.3, 0.95).assign(method=name) for name in ("a", "b", "c")])
    found = asymmetry(rows, by=["method"])
    assert found["method"].tolist() == ["a", "b", "c"]
    assert found["p_holm"].to_numpy() == pytest.approx(3 * found["p"].to_numpy())


def test_only_sentences_of_both_ways_count() -> None:
    rows = both_ways(0.3, 0.9)
    rows = rows[(rows["source"] != "de") | (rows["sentence"] < 30)]
    assert asymmetry(rows)["n"].tolist() == [30]
    rows.loc[rows["sentence"] == 3, "joint"] = math.nan
    assert asymmetry(rows)["n"].tolist() == [29]


# ------------------------------------------------------------------------------------------- errors


def test_what_is_wrong_is_said(polyglot: Model, held_out: Corpus) -> None:
    with pytest.raises(SteerlabError, match="asked of no edit; give a mapping"):
        language_effects(polyglot, held_out, {})
    with pytest.raises(SteerlabError, match="no rows of the kind 'control'; the kinds are edit"):
        effect_matrix(planted(np.eye(2)), kind="control")
    with pytest.raises(
        SteerlabError, match=r"named by a language of the text \(en, de\); the kind 'edit' has none"
    ):
        dominance(planted(np.eye(2)).assign(edit="random"))
    rows = planted(np.eye(2))
    with pytest.raises(SteerlabError, match="no finite rise in some language"):
        dominance(rows[(rows["edit"] != "en") | (rows["language"] != "de")])
    with pytest.raises(SteerlabError, match="no random control of an edit that does nothing"):
        random_like(polyglot, held_out["en"], Edit(()))
    with pytest.raises(SteerlabError, match=r"no pair of languages was run both ways \(en to fr\)"):
        asymmetry(both_ways(0.5, 0.5).query("target == 'fr'"))
    with pytest.raises(SteerlabError, match="needs the column 'sentence'"):
        asymmetry(both_ways(0.5, 0.5).drop(columns="sentence"))
