"""Two languages doubly dissociate where each is hurt more by its own edit; fragile languages and
strong edits alone show none, and relabelled edits what chance is."""

import numpy as np
import pandas as pd
import pytest

from steerlab.analysis.effects.dominance import dissociated, dissociation, dominance
from steerlab.analysis.effects.matrix import effect_matrix
from steerlab.analysis.intervals import by_sentence, named
from steerlab.core.errors import SteerlabError

ISOS = "en de es fr ru it pt pl".split()


def planted(
    square: np.ndarray, *, sentences: int = 12, noise: float = 0.3, shared: bool = True
) -> pd.DataFrame:
    """Rows of a matrix [language edit] with noise for each of them; sentences of a language's
    own unless shared."""
    random, isos = np.random.default_rng(1), ISOS[: len(square)]
    told = [
        {
            "edit": edit,
            "kind": "edit",
            "language": iso,
            "sentence": str(s) if shared else f"{iso} {s}",
            "unsteered": 2.0 + i,
            "rise": square[i, j] + random.normal(0, noise),
        }
        for s in range(sentences)
        for i, iso in enumerate(isos)
        for j, edit in enumerate(isos)
    ]
    return pd.DataFrame(told)


def test_every_pair_of_a_planted_diagonal_dissociates_and_no_other_matrix_does() -> None:
    rows = planted(2 * np.eye(4))
    table, found = dissociation(rows), dissociated(rows)
    assert list(zip(table["i"], table["j"], strict=True)) == [
        (a, b) for k, a in enumerate(ISOS[:4]) for b in ISOS[k + 1 : 4]
    ]
    assert table["double"].all()
    assert table["certain"].all()
    assert (table["n"] == 12).all()
    assert (found.share, found.certain, found.pairs) == (1, 1, 6)
    assert found.p == pytest.approx(1 / 24)
    slopes = np.arange(4.0)[:, None] + np.arange(
        4.0
    )  # fragile languages and strong edits, and no diagonal
    nothing = dissociated(planted(slopes, noise=0))
    assert (nothing.share, nothing.certain) == (0, 0)
    assert nothing.p == 1


def test_chance_of_two_languages_is_counted_by_hand() -> None:
    found = dissociated(planted(np.eye(2), noise=0))
    assert found.labellings == 2
    assert (found.share, found.chance, found.p) == (
        1,
        0.5,
        0.5,
    )  # relabelled, neither is hurt more by its own


def test_chance_is_that_of_labels_drawn_at_random() -> None:
    """Of matrices without structure two given languages dissociate one time in four, whatever
    the labels."""
    square = np.random.default_rng(3).normal(size=(8, 8))
    found = dissociated(planted(square, sentences=3), draws=400)
    assert found.chance == pytest.approx(0.25, abs=0.06)
    assert found.labellings == 400
    assert found.p > 0.05
    assert dissociated(planted(8 * np.eye(8) + square), draws=200).p == pytest.approx(1 / 201)


def test_differences_are_paired_by_sentence() -> None:
    rows = planted(np.eye(2))
    line = dissociation(rows).iloc[0]
    own, other = (rows[(rows["edit"] == "en") & (rows["language"] == iso)] for iso in ("en", "de"))
    gained = own["rise"].to_numpy() - other["rise"].to_numpy()
    expected = named("i_more", by_sentence(gained, own["sentence"].to_numpy()))
    assert line[list(expected)].tolist() == pytest.approx(list(expected.values()))


def test_languages_of_other_sentences_have_wider_intervals() -> None:
    """A sentence's own hardness leaves a paired difference and stays in an unpaired one."""
    rows = planted(np.eye(2), noise=0)
    rows["rise"] += rows["sentence"].map({str(s): s / 3 for s in range(12)})
    apart = rows.assign(sentence=rows["language"] + rows["sentence"])
    paired, lone = dissociation(rows).iloc[0], dissociation(apart).iloc[0]
    assert lone["i_more"] == pytest.approx(paired["i_more"]) == pytest.approx(1)
    assert (paired["i_more_low"], paired["i_more_high"]) == pytest.approx((1, 1))
    assert lone["i_more_low"] < 0.5 < 1.5 < lone["i_more_high"]
    assert lone["n"] == 12
    uneven = dissociation(
        apart.drop(index=apart[(apart["language"] == "de") & (apart.index > 24)].index)
    ).iloc[0]
    kept = apart[(apart["language"] == "de") & (apart.index <= 24)]["sentence"].nunique()
    assert uneven["n"] == kept < 12


def test_only_sentences_of_both_languages_count() -> None:
    rows = planted(np.eye(3))
    rows.loc[(rows["language"] == "de") & rows["sentence"].isin(["0", "1"]), "rise"] = np.nan
    table = dissociation(rows).set_index(["i", "j"])
    assert (table.loc[("en", "de"), "n"], table.loc[("en", "es"), "n"]) == (10, 12)


def test_relative_rises_are_shares_of_the_languages_own_nats() -> None:
    """What is one nat more in a language of three nats a token is a smaller share than in one of
    two."""
    square = np.array(
        [[1.0, 0.0], [1.2, 0.5]]
    )  # [language edit]: under the edit of en, de rises more in nats
    rows = planted(square, noise=0)
    plain, share = dissociation(rows).iloc[0], dissociation(rows, relative=True).iloc[0]
    assert plain["i_more"] == pytest.approx(-0.2)
    assert share["i_more"] == pytest.approx(1 / 2 - 1.2 / 3)
    assert not plain["double"]
    assert share["double"]
    assert effect_matrix(rows, relative=True).loc["de", "en"] == pytest.approx(0.4)
    assert (dissociated(rows).share, dissociated(rows, relative=True).share) == (0, 1)
    assert dominance(rows, relative=True).difference == pytest.approx(
        (1 / 2 + 0.5 / 3) / 2 - 0.4 / 2
    )
    assert dominance(rows).difference == pytest.approx(0.75 - 0.6)


def test_order_of_rows_does_not_matter() -> None:
    rows = planted(np.eye(3) + 0.1)
    sides = []
    for table in map(dissociation, (rows, rows.sample(frac=1, random_state=0))):
        first = table.set_index(["i", "j"])[["i_more", "i_more_low", "n"]].to_numpy()
        second = table.set_index(["j", "i"])[["j_more", "j_more_low", "n"]].to_numpy()
        keys = [
            *zip(table["i"], table["j"], strict=True),
            *zip(table["j"], table["i"], strict=True),
        ]
        sides.append(dict(zip(keys, np.concatenate([first, second]).tolist(), strict=True)))
    assert sides[0].keys() == sides[1].keys()
    assert all(sides[0][pair] == pytest.approx(sides[1][pair]) for pair in sides[0])


def test_what_is_wrong_is_said() -> None:
    rows = planted(np.eye(2))
    with pytest.raises(
        SteerlabError, match=r"dissociation needs two edits or more .* the kind 'edit' has en"
    ):
        dissociation(rows[rows["edit"] == "en"])
    with pytest.raises(SteerlabError, match="needs the column 'unsteered'"):
        dissociated(rows.drop(columns="unsteered"), relative=True)
    with pytest.raises(SteerlabError, match="no finite rise in some language"):
        dissociation(rows[(rows["edit"] != "en") | (rows["language"] != "de")])
