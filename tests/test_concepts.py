"""A concept across languages: what is shared is found, what is not does not transfer, and what has
no concept in it is at chance."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import steerlab as sl
from steerlab.analysis.held_out import held_out_probe
from steerlab.core.firing import Firing
from steerlab.core.moments import Moments
from steerlab.core.packaged import (
    occupation_groups,
    occupation_prompts,
    occupations,
    register,
    register_prompts,
)
from steerlab.core.sites import hook_name
from steerlab.estimate.crossed import crossed
from steerlab.estimate.units.shared import shared_features
from steerlab.scores.counted import formal_share, she_share, word_counts

CONCEPTS, LANGS, LAYERS, WIDTH = ("informal", "formal"), ("de", "fr", "ru"), (1, 4), 16
LABELS = tuple(f"{concept}@{lang}" for concept in CONCEPTS for lang in LANGS)


def refused(told: str) -> Any:
    return pytest.raises(sl.SteerlabError, match=told)


def planted(step: dict[str, torch.Tensor], *, texts: int = 80, seed: int = 0) -> Moments:
    """Moments where `formal` lies `step[lang]` away from `informal`, in each language."""
    rng = torch.Generator().manual_seed(seed)
    places = torch.randn(len(LANGS), WIDTH, generator=rng) * 3
    made = Moments(LABELS, LAYERS, WIDTH, scatter=True, sample=100)
    for concept in CONCEPTS:
        for index, lang in enumerate(LANGS):
            h = places[index] + torch.randn(texts, 4, WIDTH, generator=rng)
            if concept == "formal":
                h = h + step[lang]
            cache = {hook_name("resid_post", layer): h for layer in LAYERS}
            made.update(f"{concept}@{lang}", cache, torch.ones(texts, 4, dtype=torch.bool))
    return made


def axis(place: int, size: float = 2.0) -> torch.Tensor:
    vector = torch.zeros(WIDTH)
    vector[place] = size
    return vector


def unit(directions: Any, layer: int = 0) -> torch.Tensor:
    return directions.between("informal", "formal").unit[layer]


# ------------------------------------------------------------------------------ the two-way layout


def test_effects_sum_to_zero_and_rebuild_the_means():
    moments = planted({lang: axis(i) for i, lang in enumerate(LANGS)})
    parts = crossed(moments)
    means = moments.mean.view(2, 3, 2, WIDTH)
    torch.testing.assert_close(parts.cells(), means, atol=1e-12, rtol=0)
    for name, dims in (("concept", 0), ("language", 0), ("interaction", 0), ("interaction", 1)):
        total = getattr(parts, name).sum(dims)
        torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-12, rtol=0)
    shares = parts.shares()
    whole = shares[["concept", "language", "interaction"]].sum(axis=1)
    np.testing.assert_allclose(whole, 1)
    assert (parts.concept.abs().sum() > 0).item()


def test_a_shared_concept_is_found_in_every_language_and_transfers():
    moments = planted(dict.fromkeys(LANGS, axis(3)))
    parts = crossed(moments)
    assert unit(parts.directions())[3] > 0.95
    for lang in LANGS:
        assert unit(parts.within(lang))[3] > 0.9
        others = crossed(moments, languages=[one for one in LANGS if one != lang])
        assert lang not in others.langs
        assert unit(others.directions())[3] > 0.9  # zero-shot
    assert (parts.shares()["shared"] > 0.9).all()


def test_a_concept_of_one_language_does_not_transfer():
    moments = planted({"de": axis(3), "fr": axis(5), "ru": axis(7)})
    de, fr = crossed(moments, languages="de").directions(), crossed(moments, languages=["fr"])
    assert unit(de)[3] > 0.9
    assert abs(unit(fr.directions())[3]) < 0.3
    assert (crossed(moments).shares()["shared"] < 0.5).all()


def test_shuffled_labels_are_at_chance():
    # Without a concept, the shared part of c - 1 = 1 of c·l - l = 3 degrees of freedom is a third.
    shares = [
        crossed(planted(dict.fromkeys(LANGS, torch.zeros(WIDTH)), seed=seed)).shares()["shared"][0]
        for seed in range(20)
    ]
    assert abs(np.mean(shares) - 1 / 3) < 0.08
    assert crossed(planted(dict.fromkeys(LANGS, axis(3)))).shares()["shared"][0] > max(shares)


def test_sums_of_squares_are_those_of_statsmodels():
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    moments = planted({"de": axis(3), "fr": axis(5), "ru": axis(3)})
    parts = crossed(moments)
    means = moments.mean.view(2, 3, 2, WIDTH)[:, :, 0]
    totals = np.zeros(3)
    for place in range(WIDTH):
        table = pd.DataFrame(
            [
                {"concept": c, "lang": lang, "y": float(means[i, j, place])}
                for i, c in enumerate(CONCEPTS)
                for j, lang in enumerate(LANGS)
            ]
        )
        fit = ols("y ~ C(concept, Sum) + C(lang, Sum)", table).fit()
        totals += anova_lm(fit, typ=2)["sum_sq"].to_numpy()  # concept, language, the rest
        ours = [
            *parts.concept[:-1, 0, place].tolist(),
            *parts.language[:-1, 0, place].tolist(),
        ]
        # Sum coding orders levels by name: formal, informal.
        theirs = [-fit.params.iloc[1], fit.params.iloc[2], fit.params.iloc[3]]
        np.testing.assert_allclose(ours, theirs, atol=1e-10)
    shares = parts.shares().iloc[0][["concept", "language", "interaction"]]
    np.testing.assert_allclose(shares.to_numpy(float), totals / totals.sum(), rtol=1e-9)


def test_directions_of_a_cross_go_into_a_sweep_of_its_labels():
    moments = planted(dict.fromkeys(LANGS, axis(3)))
    parts = crossed(moments, languages=["de", "fr"])
    made = parts.directions(langs=["ru", "de"])
    assert made.langs == ("informal@ru", "informal@de", "formal@ru", "formal@de")
    there = made.between("informal@ru", "formal@ru")
    torch.testing.assert_close(there.unit, parts.directions().between(*CONCEPTS).unit)
    torch.testing.assert_close(there.gap, parts.directions().between(*CONCEPTS).gap)
    with refused("is zero at layers"):
        made.between("informal@ru", "informal@de")  # no languages in it


def test_what_is_no_cross_is_refused():
    ones = {hook_name("resid_post", 1): torch.ones(1, 2, 4)}
    mask = torch.ones(1, 2, dtype=torch.bool)

    def moments(*labels: str, read: bool = True) -> Moments:
        made = Moments(labels, (1,), 4)
        for name in labels if read else ():
            made.update(name, ones, mask)
        return made

    with refused("'de' is no concept in a language"):
        crossed(moments("de", "fr"))
    with refused("have the concept formal alone"):
        crossed(moments("formal@de", "formal@fr"))
    with refused("the cell formal@fr is empty; a cross has texts"):
        crossed(moments("informal@de", "informal@fr", "formal@de"))
    with refused("the cell informal@de is empty: nothing was read"):
        crossed(moments("informal@de", "formal@de", read=False))
    whole = moments("informal@de", "formal@de")
    with refused("nothing was read of es; give languages= of de"):
        crossed(whole, languages=["es"])
    with refused("nothing was read of no language"):
        crossed(whole, languages=[])
    with refused("unknown language code 'xx'"):
        crossed(whole, languages=["xx"])
    with refused("nothing was read of 'fr'"):
        crossed(whole).within("fr")
    with refused("crossed reads"):
        crossed(whole, read="words")
    whole.mean[0, 0, 0] = float("nan")
    with refused("hold NaN or infinity"):
        crossed(whole)


# --------------------------------------------------------------------------------- shared features


def firing(rates: torch.Tensor, *, texts: int = 100, seed: int = 0) -> Firing:
    """Firing where each unit is on in a text with a chance, [label unit]."""
    units = rates.shape[1]
    made = Firing(LABELS, (1,), units, WIDTH, site="resid_post")
    rng = torch.Generator().manual_seed(seed)
    for index, name in enumerate(LABELS):
        on = (torch.rand(texts, 1, units, generator=rng) < rates[index]).expand(texts, 2, units)
        mask = torch.ones(texts, 2, dtype=torch.bool)
        states = torch.ones(texts, 2, WIDTH) * index
        made.update(name, 1, on=on, value=on.float(), states=states, mask=mask)
        made.count(name, mask)
    return made


def rates(units: int = 60) -> torch.Tensor:
    made = torch.full((len(LABELS), units), 0.3)
    made[3:, :5] = 0.9  # formal in every language
    made[3, 5:10] = 0.9  # formal in German only
    return made


def test_shared_features_are_the_planted_ones():
    found = shared_features(firing(rates()), "formal", top=10)
    assert sorted(found.of(1)) == [0, 1, 2, 3, 4]
    row = found.table.iloc[0]
    assert row["shared"] == 5
    assert row["p"] < 0.01
    assert row["expected"] < 1


def test_chance_overlap_is_that_of_the_own_pools():
    # Nothing is planted, and all languages share a small pool: the overlap is no more than chance,
    # and the null of the whole SAE would have called it a wonder.
    none = torch.zeros(len(LABELS), 2000)
    none[:, :40] = 0.4
    found = shared_features(firing(none), "formal", top=20, draws=500)
    row = found.table.iloc[0]
    assert row["pools"] == (40, 40, 40)
    assert row["expected"] == pytest.approx(5.0)  # 40 · (20/40)³
    assert row["p"] > 0.05
    assert row["whole_sae"] < 0.01


def test_features_of_one_language_are_not_shared():
    only = torch.full((len(LABELS), 60), 0.3)
    for row in (3, 4, 5):
        only[row, 5 * row : 5 * row + 5] = 0.9
    assert len(shared_features(firing(only), "formal", top=5).of(1)) == 0


def test_shared_features_become_a_direction():
    from steerlab.sae import SAE

    found = shared_features(read := firing(rates()), "formal", top=10)
    decoder = torch.randn(60, WIDTH, generator=torch.Generator().manual_seed(0))
    coder = SAE(
        decoder.T.contiguous(),
        torch.zeros(60),
        decoder,
        torch.zeros(WIDTH),
        "relu",
        1,
        "resid_post",
    )
    made = found.directions(read, {1: coder})
    expected = torch.nn.functional.normalize(decoder[:5], dim=-1).mean(0)
    cosine = unit(made) @ torch.nn.functional.normalize(expected, dim=0)
    assert cosine == pytest.approx(1, abs=1e-5)
    assert made.between("informal", "formal").gap[0] == pytest.approx(3 * WIDTH**0.5)


def test_what_shares_nothing_is_refused():
    read = firing(rates())
    with refused("nothing was read of 'polite'"):
        shared_features(read, "polite")
    with refused("cannot stand against itself"):
        shared_features(read, "formal", against="formal")
    with refused("the cell formal@es is empty"):
        shared_features(read, "formal", languages=["de", "es"])
    with refused("give a share from 0 to 1"):
        shared_features(read, "formal", share=2.0)


# ------------------------------------------------------------------------------- the held-out probe


def by_template(*, flip: bool, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Texts of ten templates; the concept is one axis, or one whose sign each template has for
    itself."""
    rng = np.random.default_rng(seed)
    templates = np.repeat(np.arange(10), 12)
    where = rng.normal(size=(10, 1, 20)) * 3
    own = rng.normal(size=(10, 1, 20)) * 2
    axis_of_all = np.zeros((1, 20))
    axis_of_all[0, 0] = 12
    texts = {}
    for sign, name in ((1, "she"), (-1, "he")):
        step = own[templates] if flip else axis_of_all
        texts[name] = where[templates] + sign * step + rng.normal(size=(120, 1, 20)) * 0.3
    return texts, {"template": [str(template) for template in templates]}


def test_a_probe_may_know_templates_by_heart():
    texts, groups = by_template(flip=True)
    random = held_out_probe(texts, groups, by=None).iloc[0]
    held = held_out_probe(texts, groups).iloc[0]
    assert random["accuracy"] > 0.8
    assert held["accuracy"] < 0.65
    assert held["groups"] == 10


def test_a_concept_that_all_templates_share_is_found():
    texts, groups = by_template(flip=False)
    held = held_out_probe(texts, groups).iloc[0]
    assert held["accuracy"] > 0.95
    assert held["accuracy_low"] <= held["accuracy"] <= held["accuracy_high"]
    assert abs(held["shuffled"] - 0.5) < 0.1
    assert held["chance"] == 0.5


def test_a_probe_refuses_what_it_cannot_hold_out():
    texts, groups = by_template(flip=False)
    with refused("there are no groups 'topic'; groups= has template"):
        held_out_probe(texts, groups, by="topic")
    with refused("parts two labels or more"):
        held_out_probe({"she": texts["she"]}, groups)
    with refused("10 groups cannot be dealt into 11 folds"):
        held_out_probe(texts, groups, folds=11)
    with refused("are 3 and 'she' has 120 texts"):
        held_out_probe(texts, {"template": ["a", "b", "c"]})
    texts["he"][0, 0, 0] = np.nan
    with refused("hold NaN"):
        held_out_probe(texts, groups)


# --------------------------------------------------------------------- the contrasts of the package


def test_every_pair_of_register_is_one_pair_in_all_languages():
    made = register()
    assert len(made) == 216
    assert made.aligned
    for lang in ("de", "es", "fr", "it", "nl", "ru"):
        a, b = made[f"informal@{lang}"], made[f"formal@{lang}"]
        assert len(set(a)) == len(set(b)) == 216
        assert not set(a) & set(b)
        lengths = [abs(len(x) - len(y)) / max(len(x), len(y)) for x, y in zip(a, b, strict=True)]
        assert np.mean(lengths) < 0.2  # register is no question of length
    sizes = [len(made.split(name)) for name in ("estimate", "dev", "test")]
    assert sizes == [108, 45, 63]
    english = register_prompts(made.split("test").numbers)
    assert len(english) == 63
    assert english[-1] == "I will write to you as soon as I arrive."
    with refused("line 0 of register has no English"):
        register_prompts([0])
    with refused("no such sentences in English; it has de es fr it nl ru"):
        register(["en"])


@pytest.mark.parametrize("lang", ["de", "es", "fr", "it", "nl", "ru"])
def test_counting_tells_the_two_sides_of_every_pair(lang):
    made = register([lang])
    for side, concept in enumerate(("informal", "formal")):
        texts = made[f"{concept}@{lang}"]
        share = formal_share(texts, [lang] * len(texts))
        counted = ~np.isnan(share)
        # Italian and German say Lei and Sie where a sentence begins, which does not count.
        assert counted.mean() > (0.5 if (concept, lang) == ("formal", "it") else 0.75)
        np.testing.assert_array_equal(share[counted], side)


@pytest.mark.parametrize(
    ("text", "lang", "counts"),
    [
        ("Hast du dein Buch?", "de", (2, 0)),
        ("Sie haben recht.", "de", (0, 0)),  # they, or you
        ("Ich sehe Sie. Sie gehen.", "de", (0, 1)),
        ("ich sehe sie und ihr Haus", "de", (0, 0)),
        ("T'as ton rendez-vous ?", "fr", (2, 0)),
        ("Vous êtes là, n'est-ce pas ?", "fr", (0, 1)),
        ("Vorrei vederLa, signora.", "it", (0, 1)),
        ("La casa è bella e lei ride.", "it", (0, 0)),
        ("Ты здесь? Я жду вас.", "ru", (1, 1)),
        ("", "ru", (0, 0)),
        ("Er ist tudu.", "de", (0, 0)),
    ],
)
def test_words_are_counted(text, lang, counts):
    assert word_counts(text, lang, "register") == counts
    assert word_counts(text, f"formal@{lang}", "register") == counts


def test_counting_refuses_what_it_has_no_words_of():
    with refused(
        "no words of 'register' are listed for 'en'; there are those of de es fr it nl ru"
    ):
        word_counts("you", "en", "register")
    with refused("give (gender or register|register or gender)"):
        word_counts("you", "en", "mood")
    with refused("needs a language for each output; 1 outputs and 1 were given"):
        formal_share(["du"], "de")


def test_gender_is_counted():
    texts = ["She said that he saw her.", "Nothing.", "han", "Hon såg henne."]
    share = she_share(texts, ["en", "en", "sv", "sv"])
    np.testing.assert_allclose(share, [2 / 3, np.nan, 0, 1])


def test_occupations_are_balanced_and_split_by_occupation():
    made = occupations()
    assert made.langs == ("she@en", "she@sv", "he@en", "he@sv")
    assert len(made) == 288
    for lang in ("en", "sv"):
        for name, share in (("she", 1), ("he", 0)):
            texts = made[f"{name}@{lang}"]
            np.testing.assert_array_equal(she_share(texts, [lang] * 288), share)
        prompts = occupation_prompts(lang)
        starts = [text.startswith(prompt) for text, prompt in zip(texts, prompts, strict=True)]
        assert all(starts)
        assert np.isnan(she_share(prompts, [lang] * 288)).all()
    groups = {name: occupation_groups(made.split(name).numbers) for name in ("estimate", "test")}
    shared = set(groups["estimate"]["occupation"]) & set(groups["test"]["occupation"])
    assert not shared
    assert len(set(groups["test"]["template"])) == 12
