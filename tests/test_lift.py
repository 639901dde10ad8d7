"""Planted latents move the mass that they should, pairs are those of each sentence alone, traces
add up exactly."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import random_directions
from torch import Tensor

from steerlab.core.corpus import Corpus, corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, LatentPairs, Lift
from steerlab.edits import Edit, ablate, add, signed_shift, steer
from steerlab.engine.causal_lift import causal_lift, need_gold
from steerlab.engine.collect_units import collect_units
from steerlab.engine.language_mass import Lexicon, lexicon, mass_shift
from steerlab.engine.latent_pairs import latent_pairs
from steerlab.engine.least_kl import least_kl
from steerlab.engine.prompts import encode
from steerlab.engine.trace import trace
from steerlab.estimate.units import Selection
from steerlab.estimate.units.foxp2 import candidates, foxp2_features, signed
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.sae import SAE

LAYERS, LANGS = (4, 5), ("en", "de", "ru")
PLANTED = {"de": 0, "ru": 1}  # the latent that reads and writes from English towards each language


def planted(directions: Directions, layer: int) -> SAE:
    """Latents 0 and 1 lead to German and Russian, 2 to 9 nowhere in particular; all are on at
    about half a gap."""
    at = directions.at(layer)
    steps = [at.between("en", iso) for iso in PLANTED]
    nowhere = torch.randn(8, at.width, generator=torch.Generator().manual_seed(layer))
    rows = torch.cat(
        [*(step.unit for step in steps), torch.nn.functional.normalize(nowhere, dim=-1)]
    )
    gap, centre = float(steps[0].gap), at.means[at.langs.index("en"), 0]
    threshold = torch.full((10,), gap / 2)
    return SAE(rows.T, torch.zeros(10), rows, centre, "jumprelu", layer, "resid_post", threshold)


@pytest.fixture(scope="module")
def few(lines: Corpus) -> Corpus:
    return lines.select(LANGS).split("estimate").take(16)


@pytest.fixture(scope="module")
def saes(directions: Directions) -> dict[int, SAE]:
    return {layer: planted(directions, layer) for layer in LAYERS}


@pytest.fixture(scope="module")
def firing(polyglot: Model, few: Corpus, saes: dict[int, SAE]) -> Firing:
    return collect_units(polyglot, few, saes)


@pytest.fixture(scope="module")
def words(polyglot: Model) -> Lexicon:
    return lexicon(polyglot, corpus().select(LANGS).split("estimate"))


@pytest.fixture(scope="module")
def pool(firing: Firing) -> Selection:
    return candidates(firing, pool=3)


@pytest.fixture(scope="module")
def lift(
    polyglot: Model,
    few: Corpus,
    saes: dict[int, SAE],
    pool: Selection,
    words: Lexicon,
    firing: Firing,
) -> Lift:
    return causal_lift(
        polyglot, few.take(4), saes, pool, words, firing=firing, strengths=(0.5, 1.0, 2.0, 4.0)
    )


# -------------------------------------------------------------------------------------- causal lift


def test_a_planted_latent_lifts_its_language_and_others_do_not(lift: Lift, pool: Selection) -> None:
    for iso, unit in PLANTED.items():
        i = LANGS.index(iso)
        assert (lift.slope[i, :, unit] > 0.02).all()
        others = lift.slope[i].clone()
        others[:, unit] = float("nan")
        assert float(others.nan_to_num(-1).max()) < float(lift.slope[i, :, unit].min())
    assert not lift.slope[0].nan_to_num().any(), "the source's mass less its own is nothing"
    assert torch.equal(lift.slope.isnan(), ~pool.chosen.any(0).expand_as(lift.slope)), (
        "what was not tried has none"
    )
    tokens = lift.provenance["tokens"]
    assert set(tokens) == set(LANGS)
    assert min(tokens.values()) > 50


def test_the_effect_is_that_of_adding_its_row(
    polyglot: Model, few: Corpus, saes: dict[int, SAE], words: Lexicon, firing: Firing, lift: Lift
) -> None:
    """At a strength in units of its value where it is on, by an edit made from a direction."""
    direction = random_directions(polyglot).between("en", "es").at(5)
    on = (firing.total[:, 1, 0].sum() / firing.on[:, 1, 0].sum()).float()
    step = replace(direction, unit=saes[5].W_dec[:1], gap=on[None])
    edits = {str(strength): add(step, strength=strength) for strength in lift.strengths}
    rows = mass_shift(polyglot, [f"{line}\n" for line in few.take(4)["en"]], edits, words)
    gain = rows.groupby(["edit", "language"])["gain"].mean()
    for iso in ("de", "ru"):
        expected = [gain[name, iso] - gain[name, "en"] for name in edits]
        i = LANGS.index(iso)
        assert lift.effect[i, 1, 0].tolist() == pytest.approx(expected, abs=1e-5)
        ratios = sorted(e / s for e, s in zip(expected, lift.strengths, strict=True))
        assert float(lift.slope[i, 1, 0]) == pytest.approx((ratios[1] + ratios[2]) / 2, abs=1e-5)


def test_a_candidate_of_two_languages_is_read_for_both(
    polyglot: Model,
    few: Corpus,
    saes: dict[int, SAE],
    words: Lexicon,
    firing: Firing,
    pool: Selection,
    lift: Lift,
) -> None:
    """And it does not matter who else is tried, at which layers."""
    chosen = torch.zeros_like(pool.chosen)
    chosen[1:, 1, 0] = True
    one = replace(pool, chosen=chosen)
    alone = causal_lift(
        polyglot, few.take(4), saes, one, words, firing=firing, strengths=lift.strengths, batch=5
    )
    torch.testing.assert_close(alone.effect[:, 1, 0], lift.effect[:, 1, 0], atol=1e-5, rtol=1e-4)
    assert int((~alone.slope.isnan()).sum()) == len(LANGS)


def test_a_lexicon_that_fails_on_gold_text_is_refused_with_samples(
    polyglot: Model,
    few: Corpus,
    saes: dict[int, SAE],
    words: Lexicon,
    firing: Firing,
    pool: Selection,
) -> None:
    gold = need_gold(polyglot, few.take(4), words)
    assert torch.equal(gold.argmax(1), torch.arange(3))
    swapped = replace(words, weights=words.weights[[0, 2, 1]])
    told = (
        r"does not tell languages apart .*text of de has mass 0\.\d+ of its own and 0\.\d+ of ru; "
        r"tokens: \{'de': \['"
    )
    for refuse in (
        lambda: need_gold(polyglot, few.take(4), swapped),
        lambda: causal_lift(polyglot, few.take(4), saes, pool, swapped, firing=firing),
    ):
        with pytest.raises(SteerlabError, match=told) as error:
            refuse()
    assert all(
        repr(piece) in str(error.value) for piece in swapped.sample("de") + swapped.sample("ru")
    )


# ------------------------------------------------------------------------------- pairs and the rest


@pytest.fixture(scope="module")
def features(firing: Firing, lift: Lift) -> Selection:
    return foxp2_features(firing, lift, saturation=0.9)


@pytest.fixture(scope="module")
def pairs(polyglot: Model, few: Corpus, saes: dict[int, SAE], features: Selection) -> LatentPairs:
    return latent_pairs(polyglot, few, saes, features)


def test_the_planted_latents_are_the_features(features: Selection) -> None:
    for iso, unit in PLANTED.items():
        for layer in LAYERS:
            assert features.of(iso, layer)[0] == unit
    assert features.where("en") == ()


@torch.inference_mode()
def latents_of(model: Model, text: str, sae: SAE) -> Tensor:
    """The mean latents of one text by itself, BOS left out."""
    ids, seen = torch.tensor(encode(model.tokenizer, [f"{text}\n"])), []
    with model.attached([(sae.site, sae.layer, lambda h, _: seen.append(h))]):
        model.body(ids, torch.ones_like(ids, dtype=torch.bool))
    return sae.encode(seen[0][0, 1:]).mean(0)


def test_pairs_are_those_of_each_sentence_by_itself(
    polyglot: Model, few: Corpus, saes: dict[int, SAE], features: Selection, pairs: LatentPairs
) -> None:
    again = latent_pairs(polyglot, few, saes, features, batch=5)
    for key, differences in pairs.differences.items():
        torch.testing.assert_close(again.differences[key], differences, atol=1e-3, rtol=1e-3)
        iso, layer = key
        units = list(features.of(iso, layer))
        assert pairs.units[key] == tuple(units)
        for number in (0, 11):
            own, other = (
                latents_of(polyglot, few[lang][number], saes[layer])[units] for lang in (iso, "en")
            )
            torch.testing.assert_close(differences[number], own - other, atol=1e-3, rtol=1e-3)
    source = torch.stack([latents_of(polyglot, line, saes[4])[0] for line in few["en"]]).mean()
    assert float(pairs.source_mean["de", 4][0]) == pytest.approx(float(source), abs=1e-3)


def test_the_signed_shift_of_all_this_steers(
    polyglot: Model,
    lines: Corpus,
    words: Lexicon,
    features: Selection,
    pairs: LatentPairs,
    firing: Firing,
    saes: Any,
) -> None:
    made = signed(features, pairs, firing, saes, widths=(1, 2))
    prompts = [f"{line}\n" for line in lines.split("dev")["en"][:6]]
    edits = {
        strength: steer("signed_shift", made, strength, source="en", target="de")
        for strength in (0.25, 0.5, 1.0, 2.0)
    }
    edits |= {0.0: signed_shift(made.between("en", "de"), push=0.0)}
    chosen, table = least_kl(polyglot, edits, prompts, words, source="en", target="de")
    table, found = table.set_index("key"), table.set_index("key").to_dict("index")
    assert chosen > 0
    assert float(table["gain"].max()) > 0.1
    assert abs(found[0.0]["gain"]) < 1e-6
    enough = table[table["gain"] >= 0.8 * table["gain"].max()]
    assert table["enough"].sum() == len(enough) < len(table)
    assert chosen == enough["kl"].idxmin()
    assert table.index[table["chosen"]].tolist() == [chosen]
    everything, _ = least_kl(polyglot, edits, prompts, words, source="en", target="de", share=0.01)
    assert found[everything]["kl"] <= found[chosen]["kl"]


# ------------------------------------------------------------------------------------------ tracing


@torch.inference_mode()
def mlp_output(model: Model, text: str, layers: range) -> Tensor:
    """What the MLPs of some layers write into the stream at the tokens but BOS, by hooks on its
    own modules."""
    ids, seen = torch.tensor(encode(model.tokenizer, [text])), []
    mlps: list[Any] = [model.blocks[m].mlp for m in layers]
    handles = [mlp.register_forward_hook(lambda *found: seen.append(found[2])) for mlp in mlps]
    model.hf(ids)
    for handle in handles:
        handle.remove()
    return torch.stack(seen).sum(0)[0, 1:]


@pytest.mark.parametrize("shape", ["polyglot", "gpt2"])
@pytest.mark.parametrize("site", ["resid_post", "resid_pre"])
def test_contributions_add_up_to_what_the_mlps_write(
    shape: str, site: str, few: Corpus, shaped: Callable[[str], Model]
) -> None:
    """In double precision to rounding: no neuron is left out, and none behind where the latent
    is read."""
    model, some = shaped(shape), few.take(3)
    layer, random = 2, torch.Generator().manual_seed(0)
    encoder = torch.randn(model.width, 6, generator=random)
    sae = SAE(
        encoder, torch.zeros(6), encoder.T.clone(), torch.zeros(model.width), "relu", layer, site
    )
    chosen = torch.zeros(3, 1, 6, dtype=torch.bool)
    chosen[1, 0, [1, 4]] = True
    chosen[2, 0, 4] = True
    told = Selection("told", LANGS, (layer,), site, chosen, chosen.float())
    neurons = collect_units(model, some)
    table = trace(model, {layer: sae}, told, neurons, top=10**6)
    passed = range(layer + (site == "resid_post"))
    assert set(table["mlp_layer"]) == set(passed)
    means = {
        iso: torch.cat([mlp_output(model, line, passed) for line in some[iso]]).mean(0)
        for iso in LANGS
    }
    for (iso, feature), rows in table.groupby(["language", "feature"]):
        expected = float((means[str(iso)] - means["en"]) @ encoder[:, int(str(feature))])
        assert float(rows["contribution"].sum()) == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert float(rows["share"].sum()) == pytest.approx(1)
        assert rows["contribution"].abs().is_monotonic_decreasing
        assert len(rows) == len(passed) * neurons.units
    assert set(zip(table["language"], table["feature"], strict=True)) == {
        ("de", 1),
        ("de", 4),
        ("ru", 4),
    }
    first = trace(model, {layer: sae}, told, neurons, top=2)
    pd.testing.assert_frame_equal(first.iloc[:2], table.iloc[:2])
    assert len(first) == 6


# ---------------------------------------------------------------------------------- what is refused


def test_what_is_refused(
    polyglot: Model,
    few: Corpus,
    saes: dict[int, SAE],
    words: Lexicon,
    firing: Firing,
    pool: Selection,
    features: Selection,
    directions: Directions,
) -> None:
    lifted = lambda given=pool, **more: causal_lift(  # noqa: E731
        polyglot,
        few,
        more.pop("saes", saes),
        given,
        more.pop("words", words),
        **({"firing": firing} | more),
    )

    def paired(text=few, given=features, **more):
        return latent_pairs(polyglot, text, saes, given, **more)

    traced = lambda neurons, given=features, **more: trace(polyglot, saes, given, neurons, **more)  # noqa: E731
    none, loose = replace(pool, chosen=pool.chosen & False), replace(few, aligned=False)
    other_sae = {4: planted(directions, 4), 5: replace(planted(directions, 5), site="resid_pre")}
    neurons = collect_units(polyglot, few.take(1), layers=[4, 5])
    unmoved = {"away": ablate(directions["de"].at(7)), "nothing": Edit(())}
    chosen = lambda edits, **more: least_kl(  # noqa: E731
        polyglot, edits, ["Hello.\n"], words, **({"source": "en", "target": "de"} | more)
    )
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: lifted(strengths=()), r"the strengths are \[\]; give finite numbers other than 0"),
        (lambda: lifted(strengths=(1.0, 0.0)), r"the strengths are \[1.0, 0.0\]; give finite"),
        (lambda: lifted(source="fr"), "the source 'fr' is none of en de ru; take it from these"),
        (lambda: lifted(none), "there is no candidate to try; choose some first"),
        (
            lambda: lifted(words=replace(words, langs=("en", "de", "fr"))),
            "the lexicon has no tokens of ru; make it",
        ),
        (lambda: lifted(saes={4: saes[4]}), "there is no autoencoder of layer 5; there are 4"),
        (
            lambda: lifted(saes=other_sae),
            "of 10 at resid_post, and the autoencoder of layer 5 has 10 at resid_pre",
        ),
        (lambda: paired(loose), "latent pairs needs sentences aligned by line"),
        (lambda: paired(source="fr"), "the source 'fr' is none of en de ru"),
        (lambda: paired(given=none), "no language has any latent; choose with weaker thresholds"),
        (
            lambda: traced(firing),
            "this firing is of units at resid_post; give that of neurons: collect_units",
        ),
        (lambda: traced(neurons), "the neurons of layers 0, 1, 2, 3 write here too; collect them"),
        (lambda: traced(neurons, top=0), "the 0 largest contributions are none; give 1 or more"),
        (lambda: traced(neurons, source="fr"), "the source 'fr' is none of en de ru"),
        (lambda: chosen({}), "there is no edit to choose from; give at least one by its key"),
        (
            lambda: chosen(unmoved, share=0),
            "share is 0; give a share of the best gain above 0 and at most 1",
        ),
        (lambda: chosen(unmoved, target="fr"), "the lexicon has no tokens of fr"),
        (
            lambda: chosen({"nothing": Edit(())}),
            r"none of these edits raises the mass of de over that of en",
        ),
    ]
    for make, told in cases:
        with pytest.raises(SteerlabError, match=told):
            make()


def test_a_view_of_another_library_is_not_traced(
    lens: Callable[[str, str], Any],
    few: Corpus,
    firing: Firing,
    features: Selection,
    saes: dict[int, SAE],
) -> None:
    view = load(lens("polyglot", "hooked"))
    neurons = collect_units(load(), few.take(1))
    with pytest.raises(
        SteerlabError, match="tracing reads the weights of .* itself; load it by name"
    ):
        trace(view, saes, features, neurons)
