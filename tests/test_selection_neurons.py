"""Language neurons that were planted are found by LAPE, NJU and CULNIG."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from planted_units import (
    ABOUT,
    LANGS,
    OWN,
    exact,
    planted,
    rates,
    read,
)
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, Gradients
from steerlab.estimate.units import (
    Alignment,
    culnig,
    entropy,
    lape,
    nju,
    sae_lape,
)
from steerlab.estimate.units.nju import kinds_moved

# LAPE


def test_entropy_of_uniform_one_hot_and_dead_units() -> None:
    rate = torch.tensor(
        [[0.5, 0.2, 0.0, 0.3], [0.5, 0.0, 0.0, 0.1], [0.5, 0.0, 0.0, 0.0]], dtype=torch.float64
    )
    found = entropy(rate)
    by_hand = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(
        found, torch.tensor([math.log(3), 0, math.log(3), by_hand], dtype=torch.float64)
    )


def test_lape_finds_planted_neurons_and_gives_shared_ones_to_each() -> None:
    rate = rates()
    rate[:, 1, 7] = torch.tensor([0.0, 0.9, 0.0, 0.0])
    rate[:, 2, 8] = torch.tensor([0.0, 0.0, 0.8, 0.8])
    rate[:, 0, 9] = 0  # dead
    rate[:, 0, 10] = torch.tensor([0.001, 0, 0, 0])  # of one language alone, but hardly ever on
    found = lape(exact(rate), share=2 / 600)
    assert found.table()[["language", "layer", "unit"]].to_numpy().tolist() == [
        ["de", 1, 7],
        ["es", 2, 8],
        ["ja", 2, 8],
    ]
    assert found.provenance["settings"]["units"] == 2
    wide = lape(exact(rate), share=1.0)
    assert not wide.chosen[:, 0, 9:11].any(), "a share of all takes no dead and no silent neuron"
    assert wide.provenance["settings"]["units"] < 100
    assert not lape(exact(rates()), share=2 / 600).chosen[1, 1, 7], (
        "it is not there unless it is planted"
    )


def test_lape_takes_the_share_of_all_units_and_the_bar_over_all_rates() -> None:
    rate = rates()
    found = lape(exact(rate), share=0.02, percentile=90)
    bar = float(np.sort(exact(rate).rate.flatten().numpy())[round(2400 * 0.9) - 1])
    assert found.provenance["settings"]["bar"] == bar
    assert int(found.chosen.any(0).sum()) == 12
    assert torch.equal(found.chosen, (exact(rate).rate > bar) & found.chosen.any(0))
    able = (exact(rate).rate > bar).any(0)
    assert float(entropy(exact(rate).rate)[found.chosen.any(0)].max()) <= float(
        entropy(exact(rate).rate)[able & ~found.chosen.any(0)].min()
    )


def test_among_equal_entropies_the_most_active_come_first() -> None:
    rate = torch.zeros(2, 1, 50, dtype=torch.float64)
    rate[0, 0] = torch.linspace(0.01, 0.5, 50, dtype=torch.float64)
    assert lape(exact(rate), share=0.04, percentile=50).of("en", 0) == [48, 49]


def test_lape_says_why_nothing_is_left() -> None:
    with pytest.raises(
        SteerlabError, match="a share of 0.001 of 80 units is none; give 0.013 or more"
    ):
        lape(read(planted()), share=0.001)
    with pytest.raises(SteerlabError, match="no unit fires above 0.5"):
        lape(exact(torch.full((2, 1, 50), 0.5)), share=0.1)
    with pytest.raises(SteerlabError, match="lape compares languages, and there is en alone"):
        lape(exact(torch.full((1, 1, 50), 0.5)))
    with pytest.raises(SteerlabError, match="the percentile is 100"):
        lape(exact(rates()), percentile=100)
    with pytest.raises(SteerlabError, match="nothing was read of de, en"):
        lape(Firing(("de", "en"), [1], 4, 4, site="mlp_post"))


def test_sae_lape_wants_a_feature_in_nearly_all_texts_too() -> None:
    chance = planted()
    chance[1, 1, 20:22] = 0
    chance[1, 1, 20] = 0.15  # on in about 86 of 100 texts of German alone
    chance[[0, 2, 3], :, 20] = 0
    made = read(chance)
    both = [method(made, share=0.1, percentile=90) for method in (lape, sae_lape)]
    assert 20 in both[0].of("de", 4)
    assert 20 not in both[1].of("de", 4)
    assert all(OWN[iso] in found.of(iso, 4) for iso in LANGS for found in both)
    assert (both[1].chosen <= (made.share >= 0.98)).all()


# NJU


def aligned(seed: int = 0) -> Tensor:
    """Neurons whose rates differ somewhat, some very active in all languages, some in one, some
    in two."""
    rate = rates(seed, spread=1.6)
    rate[:, 1, :20] = 0.7 + 0.2 * rate[:, 1, :20]
    rate[:, 0, :5] = torch.tensor([0.9, 0.1, 0.1, 0.1])[:, None].double()
    rate[:, 2, :3] = torch.tensor([0.85, 0.8, 0.1, 0.1])[:, None].double()
    return rate


def by_hand(firing: Firing, penalty: float, number: int) -> Tensor:
    """The selected neurons by numpy, from the formula."""
    rate = firing.rate.numpy()
    p = rate / rate.sum(0)
    score = -(p * np.log(np.maximum(p, 1e-300))).sum(0) / np.log(len(p))
    score -= penalty * rate.max(0) / np.mean([1 / k for k in range(1, len(p) + 1)])
    chosen = np.zeros(score.size, dtype=bool)
    chosen[np.argsort(score.ravel(), kind="stable")[:number]] = True
    return torch.from_numpy(chosen.reshape(score.shape))


def test_the_largest_penalty_selects_no_agnostic_neuron_and_a_larger_one_does() -> None:
    firing = exact(aligned())
    found = nju(firing, share=0.06)
    agnostic = found.number == 4
    assert 0 < found.penalty < 0.2
    assert not (found.selected & agnostic).any()
    assert (by_hand(firing, found.penalty + 1e-3, 36) & agnostic).any()
    assert torch.equal(found.selected, by_hand(firing, found.penalty, 36))
    halvings = found.penalty / 0.2 * 256
    assert halvings == pytest.approx(round(halvings)), (
        "bisection halves [0, .2] until it is below the tolerance"
    )


def test_where_no_penalty_spoils_it_the_largest_is_taken() -> None:
    rate = aligned()
    rate[:, 1, :20] = 0.1
    assert nju(exact(rate), share=8 / 600).penalty == 0.2


def test_nju_kinds_follow_the_number_of_languages_above_the_bar() -> None:
    found = nju(exact(aligned()), share=0.06)
    specific, related, both = (found.selection(kind) for kind in ("specific", "related", "both"))
    assert set(specific.of("en", 0)) >= {0, 1, 2, 3, 4}
    assert set(related.of("en", 2)) & set(related.of("de", 2)) >= {0, 1, 2}
    assert torch.equal(both.chosen, specific.chosen | related.chosen)
    assert not (specific.chosen & related.chosen).any()
    assert (specific.chosen.sum(0) <= 1).all()
    assert (both.chosen <= found.above & found.selected).all()
    assert (specific.method, both.method) == ("nju specific", "nju")
    table = found.kinds_by_layer()
    assert table.groupby("layer")["all"].sum().tolist() == [200] * 3
    assert table.groupby("layer")["share"].sum().tolist() == pytest.approx([1] * 3)
    assert table["selected"].sum() == 36
    assert table[table.kind == "agnostic"]["selected"].sum() == 0
    assert int(table[(table.kind == "agnostic") & (table.layer == 1)]["all"].iloc[0]) == 20
    with pytest.raises(SteerlabError, match="not 'agnostic'"):
        found.selection("agnostic")


def test_nju_says_what_it_cannot_do() -> None:
    with pytest.raises(SteerlabError, match="even by entropy alone"):
        nju(
            exact(
                torch.cat(
                    [
                        torch.rand(4, 1, 30).double() * 0.1 + 0.6,
                        torch.full((4, 1, 30), 0.1).double(),
                    ],
                    2,
                )
            ),
            percentile=40,
        )
    with pytest.raises(
        SteerlabError, match="2 neurons cannot be selected where 1 are not agnostic"
    ):
        nju(exact(torch.rand(4, 1, 200).double() * 0.5 + 0.5), percentile=0)
    alone = torch.zeros(4, 1, 100).double()
    alone[:, 0] = torch.eye(4).repeat(1, 25).double() * torch.linspace(0.1, 0.9, 100)
    with pytest.raises(SteerlabError, match="selected neurons is related"):
        nju(exact(alone), share=0.1).selection("related")


def layered(shares: Sequence[float]) -> Alignment:
    """An alignment with these shares of agnostic neurons by layer, of 100."""
    above = torch.zeros(2, len(shares), 100, dtype=torch.bool)
    for j, share in enumerate(shares):
        above[:, j, : round(share * 100)] = True
    score = torch.zeros(len(shares), 100)
    return Alignment(
        ("en", "de"), tuple(range(len(shares))), "mlp_post", 0.1, 0.5, score, above, score > 0
    )


def test_the_layers_divide_where_the_agnostic_share_crosses_its_median() -> None:
    parts = layered([0.02, 0.05, 0.2, 0.3, 0.25, 0.06, 0.4]).parts()
    assert parts == {
        "understanding": (0, 1),
        "reasoning": (2, 3, 4),
        "transformation": (5,),
        "output": (6,),
    }
    twice = layered([0.01, 0.2, 0.02, 0.3, 0.3, 0.01, 0.0]).parts()
    assert twice["reasoning"] == (3, 4), "the longest stretch above the median"


@pytest.mark.parametrize(
    "shares",
    [
        [0.1] * 6,
        [0.5, 0.4, 0.3, 0.2, 0.1, 0.9],
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.1],
        [0, 0, 0.1, 0, 0, 0.3],
    ],
)
def test_a_model_that_does_not_divide_so_is_not_divided(shares: list[float]) -> None:
    """No rise and fall; a fall alone; a rise alone; too few agnostic neurons to tell."""
    with pytest.raises(
        SteerlabError,
        match=r"does not divide into four parts.*There are layer 0 \d+, .* of 100 each",
    ):
        layered(shares).parts()
    with pytest.raises(SteerlabError, match="four layers or more"):
        layered([0.1, 0.2, 0.1]).parts()


# CULNIG


def graded(*, spread: float = 1.0, lift: float = 8.0) -> Gradients:
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(4, 2, 100, generator=generator) * 0.1 * spread
    score[1, 1, 5] += lift
    score[:, 0, 6] += lift  # serves all alike
    control = torch.zeros_like(score)
    control[2, 0, 7] = lift
    score[2, 0, 7] += lift  # serves the control too
    return Gradients(LANGS, (0, 3), "mlp_post", score, control, ABOUT)


def test_culnig_finds_what_serves_one_language_only() -> None:
    found = culnig(graded(), share=0.01)
    assert found.of("de", 3) == [5]
    assert (found.chosen.sum((1, 2)) <= 2).all()
    assert not found.chosen[2, 0, 7], "what the control does too is no language's"
    above = (found.score - found.score.mean(0)) / found.score.std(0, correction=0)
    assert (above[found.chosen] >= 0.5).all()
    assert (found.score[:, 0, 6] > 7).all(), "it is at the top of every language"
    assert int(found.chosen[:, 0, 6].sum()) < 4


def test_culnig_says_why_nothing_is_left() -> None:
    gradients = graded()
    with pytest.raises(SteerlabError, match="none of the 0 units at the top"):
        culnig(
            Gradients(
                LANGS, (0, 3), "mlp_post", -gradients.score.abs(), gradients.control * 0, ABOUT
            )
        )
    same = gradients.score[:1].expand(4, -1, -1)
    with pytest.raises(SteerlabError, match="the most is 0: take a larger share"):
        culnig(Gradients(LANGS, (0, 3), "mlp_post", same, same * 0, ABOUT))
    with pytest.raises(SteerlabError, match="is none; give 0.005 or more"):
        culnig(gradients, share=0.001)


def test_kinds_moved_counts_what_came_and_what_stayed() -> None:
    before = nju(exact(aligned()), share=0.06)
    same: Any = kinds_moved(before, before)
    assert (same["change"] == 0).all()
    assert same["stayed"].tolist() == same["before"].tolist()
    # Two specific neurons of English become related: German joins them.
    rate = aligned()
    rate[1, 0, :2] = 0.85
    after = nju(exact(rate), share=0.06)
    table: Any = kinds_moved(before, after).set_index(["language", "kind"])
    counts = {
        kind: int((before.above[0] & before.selected & before._kind(kind)).sum())
        for kind in ("specific", "related")
    }
    assert table.loc[("en", "specific"), "before"] == counts["specific"]
    assert table.loc[("en", "specific"), "change"] <= -2
    assert table.loc[("de", "related"), "change"] >= 2
    stayed = before.above[0] & before.selected & before._kind("related")
    stayed &= after.above[0] & after.selected & after._kind("related")
    assert table.loc[("en", "related"), "stayed"] == int(stayed.sum())


def test_kinds_of_two_corpora_cannot_be_compared() -> None:
    firing = exact(aligned())
    found = nju(firing, share=0.06)
    with pytest.raises(SteerlabError, match="read both with the same corpus"):
        kinds_moved(found, replace(found, langs=("en", "de", "es", "it")))
