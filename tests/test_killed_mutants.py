"""Laws that a change of one sign, axis or index broke while all other tests still passed.

`experiments/mutants.py` holds the changes.
"""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from planted_units import ABOUT, exact
from planted_units import LANGS as UNIT_LANGS
from planting import moments, planted
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import steerlab.estimate as estimate
from steerlab.analysis.clustered import clustered_mean, covariance, spread_of_difference
from steerlab.analysis.effects.dominance import dominance
from steerlab.analysis.geometry.family_neighbours import family_neighbours
from steerlab.analysis.geometry.layers import effective_rank as rank_of_vectors
from steerlab.analysis.geometry.matrices import mantel
from steerlab.analysis.geometry.trees import untangle
from steerlab.analysis.tests import clustering, studentised_bootstrap
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Gradients
from steerlab.edits import push
from steerlab.estimate import controls
from steerlab.estimate.eigengap import effective_rank, ranks
from steerlab.estimate.record import estimator
from steerlab.estimate.units.controls import matched
from steerlab.estimate.units.culnig import culnig
from steerlab.estimate.units.langfir import langfir
from steerlab.estimate.units.selection import Selection
from steerlab.sweeps.cell import Cell

ROOT = Path(__file__).resolve().parents[1]


def directions(layers: int = 2, *, langs: tuple[str, ...] = UNIT_LANGS) -> Directions:
    """Random directions of width 6."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(len(langs), layers, 6, generator=generator)
    basis = torch.linalg.qr(torch.randn(len(langs), layers, 6, 2, generator=generator))[0].mT
    return Directions(means, basis, means, langs, tuple(range(layers)), "resid_post")


# Geometry


def test_more_layers_to_choose_from_make_a_larger_p() -> None:
    """Each permutation takes its own best layer: layers of noise can only help the permutations."""
    langs = ["de", "nl", "es", "fr", "ru", "uk", "hi", "ur"]
    generator = np.random.default_rng(0)
    family = np.repeat(np.eye(4), 2, 0) + 0.7 * generator.standard_normal((8, 4))
    noise = generator.standard_normal((6, 8, 4))
    one = family_neighbours(family[None], langs, permutations=500)
    many = family_neighbours(np.concatenate([family[None], noise]), langs, permutations=500)
    assert many.accuracy[0] == one.accuracy[0] == max(many.accuracy) < 1
    assert many.p > one.p
    assert many.null > one.null


def test_an_effective_rank_is_of_variances() -> None:
    shares = np.array([9, 16]) / 25
    expected = float(np.exp(-(shares * np.log(shares)).sum()))
    assert float(effective_rank(torch.tensor([4.0, 3.0]))) == pytest.approx(expected, rel=1e-5)
    # Three points whose centred vectors have just these singular values.
    axes = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
    vectors = (axes.T * [4.0, 3.0]) + 7.0
    assert rank_of_vectors(vectors) == pytest.approx(expected, rel=1e-9)
    unsquared = np.array([4, 3]) / 7
    assert abs(float(np.exp(-(unsquared * np.log(unsquared)).sum())) - expected) > 0.05


def test_a_partial_p_is_that_of_rests_projected_again() -> None:
    """By hand: every permutation of the rest of x is freed of z once more."""
    generator = np.random.default_rng(3)
    points = generator.standard_normal((7, 2))
    z = np.abs(points[:, None, 0] - points[None, :, 0])
    x = z + 0.5 * np.abs(points[:, None, 1] - points[None, :, 1])
    of = x + z + 0.3 * np.abs(generator.standard_normal((7, 7)))
    of = (of + of.T) / 2
    row = mantel(of[None], {"x": x}, given={"z": z}, permutations=300, seed=4).iloc[0]

    first, second = np.triu_indices(7, 1)
    orders = np.tile(np.arange(7), (300, 1))
    orders = np.random.default_rng(4).permuted(orders, axis=1)

    def rest(values: np.ndarray) -> np.ndarray:
        others = np.stack([np.ones(len(first)), z[first, second]], 1)
        return values - others @ np.linalg.lstsq(others, values, rcond=None)[0]

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    y_rest = rest(of[first, second])
    x_rest = rest(x[first, second])
    matrix = np.zeros((7, 7))
    matrix[first, second] = x_rest
    matrix[second, first] = x_rest
    moved = [matrix[np.ix_(order, order)][first, second] for order in orders]
    twice = np.array([correlation(rest(values), y_rest) for values in moved])
    once = np.array([correlation(values, y_rest) for values in moved])
    observed = correlation(x_rest, y_rest)
    assert row["r"] == pytest.approx(observed, abs=1e-9)
    assert row["critical"] == pytest.approx(np.quantile(np.abs(twice), 0.95), abs=1e-9)
    assert abs(np.quantile(np.abs(once), 0.95) - row["critical"]) > 1e-3


# Effects and tests


def test_dominance_asks_of_every_edit_which_language_it_hurts_most() -> None:
    """And not of every language which edit hurts it most: a fragile language is hurt by all."""
    rises = {
        # edit: rises of en, de, es; the text of en is fragile whatever the edit
        "en": (9.0, 1.0, 1.0),
        "de": (8.0, 3.0, 1.0),
        "es": (8.0, 1.0, 3.0),
    }
    rows = [
        {"edit": edit, "kind": "edit", "language": lang, "sentence": sentence, "rise": rise}
        for edit, by_lang in rises.items()
        for lang, rise in zip(rises, by_lang, strict=True)
        for sentence in range(3)
    ]
    table = pd.DataFrame(rows)
    assert dominance(table, resamples=20).share == pytest.approx(1 / 3)
    turned = table.rename(columns={"edit": "language", "language": "edit"})
    assert dominance(turned, resamples=20).share == 1.0


def test_the_design_effect_of_unequal_sentences() -> None:
    """By hand: sentences of 1, 2 and 5 outputs."""
    sentences = np.array([0, 1, 1, 2, 2, 2, 2, 2])
    values = np.array([0.0, 1, 2, 4, 5, 6, 5, 5])
    means = {0: 0.0, 1: 1.5, 2: 5.0}
    between = sum(n * (means[s] - values.mean()) ** 2 for s, n in ((0, 1), (1, 2), (2, 5))) / 2
    within = sum((v - means[s]) ** 2 for s, v in zip(sentences, values, strict=True)) / 5
    size = (1 + 4 + 25) / 8
    typical = (8 - size) / 2
    intraclass = (between - within) / (between + (typical - 1) * within)
    result = clustering(values, sentences)
    assert result.intraclass == pytest.approx(intraclass)
    assert result.design == pytest.approx(1 + (size - 1) * intraclass)
    assert result.effective == pytest.approx(8 / result.design)
    assert result.design > 1 + (8 / 3 - 1) * intraclass + 0.1, "the mean size is another"


# Directions and their controls


@pytest.mark.parametrize("kind", ["random", "covariance", "shuffled", "wrong"])
def test_each_seed_is_a_control_of_its_own(kind: str) -> None:
    fitted = directions(langs=("en", "de", "es", "fr", "it", "ja", "ru", "zh"))

    def control(seed: int) -> torch.Tensor:
        if kind == "random":
            return controls.random(fitted, seed=seed).vectors
        if kind == "covariance":
            return controls.random(
                fitted, seed=seed, covariance=torch.eye(6).repeat(2, 1, 1)
            ).vectors
        if kind == "shuffled":
            return controls.shuffled(fitted, seed=seed).vectors
        return controls.wrong(fitted, source="en", seed=seed).vectors

    made = [control(seed) for seed in range(4)]
    for one in range(4):
        assert torch.equal(made[one], control(one))
        for other in range(one):
            assert not torch.allclose(made[one], made[other])


def test_what_all_languages_share_is_in_no_basis() -> None:
    texts, _ = planted()
    given = moments(texts)
    far = moments({lang: h + 50.0 for lang, h in texts.items()})
    for name in ("diffmean", "lda", "ellipsoid"):
        here = getattr(estimate, name)(given).basis
        there = getattr(estimate, name)(far).basis
        overlap = torch.einsum("klrw,klrw->kl", here, there)
        assert overlap.min() > 0.999, name


def test_lda_counts_how_far_the_other_languages_lie_apart() -> None:
    texts, _ = planted()
    texts["ja"] = texts["ja"] + 6 * torch.eye(24)[3]
    fitted = estimate.lda(moments(texts), contrast=("es", "ja"), shrinkage=0.0)
    x = torch.cat([texts[lang][:, :, 0].flatten(0, 1) for lang in ("de", "es", "ja")]).double()
    y = np.repeat([1, 0], [300, 600])
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.0, priors=[0.5, 0.5])
    theirs = model.fit(x.numpy(), y).coef_[0]
    unit = fitted.between("en", "de").unit[0].double().numpy()
    assert unit @ theirs / np.linalg.norm(theirs) > 0.9999
    # Without what lies between es and ja the direction is another.
    apart = np.concatenate([part - part.mean(0) for part in x.split(300)])
    weights = np.repeat([0.5, 0.25, 0.25], 300)[:, None] / 300
    step = x[:300].mean(0).numpy() - x[300:].mean(0).numpy()
    blind = np.linalg.solve((apart * weights).T @ apart, step)
    assert unit @ blind / np.linalg.norm(blind) < 0.99


def test_the_gap_is_sought_in_the_first_values_that_are_not_zero() -> None:
    rounding = torch.tensor([5.0, 4.0, 1.0, 0.9, 1e-9, 1e-12])
    assert ranks(rounding, 100, 12)[1] == 2, "not the fall to zero"
    # Of n pairs no more than n values are real, whatever stands behind.
    assert ranks(torch.tensor([5.0, 4.9, 0.1]), 2, 12)[1] == 1
    late = torch.tensor([4.0, 3.0, 2.9, 2.8, 0.1])
    assert ranks(late, 100, 12)[1] == 4
    assert ranks(late, 100, 4)[1] == 4, "the ratio behind the last of `largest` counts"
    assert ranks(late, 100, 3)[1] == 1


@pytest.mark.parametrize("setting", ["parallel", "monolingual"])
def test_sparse_dimensions_are_of_the_last_layer_against_the_right_one(setting: str) -> None:
    generator = torch.Generator().manual_seed(5)
    texts = {lang: torch.randn(9, 4, 6, 12, generator=generator) for lang in ("en", "de")}
    fitted = estimate.sparse(moments(texts), setting=setting, dims=3)
    # Six layers: 58 % of the depth of 5 is 2.9, so layer 3.
    means = {lang: h.mean((0, 1)) for lang, h in texts.items()}
    against = means["en"][5] if setting == "parallel" else means["de"][3]
    expected = (against - means["de"][5]).abs().topk(3).indices
    assert set(fitted.extra["mask"][1, 0].nonzero()[:, 0].tolist()) == set(expected.tolist())
    torch.testing.assert_close(fitted.extra["values"][1, 0], means["de"][5], atol=1e-5, rtol=0)
    for other in (0, 1, 2, 4):
        wrong = (means["de"][other] - means["de"][5]).abs().topk(3).indices
        assert set(wrong.tolist()) != set(expected.tolist())


def test_push_moves_by_the_gap_of_its_own_layer() -> None:
    fitted = directions(3)
    step = fitted.between("en", "de")
    assert step.gap.std() > 0.1
    h = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(2))
    for part, gap in zip(push(step, strength=0.5).parts, step.gap, strict=True):
        moved = part.change(h, part.tensors, None).norm()  # a change is what is added
        assert float(moved) == pytest.approx(0.5 * float(gap), rel=1e-4)


# Units


def test_a_twin_fires_as_often_in_the_language_itself() -> None:
    rate = torch.full((2, 1, 8), 0.1)
    rate[:, 0, 0] = torch.tensor([0.4, 0.01])
    rate[:, 0, 1] = torch.tensor([0.4, 0.4])  # like it in the first language
    rate[:, 0, 2] = torch.tensor([0.01, 0.4])  # like it on average
    firing = exact(rate)
    chosen = torch.zeros(2, 1, 8, dtype=torch.bool)
    chosen[0, 0, 0] = True
    about = {**ABOUT, "settings": {}}
    selection = Selection(
        "planted", firing.langs, firing.layers, firing.site, chosen, chosen.double(), about
    )
    found = matched(selection, firing, torch.ones(1, 8)).chosen
    assert found[0, 0].nonzero()[:, 0].tolist() == [1]


def test_culnigs_z_is_of_the_standard_deviation_over_languages() -> None:
    """By hand: scores 3, 1, 1, 1 lie 1.5 above their mean, at a deviation of 0.87: z is 1.73."""
    score = torch.zeros(4, 1, 4)
    score[:, 0, 0] = torch.tensor([3.0, 1, 1, 1])
    score[:, 0, 1] = torch.tensor([1.0, 3, 1.4, 1])
    gradients = Gradients(UNIT_LANGS, (0,), "mlp_post", score, torch.zeros_like(score), ABOUT)
    z = math.sqrt(3)
    assert culnig(gradients, share=0.25, least=z - 1e-6).chosen[0, 0, 0]
    assert not culnig(gradients, share=0.5, least=z - 1e-3).chosen[1, 0, 0]
    # With n - 1 it would be 1.5, and as a plain difference 1.5 too: at 1.6 both are left out.
    assert culnig(gradients, share=0.25, least=1.6).chosen[0, 0, 0]
    nothing = pytest.raises(Exception, match="standard deviations")
    with nothing:
        culnig(gradients, share=0.25, least=z + 1e-3)


def test_branches_are_sorted_by_the_mean_place_of_their_leaves_and_not_by_its_sum() -> None:
    """Four leaves at places 0 to 3 come before one at place 4, though their places sum to more."""
    tree = np.array([[0, 1, 0.1, 2], [2, 5, 0.2, 3], [3, 6, 0.3, 4], [4, 7, 0.4, 5]])
    assert untangle(tree, tree, start=range(5)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])


# Intervals


def test_the_variance_of_a_difference_is_that_of_the_paired_values() -> None:
    generator = np.random.default_rng(2)
    first, noise = generator.standard_normal((2, 30))
    sentences = np.arange(30)
    a, b = clustered_mean(first, sentences), clustered_mean(first + 0.3 * noise, sentences)
    shared = covariance(a.influence, b.influence, a.groups)
    variance, freedom = spread_of_difference(a, b, shared)
    assert variance == pytest.approx(np.var(0.3 * noise, ddof=1) / 30)
    assert freedom == 29


# Records


def test_an_unknown_statistic_of_an_estimator_is_named() -> None:
    with pytest.raises(SteerlabError, match="there is no statistic 'nonsense' to collect; needs="):
        estimator(estimate.diffmean, needs=("scatter", "nonsense"))


# Tests


def test_differences_without_spread_have_the_p_of_all_signs_alike() -> None:
    """Of n equal differences 2 of 2^n patterns are as far from 0; no p is below that of draws."""
    assert studentised_bootstrap(np.full(2, -0.3)) == 1 / 2
    assert studentised_bootstrap(np.full(5, 0.3)) == 1 / 16
    assert studentised_bootstrap(np.full(30, 0.3), draws=99) == 1 / 100
    assert studentised_bootstrap(np.zeros(5)) == 1.0


# Sweeps


def test_each_sentence_of_a_control_is_steered_by_its_own_seed() -> None:
    """Sentence i takes the (i mod n)-th directions themselves, not only their name in the rows."""
    fits = {
        str(seed): controls.random(directions(langs=("en", "de", "es")), seed=seed)
        for seed in range(3)
    }
    cell = Cell(
        method="random",
        operator="add",
        layer=1,
        strength=1.0,
        source="en",
        target="de",
        split="dev",
        fits=tuple(fits),
    )
    taken = [cell.edit(fits, sentence).digest for sentence in range(7)]
    alone = [replace(cell, fits=(name,)).edit(fits, 0).digest for name in fits]
    assert len(set(alone)) == 3
    assert taken == [alone[sentence % 3] for sentence in range(7)]


def test_langfirs_thresholds_are_inclusive() -> None:
    firing = exact(torch.full((2, 1, 3), 0.5))
    noise = exact(torch.full((2, 1, 3), 0.5))
    noise.noise = "random"
    firing.texts_on[:, 0] = torch.tensor([8.0, 7.0, 8.0]).double()  # of ten texts
    noise.texts_on[:, 0] = torch.tensor([1.0, 1.0, 2.0]).double()
    found = langfir(firing, noise, consistency=0.8, noise=0.1)
    assert found.chosen[0, 0].tolist() == [True, False, False]


def test_the_mutants_made_by_hand_are_of_the_code_as_it_is() -> None:
    script = runpy.run_path(str(ROOT / "experiments" / "mutants.py"))
    assert len(script["HAND"]) >= 17
    for path, before, after in script["HAND"]:
        assert before != after
        assert (ROOT / "steerlab" / path).read_text("utf-8").count(before) == 1, (path, before)
