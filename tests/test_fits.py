"""Methods of units by their names: fitted from one reading, kept in a folder, swept beside
estimators."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from steerlab.core.corpus import Corpus, corpus
from steerlab.core.errors import SteerlabError
from steerlab.edits import OPERATORS, steer
from steerlab.engine.collect_units import collect_units
from steerlab.engine.prompts import encode, pad
from steerlab.estimate.units import langfir
from steerlab.models.model import Model
from steerlab.sweeps.fits import fit
from steerlab.sweeps.grid import ALL, Grid
from steerlab.sweeps.methods import METHODS, Readings, suits
from steerlab.sweeps.readings import contrast, read_units
from steerlab.sweeps.sweep import sweep

LANGS = ["en", "de", "ru", "ja"]


@pytest.fixture(scope="module")
def texts() -> Corpus:
    return corpus(langs=LANGS)


@pytest.fixture(scope="module")
def readings(polyglot: Model, texts: Corpus) -> Readings:
    needs = {need for method in METHODS.values() for need in method.needs}
    return read_units(polyglot, texts.split("estimate").take(24), needs, source="en")


@pytest.mark.parametrize("name", [name for name in METHODS if name != "langfir shuffled"])
def test_every_method_makes_directions_that_each_of_its_operators_takes(
    name: str, readings: Readings
) -> None:
    made = METHODS[name].fit(readings)
    assert made.langs == tuple(LANGS)
    sites = dict.fromkeys(("austeer", "lape", "nju", "culnig", "steer2edit"), "mlp_post")
    sites["steer2edit heads"] = "attn_z"
    assert made.site == sites.get(name, "resid_post")
    taken = Counter[str]()
    for operator in METHODS[name].operators:
        for target in LANGS[1:]:
            for layer in made.layers:
                try:
                    edit = steer(
                        operator,
                        made,
                        OPERATORS[operator].grid[-1],
                        source="en",
                        target=target,
                        layer=layer,
                    )
                except SteerlabError:  # a language without units at that layer
                    continue
                assert edit.parts
                taken[operator] += 1
    assert set(taken) == set(METHODS[name].operators)


def test_a_reading_that_is_missing_is_named(readings: Readings) -> None:
    with pytest.raises(
        SteerlabError, match="there are no random to choose units from: collect them first"
    ):
        METHODS["langfir"].fit(Readings("en", readings.saes, readings.latents))


def test_a_contrast_has_the_same_prompts_and_other_answers(polyglot: Model, texts: Corpus) -> None:
    part = texts.take(3)
    items, control = contrast(polyglot, part, "en", "line")
    assert [answer for _, answer in items["de"]] == list(part["de"])
    for iso in LANGS:
        assert [prompt for prompt, _ in items[iso]] == [prompt for prompt, _ in control[iso]]
        assert all(a != b for (_, a), (_, b) in zip(items[iso], control[iso], strict=True))


def test_estimators_and_units_are_fitted_by_name_and_found_again(
    polyglot: Model, texts: Corpus, tmp_path: Path
) -> None:
    names, some = ["diffmean", "sae diffmean", "lape"], texts.take(60)
    first = fit(polyglot, some, names, layers=[3], source="en", folder=tmp_path)
    files = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "directions").glob("*.safetensors")
    }
    second = fit(polyglot, some, names, layers=[3], source="en", folder=tmp_path)
    assert len(files) == 3
    assert files == {path: path.stat().st_mtime_ns for path in files}
    assert [made.digest for made in first.values()] == [made.digest for made in second.values()]
    assert first["diffmean"].layers == (3,)
    assert first["lape"].layers == tuple(range(polyglot.n_layers))


def test_what_every_line_ends_in_is_no_language_s_feature(
    polyglot: Model, texts: Corpus, readings: Readings
) -> None:
    """Read with the line break of a prompt, LangFIR keeps features of the break, which no random
    sequence has."""
    part, saes = texts.split("estimate").take(24), {3: readings.saes[3]}
    shared = {}
    for form in (None, "line"):
        read, noise = (
            collect_units(polyglot, part, saes, form=form, noise=kind) for kind in (None, "random")
        )
        shared[form] = int(langfir(read, noise).chosen.all(0).sum())
    assert shared[None] < shared["line"]


def test_a_sweep_takes_methods_by_name(polyglot: Model, texts: Corpus) -> None:
    names: dict[str, Any] = {
        "estimators": ["monolinguality", "lape"],
        "operators": {"add": [1.0], "neuron_swap": [2.0]},
    }
    rows = sweep(polyglot, texts, targets=["de"], layers=[3], limit=2, **names)
    assert not rows.attrs.get("failed")
    told = rows.groupby("method")["layer"].unique().map(list).to_dict()
    assert told == {"monolinguality": [3], "lape_neuron_swap": [ALL]}
    assert (rows["dose"] > 0).all()


def test_operators_run_with_what_can_take_them() -> None:
    assert suits("add", "langfir")
    assert not suits("add", "lape")
    assert not suits("neuron_add", "langfir")
    assert not suits("clamp", "diffmean")
    assert suits("signed_shift", "foxp2")
    assert not suits("signed_shift", "langfir")
    with pytest.raises(
        SteerlabError, match="operators.neuron_add: it needs what culnig, lape, nju makes"
    ):
        Grid.of({"estimators": ["langfir"], "operators": {"add": [1.0], "neuron_add": [1.0]}})
    with pytest.raises(SteerlabError, match="there is no estimator 'lapse'"):
        Grid.of({"estimators": ["lapse"]})


def test_the_package_s_saes_are_the_model_s(polyglot: Model, readings: Readings) -> None:
    assert sorted(readings.saes) == list(range(polyglot.n_layers))
    for layer, sae in readings.saes.items():
        sae.need(polyglot)
        assert (sae.layer, sae.site, sae.kind, sae.latents) == (
            layer,
            "resid_post",
            "jumprelu",
            8 * polyglot.width,
        )
    stale = replace(readings.saes[3], about={**readings.saes[3].about, "fingerprint": "0" * 16})
    with pytest.raises(SteerlabError, match="rebuild"):
        stale.need(polyglot)


@pytest.mark.parametrize("layer", [0, 4, 7])
def test_the_package_s_saes_explain_what_they_read(
    layer: int, polyglot: Model, texts: Corpus, readings: Readings
) -> None:
    seen: list[torch.Tensor] = []
    lines = [line + "\n" for iso in LANGS for line in texts.split("test").take(10)[iso]]
    ids, mask = pad(
        encode(polyglot.tokenizer, lines), polyglot.tokenizer.pad_token_id, polyglot.device
    )
    with polyglot.attached(
        [("resid_post", layer, lambda h, where: seen.append(h[where.text].detach()))]
    ):
        polyglot.body(ids, mask)
    h, sae = seen[0], readings.saes[layer]
    z = sae.encode(h)
    left = (h - sae.decode(z)).square().sum() / (h - h.mean(0)).square().sum()
    assert 1 - left > 0.6
    assert 10 < float((z > 0).sum(-1).float().mean()) < 80
