"""What random changes of the code (`make mutants`) broke while the tests nearest to it passed."""

import math
import warnings

import numpy as np
import pytest
import torch
from planted_units import ABOUT, exact
from planting import moments

from steerlab.analysis.clustered import covariance
from steerlab.analysis.geometry.matrices import mantel
from steerlab.analysis.geometry.tokens import separation
from steerlab.analysis.tests import detectable
from steerlab.core.errors import SteerlabError
from steerlab.edits import add
from steerlab.estimate import diffmean
from steerlab.estimate.units.controls import matched
from steerlab.estimate.units.langfir import langfir
from steerlab.estimate.units.selection import Selection
from steerlab.scores.confusion import label_agreement
from steerlab.scores.lexicon import Lexicon
from steerlab.scores.words import matches


def texts(shift: float) -> dict[str, torch.Tensor]:
    """Two languages of 4 texts with 3 tokens, at one layer: all that is random, moved along."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 4, 3, 1, 24, generator=generator)
    return {"en": noise[0] + shift, "de": noise[1] + shift + 1.5}


def test_separation_is_of_the_scatter_about_the_grand_mean() -> None:
    """The trace ratio by numpy, and the same wherever the whole cloud lies."""
    found = {}
    for shift in (0.0, 40.0):
        read = texts(shift)
        of_texts = {lang: h.mean(1) for lang, h in read.items()}
        found[shift] = separation(moments(read), of_texts)["trace_ratio"][0]
    vectors = {lang: h.reshape(-1, 24).double().numpy() for lang, h in texts(0.0).items()}
    means = {lang: v.mean(0) for lang, v in vectors.items()}
    grand = np.mean(list(means.values()), axis=0)
    between = sum(len(vectors[lang]) * ((means[lang] - grand) ** 2).sum() for lang in means)
    within = sum(((vectors[lang] - means[lang]) ** 2).sum() for lang in means)
    assert found[0.0] == pytest.approx(between / within)
    assert found[40.0] == pytest.approx(found[0.0], rel=1e-3)


def test_one_language_alone_has_no_direction() -> None:
    alone = {"en": texts(0.0)["en"]}
    with pytest.raises(SteerlabError, match="en alone; a direction needs two languages"):
        diffmean(moments(alone, pairs_from=None))


def test_mantel_counts_each_pair_once() -> None:
    points = np.random.default_rng(0).standard_normal((6, 3))
    far = np.linalg.norm(points[:, None] - points, axis=-1)
    found = mantel(far[None], {"itself": far}, permutations=19)
    assert found["pairs"].tolist() == [15]
    assert found["n"].tolist() == [6]


def test_the_covariance_of_two_means_is_within_strata() -> None:
    """By numpy: of each stratum n · cov, and none of what lies between the strata."""
    generator = np.random.default_rng(1)
    a, b = generator.standard_normal((2, 9)) + np.repeat([0.0, 50.0], [4, 5])
    groups = (0,) * 4 + (1,) * 5
    expected = sum(
        size * np.cov(a[part], b[part])[0, 1] for size, part in ((4, slice(0, 4)), (5, slice(4, 9)))
    )
    assert covariance(a, b, groups) == pytest.approx(expected)


def test_the_least_p_may_be_the_level_itself() -> None:
    """With 6 sentences p is 1/32 at the least: enough at a level of 1/32, not below."""
    assert math.isfinite(detectable(1.0, 6, alpha=1 / 32))
    assert math.isinf(detectable(1.0, 6, alpha=1 / 32 - 1e-9))


def test_as_many_free_units_as_a_language_has_suffice() -> None:
    rate = torch.full((2, 1, 4), 0.1)
    firing = exact(rate)
    chosen = torch.zeros(2, 1, 4, dtype=torch.bool)
    chosen[0, 0, :2] = True
    selection = Selection(
        "planted",
        firing.langs,
        firing.layers,
        firing.site,
        chosen,
        chosen.double(),
        {**ABOUT, "settings": {}},
    )
    twins = matched(selection, firing, torch.ones(1, 4)).chosen
    assert twins[0, 0].tolist() == [False, False, True, True]
    chosen[1, 0, 2] = True  # one free unit is left for the two
    with pytest.raises(SteerlabError, match="has 2 units at layer 0, and only 1 living"):
        matched(selection, firing, torch.ones(1, 4))


def test_a_word_that_stands_twice_goes_on_where_the_last_one_was() -> None:
    reference = "the cat and the dog and the bird".split()
    assert matches("and the dog".split(), reference) == [2, 3, 4]
    assert matches("dog and the bird".split(), reference) == [4, 5, 6, 7]
    assert matches("bird the".split(), reference) == [7, 0]  # none behind it: the first left


def test_a_feature_that_never_fires_is_nobodys() -> None:
    """Even where no text has to set it off."""
    firing, noise = exact(torch.tensor([[[0.5, 0.0]], [[0.5, 0.0]]])), exact(torch.zeros(2, 1, 2))
    noise.noise = "random"
    found = langfir(firing, noise, consistency=0.0, noise=0.5)
    assert found.chosen.tolist() == [[[True, False]], [[True, False]]]


def test_with_one_label_in_all_there_is_no_kappa_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(label_agreement(["a", "a"], ["a", "a"]).kappa)


def test_a_strangers_word_may_be_as_short_as_four_letters() -> None:
    known = Lexicon(["the dog sleeps", "a fish swims"], ["der Hund schläft", "ein Fisch schwimmt"])
    strange = known.strangers("der Hund", "ein Fisch schwimmt", "a fish swims")
    assert strange == ["hund"]  # "der", of three letters, says nothing


def test_a_plain_hook_edits_the_one_token_of_a_step_of_decoding() -> None:
    """Of a pass of several tokens the first is spared; a pass of one is a step behind a cache."""
    fit = diffmean(moments(texts(0.0)))
    [(_, hook)] = add(fit.between("en", "de").at(0)).hooks(bos=True)
    h = torch.zeros(2, 3, 24)
    assert hook(h).any(-1).tolist() == [[False, True, True]] * 2
    assert hook(h[:, :1]).any(-1).tolist() == [[True]] * 2
