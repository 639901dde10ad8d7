"""Trained methods, AUSteer and GrAInS by their names: the same as made by hand, trained once, and
beside each score what its fit took."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlab as sl
import steerlab.sweeps.trainings as trainings
from steerlab.core.corpus import Corpus, corpus
from steerlab.core.costs import cost_of
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import add_code, steer
from steerlab.engine.prompts import encode
from steerlab.estimate.controls import dictionary
from steerlab.models.counting import counted
from steerlab.models.model import Model
from steerlab.sweeps.grid import Grid
from steerlab.sweeps.methods import known, operator_for, suits
from steerlab.sweeps.sweep import prepare, sweep

KNOBS: dict[str, Any] = {"steps": 2, "every": 1, "pairs": 24, "rate": 0.5, "new": 12}
SHORT: dict[str, Any] = {"limit": 2, "strengths": [1.0], "new_tokens": 8, "progress": False}


@pytest.fixture(scope="module")
def texts() -> Corpus:
    return corpus(langs=["en", "de", "es"])


def by_hand(model: Model, texts: Corpus, target: str, layer: int, **options: Any) -> Directions:
    pairs = sl.preferences(texts, "en", target, split="estimate", new=KNOBS["new"])
    knobs = {name: KNOBS[name] for name in ("steps", "every", "rate")}
    return sl.learn(model, pairs.take(KNOBS["pairs"]), layer=layer, **knobs, **options)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(target, layer) of every training that is really done."""
    done: list[tuple[str, int]] = []
    learn = trainings.learn

    def counting(model: Any, preferences: Any, **options: Any) -> Directions:
        done.append((preferences.target, options["layer"]))
        return learn(model, preferences, **options)

    monkeypatch.setattr(trainings, "learn", counting)
    return done


def test_by_name_is_what_is_made_by_hand(polyglot: Model, texts: Corpus) -> None:
    """The rows, and to the last bit the directions, of each layer and target."""
    keys = {**SHORT, "targets": ["de", "es"], "layers": [3, 4], "training": KNOBS}
    rows = sweep(polyglot, texts, estimators=["bipo"], **keys)
    assert not rows.attrs.get("failed")
    assert len(rows) == 2 * 2 * 2
    made = sl.fit(
        "bipo",
        polyglot,
        texts.split("estimate"),
        layers=[3, 4],
        targets="de,es",
        training=KNOBS,
    )
    assert (made.langs, made.layers, made.source) == (("en", "de", "es"), (3, 4), "en")
    for target in ("de", "es"):
        for layer in (3, 4):
            own = by_hand(polyglot, texts, target, layer)
            step, other = (each.between("en", target) for each in (own, made.at(layer)))
            assert torch.equal(step.unit, other.unit)
            assert torch.equal(step.gap, other.gap)
            alone = sweep(
                polyglot,
                texts,
                directions={"bipo": own},
                **{**SHORT, "targets": [target], "layers": [layer]},
            )
            named = rows[(rows["target"] == target) & (rows["layer"] == layer)]
            assert list(alone["output"]) == list(named["output"])
    told = made.provenance["trainings"]
    assert [(each["layer"], each["target"]) for each in told] == [
        (3, "de"),
        (3, "es"),
        (4, "de"),
        (4, "es"),
    ]
    assert made.provenance["seed"] == 0


def test_one_training_alone_has_the_very_directions(polyglot: Model, texts: Corpus) -> None:
    keys: dict[str, Any] = {**SHORT, "targets": ["de"], "layers": [3]}
    del keys["progress"]
    grid = Grid(estimators=["bipo"], training=KNOBS, **keys)
    runner, [cell] = prepare(grid, polyglot, texts)
    own = by_hand(polyglot, texts, "de", 3)
    assert runner.directions["bipo"].digest == own.digest
    beside, [same] = prepare(Grid(directions={"bipo": own}, **keys), polyglot, texts)
    assert runner.key(cell) == beside.key(same)


def test_what_is_trained_is_part_of_the_key(polyglot: Model, texts: Corpus) -> None:
    texts = texts.select(["en", "de"])

    def key(**changed: Any) -> str:
        keys: dict[str, Any] = {"layers": [3], "targets": ["de"], "limit": 2, "strengths": [1.0]}
        grid = Grid(**{**keys, "estimators": ["bipo"], "training": KNOBS, **changed})
        runner, cells = prepare(grid, polyglot, texts)
        return runner.key(cells[0])

    first = key()
    assert first == key()
    assert first != key(training={**KNOBS, "rate": 0.25})
    assert first != key(training={**KNOBS, "pairs": 12})
    assert first != key(seed=1)
    assert first != key(estimators=["yapo"])
    # To no other estimator do they matter.
    assert key(estimators=["diffmean"], training=None) == key(
        estimators=["diffmean", "bipo"], training=KNOBS
    )


def test_a_folder_trains_once_and_goes_on_after_an_interruption(
    polyglot: Model,
    texts: Corpus,
    tmp_path: Path,
    trained: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys: dict[str, Any] = {**SHORT, "targets": ["de", "es"], "layers": [3], "training": KNOBS}
    counting = trainings.learn

    def dies(model: Any, preferences: Any, **options: Any) -> Directions:
        if trained:
            raise KeyboardInterrupt
        return counting(model, preferences, **options)

    monkeypatch.setattr(trainings, "learn", dies)
    with pytest.raises(KeyboardInterrupt):
        sweep(polyglot, texts, estimators=["bipo"], out=tmp_path / "s", **keys)
    monkeypatch.setattr(trainings, "learn", counting)
    first = sweep(polyglot, texts, estimators=["bipo"], out=tmp_path / "s", **keys)
    assert trained == [("de", 3), ("es", 3)], "the first was kept"
    again = sweep(polyglot, texts, estimators=["bipo"], out=tmp_path / "s", **keys)
    assert len(trained) == 2
    assert list(again["output"]) == list(first["output"])
    assert again.attrs["fit"] == first.attrs["fit"], "the cost is that of the first fit"
    # Another layer is trained; what is there stays.
    more = {**keys, "layers": [3, 4], "targets": ["de"]}
    sweep(polyglot, texts, estimators=["bipo"], out=tmp_path / "s", **more)
    assert trained[2:] == [("de", 4)]
    # With other knobs nothing of it is taken.
    other = {**keys, "targets": ["de"], "training": {**KNOBS, "rate": 0.25}}
    sweep(polyglot, texts, estimators=["bipo"], out=tmp_path / "s", **other)
    assert trained[3:] == [("de", 3)]


def test_another_training_under_a_file_s_name_is_refused(
    polyglot: Model, texts: Corpus, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {**SHORT, "layers": [3], "training": KNOBS, "targets": ["de", "es"]}
    sweep(polyglot, texts, estimators=["bipo"], out=tmp_path / "s", **keys)
    german, spanish = sorted((tmp_path / "s" / "directions" / "trained").glob("*.safetensors"))
    german.write_bytes(spanish.read_bytes())
    with pytest.raises(SteerlabError, match="holds the directions of bipo-3-es-.*; delete it and"):
        sweep(
            polyglot,
            texts,
            estimators=["bipo"],
            out=tmp_path / "s",
            **{**keys, "targets": ["de"]},
        )


def test_a_code_of_several_trainings_does_what_each_does(polyglot: Model, texts: Corpus) -> None:
    """Of unlike rank: the latents that one training does not move are zeros."""
    saes = {
        layer: dictionary(polyglot.width, size * polyglot.width, layer=layer, seed=0)
        for layer, size in ((2, 2), (4, 4))
    }
    part = texts.split("estimate")
    made = sl.fit("yapo", polyglot, part, saes=saes, layers=[2, 4], targets=["de"], training=KNOBS)
    h = torch.randn(1, 3, polyglot.width, generator=torch.Generator().manual_seed(0))
    for layer in (2, 4):
        own = by_hand(polyglot, texts, "de", layer, how="yapo", sae=saes[layer])
        changes = []
        for directions in (own, made.at(layer)):
            [each] = add_code(directions.between("en", "de"), strength=1.3).parts
            changes.append(each.change(h, each.tensors, None))
        assert changes[0].any()
        torch.testing.assert_close(*changes, atol=1e-5, rtol=1e-5)
    ranks = made.extra["code"][1].count_nonzero(-1).tolist()
    assert ranks[0] < ranks[1] == made.extra["code"].shape[-1]
    with pytest.raises(SteerlabError, match="yapo trains a code of an autoencoder, and layer 3"):
        sl.fit("yapo", polyglot, part, saes=saes, layers=[3], targets=["de"], training=KNOBS)


def test_austeer_by_name_is_what_is_made_by_hand(polyglot: Model, texts: Corpus) -> None:
    part = texts.split("estimate")
    vectors = sl.collect_texts(polyglot, part, site="mlp_post", read="last")
    chosen = sl.units.austeer(vectors, source="en")
    own = sl.units.momenta(chosen, vectors, source="en")
    assert sl.fit("austeer", polyglot, part).digest == own.digest
    rows = sweep(
        polyglot,
        texts,
        estimators=["austeer"],
        operators=["scale_units"],
        **{**SHORT, "strengths": [0.5], "targets": ["de"]},
    )
    assert not rows.attrs.get("failed")
    assert set(rows["method"]) == {"austeer_scale_units"}
    assert steer("scale_units", own, 0.5, source="en", target="de").parts


def test_grains_by_name_is_what_is_made_by_hand(
    polyglot: Model, texts: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each layer and target; prompts are attributed once for all layers, and never again in a
    folder that has them."""
    few = {"pairs": 3, "new": 6}
    asked: list[tuple[str, list[int]]] = []
    grains = sl.grains

    def counting(model: Any, preferences: Any, **options: Any) -> Directions:
        asked.append((preferences.target, list(options["layers"])))
        return grains(model, preferences, **options)

    monkeypatch.setattr(trainings, "grains", counting)
    keys = {**SHORT, "targets": ["de", "es"], "layers": [3, 4], "training": few}
    for _ in range(2):
        rows = sweep(
            polyglot,
            texts,
            estimators=["grains"],
            operators=["add_keep_norm"],
            out=tmp_path,
            **keys,
        )
        assert asked == [("de", [3, 4]), ("es", [3, 4])]
    assert not rows.attrs.get("failed")
    assert len(rows) == 2 * 2 * 2
    assert rows.attrs["fit"]["grains"]["tokens"] > 0
    part = texts.split("estimate")
    made = sl.fit("grains", polyglot, part, layers=[3, 4], targets="de,es", training=few)
    cost = 0
    for target in ("de", "es"):
        pairs = sl.preferences(part, "en", target, new=few["new"]).take(few["pairs"])
        own = sl.grains(polyglot, pairs, layers=[3, 4])
        cost += own.provenance["cost"]["tokens"]
        step, other = own.between("en", target), made.between("en", target)
        torch.testing.assert_close(step.unit, other.unit)
        torch.testing.assert_close(step.gap, other.gap)
    assert made.provenance["cost"]["tokens"] == cost


def test_a_kept_training_has_a_name_of_some_length_whatever_its_layers() -> None:
    assert trainings.file_name("bipo", [5], "de", "0f") == "bipo-5-de-0f.safetensors"
    many = trainings.file_name("grains", range(126), "de", "0f")
    assert many == "grains-0-125-de-0f.safetensors"


# What a fit took


def test_tokens_are_those_of_the_texts(polyglot: Model, texts: Corpus) -> None:
    """Whatever else is fitted along, and however often."""
    part = texts.take(8)
    lines = [f"{line}\n" for lang in part.langs for line in part[lang]]
    expected = sum(map(len, encode(polyglot.tokenizer, lines)))
    few: dict[str, Any] = {"layers": [3], "targets": ["de"], "training": {**KNOBS, "pairs": 8}}
    names = ["diffmean", "lda", "austeer", "lape", "culnig", "bipo"]
    fits = sl.fit(names, polyglot, part, **few)
    tokens = {name: made.provenance["cost"]["tokens"] for name, made in fits.items()}
    assert tokens["diffmean"] == tokens["lda"] == tokens["austeer"] == expected
    # Neurons are read without the line break of a prompt.
    bare = sum(map(len, encode(polyglot.tokenizer, [line.strip() for line in lines])))
    assert tokens["lape"] == bare
    assert tokens["culnig"] > 2 * bare, "items and control, and the neurons"
    pairs = sl.preferences(part, "en", "de", new=KNOBS["new"])
    knobs = {name: KNOBS[name] for name in ("steps", "every", "rate")}
    own = sl.learn(polyglot, pairs, layer=3, **knobs)
    assert tokens["bipo"] == own.provenance["cost"]["tokens"] > 1000
    assert all(made.provenance["cost"]["seconds"] > 0 for made in fits.values())
    again = sl.fit(["bipo", "diffmean"], polyglot, part, **few)
    for name, made in again.items():
        assert made.provenance["cost"]["tokens"] == tokens[name]
    longer = sl.fit("bipo", polyglot, part, **{**few, "training": {**KNOBS, "steps": 4}})
    assert longer.provenance["cost"]["tokens"] > tokens["bipo"]
    assert "cost" not in sl.controls.random(fits["diffmean"], seed=0).provenance


def test_a_count_ends_with_its_with(polyglot: Model) -> None:
    lines = ["Good day.", "A much longer sentence than the first."]
    with counted(polyglot) as count:
        sl.cross_entropy(polyglot, lines)
    read = count.tokens
    expected = sum(map(len, encode(polyglot.tokenizer, lines)))
    assert read == expected, "padding is no token"
    sl.cross_entropy(polyglot, lines)
    assert count.tokens == read
    assert not polyglot.counts


def test_a_table_has_the_cost_beside_the_score(polyglot: Model, texts: Corpus) -> None:
    keys: dict[str, Any] = {**SHORT, "layers": [3], "targets": ["de"]}
    own = sl.diffmean(sl.collect(polyglot, texts.split("estimate"), layers=[3], also=[]))
    rows = sweep(polyglot, texts, estimators=["lda"], directions={"mine": own}, **keys)
    cost = rows.attrs["fit"]
    assert set(cost) == {"lda"}, "of directions that were made before nobody knows"
    frame = sl.table(rows, "frame").set_index("method")
    assert frame.loc["lda", "fit_tokens"] == cost["lda"]["tokens"] > 0
    assert frame.loc["lda", "fit_seconds"] == cost["lda"]["seconds"] > 0
    assert frame["fit_tokens"].isna()["mine"]
    text = sl.table(rows[rows["target"] == "de"])
    assert "| Fit, s | Fit, tokens |" in text
    assert f"{cost['lda']['tokens']:,} |" in text
    assert "| – | – |" in text
    del rows.attrs["fit"]
    assert "Fit" not in sl.table(rows)
    assert cost_of(rows) is None


def test_the_main_job_takes_them(polyglot: Model, tmp_path: Path) -> None:
    """Chosen on dev, reported on test, with what each took on the page."""
    keys: dict[str, Any] = {
        "langs": ["en", "de", "es"],
        "targets": ["de"],
        "layers": [3],
        "limit": 2,
        "new_tokens": 8,
        "quick": True,
        "estimators": ["austeer", "bipo"],
        "training": KNOBS,
        "progress": False,
    }
    result = sl.run(model=polyglot, out=tmp_path / "run", **keys)
    summary = result.summary
    names = ["diffmean", "austeer_scale_units", "bipo"]
    assert [name for name in summary["results"] if name in names] == names
    assert list(summary["fit"]) == names
    assert set(names) <= set(summary["choices"])
    assert summary["results"]["austeer_scale_units"]["layer"] == -1
    page = result.report.read_text("utf-8")
    assert "Fit, tokens" in page
    assert f"{summary['fit']['bipo']['tokens']:,}" in page
    assert "scale_units, all layers" in page
    rows = result.rows
    assert rows.attrs["fit"]["bipo"] == summary["fit"]["bipo"]
    assert "Fit, tokens" in sl.table(rows[rows["split"] == "test"])
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))
    assert manifest["settings"]["training"] == KNOBS
    with pytest.raises(SteerlabError, match="lm found no direction to de at layers 3, so that"):
        sl.run(
            model=polyglot,
            out=tmp_path / "other",
            **{**keys, "estimators": ["lm"], "training": {**KNOBS, "steps": 0}},
        )


# What is refused


def test_names_and_knobs_are_checked_before_the_work() -> None:
    with pytest.raises(
        SteerlabError, match=r"no estimator 'bip'; there are .*, bipo, lm, yapo, re"
    ):
        known("bip")
    with pytest.raises(
        SteerlabError, match=r"'amplify'; it is a way to apply: give operators=.*sl.amplify"
    ):
        Grid(estimators=["amplify"])
    assert (operator_for("bipo"), operator_for("yapo")) == ("add", "add_code")
    assert (operator_for("lape"), operator_for("lda")) == ("neuron_add", "add")
    assert (operator_for("grains"), operator_for("steer2edit")) == ("add_keep_norm", "write_along")
    assert suits("write_along", "steer2edit heads")
    assert not suits("write_along", "diffmean")
    assert not suits("add", "steer2edit")
    assert suits("rotate", "bipo")
    assert suits("add_code", "yapo")
    assert not suits("add_code", "bipo")
    assert not suits("scale_units", "lape")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"training": {"step": 3}}, "training: there is no key 'step'; did you mean 'steps'"),
        ({"training": {"steps": -1}}, "training: steps: .*greater than or equal to 0, and -1"),
        ({"training": {"rate": 0}}, "training: rate: .*greater than 0, and 0"),
        ({"training": "steps"}, "'steps' is no option; write its name and value"),
        (
            {"training": {"steps": 1}, "estimators": ["lda"]},
            "training: none of the estimators is trained; give bipo, lm, yapo, reft_r1, grains",
        ),
        (
            {"training": {"pairs": 9, "steps": 1}, "estimators": ["grains"]},
            "training: grains takes pairs and new, and has no 'steps'; leave it out",
        ),
    ]
    for keys, message in wrong:
        with pytest.raises(SteerlabError, match=message):
            Grid(**{"estimators": ["bipo"], **keys})
    assert Grid(estimators="bipo", training="steps=30,rate=0.5").training == {
        "steps": 30,
        "rate": 0.5,
    }
    with pytest.raises(SteerlabError, match="training: there is no key 'step'"):
        sl.fit("bipo", training={"step": 1})
