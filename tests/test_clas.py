"""CLaS-Bench: questions of its form, the labels of its languages, its averages, and a run from
end to end."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_endpoint import Reply, endpoint, fails, says
from transformers import AutoTokenizer

import steerlab.scores.langid as langid
from steerlab.analysis.results import difference, result
from steerlab.cli import main
from steerlab.core.corpus import SPLITS, Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES
from steerlab.edits import add
from steerlab.models.huggingface import Model
from steerlab.scores.judges import Answer, Endpoint, score
from steerlab.scores.langid import identifier
from steerlab.studies.clas import (
    LABELS,
    Settings,
    differences,
    questions,
    run,
    scores,
    table,
)
from steerlab.studies.clas.plan import Plan, layers_of, pairs_of
from steerlab.studies.clas.reading import PACKAGED
from steerlab.studies.clas.study import in_units
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.runner import Runner

TEXTS = {
    "de": ["Warum ist der Himmel blau?", "Was ist Zeit?", "Wie kocht man Reis?"],
    "en": ["Why is the sky blue?", "What is time?", "How do you cook rice?"],
    "no": ["Hvorfor er himmelen blå?", "Hva er tid?", "Hvordan koker man ris?"],
}


def rows_of(iso: str, texts: list[str]) -> pd.DataFrame:
    """Rows of CLaS-Bench's form, not in the order of their ids."""
    rows = [
        {
            "id": f"{iso}-{i}",
            "language_code": iso,
            "language": LANGUAGES[iso].name,
            "question_id": i,
            "question": text,
        }
        for i, text in enumerate(texts, start=81)
    ]
    return pd.DataFrame(rows[::-1])


WRITE: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "parquet": lambda rows, file: rows.to_parquet(file),
    "csv": lambda rows, file: rows.to_csv(file, index=False),
    "jsonl": lambda rows, file: rows.to_json(file, orient="records", lines=True, force_ascii=False),
}


def written(
    folder: Path, kind: str = "jsonl", more: Mapping[str, pd.DataFrame] | None = None
) -> Path:
    """A folder as the Hub has it, a folder of files for each language; `more` replaces or adds a
    language."""
    for iso, rows in (
        {iso: rows_of(iso, texts) for iso, texts in TEXTS.items()} | dict(more or {})
    ).items():
        (folder / iso).mkdir(parents=True, exist_ok=True)
        WRITE[kind](rows, folder / iso / f"train-00000-of-00001.{kind}")
    return folder


# ---------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize("kind", WRITE)
def test_a_folder_is_read_by_id_in_the_order_of_the_paper(tmp_path: Path, kind: str) -> None:
    (tmp_path / "README.md").write_text("no questions here", "utf-8")
    (tmp_path / "dataset_infos.json").write_text("{}", "utf-8")
    read = questions(written(tmp_path, kind))
    assert {iso: list(lines) for iso, lines in read.lines.items()} == TEXTS
    assert read.langs == ("en", "de", "no"), "the order of CLaS-Bench"
    assert read.numbers == (81, 82, 83)


def test_one_file_may_hold_all_languages(tmp_path: Path) -> None:
    whole = pd.concat([rows_of(iso, texts) for iso, texts in TEXTS.items()])
    whole.drop(columns=["id", "language"]).to_csv(tmp_path / "all.csv", index=False)
    assert questions(tmp_path).lines == questions(written(tmp_path / "apart")).lines


def test_ids_that_are_words_and_codes_that_are_names(tmp_path: Path) -> None:
    renamed = {iso: rows_of(iso, texts) for iso, texts in TEXTS.items()}
    for rows in renamed.values():
        rows["question_id"] = [f"q{number}" for number in rows["question_id"]]
    renamed["no"]["language_code"] = "nob"
    read = questions(written(tmp_path, more=renamed))
    assert (read.numbers, read["no"]) == ((0, 1, 2), tuple(TEXTS["no"]))


def changed(iso: str, **columns: Any) -> pd.DataFrame:
    return rows_of(iso, TEXTS[iso]).assign(**columns)


WRONG = {
    "column 'question_id'; it has id, language_code, language, question, and questions need": {
        "de": changed("de").drop(columns="question_id")
    },
    "unknown language code 'xx'; known codes: en": {
        "de": changed("de", language_code="xx", language="Elvish")
    },
    "holds no questions; a language without questions is left out with its file": {
        "de": changed("de")[:0]
    },
    "question 83 of .* is empty": {"de": changed("de", question=["", "a", "b"])},
    "question 81 in 'de' twice": {"de": pd.concat([changed("de"), changed("de")[2:]])},
    "not parallel: 1 ids are in only one of 'de' and 'en', such as 81": {"en": changed("en")[:2]},
}


@pytest.mark.parametrize("told", WRONG)
def test_wrong_questions_say_what_is_wrong(tmp_path: Path, told: str) -> None:
    kind = "csv" if "without questions" in told else "jsonl"
    with pytest.raises(SteerlabError, match=told):
        questions(written(tmp_path, kind, WRONG[told]))


def test_what_is_no_folder_of_questions(tmp_path: Path) -> None:
    with pytest.raises(
        SteerlabError, match="holds no .parquet, .csv, .jsonl, .json file of questions"
    ):
        questions(tmp_path)
    with pytest.raises(
        SteerlabError, match="there is no folder .*nowhere of questions; give one, or a Hub id"
    ):
        questions(tmp_path / "nowhere")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SteerlabError, match="broken.parquet is no whole .parquet table"):
        questions(tmp_path)
    (tmp_path / "broken.parquet").unlink()
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(SteerlabError, match="empty.jsonl holds no questions"):
        questions(tmp_path)


def test_the_hub_is_read_through_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network a data set is read if it was fetched before, and told about if it was
    not."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        SteerlabError, match="could not fetch the questions 'some/questions' from the Hub"
    ):
        questions("some/questions")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "datasets--some--questions"
    written(cached / "snapshots" / commit, "parquet")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    assert {iso: list(lines) for iso, lines in questions("some/questions").lines.items()} == TEXTS
    with pytest.raises(SteerlabError, match="could not fetch the questions 'not an/id'"):
        questions("not an/id")


def test_dev_and_test_share_no_question_and_leave_none_out() -> None:
    read = questions()
    dev, test = read.split("dev"), read.split("test")
    assert test.splits == read.splits, "a part is split like the whole"
    assert sorted(dev.numbers + test.numbers) == list(read.split("all").numbers)
    assert 0 < len(dev) < len(test)
    assert dev.take(2).split("all").numbers == dev.take(2).numbers
    with pytest.raises(
        SteerlabError,
        match="'stand-in questions' has no split 'estimate'; its splits are dev, test, all",
    ):
        read.split(SPLITS[0])


# ----------------------------------------------------------------------------------------- stand-in


def test_the_stand_in_is_whole() -> None:
    read = questions()
    assert len(read.langs) == 16
    assert len(read) >= 24
    for iso in read.langs:
        lines = read[iso]
        assert len(set(lines)) == len(lines), f"{iso} has a question twice"
        assert not [line for line in lines if line != " ".join(line.split()) or len(line) < 8]
        assert set(identifier().identify(lines)) == {iso}
    assert len({line for iso in read.langs for line in read[iso]}) == 16 * len(read), (
        "nothing is left untranslated"
    )
    assert {file.suffix for file in PACKAGED.iterdir()} == {".txt"}


# ---------------------------------------------------------------------------------------- languages


def test_the_labels_are_those_that_the_identifier_counts() -> None:
    """NLLB's labels of the 32 languages mean them, and those of their near relatives do not."""
    assert len(LABELS) == 32
    assert {
        label: langid._code(f"__label__{label}") for labels in LABELS.values() for label in labels
    } == {label: iso for iso, labels in LABELS.items() for label in labels}
    relatives = [
        "arz_Arab",
        "acm_Arab",
        "apc_Arab",
        "prs_Arab",
        "azj_Latn",
        "zsm_Latn",
        "kmr_Latn",
        "cat_Latn",
    ]
    relatives += [
        "rus_Latn",
        "hin_Latn",
        "arb_Latn",
        "wuu_Hans",
        "bos_Latn",
        "fao_Latn",
        "ory_Orya",
    ]
    assert not {langid._code(f"__label__{label}") for label in relatives} & LABELS.keys()
    assert identifier().languages >= LABELS.keys()


# ------------------------------------------------------------------------------------------- scores


def answers(
    *told: tuple[str, str, bool, float], sentences: int = 40, method: str = "diffmean"
) -> pd.DataFrame:
    """Every question answered once in each way that is told: source, target, in its language,
    rating."""
    rows = [
        {
            "sentence": i,
            "source": source,
            "target": target,
            "in_language": inside,
            "rating": rating,
            "output": "x",
        }
        for i in range(sentences)
        for source, target, inside, rating in told
    ]
    found = pd.DataFrame(rows).assign(method=method)
    return found.assign(joint=found["in_language"] & (found["rating"] >= 1))


def test_s_is_no_mean_of_answers() -> None:
    """Half copies of the question and half gibberish have a high S, and not one answer is good."""
    halves = scores(answers(("en", "de", False, 1.0), ("en", "de", True, 0.0)))
    assert (halves["lfs"][0], halves["or"][0], halves["s"][0]) == (50, 50, 50)
    assert halves["joint"][0] == 0
    honest = scores(answers(("en", "de", True, 1.0), ("en", "de", False, 0.0)))
    assert (honest["s"][0], honest["joint"][0]) == (50, 50), (
        "the same averages, and half of the answers are good"
    )
    assert scores(answers(("en", "de", True, 1.0)))["s"][0] == 100
    assert scores(answers(("en", "de", False, 1.0)))["s"][0] == 0


def test_one_answer_of_2240_is_no_more_than_that() -> None:
    """A share below one percent is not taken for a fraction (the released helper makes 4.5 of
    it)."""
    rows = answers(("en", "bo", False, 1.0), sentences=2240)
    rows.loc[0, "in_language"] = True
    found = scores(rows)
    assert found["lfs"][0] == pytest.approx(100 / 2240)
    assert found["s"][0] == pytest.approx(2 * 100 / 2240 * 100 / (100 + 100 / 2240))


def test_unread_ratings_are_dropped_from_relevance_only_and_counted() -> None:
    told = [("en", "de", True, 1.0), ("en", "de", True, 0.5), ("en", "de", False, float("nan"))]
    found = scores(answers(*told))
    assert found["or"][0] == 75, "of the answers that have a rating"
    assert found["lfs"][0] == pytest.approx(200 / 3), "of all answers"
    assert found["s"][0] == pytest.approx(2 * 75 * (200 / 3) / (75 + 200 / 3))
    assert found["joint"][0] == pytest.approx(100 / 3), "an unread rating is no success"
    assert (found["n"], found["unread"]) == (120, 40)
    none = scores(answers(("en", "de", True, float("nan"))))
    assert none["lfs"][0] == 100
    assert np.isnan([none["or"][0], none["s"][0], none["joint"][0]]).all()
    with pytest.raises(SteerlabError, match="there are no answers to score"):
        scores(answers(("en", "de", True, 1.0))[:0])


def test_groups_are_averaged_before_they_are_combined() -> None:
    """Per target, per source and pooled are each the harmonic mean of their own averages, not
    means of one another."""
    told = [
        ("en", "de", True, 0.0),
        ("en", "fr", False, 1.0),
        ("de", "de", True, 1.0),
        ("de", "fr", True, 0.5),
    ]
    scored = table(answers(*told)).set_index(["group", "language"])["s"]
    by_hand = {
        ("pooled", ""): (3 / 4, 2.5 / 4),
        ("across", ""): (2 / 3, 1.5 / 3),
        ("source", "en"): (1 / 2, 1 / 2),
        ("source", "de"): (1.0, 1.5 / 2),
        ("target", "de"): (1.0, 1 / 2),
        ("target", "fr"): (1 / 2, 1.5 / 2),
    }
    for group, (lfs, relevance) in by_hand.items():
        assert scored[group] == pytest.approx(100 * 2 * lfs * relevance / (lfs + relevance)), group
    assert scored["pooled", ""] != pytest.approx(scored["target"].mean())


def test_intervals_resample_questions() -> None:
    """Ten copies of every answer say nothing new, ten times as many questions do."""
    random = np.random.default_rng(0)

    def rows(count: int) -> pd.DataFrame:
        made = answers(("en", "de", True, 1.0), sentences=count)
        made["in_language"], made["rating"] = (
            random.random(count) < 0.6,
            random.choice([0.0, 0.5, 1.0], count),
        )
        return made.assign(joint=made["in_language"] & (made["rating"] >= 1))

    few, many = rows(30), rows(300)
    copied = pd.concat([few] * 10)
    for name in ("lfs", "or", "s", "joint"):
        value, low, high = scores(few)[name]
        assert low < value < high
        assert scores(copied)[name] == pytest.approx([value, low, high])
        assert high - low > 1.5 * (scores(many)[name][2] - scores(many)[name][1])


def judged(seed: int, *, ratings: tuple[float, ...] = (0.0, 1.0), **columns: Any) -> pd.DataFrame:
    """Answers in two targets at random, with the columns that a table of the main study needs."""
    random = np.random.default_rng(seed)
    rows = answers(("en", "de", True, 1.0), ("en", "fr", True, 1.0), sentences=30)
    rows["in_language"], rows["rating"] = random.random(60) < 0.7, random.choice(ratings, 60)
    rows["joint"] = rows["in_language"] & (rows["rating"] >= 1)
    same: dict[str, Any] = {
        "operator": "add",
        "layer": 2,
        "strength": 1.0,
        "dose": 0.4,
        "repetition": 0.1,
    }
    found = rows.assign(relevant=rows["rating"] >= 1, bits_per_byte_ratio=1.0, **same)
    return found.assign(**columns)


@pytest.mark.parametrize("columns", [{}, {"in_language": False, "joint": False}])
def test_the_intervals_are_those_of_the_table(columns: dict[str, Any]) -> None:
    """Where every answer has a rating of 0 or 1, S and the rest are statistics of the main
    study."""
    rows = judged(1, **columns)
    found, told = scores(rows, seed=3), result(rows, seed=3)
    names = {"lfs": "lfs", "or": "relevance", "s": "score", "joint": "joint"}
    for name, other in names.items():
        assert found[name] == [100 * value for value in told[other]], name
    halves = judged(1, ratings=(0.0, 0.5, 1.0))
    assert scores(halves)["or"] != [100 * value for value in result(halves)["relevance"]]


def test_the_differences_are_those_of_the_table() -> None:
    a, b = judged(1), judged(2, method="unsteered")
    intervals = differences(pd.concat([a, b]), "diffmean", seed=3)["joint"]["intervals"]
    assert intervals["unsteered"] == difference(a, b, seed=3)["joint"]


def test_s_averages_lfs_over_all_answers_of_a_draw_and_relevance_over_the_rated_ones() -> None:
    rows = judged(4, ratings=(0.0, 0.5, 1.0, float("nan")))
    rows.loc[rows["sentence"] < 5, "rating"] = float("nan")
    random, spread = np.random.default_rng(0), []
    parts = [part for _, part in rows.groupby("sentence")]
    for _ in range(1000):
        drawn = pd.concat([parts[place] for place in random.integers(0, 30, 30)])
        lfs, relevance = drawn["in_language"].mean(), drawn["rating"].mean()
        spread.append(100 * 2 * lfs * relevance / (lfs + relevance))
    assert scores(rows)["s"][1:] == pytest.approx(np.quantile(spread, [0.025, 0.975]), abs=1.5)
    dropped = scores(rows[rows["rating"].notna()])
    assert dropped["s"][0] != pytest.approx(scores(rows)["s"][0]), "an unread answer counts in LFS"


def test_a_method_is_compared_on_the_same_questions() -> None:
    better = answers(("en", "de", True, 1.0), ("de", "de", False, 0.0))
    worse = answers(("en", "de", False, 1.0), ("de", "de", True, 1.0), method="unsteered")
    same = answers(("en", "de", True, 1.0), method="twin")
    found = differences(pd.concat([better, worse, same]), "diffmean")
    tests = found["joint"]["pairs"]["diffmean"]
    assert tests["unsteered"]["difference"] == 1, "pairs of one language with itself do not count"
    assert tests["unsteered"]["p_holm"] < 0.01
    assert (tests["twin"]["difference"], tests["twin"]["p"]) == (0, 1)
    assert found["in_language"]["intervals"]["unsteered"][0] == 1
    assert differences(better, "diffmean") == {}


# --------------------------------------------------------------------------------------------- plan


def planned(**told: Any) -> Plan:
    """The plan of settings for a model of 32 layers."""
    settings = Settings(**told)
    return Plan(settings, pairs_of(settings, questions(), identifier()), layers_of(settings, 32))


def test_the_defaults_are_those_of_the_paper() -> None:
    told = planned()
    assert (told.settings.prompt, told.settings.new_tokens) == ("chat", 1024)
    assert told.layers == (4, 8, 12, 16, 20, 24, 28)
    assert told.forms == {
        "unsteered": "chat",
        "prompt english": "chat+english",
        "prompt target": "chat+target",
    }
    assert len(told.pairs) == 16 * 16, "every pair, one language with itself too"
    assert len(told.across) == 16 * 15
    assert layers_of(Settings(), 8) == tuple(range(1, 8))
    assert layers_of(Settings(layers=(3,)), 8) == (3,)


def test_a_pair_of_one_language_is_never_steered() -> None:
    """Its vector is zero, so that a strength has no unit: it is run unsteered, and every control
    but random has it."""
    told = planned(
        sources=("en", "de"), targets=("de", "es"), strengths=(1.0,), operators=("add", "rotate")
    )
    choices = {"diffmean": (4, 1.0), "diffmean_rotate": (8, 1.0)}
    cells = [*told.design.dev_cells(), *told.design.test_cells(choices)]
    same = {(cell.method, cell.operator) for cell in cells if cell.source == cell.target}
    assert same == {(name, "none") for name in ("unsteered", "prompt english", "prompt target")}
    assert {cell.operator for cell in cells if cell.source != cell.target} == {
        "add",
        "rotate",
        "none",
    }
    with pytest.raises(
        SteerlabError, match=r"one language with itself \(de-de\), and that has no direction"
    ):
        planned(sources=("de",), targets=("de",))


def test_where_nothing_is_to_be_chosen_all_questions_are_reported_on() -> None:
    assert planned(layers=(20,), strengths=(1.0,)).choices == {"diffmean": (20, 1.0)}
    assert planned(layers=(20,), alphas=(5.0,)).choices == {"diffmean": (20, 5.0)}
    assert planned(layers=(20,)).choices is None
    assert planned(strengths=(1.0,)).choices is None


def test_directions_from_pairs_know_their_source() -> None:
    told = planned(
        sources=("en", "de"),
        targets=("es",),
        estimators=("diffmean", "pca"),
        layers=(4,),
        strengths=(1.0,),
    )
    assert told.choices is not None
    fits = {
        (cell.method, cell.source, cell.fits[:1])
        for cell in told.design.test_cells(told.choices, "all")
        if cell.fits
    }
    assert {(name, source, fit[0]) for name, source, fit in fits if name != "random"} == {
        ("diffmean", "en", "diffmean"),
        ("diffmean", "de", "diffmean"),
        ("pca", "en", "pca from en"),
        ("pca", "de", "pca from de"),
    }


REFUSED: dict[str, dict[str, Any]] = {
    "there is no estimator 'meandiff'; there are diffmean": {"estimators": ("meandiff",)},
    "steers with add, rotate, .*, not with 'ablate'": {"operators": ("ablate",)},
    "operators: there is nothing in it": {"operators": ()},
    "alphas are steps of the operator add in the place of strengths": {
        "alphas": (5.0,),
        "strengths": (1.0,),
    },
    "alphas are steps of the operator add": {"alphas": (5.0,), "operators": ("rotate",)},
    "a corpus of aligned texts or from plain texts; give one": {"corpus": "a", "texts": "b"},
    "there is no prompt form 'chat.english.english'": {"baselines": ("english+english",)},
    "there is no prompt form 'instructed.english'": {"prompt": "instructed"},
    "give pairs, or sources and targets": {"pairs": (("en", "de"),), "sources": ("en",)},
    "corpus 'stand-in questions' has no 'ko'; it has en": {"targets": ("ko",)},
    "unknown language code 'xx'": {"pairs": (("en", "xx"),)},
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_a_run_cannot_do_is_refused_before_a_model_is_loaded(told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        planned(**REFUSED[told])


def test_a_target_that_the_identifier_cannot_name_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identifier(), "languages", frozenset({"en"}))
    with pytest.raises(SteerlabError, match="the language identifier lid.176.* cannot name German"):
        planned(pairs=(("de", "en"), ("en", "de")))


def test_alphas_are_steps_of_that_length(directions: Directions) -> None:
    """One alpha is the same step for every pair; one strength is not."""
    fit = replace(directions, strength_unit="absolute")
    for source, target in (("en", "de"), ("ru", "fr")):
        gap = float(directions.between(source, target).at(3).gap)
        step = add(fit.between(source, target).at(3), strength=5.0).parts[0].tensors["shift"]
        same = (
            add(directions.between(source, target).at(3), strength=5.0 / gap)
            .parts[0]
            .tensors["shift"]
        )
        assert float(step.norm()) == pytest.approx(5)
        assert step.flatten().tolist() == pytest.approx(same.flatten().tolist())
    lengths = {float(directions.between(*pair).at(3).gap) for pair in (("en", "de"), ("ru", "fr"))}
    assert len(lengths) == 2


def test_alpha_one_and_strength_one_are_two_cells(polyglot: Model, directions: Directions) -> None:
    """They are two experiments, and so finished rows of one are not those of the other; what
    operators need is kept."""
    fit = replace(directions, extra={"level": torch.ones(1, len(directions.layers))})
    cell = Cell(
        method="diffmean",
        operator="add",
        layer=3,
        strength=1.0,
        source="en",
        target="de",
        split="test",
        fits=("diffmean",),
    )

    def key(alphas: tuple[float, ...] | None) -> str:
        fits = in_units({"diffmean": fit}, Settings(alphas=alphas))
        assert fits["diffmean"].extra.keys() == {"level"}
        return Runner(polyglot, questions(), fits, identifier(), {"test": 1}).key(cell)

    assert key((1.0,)) != key(None)
    assert key((1.0,)) == key((2.0,)), "the step's length is the cell's strength"


# --------------------------------------------------------------------------------------- end to end


def rating(number: int, body: dict[str, Any]) -> Reply:
    """A judge that likes answers of many words, and says nothing that can be read about those of
    exactly five."""
    said = body["messages"][-1]["content"].split("<answer>")[1].split("</answer>")[0].split()
    return says(
        "I cannot say." if len(said) == 5 else f"So so.\nRating: [[{min(2, len(said) // 4)}]]"
    )


WORDS = "clas --sources en,de --targets en,de,es --prompt line --new-tokens 12".split()
WORDS += "--limit 4 --dev-limit 3".split()
WORDS += "--estimators diffmean,pca --layers 3,5 --strengths 1 --judge-model loop".split()


ONE: dict[str, Any] = {
    "layers": (1,),
    "strengths": (1.0,),
    "prompt": "line",
    "new_tokens": 4,
    "baselines": (),
}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory, lines: Corpus) -> tuple[Path, Path]:
    """A run on three languages of the stand-in with a judge on loopback, started by words; its
    folder, its corpus."""
    top = tmp_path_factory.mktemp("clas")
    (top / "corpus").mkdir()
    for iso in ("en", "de", "es"):
        (top / "corpus" / f"{iso}.txt").write_text("\n".join(lines[iso][:48]) + "\n", "utf-8")
    with endpoint(rating) as server:
        words = [
            *WORDS,
            "--corpus",
            str(top / "corpus"),
            "--out",
            str(top / "run"),
            "--judge",
            server.url,
        ]
        assert main(words) == 0
        assert len({json.dumps(body) for body in server.bodies}) == len(server.bodies) > 0, (
            "nothing is asked twice"
        )
    return top / "run", top / "corpus"


def test_a_run_has_every_answer(benchmark: tuple[Path, Path]) -> None:
    rows = pd.read_parquet(benchmark[0] / "rows.parquet")
    methods = ["diffmean", "pca", "random", "unsteered", "prompt english", "prompt target"]
    test = rows[rows["split"] == "test"]
    assert list(dict.fromkeys(test["method"])) == methods
    assert set(test.groupby("method").size()) == {6 * 4}, (
        "every method has every pair of the same questions"
    )
    dev = rows[rows["split"] == "dev"]
    assert set(dev.groupby(["method", "layer"]).size()) == {4 * 3}
    assert not set(dev["sentence"]) & set(test["sentence"])
    assert list(rows["in_language"]) == [
        found == target
        for found, target in zip(
            identifier().identify(rows["output"].tolist()), rows["target"], strict=True
        )
    ]


def test_a_pair_of_one_language_is_flagged_and_has_the_unsteered_answers(
    benchmark: tuple[Path, Path],
) -> None:
    rows = pd.read_parquet(benchmark[0] / "rows.parquet").query("split == 'test'")
    same = rows[rows["same"]]
    assert (same["source"] == same["target"]).all()
    assert set(same["operator"]) == {"none"}
    assert (same["dose"] == 0).all()
    plain = (
        same[same["method"] == "unsteered"].sort_values(["source", "sentence"])["output"].tolist()
    )
    for method in ("diffmean", "pca", "random"):
        assert (
            same[same["method"] == method].sort_values(["source", "sentence"])["output"].tolist()
            == plain
        )
    steered = rows[~rows["same"] & rows["method"].isin(["diffmean", "pca", "random"])]
    assert (steered["dose"] > 0).all()
    assert "2 pairs are one language with itself" in (benchmark[0] / "table.md").read_text("utf-8")


def test_prompts_of_controls_and_the_dose_of_random(benchmark: tuple[Path, Path]) -> None:
    rows = pd.read_parquet(benchmark[0] / "rows.parquet").query(
        "split == 'test' and source == 'en' and target == 'es'"
    )
    first = {str(method): part["prompt"].iloc[0] for method, part in rows.groupby("method")}
    question = rows["question"].iloc[0]
    assert first["diffmean"] == first["unsteered"] == f"{question}\n"
    assert first["prompt english"] == f"{question} Please write your answer in Spanish.\n"
    assert first["prompt target"] == f"{question} Por favor, escribe tu respuesta en español.\n"
    doses = rows.groupby("method")["dose"].mean()
    assert doses["random"] == pytest.approx(doses["diffmean"], rel=0.3)
    assert rows[rows["method"] == "random"]["estimator"].nunique() > 1, "several seeds"


def test_a_summary_says_what_was_done(benchmark: tuple[Path, Path]) -> None:
    told = json.loads((benchmark[0] / "summary.json").read_text("utf-8"))
    assert told["questions"]["split"] == "test"
    assert told["same-language pairs, unsteered"] == 2
    assert set(told["choices"]) == {"diffmean", "pca"}
    assert "rubric" in told["judge"]
    assert "localhost" not in json.dumps(told["scores"])
    pooled = {row["method"]: row for row in told["scores"] if row["group"] == "pooled"}
    for row in pooled.values():
        assert row["s"] == pytest.approx(
            2 * row["lfs"] * row["or"] / (row["lfs"] + row["or"]) if row["lfs"] else 0
        )
        assert row["joint"] <= row["lfs"]
    rows = pd.read_parquet(benchmark[0] / "rows.parquet").query("split == 'test'")
    unread = rows[[len(output.split()) == 5 for output in rows["output"]]]
    assert len(unread) > 0
    assert (
        sum(row["unread"] for row in pooled.values()) == len(unread) == rows["rating"].isna().sum()
    )
    assert not unread["joint"].any()
    assert set(told["differences"]["joint"]["pairs"]["diffmean"]) == set(pooled) - {"diffmean"}
    table_ = (benchmark[0] / "table.md").read_text("utf-8")
    assert f"| diffmean | {pooled['diffmean']['lfs']:.1f} [" in table_
    assert "Spanish (es)" in table_


def test_steering_reaches_the_target_and_random_does_not(benchmark: tuple[Path, Path]) -> None:
    rows = pd.read_parquet(benchmark[0] / "rows.parquet").query("split == 'test' and not same")
    forced = rows.groupby("method")["in_language"].mean()
    assert forced["diffmean"] > 0.6
    assert max(forced["random"], forced["unsteered"]) < 0.4


def test_gold_answers_score_what_the_identifier_can_read(tmp_path: Path) -> None:
    """Texts of the target language have its identifier's own accuracy as LFS, here on their
    first letters."""
    read = questions().select(["bg", "sv", "de"])
    gold = [
        (iso, number, line[:9])
        for iso in read.langs
        for number, line in zip(read.numbers, read[iso], strict=True)
    ]
    with endpoint(lambda number, body: says("Rating: [[2]]")) as server:
        judge = Endpoint(server.url, "loop", cache=tmp_path)
        answers = [Answer(text, "", "?", number, "en", iso) for iso, number, text in gold]
        rows = pd.DataFrame(score(answers, identifier=identifier(), judge=judge))
    rows["source"], rows["target"], rows["sentence"] = (
        "en",
        [iso for iso, _, _ in gold],
        [n for _, n, _ in gold],
    )
    found = scores(rows)
    own = {
        iso: identifier().identify([text for lang, _, text in gold if lang == iso])
        for iso in read.langs
    }
    accuracy = 100 * sum(name == iso for iso, names in own.items() for name in names) / len(gold)
    assert 30 < accuracy < 95
    assert found["lfs"][0] == found["joint"][0] == pytest.approx(accuracy)
    assert found["or"][0] == 100


def test_a_run_that_cannot_start_says_why(
    benchmark: tuple[Path, Path],
    tiny: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    def told(*words: str) -> str:
        assert main(["clas", *words]) == 2
        return " ".join(capsys.readouterr().err.split())

    judge = ["--judge", "http://127.0.0.1:9/v1", "--judge-model", "loop"]
    new = [
        "--out",
        str(tmp_path / "new"),
        "--pairs",
        "en-de",
        "--model",
        str(tiny("llama")),
        "--layers",
        "1",
    ]
    assert "CLaS-Bench needs a judge of relevance: give --judge and the URL" in told(*new)
    assert "no chat template; use the prompt form 'line'" in told(*new, *judge)
    assert "there is no judge 'gpt'; the judges are" in told(
        *new, "--prompt", "line", "--judge", "gpt"
    )
    other = told(*WORDS[1:], *judge, "--out", str(benchmark[0]), "--seed", "1")
    assert "holds a run with other settings" in other
    assert "seed 0 there, 1 here" in other
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert "holds files, but no run" in told(*WORDS[1:], *judge, "--out", str(tmp_path / "mine"))
    assert "pairs.0: 'en' is no pair; write the source and the target as in en-de" in told(
        "--pairs", "en"
    )


def test_a_judge_that_fails_leaves_what_was_finished(
    tmp_path: Path, tiny: Callable[[str], Path], benchmark: tuple[Path, Path]
) -> None:
    """Where the judge refuses, the run says so; once it answers, the same run goes on and asks
    for the rest only."""
    asked = Settings(
        model=str(tiny("llama")), pairs=(("en", "es"),), corpus=str(benchmark[1]), limit=2, **ONE
    )
    opened: list[bool] = []

    def answer(number: int, body: dict[str, Any]) -> Reply:
        return rating(number, body) if opened or number < 2 else fails(401, "who are you?")

    with endpoint(answer) as server:
        judge = Endpoint(server.url, "loop", retries=0, concurrency=1, cache=tmp_path / "replies")
        with pytest.raises(
            SteerlabError,
            match="the judge loop .* refuses the key .* 2 of . replies came and are kept",
        ):
            run(asked, out=tmp_path / "run", judge=judge, progress=False)
        opened.append(True)
        done = run(asked, out=tmp_path / "run", judge=judge, progress=False)
        again = [server.asked.count(text) for text in server.asked]
        assert again[:2] == [1, 1], "what was rated is not asked again"
        assert again[2] == 2, "what was refused is"
        before, asked_of = (done / "rows.parquet").read_bytes(), len(server.bodies)
        run(asked, out=tmp_path / "run", judge=judge, progress=False)
        assert ((done / "rows.parquet").read_bytes(), len(server.bodies)) == (before, asked_of), (
            "a finished run is told"
        )
    summary = json.loads((done / "summary.json").read_text("utf-8"))
    assert summary["questions"]["split"] == "all", "nothing was chosen"
    assert summary["same-language pairs, unsteered"] == 0


def test_what_failed_is_said_and_no_table_is_made(
    tmp_path: Path, tiny: Callable[[str], Path], benchmark: tuple[Path, Path]
) -> None:
    """One language's questions are too long for the model: a table of the rest would mislead."""
    more = {
        "de": changed("de", question=["Warum? " * 400] * 3),
        "es": rows_of("es", ["¿Por qué?", "¿Qué?", "¿Cómo?"]),
    }
    asked = Settings(
        model=str(tiny("llama")),
        questions=str(written(tmp_path / "questions", more=more)),
        corpus=str(benchmark[1]),
        pairs=(("en", "es"), ("de", "es")),
        **ONE,
    )
    told = (
        "3 of 6 cells failed, the first with: a prompt of .* shorten the prompt or max_new_tokens; "
        "what was finished"
    )
    with endpoint(rating) as server:
        judge = Endpoint(server.url, "loop")
        with pytest.raises(SteerlabError, match=told):
            run(asked, out=tmp_path / "run", judge=judge, progress=False)
    assert not (tmp_path / "run" / "table.md").exists()


TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor "
    "%}[assistant] "
)


def test_the_chat_form_and_alphas(
    tmp_path: Path, tiny: Callable[[str], Path], benchmark: tuple[Path, Path]
) -> None:
    """With the paper's own form and unit: the question alone in the template, a step of the same
    length for all."""
    shutil.copytree(tiny("llama"), tmp_path / "chatty")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "chatty")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "chatty")
    asked = Settings(
        model=str(tmp_path / "chatty"),
        corpus=str(benchmark[1]),
        pairs=(("en", "de"), ("de", "de")),
        layers=(1,),
        alphas=(0.5,),
        baselines=("source",),
        new_tokens=6,
        limit=2,
    )
    with endpoint(rating) as server:
        done = run(asked, out=tmp_path / "run", judge=Endpoint(server.url, "loop"), progress=False)
    rows = pd.read_parquet(done / "rows.parquet")
    steered = rows[rows["method"] == "diffmean"]
    assert list(steered["prompt"]) == [
        f"[user] {question}\n[assistant] " for question in steered["question"]
    ]
    asking = rows[(rows["method"] == "prompt source") & ~rows["same"]]
    own = "Please write your answer in German."
    assert list(asking["prompt"]) == [
        f"[user] {question} {own}\n[assistant] " for question in asking["question"]
    ]
    assert (steered["dose"] > 0).tolist() == (~steered["same"]).tolist()
    told = json.loads((done / "summary.json").read_text("utf-8"))
    assert told["unit of strength"] == "1 in the residual stream"
    assert told["natural gap"] > 0
    assert told["choices"] == {"diffmean": {"layer": 1, "strength": 0.5}}
