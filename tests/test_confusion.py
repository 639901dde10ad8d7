"""Confusion is found where it was planted, and only there; side effects stand beside the
control's."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES
from steerlab.scores.confusion import (
    _SCRIPTS,
    columns,
    label_agreement,
    line_pass,
    pass_rates,
    script_mixing,
    word_pass,
)
from steerlab.scores.costs import SIDE_EFFECTS, side_effects
from steerlab.scores.langid import identifier, lingua
from steerlab.scores.text import repetition

LINES = corpus().split("dev")
ISOS = LINES.langs


def gold(count: int = 25) -> tuple[list[str], list[str]]:
    """Sentences of every language, and their languages."""
    pairs = [(text, iso) for iso in ISOS for text in LINES[iso][:count]]
    texts, isos = map(list, zip(*pairs, strict=True))
    return texts, isos


# ------------------------------------------------------------------------------------------ scripts


def test_half_latin_half_cyrillic_is_mixed_by_half() -> None:
    assert script_mixing("мама mama 12:30, — !", "ru") == 0.5
    assert script_mixing("мама mama", "en") == 0.5
    assert script_mixing("мама mama", "hi") == 1
    assert math.isnan(script_mixing("12:30 — !", "ru"))


@given(st.integers(0, 30), st.integers(1, 30))
def test_script_mixing_is_the_share_of_letters(latin: int, cyrillic: int) -> None:
    assert script_mixing("a" * latin + " я" * cyrillic, "bg") == pytest.approx(
        latin / (latin + cyrillic)
    )


def test_own_sentences_are_not_mixed_and_those_of_another_script_are() -> None:
    for iso in ISOS:
        assert np.mean([script_mixing(text, iso) for text in LINES[iso]]) < 0.005, iso
        other = "en" if LANGUAGES[iso].script != "Latn" else "ru"
        assert np.mean([script_mixing(text, iso) for text in LINES[other]]) > 0.99, iso


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("東京タワーへようこそ", "ja"),
        ("한국어漢字", "ko"),
        ("中文ㄅㄆ", "zh"),
        ("नमस्ते", "hi"),
        ("Straße ﬁn É", "de"),
        ("e\u0301", "fr"),
    ],
)
def test_scripts_that_a_language_is_written_in_are_its_own(text: str, target: str) -> None:
    assert script_mixing(text, target) == 0
    assert script_mixing(text + "ж" * len(text), target) >= 0.5


def test_every_language_has_its_script() -> None:
    assert {entry.script for entry in LANGUAGES.values()} == _SCRIPTS.keys()
    with pytest.raises(SteerlabError, match="unknown language code 'xx'"):
        script_mixing("a", "xx")


# ------------------------------------------------------------------------------------------ columns


def test_columns_tell_loops_lengths_and_what_no_identifier_names() -> None:
    text = "Das Wetter ist heute schön."
    found = columns(
        [text, (text + " ") * 20, ""],
        ["de"] * 3,
        [text, text, text],
        languages=["de", "nds", "none"],
    )
    assert found["compression"][1] > 10 > 1.1 > found["compression"][0]
    assert math.isnan(found["compression"][2])
    assert found["length"] == [27, 20 * 28 - 1, 0]
    assert found["length_ratio"] == pytest.approx([1, (20 * 28 - 1) / 27, 0])
    assert found["unidentified"] == [False, True, True]
    assert columns([], []) == {"script_mixing": [], "compression": [], "length": []}


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(
        SteerlabError, match=r"one value for each output; given: \{'outputs': 2, 'targets': 1\}"
    ):
        columns(["a", "b"], ["en"])
    with pytest.raises(SteerlabError, match="'languages': 1"):
        columns(["a", "b"], ["en", "en"], languages=["en"])


# --------------------------------------------------------------------------------------- pass rates


def test_gold_lines_pass_and_a_line_of_another_language_fails() -> None:
    texts, isos = gold()
    passed = line_pass(texts, isos, identifier())
    assert np.nanmean(passed) > 0.97
    assert np.mean(np.isnan(passed)) < 0.2
    english = LINES["en"][30]
    others = [iso for iso in isos if iso != "en"]
    mixed = [f"{text}\n{english}" for text, iso in zip(texts, isos, strict=True) if iso != "en"]
    assert np.mean(line_pass(mixed, others, identifier())) == 0
    assert np.nanmean(line_pass(texts, isos[::-1], identifier())) < 0.1


def test_short_lines_do_not_count() -> None:
    told = [
        "Ja.\nDas Wetter ist heute wirklich schön.",
        "Yes.\nDas Wetter ist heute wirklich schön.",
        "Ja.",
        "",
    ]
    assert line_pass(told, ["de"] * 4, identifier()).tolist() == pytest.approx(
        [1, 1, math.nan, math.nan], nan_ok=True
    )
    assert line_pass(["Guten Morgen.\nGood morning."], ["de"], identifier(), least=2).tolist() == [
        0
    ]
    assert line_pass(["今日はとても寒い日です。"], ["ja"], identifier()).tolist() == [1]


def test_an_unsure_line_fails() -> None:
    text = LINES["es"][3]
    assert line_pass([text], ["es"], identifier()).tolist() == [1]
    assert line_pass([text], ["es"], identifier(), threshold=1.0).tolist() == [0]


@pytest.mark.parametrize(
    ("output", "target", "passes"),
    [
        ("Это моя любимая cat на полке", "ru", True),  # three letters: it could be a unit
        ("Это моя любимая book на полке", "ru", False),
        ("Это моя любимая window на полке", "ru", False),
        ("Я живу в London и работаю в NASA", "ru", True),
        ("私はsunshineが好きです", "ja", False),
        ("私はiPhoneを5 kmで買った", "ja", True),
        ("मुझे यह बहुत पसंद है really", "hi", False),
        ("मुझे यह книга पसंद है", "hi", False),
        ("I like this книга very much", "en", False),
        ("The angle α is small, π is not", "en", True),
        (
            "J'aime beaucoup this little house",
            "fr",
            True,
        ),  # the same script: for the line's identifier to see
    ],
)
def test_words_of_another_script(output: str, target: str, passes: float) -> None:
    assert word_pass([output], [target]).tolist() == [passes]


def test_gold_has_no_word_confusion() -> None:
    texts, isos = gold(96)
    assert word_pass(texts, isos).mean() > 0.99


def test_the_table_of_pass_rates_is_the_formula() -> None:
    good, wrong = LINES["ru"][0] + " " + LINES["ru"][1], LINES["en"][0] + " " + LINES["en"][1]
    outputs = [good, good, wrong, good + " sunshine", "Да."]
    rows = pd.DataFrame({"output": outputs, "target": "ru", "sentence": range(5)})
    found = pass_rates(rows, identifier()).iloc[0]
    assert (found.n, found.too_short, found.n_wpr) == (4, 1, 3)
    assert (found.lpr, found.wpr) == pytest.approx((3 / 4, 2 / 3))
    assert found.lcpr == pytest.approx(2 * 0.75 * (2 / 3) / (0.75 + 2 / 3))
    assert found.lpr_low < 0.75 < found.lpr_high
    none = pass_rates(rows[rows["output"] == wrong], identifier()).iloc[0]
    assert (none.lpr, none.n_wpr, none.lcpr) == (0, 0, 0)
    assert math.isnan(none.wpr)
    with pytest.raises(SteerlabError, match="needs the column 'sentence'"):
        pass_rates(rows.drop(columns="sentence"), identifier())
    with pytest.raises(SteerlabError, match="1 outputs, 2 targets"):
        word_pass(["a"], ["en", "de"])


# ---------------------------------------------------------------------------------------- agreement


def test_two_identifiers_agree_on_gold_and_not_on_shuffled_labels() -> None:
    isos = ("en", "de", "es", "fr", "ru")
    texts = [text for iso in isos for text in LINES[iso]]
    first, second = identifier().identify(texts), lingua(isos).identify(texts)
    found = label_agreement(first, second)
    assert found.kappa > 0.9
    assert found.share > 0.95
    assert found.pairs["n"].sum() == round((1 - found.share) * found.n)
    shuffled = np.random.default_rng(0).permutation(second).tolist()
    assert abs(label_agreement(first, shuffled).kappa) < 0.1


def test_agreement_by_hand() -> None:
    found = label_agreement(["a", "a", "b", "b"], ["a", "b", "b", "b"])
    assert (found.share, found.kappa, found.n) == pytest.approx((0.75, 0.5, 4))
    assert found.pairs.to_numpy().tolist() == [["a", "b", 1]]
    assert math.isnan(label_agreement(["a"], ["a"]).kappa)
    with pytest.raises(SteerlabError, match="given 1 and 2 labels"):
        label_agreement(["a"], ["a", "b"])


# ------------------------------------------------------------------------------------- side effects


def planted() -> pd.DataFrame:
    """A method that says the reference, one that loops in two alphabets, of which two targets
    know the control."""
    told = []
    for target in ("de", "ru"):
        for place, text in enumerate(LINES[target][:20]):
            for method, output in (
                ("good", text),
                ("loops", "мама mama " * 12),
                ("control", text[: len(text) // 2]),
            ):
                shared = {
                    "reference": text,
                    "target": target,
                    "sentence": place,
                    "language": target,
                }
                told.append({"method": method, "output": "" if place == 7 else output, **shared})
    return pd.DataFrame(told)


def test_side_effects_stand_beside_the_controls() -> None:
    found: Any = (
        side_effects(planted(), control="control")
        .set_index(["method", "target", "score"])
        .sort_index()
    )
    assert len(found) == 3 * 2 * len(SIDE_EFFECTS)
    for target in ("de", "ru"):
        loop, good = found.loc["loops", target], found.loc["good", target]
        assert loop.value["repetition"] > 0.8 > 0.05 > good.value["repetition"]
        assert loop.value["script_mixing"] == pytest.approx(0.5)
        assert good.value["length_ratio"] == pytest.approx(19 / 20), (
            "one of twenty outputs is empty"
        )
        assert good.difference["length_ratio"] == pytest.approx(
            19 / 20 - good.control["length_ratio"]
        )
        assert loop.difference_low["compression"] > 0
        assert good.difference["script_mixing"] == 0
        assert (good.n["compression"], good.missing["compression"]) == (19, 1)
        assert good.reference["repetition"] == pytest.approx(
            np.mean([repetition(t) for t in LINES[target][:20]])
        )
        assert math.isnan(good.value["bits_per_byte_ratio"])
        known = found.loc[(slice(None), target, ["repetition", "compression"]), :]
        assert ((known.low <= known.value) & (known.value <= known.high)).all()


def test_fluency_is_read_and_what_is_there_is_not_made_again() -> None:
    rows = planted().assign(bits_per_byte_ratio=1.5, repetition=0.25)
    found: Any = side_effects(rows).set_index(["method", "target", "score"]).sort_index()
    assert (found.xs("bits_per_byte_ratio", level="score").value == 1.5).all()
    assert (found.xs("repetition", level="score").value == 0.25).all()
    assert "control" not in found


def test_a_control_that_is_not_there_is_named() -> None:
    with pytest.raises(
        SteerlabError, match="no rows of the control 'random'; the methods are good, loops, control"
    ):
        side_effects(planted(), control="random")
    with pytest.raises(SteerlabError, match="needs the column 'language'"):
        side_effects(planted().drop(columns="language"))
