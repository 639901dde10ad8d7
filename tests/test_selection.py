"""Features that were planted are found, and nothing is found where nothing is; controls match."""

import math

import numpy as np
import pytest
import torch
from planted_units import (
    ABOUT,
    LANGS,
    LAYERS,
    OWN,
    SHARED,
    exact,
    noise,
    planted,
    rates,
    read,
)
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.engine.collect_units import collect_units
from steerlab.estimate.units import (
    Selection,
    langfir,
    langfir_counts,
    langfir_stability,
    lape,
    matched,
    monolinguality,
    nju,
    random_units,
)
from steerlab.models.model import Model


@pytest.fixture(scope="module")
def texts() -> Firing:
    return read(planted(), keep=100)


@pytest.fixture(scope="module")
def random() -> Firing:
    return read(noise(), noise="random", keep=100, seed=1)


# LangFIR


def test_langfir_finds_each_planted_feature_and_filters_the_shared_one(
    texts: Firing, random: Firing
) -> None:
    found = langfir(texts, random)
    assert {iso: found.of(iso, 4) for iso in LANGS} == {iso: [unit] for iso, unit in OWN.items()}
    assert not found.chosen[:, 0].any()
    assert found.where("es") == (4,)
    settings = found.provenance["settings"]
    assert (settings["consistent"], settings["after random"]) == (4 + 8, 4)


def test_the_shared_feature_passes_where_random_tokens_do_not_set_it_off(texts: Firing) -> None:
    """The negative control of the filter: what it filters is there without it."""
    quiet = noise()
    quiet[..., SHARED] = 0
    found = langfir(texts, read(quiet, noise="random", seed=1))
    assert all(SHARED in found.of(iso, layer) for iso in LANGS for layer in LAYERS)


def test_random_against_random_finds_nothing() -> None:
    chance = (
        torch.rand(len(LANGS), len(LAYERS), 400, generator=torch.Generator().manual_seed(3)) ** 3
    )
    one, other = (read(chance, noise="random", seed=seed) for seed in (5, 6))
    assert (one.share >= 0.95).any(), "there are consistent features, only they are no language's"
    with pytest.raises(SteerlabError, match="choose weaker thresholds|read other layers"):
        langfir(one, other)


def test_shuffled_tokens_remove_what_tokens_alone_set_off(texts: Firing, random: Firing) -> None:
    chance = noise()
    chance[LANGS.index("ja"), 1, OWN["ja"]] = 0.8  # a feature of the script
    found = langfir(texts, random, read(chance, noise="shuffled", seed=2))
    assert found.method == "langfir shuffled"
    assert not found.chosen[LANGS.index("ja")].any()
    assert found.of("es", 4) == [OWN["es"]]
    assert (
        found.provenance["settings"]["after random"],
        found.provenance["settings"]["after shuffled"],
    ) == (4, 3)
    counts = langfir_counts(
        texts, random, read(chance, noise="shuffled", seed=2), consistency=[0.95], noise=[0.05]
    )
    assert counts["count"].sum() == 3


def test_thresholds_that_leave_nothing_raise_with_the_nearest_counts(random: Firing) -> None:
    chance = planted() * 0
    chance[0, 1, 7] = 0.16  # on in about 88 of 100 texts
    weak = read(chance, seed=4)
    assert 0.8 <= float(weak.share[0, 1, 7]) < 0.95
    with pytest.raises(
        SteerlabError, match=r"there would be 1 at consistency 0\.[89] and noise 0\.05"
    ):
        langfir(weak, random)
    with pytest.raises(SteerlabError, match="nor at consistency 0.5 and noise 0.5"):
        langfir(read(planted() * 0, seed=4), random)
    every = torch.zeros_like(chance)
    every[0, 1, 7] = 0.9
    with pytest.raises(SteerlabError, match=r"1 until the shuffled tokens are read"):
        langfir(read(every), random, read(every, noise="shuffled"))


def test_counts_fall_with_both_thresholds_and_agree_with_the_selection(
    texts: Firing, random: Firing
) -> None:
    table = langfir_counts(texts, random)
    assert list(table) == ["language", "layer", "consistency", "noise", "count"]
    for _, part in table.groupby(["language", "layer", "noise"]):
        assert part.sort_values("consistency")["count"].is_monotonic_decreasing
    for _, part in table.groupby(["language", "layer", "consistency"]):
        assert part.sort_values("noise")["count"].is_monotonic_increasing
    assert table["count"].nunique() > 1
    at = table[(table.consistency == 0.95) & (table.noise == 0.05)].set_index(
        ["language", "layer"]
    )["count"]
    counts = langfir(texts, random).counts
    assert all(at[iso, layer] == counts.loc[iso, layer] for iso in LANGS for layer in LAYERS)


def test_noise_must_be_what_it_is_called(texts: Firing, random: Firing) -> None:
    with pytest.raises(SteerlabError, match="was read from texts; collect it with noise='random'"):
        langfir(random, texts)
    with pytest.raises(
        SteerlabError, match="was read from random tokens; collect it with noise='shuffled'"
    ):
        langfir(texts, random, random)
    with pytest.raises(SteerlabError, match="has langs"):
        langfir(texts, read(noise()[:2], noise="random", langs=LANGS[:2]))
    with pytest.raises(SteerlabError, match="the consistency is 95; give a share"):
        langfir(texts, random, consistency=95)


def test_stability_is_that_of_a_feature_near_the_threshold() -> None:
    chance = torch.zeros(2, 1, 30)
    chance[0, 0, :3], chance[0, 0, 3:20] = 0.9, 0.22  # sure ones, and ones on in 95 of 100 texts
    chance[1, 0, :3] = 0.9
    made = read(chance, langs=LANGS[:2], layers=[1], keep=100)
    quiet = read(chance * 0, langs=LANGS[:2], layers=[1], keep=100, noise="random")
    table = langfir_stability(made, quiet, samples=(10, 50, 100), draws=10).set_index(
        ["language", "samples"]
    )
    found = {name: table[name].to_dict() for name in table}
    index = found["jaccard"]
    assert index["de", 10] == index["en", 100] == 1
    assert index["en", 10] < index["en", 50] < 1
    assert (table["low"] <= table["jaccard"]).all()
    assert (table["high"] >= table["jaccard"]).all()
    assert found["high"]["en", 10] > found["low"]["en", 10]
    assert (table["undefined"] == 0).all()
    whole = len(langfir(made, quiet).of("en", 1))
    assert found["size"]["en", 100] == found["size_all"]["en", 100] == whole > 3


def test_stability_is_of_a_draw_and_the_whole_and_not_of_two_halves() -> None:
    chance = torch.zeros(2, 1, 30)
    chance[0, 0, :3], chance[0, 0, 3:20] = 0.9, 0.22
    made = read(chance, langs=LANGS[:2], layers=[1], keep=100)
    quiet = read(chance * 0, langs=LANGS[:2], layers=[1], keep=100, noise="random")
    assert made.seen is not None
    on, random = made.seen[0, :, 0].double(), torch.Generator().manual_seed(3)

    def chosen(rows: Tensor) -> set[int]:
        return set((on[rows].mean(0) >= 0.95).nonzero().flatten().tolist())

    def jaccard(a: set[int], b: set[int]) -> float:
        return len(a & b) / len(a | b)

    draws = [torch.randperm(100, generator=random) for _ in range(12)]
    with_whole = [jaccard(chosen(draw[:50]), chosen(torch.arange(100))) for draw in draws]
    apart = [jaccard(chosen(draw[:50]), chosen(draw[50:])) for draw in draws]
    row = langfir_stability(made, quiet, samples=(50,), draws=12, seed=3).iloc[0]
    assert row["jaccard"] == pytest.approx(np.mean(with_whole))
    assert [row["low"], row["high"]] == pytest.approx(np.percentile(with_whole, [2.5, 97.5]))
    assert row["jaccard"] > np.mean(apart) + 0.05, (
        "what two disjoint samples share is another number"
    )


def test_stability_of_nothing_is_undefined_and_the_texts_must_have_been_kept(
    texts: Firing, random: Firing
) -> None:
    table = langfir_stability(texts, random, samples=(25,), draws=4).set_index(
        ["language", "layer"]
    )
    index, undefined = table["jaccard"].to_dict(), table["undefined"].to_dict()
    assert math.isnan(index["de", 1])
    assert undefined["de", 1] == 4
    assert index["de", 4] > 0.3
    with pytest.raises(SteerlabError, match="keep=100 or more"):
        langfir_stability(read(planted()), random)
    with pytest.raises(SteerlabError, match="200 texts cannot be drawn: kept are en 100"):
        langfir_stability(texts, random, samples=(10, 200))


# Monolinguality


def test_monolinguality_is_the_mean_less_the_others_mean_and_only_above_zero(texts: Firing) -> None:
    found = monolinguality(texts, top=2)
    level = texts.level
    by_hand = level[2, 1, OWN["es"]] - level[[0, 1, 3], 1, OWN["es"]].mean()
    torch.testing.assert_close(found.score[2, 1, OWN["es"]], by_hand)
    assert all(found.of(iso, 4)[0] == OWN[iso] for iso in LANGS)
    assert (found.chosen.sum(-1) <= 2).all()
    alike = monolinguality(exact(torch.full((4, 1, 9), 0.5)), top=2)
    assert not alike.chosen.any()
    with pytest.raises(SteerlabError, match="the 0 highest of 40"):
        monolinguality(texts, top=0)


# Controls


def of_units(units: dict[str, list[int]], firing: Firing) -> Selection:
    chosen = torch.zeros_like(firing.rate, dtype=torch.bool)
    for iso, places in units.items():
        chosen[firing.langs.index(iso), 1, places] = True
    about = {**ABOUT, "settings": {}}
    return Selection(
        "planted", firing.langs, firing.layers, firing.site, chosen, torch.rand(chosen.shape), about
    )


def test_matched_units_fire_as_often_and_write_as_much() -> None:
    firing = exact(rates(units=400))
    norms = torch.rand(3, 400, generator=torch.Generator().manual_seed(1)) + 0.5
    chosen = of_units({"en": list(range(12)), "de": [5, 300]}, firing)
    found = matched(chosen, firing, norms)
    assert torch.equal(found.chosen.sum(-1), chosen.chosen.sum(-1))
    assert not (found.chosen & chosen.chosen.any(0)).any(), "a twin is chosen for no language"
    told = found.provenance["settings"]["matched"]
    assert told["rate ratio"] == pytest.approx(1, abs=0.1)
    assert told["norm ratio"] == pytest.approx(1, abs=0.1)
    assert told["rates within 2"] == 1
    blind = random_units(chosen, firing, seed=1)
    assert torch.equal(blind.chosen.sum(-1), chosen.chosen.sum(-1))
    off = lambda of: distance(of, chosen, firing, norms)  # noqa: E731
    assert off(found) < 0.3 * off(blind), "units at random match badly"
    by_score = [float(chosen.score[0, 1, unit]) for unit in chosen.of("en", 1)]
    assert [float(found.score[0, 1, unit]) for unit in found.of("en", 1)] == by_score


def distance(found: Selection, chosen: Selection, firing: Firing, norms: Tensor) -> float:
    """How far the two sets' sorted log rates and norms lie apart."""
    logs = torch.stack([firing.rate.mean(0)[1].log(), norms[1].double().log()])
    sides = [logs[:, of.of("en", 1)].sort(1).values for of in (found, chosen)]
    return float((sides[0] - sides[1]).abs().mean())


def test_equals_are_dealt_by_the_seed() -> None:
    firing, norms = exact(torch.full((2, 3, 50), 0.2)), torch.ones(3, 50)
    chosen = of_units({"en": [0, 1, 2]}, firing)
    for control in (
        lambda seed: matched(chosen, firing, norms, seed=seed),
        lambda seed: random_units(chosen, firing, seed=seed),
    ):
        assert torch.equal(control(0).chosen, control(0).chosen)
        assert len({tuple(control(seed).of("en", 1)) for seed in range(5)}) > 1


def test_controls_take_living_units_and_say_when_there_are_too_few() -> None:
    rate = torch.full((2, 3, 10), 0.2)
    rate[..., 6:] = 0
    firing, norms = exact(rate), torch.ones(3, 10)
    chosen = of_units({"en": [0, 1], "de": [2, 3]}, firing)
    assert (
        set(matched(chosen, firing, norms).of("en", 1))
        == {4, 5}
        == set(random_units(chosen, firing).of("de", 1))
    )
    with pytest.raises(SteerlabError, match="'en' has 3 units at layer 1, and only 2 living ones"):
        matched(of_units({"en": [0, 1, 2], "de": [3]}, firing), firing, norms)
    with pytest.raises(SteerlabError, match="norms and layers x units are 2 x 10 and 3 x 10"):
        matched(chosen, firing, norms[:2])
    with pytest.raises(SteerlabError, match="nothing is chosen"):
        matched(of_units({}, firing), firing, norms)
    with pytest.raises(SteerlabError, match="chosen with units 10, and the firing has 12"):
        random_units(chosen, exact(torch.full((2, 3, 12), 0.2)))
    part = matched(chosen.at(1), firing, norms[1:2])
    assert part.layers == (1,)


# Selections


def test_a_selection_tells_its_units_by_score() -> None:
    chosen, score = torch.zeros(2, 2, 5, dtype=torch.bool), torch.arange(20.0).view(2, 2, 5)
    chosen[0, 1, [1, 4, 2]] = True
    made = Selection("by hand", ("en", "de"), (2, 6), "resid_post", chosen, score)
    assert made.of("en", 6) == [4, 2, 1]
    assert made.where("en") == (6,)
    assert made.where("de") == ()
    assert made.counts.loc["en", 6] == 3
    assert made.at(6).of("en", 6) == [4, 2, 1]
    assert made.table()["score"].tolist() == [9, 7, 6]
    for wrong, told in (
        (lambda: made.of("fr", 6), "'fr'; there are en de"),
        (lambda: made.at(3), "no layer 3 here"),
    ):
        with pytest.raises(SteerlabError, match=told):
            wrong()
    with pytest.raises(SteerlabError, match="name at least one of the layers 2, 6"):
        made.at()
    with pytest.raises(
        SteerlabError,
        match=r"chosen has shape \(2, 2, 5\); languages x layers x units is \(1, 2, 5\)",
    ):
        Selection("by hand", ("en",), (2, 6), "resid_post", chosen, score)


# The model in the package


@pytest.fixture(scope="module")
def halves(polyglot: Model, lines: Corpus) -> tuple[Firing, Firing]:
    """The firing of the model's neurons on some sentences, and on others."""
    few = lines.split("estimate").take(32).select(["en", "de", "ru"])
    split = [
        Corpus(
            f"half {half}", {iso: few[iso][16 * half :][:16] for iso in few.langs}, aligned=False
        )
        for half in (0, 1)
    ]
    one, other = (collect_units(polyglot, half, layers=(5, 6, 7)) for half in split)
    return one, other


def test_the_model_s_language_neurons_are_those_of_other_sentences_too(
    halves: tuple[Firing, Firing],
) -> None:
    found = lape(halves[0])
    held = halves[1].rate

    def own(of):
        return torch.cat([held[:, of.chosen[i]].argmax(0) == i for i in range(3)]).double().mean()

    assert own(found) > 0.85
    assert 0.1 < own(random_units(found, halves[0])) < 0.6, (
        "neurons at random belong to any language"
    )
    share = found.chosen & lape(halves[1]).chosen
    assert share.sum() > 0.2 * found.chosen.sum()
    specific = nju(halves[0]).selection("specific")
    assert own(specific) > 0.85
