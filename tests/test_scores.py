"""chrF equals sacrebleu's, relevance finds what was planted and nothing else, repetition sees
loops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF

import steerlab.scores.chrf
from steerlab.analysis.clustered import harmonic
from steerlab.analysis.tables import need_columns
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.scores.chrf import ChrfIndex, chance, relevance
from steerlab.scores.judges import Retrieval
from steerlab.scores.text import compression, first_line, repetition

FOLDER = Path(steerlab.__file__).parent / "data" / "parallel"
CORPUS = {
    path.stem: path.read_text(encoding="utf-8").splitlines()
    for path in sorted(FOLDER.glob("*.txt"))
}
SENTENCES = 70
REFERENCES = {iso: lines[:SENTENCES] for iso, lines in CORPUS.items()}
TEXTS = st.text(alphabet="abAB .é\u3000はい\U0001f600\n", max_size=14)


def sacrebleu(output: str, reference: str) -> float:
    return float(CHRF().sentence_score(output, [reference]).score)


def mixed_pairs(count: int) -> list[tuple[str, str]]:
    """Halves of sentences in all scripts, loops, texts shorter than six characters, and empty
    ones."""
    rng = np.random.default_rng(0)
    isos = sorted(CORPUS)

    def text() -> str:
        iso = isos[rng.integers(len(isos))]
        first, second = (CORPUS[iso][place] for place in rng.integers(len(CORPUS[iso]), size=2))
        kinds = [
            first,
            first[:20] + second[5:],
            first[: rng.integers(7)],
            (first[:3] + " ") * 5,
            " \t",
            "",
        ]
        return str(kinds[rng.choice(len(kinds), p=[0.3, 0.4, 0.15, 0.05, 0.05, 0.05])])

    pairs = [(text(), text()) for _ in range(count)]
    return [
        (left, left + right if index % 3 == 0 else right)
        for index, (left, right) in enumerate(pairs)
    ]


# chrF


def test_chrf_equals_sacrebleu_on_a_thousand_pairs() -> None:
    outputs, references = map(list, zip(*mixed_pairs(1000), strict=True))
    expected = [
        sacrebleu(output, reference) for output, reference in zip(outputs, references, strict=True)
    ]
    assert np.allclose(
        np.diagonal(ChrfIndex(references).score(outputs)), expected, rtol=0, atol=1e-9
    )
    assert len(set(expected)) > 400, "the pairs are too much alike to tell two formulas apart"
    every_order = CHRF(eps_smoothing=True)  # what chrF would be without the effective order
    others = [
        every_order.sentence_score(o, [r]).score for o, r in zip(outputs, references, strict=True)
    ]
    assert not np.allclose(others, expected, atol=1e-3), (
        "the pairs do not exercise the effective order"
    )


@given(st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=4))
def test_chrf_equals_sacrebleu_on_any_texts(outputs: list[str], references: list[str]) -> None:
    scores = ChrfIndex(references).score(outputs)
    assert scores.shape == (len(outputs), len(references))
    for output, row in zip(outputs, scores, strict=True):
        assert row == pytest.approx(
            [sacrebleu(output, reference) for reference in references], abs=1e-9
        )


def test_chrf_does_not_depend_on_the_company_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = CORPUS["ru"][:30] + CORPUS["hi"][:30]
    scores = ChrfIndex(texts).score(texts)
    assert np.array_equal(scores[7:8, 3:4], ChrfIndex([texts[3]]).score([texts[7]]))
    monkeypatch.setattr(steerlab.scores.chrf, "_BLOCK", 7)
    assert np.array_equal(scores, ChrfIndex(texts).score(texts))


def test_a_bare_string_is_refused() -> None:
    with pytest.raises(SteerlabError, match=r"takes a list of texts.*wrap it"):
        ChrfIndex("one reference")
    with pytest.raises(SteerlabError, match=r"ChrfIndex\.score takes a list of texts"):
        ChrfIndex(["one reference"]).score("one output")


# relevance


def everything() -> tuple[list[str], list[str], list[int]]:
    rows = [
        (line, iso, place) for iso, lines in REFERENCES.items() for place, line in enumerate(lines)
    ]
    outputs, languages, sentences = map(list, zip(*rows, strict=True))
    return outputs, languages, sentences


def test_relevance_finds_what_was_planted() -> None:
    outputs, languages, sentences = everything()
    halves = [output[len(output) // 3 :] for output in outputs]
    relevant, own = relevance(halves, languages, sentences, REFERENCES)
    assert relevant.mean() > 0.99
    assert own.mean() > 50
    _, whole = relevance(outputs, languages, sentences, REFERENCES)
    assert whole == pytest.approx(100)


def test_relevance_of_other_sentences_is_at_chance() -> None:
    rng = np.random.default_rng(0)
    others = CORPUS["en"][SENTENCES:]
    outputs = [others[place] for place in rng.integers(len(others), size=6000)]
    relevant, _ = relevance(outputs, ["en"] * 6000, rng.integers(SENTENCES, size=6000), REFERENCES)
    assert relevant.mean() == pytest.approx(chance(), abs=0.012)
    assert chance() == 1 / 32
    relevant, _ = relevance(
        outputs, ["en"] * 6000, rng.integers(SENTENCES, size=6000), REFERENCES, distractors=7
    )
    assert relevant.mean() == pytest.approx(chance(7), abs=0.03)


def test_relevance_is_judged_in_the_language_that_the_output_is_in() -> None:
    outputs, sentences = REFERENCES["sv"], range(SENTENCES)
    right, _ = relevance(outputs, ["sv"] * SENTENCES, sentences, REFERENCES)
    wrong, _ = relevance(outputs, ["ja"] * SENTENCES, sentences, REFERENCES)
    assert right.all()
    assert wrong.mean() < 0.1


@pytest.mark.parametrize(
    ("output", "language"),
    [
        ("", "en"),
        ("  ", "en"),
        ("~~~~", "en"),
        (REFERENCES["en"][0], "none"),
        (REFERENCES["en"][0], "la"),
    ],
)
def test_ties_empty_outputs_and_unnamed_languages_fail(output: str, language: str) -> None:
    relevant, own = relevance([output], [language], [0], REFERENCES)
    assert not relevant.any()
    assert own.tolist() == [0.0]
    assert relevance([REFERENCES["en"][0]], ["en"], [0], REFERENCES)[0].all()


def test_twins_are_not_each_others_distractors() -> None:
    """The same sentence twice: an output that is it is relevant to both, and to no other."""
    doubled = [CORPUS["en"][0]] * 2 + CORPUS["en"][2:33]
    references = {"en": doubled, "de": CORPUS["de"][:33]}
    assert relevance([doubled[0]] * 33, ["en"] * 33, range(33), references)[0].tolist() == [
        *(True, True),
        *[False] * 31,
    ]
    # With fewer others than distractors some stand twice, which decides nothing.
    few = {"en": doubled[:32]}
    assert relevance([doubled[0], doubled[2]], ["en"] * 2, [0, 2], few)[0].all()
    # Alike but for the form of letters and whitespace; in one language, and so in all.
    spelt = {"en": ["Cafe\u0301 is here.", "Caf\u00e9  is here.", *CORPUS["en"][2:33]]}
    assert steerlab.scores.chrf.twins(spelt) == ((0, frozenset({1})), (1, frozenset({0})))
    both = spelt | {"de": CORPUS["de"][:33]}
    assert steerlab.scores.chrf.twins(both) == steerlab.scores.chrf.twins(spelt)
    assert steerlab.scores.chrf.twins(REFERENCES) == ()
    with pytest.raises(SteerlabError, match="all 32 sentences are alike in some language"):
        relevance(["No."], ["en"], [0], {"en": ["No."] * 32})


def test_without_twins_the_distractors_are_what_they_were() -> None:
    before = steerlab.scores.chrf.rivals(SENTENCES, 31, 0)
    after = steerlab.scores.chrf.rivals(SENTENCES, 31, 0, ((7, frozenset({3, 9})),))
    others = [row for row in range(SENTENCES) if row != 7]
    assert np.array_equal(before[others], after[others])
    assert not {3, 7, 9} & set(after[7].tolist())
    assert len(set(after[7].tolist())) == 31
    assert set(before[7].tolist()) - {3, 9} <= set(after[7].tolist())


def test_a_name_says_that_twins_are_left_out() -> None:
    lines = tuple(["Same."] * 2 + CORPUS["en"][2:40])
    assert Retrieval(Corpus("a", {"en": lines}, tuple(range(40)))).name.endswith(" without twins")
    lines = tuple(CORPUS["en"][:40])
    assert not Retrieval(Corpus("a", {"en": lines}, tuple(range(40)))).name.endswith("twins")


@pytest.mark.parametrize(
    ("spelt", "composed"),
    [
        (
            "\u0958\u093c\u0932\u092e",
            "\u0915\u093c\u093c\u0932\u092e",
        ),  # Hindi qa, one letter and two
        ("\u0921\u093c\u0947", "\u095c\u0947"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", "\ud55c\uae00"),
        ("tie\u0302\u0301ng", "ti\u1ebfng"),
        ("\u212b", "\u00c5"),
    ],
)
def test_the_form_of_letters_does_not_matter(spelt: str, composed: str) -> None:
    text, other = (f"{word} is a word of them {word}." for word in (spelt, composed))
    assert text != other
    assert ChrfIndex([text]).score([other]) == pytest.approx(100)
    assert ChrfIndex([other]).score([text]) == pytest.approx(100)
    assert first_line(f"\n{text}\nmore") == first_line(other)
    assert ChrfIndex([other]).score([text.replace("word", "letter")]) < 99


@pytest.mark.parametrize(
    "end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"]
)
def test_an_output_is_cut_where_a_line_of_a_corpus_ends(end: str) -> None:
    assert first_line(f"\n one{end}two \nthree") == f"one{end}two"
    assert first_line(f"one{end}\r\ntwo") == "one"
    assert first_line(end) == ""


def test_distractors_are_fixed_other_sentences() -> None:
    rivals = steerlab.scores.chrf.rivals(SENTENCES, 31, 0)
    assert rivals.shape == (SENTENCES, 31)
    assert all(own not in row and len(set(row)) == 31 for own, row in enumerate(rivals.tolist()))
    assert set(rivals.ravel().tolist()) == set(range(SENTENCES))
    assert not np.array_equal(rivals, steerlab.scores.chrf.rivals(SENTENCES, 31, 1))


def test_relevance_is_the_definition_spelt_out() -> None:
    rng = np.random.default_rng(3)
    sentences = rng.integers(SENTENCES, size=40)
    outputs = [REFERENCES["it"][place][4 : rng.integers(5, 12)] for place in sentences]
    relevant, own = relevance(outputs, ["it"] * 40, sentences, REFERENCES, seed=5)
    rivals = steerlab.scores.chrf.rivals(SENTENCES, 31, 5)
    for output, place, found, score in zip(outputs, sentences, relevant, own, strict=True):
        best = max(sacrebleu(output, REFERENCES["it"][rival]) for rival in rivals[place])
        assert score == pytest.approx(sacrebleu(output, REFERENCES["it"][place]), abs=1e-9)
        assert found == (score > best + 1e-9)  # some of these are ties that only rounding breaks
    assert 0 < relevant.sum() < 40


def test_relevance_says_what_is_wrong() -> None:
    with pytest.raises(SteerlabError, match="there are 31 sentences: give at least 32"):
        relevance(["a"], ["en"], [0], {"en": CORPUS["en"][:31]})
    with pytest.raises(
        SteerlabError, match=r"the same number of sentences in every language.*'de': 69"
    ):
        relevance(["a"], ["en"], [0], {"en": CORPUS["en"][:70], "de": CORPUS["de"][:69]})
    with pytest.raises(SteerlabError, match="the same number of sentences"):
        relevance(["a"], ["en"], [0], {})
    with pytest.raises(SteerlabError, match="sentence 70 is not among the 70 sentences"):
        relevance(["a"], ["en"], [70], REFERENCES)
    with pytest.raises(SteerlabError, match="sentence -1 is not among"):
        relevance(["a"], ["en"], [-1], REFERENCES)
    with pytest.raises(SteerlabError, match="1 outputs, 2 languages and 1 sentences"):
        relevance(["a"], ["en", "de"], [0], REFERENCES)


def test_relevance_of_nothing_is_nothing() -> None:
    relevant, own = relevance([], [], [], REFERENCES)
    assert (len(relevant), len(own)) == (0, 0)


# small scores


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n \n one two \nthree", "one two"),
        ("one\r\ntwo", "one"),
        ("", ""),
        (" \n\t\n", ""),
        ("はい。\n", "はい。"),
    ],
)
def test_first_line(text: str, line: str) -> None:
    assert first_line(text) == line


def test_repetition_sees_loops_and_not_sentences() -> None:
    for iso, lines in CORPUS.items():
        assert np.mean([repetition(line) for line in lines]) < 0.01, iso
    for loop in (
        "the " * 8,
        "私は" * 8,
        "は" * 20,
        "hello hello hello hello",
        "да, да, да, да, да",
    ):
        assert repetition(loop) > 0.6
    assert repetition("haha") == pytest.approx(1 / 3)
    assert [repetition(text) for text in ("", " ", "a", "はい", "hello")] == [0.0] * 5


@given(TEXTS)
def test_repetition_is_a_share_and_grows_with_loops(text: str) -> None:
    assert 0 <= repetition(text) < 1
    if len("".join(text.split())) >= 8:
        assert repetition(text * 3) > repetition(text)


def test_compression_sees_loops_of_any_length() -> None:
    line = CORPUS["en"][0] + " " + CORPUS["en"][1] + " "
    assert compression(line * 10) > 5 > 1.5 > compression("".join(CORPUS["en"][:3]))
    assert compression("a") == 1 / 9, "the form takes 8 bytes"
    assert np.isnan(compression(""))
    assert compression("\ud800") > 0, "half of a surrogate pair, as a byte-level model may leave"


def test_rows_without_a_column_are_refused() -> None:
    rows = pd.DataFrame({"output": ["a"]})
    need_columns(rows, "this", "output")
    with pytest.raises(SteerlabError, match="this needs the column 'target'; the rows have output"):
        need_columns(rows, "this", "output", "target")
    with pytest.raises(SteerlabError, match="this was given no rows; check the filter"):
        need_columns(rows.iloc[:0], "this", "output")


@given(st.floats(0, 1), st.floats(0, 1))
def test_harmonic_lies_between_its_two_averages(a: float, b: float) -> None:
    assert harmonic(a, b) == harmonic(b, a)
    assert harmonic(a, 0.0) == 0.0
    assert harmonic(a, a) == pytest.approx(a)
    if min(a, b) > 1e-9:
        assert min(a, b) - 1e-12 <= harmonic(a, b) <= (a + b) / 2 + 1e-12
