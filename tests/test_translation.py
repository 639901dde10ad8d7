"""ACC × BLEU: gold wins, copies do not, each success counts once, and the product is what it
says."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sacrebleu.metrics.bleu import BLEU

from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError
from steerlab.scores.langid import identifier
from steerlab.scores.translation import acc_bleu, bleu, doubled, tokenizer

TARGETS = ["de", "es", "ru", "ja"]


def rows(output: str = "gold") -> pd.DataFrame:
    """Outputs for 40 sentences in four targets: the reference (`gold`), the source, or either by
    halves."""
    lines = corpus().split("dev").take(40)
    told = []
    for target in TARGETS:
        for place, number in enumerate(lines.numbers):
            source, gold = lines["en"][place], lines[target][place]
            said = {"gold": gold, "source": source, "half": gold if place % 2 else source}[output]
            told.append({"output": said, "reference": gold, "target": target, "sentence": number})
    return pd.DataFrame(told)


def test_gold_scores_the_identifiers_own_accuracy() -> None:
    found = acc_bleu(rows(), identifier=identifier()).set_index("target")
    for target, part in rows().groupby("target"):
        own = np.mean([iso == target for iso in identifier().identify(part["output"].tolist())])
        assert found.acc[target] == pytest.approx(own)
        assert found.bleu[target] == pytest.approx(100)
    assert found.acc["all"] > 0.97
    assert found["product"]["all"] == pytest.approx(100 * found.acc["all"])


def test_copies_of_the_source_score_near_nothing() -> None:
    found = acc_bleu(rows("source"), identifier=identifier()).set_index("target")
    assert (found.acc < 0.05).all()
    assert (found["product"] < 1).all()


def test_each_success_counts_once() -> None:
    found: Any = acc_bleu(rows("half"), identifier=identifier()).set_index("target").loc["all"]
    assert found.acc == pytest.approx(0.5, abs=0.03)
    assert found.successes == round(found.acc * found.n)
    assert doubled(found.acc) > found.acc + 0.1, "what the notebook would have said"
    assert doubled(1189 / 1200) == pytest.approx(2378 / 2389), "the released count"
    assert [doubled(0), doubled(1), doubled(0.5)] == pytest.approx([0, 1, 2 / 3])


def test_the_product_is_the_product_and_lies_in_its_interval() -> None:
    table = rows("half")
    table["output"] = [
        text if i % 3 else " ".join(text.split()[1:]) for i, text in enumerate(table["output"])
    ]
    lines: Any = acc_bleu(table, identifier=identifier()).itertuples()
    for line in lines:
        assert line.product == pytest.approx(line.acc * line.bleu)
        assert line.product_low <= line.product <= line.product_high
        assert line.acc_low < line.acc < line.acc_high
        assert line.bleu_low <= line.bleu <= line.bleu_high < 101


def test_where_nothing_is_in_the_target_bleu_is_unknown_and_the_product_nothing() -> None:
    table = rows().assign(language="en")
    found = acc_bleu(table).set_index("target").loc["all"]
    assert (found.acc, found["product"], found.successes) == (0, 0, 0)
    assert np.isnan(found.bleu)


def test_the_threshold_asks_for_more() -> None:
    table = rows()
    table["output"] = [" ".join(text.split()[:2]) for text in table["output"]]
    shares = [
        acc_bleu(table, identifier=identifier(), threshold=p).acc.iloc[-1] for p in (0.0, 0.5, 0.95)
    ]
    assert shares[0] > shares[1] > shares[2] > 0
    named = table.assign(language=identifier().identify(table["output"].tolist()))
    assert acc_bleu(named).acc.iloc[-1] == shares[0]


def test_bleu_is_sacrebleus_with_the_languages_tokenizer() -> None:
    lines = corpus().split("dev").take(12)
    for iso, name in (("de", "13a"), ("ja", tokenizer("ja"))):
        outputs, references = (
            lines[iso][1:],
            [a + b for a, b in zip(lines[iso], lines[iso][1:], strict=False)],
        )
        metric = BLEU(effective_order=True, tokenize=name)
        expected = [
            metric.sentence_score(a, [b]).score for a, b in zip(outputs, references, strict=True)
        ]
        assert bleu(outputs, references, iso) == pytest.approx(expected)
    assert bleu(["Guten Tag"], ["Guten Tag"], "de") == pytest.approx(100), "two words are enough"
    assert (
        bleu(["今日は雨です"], ["今日は雪です"], "ja")[0]
        > 20
        > bleu(["今日は雨です"], ["今日は雪です"], "de")[0]
    )


def test_the_tokenizer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [tokenizer(iso) for iso in ("zh", "th", "de", "ko")] == ["zh", "char", "13a", "13a"]
    assert acc_bleu(rows(), identifier=identifier()).set_index("target").tokenizer["de"] == "13a"
    monkeypatch.setattr("steerlab.scores.translation.find_spec", lambda name: None)
    assert tokenizer("ja") == "char"
    monkeypatch.setattr("steerlab.scores.translation.find_spec", lambda name: name)
    assert tokenizer("ja") == "ja-mecab"


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(SteerlabError, match="needs the column 'reference'; the rows have output"):
        acc_bleu(rows().drop(columns="reference"), identifier=identifier())
    with pytest.raises(SteerlabError, match="without an identifier needs the column 'language'"):
        acc_bleu(rows())
    with pytest.raises(SteerlabError, match="rows hold no probabilities; give identifier="):
        acc_bleu(rows().assign(language="de"), threshold=0.5)
    with pytest.raises(SteerlabError, match="no rows; check the filter"):
        acc_bleu(rows().iloc[:0], identifier=identifier())
    with pytest.raises(SteerlabError, match=r"probability from 0 to 1, not 50"):
        acc_bleu(rows(), identifier=identifier(), threshold=50)
    with pytest.raises(SteerlabError, match="1 outputs, 2 given"):
        bleu(["a"], ["a", "b"], "de")
    with pytest.raises(SteerlabError, match="not 99.1; divide percents"):
        doubled(99.1)
