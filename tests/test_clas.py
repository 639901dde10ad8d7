"""CLaS-Bench from end to end: a run, its judge, and what goes wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from clas_questions import changed, rows_of, written
from fake_endpoint import Reply, endpoint, fails, says
from transformers import AutoTokenizer

from steerlab.cli import main
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.scores.judges import Answer, Endpoint, score
from steerlab.scores.langid import identifier
from steerlab.studies.clas import (
    Settings,
    questions,
    run,
    scores,
)
from steerlab.studies.clas.plan import RANDOM

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
    methods = ["diffmean", "pca", *RANDOM, "unsteered", "prompt english", "prompt target"]
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
    for method in ("diffmean", "pca", *RANDOM):
        assert (
            same[same["method"] == method].sort_values(["source", "sentence"])["output"].tolist()
            == plain
        )
    steered = rows[~rows["same"] & rows["method"].isin(["diffmean", "pca", *RANDOM])]
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
    for kind in RANDOM:
        assert doses[kind] == pytest.approx(doses["diffmean"], rel=0.3)
        assert rows[rows["method"] == kind]["estimator"].nunique() > 1, "several seeds"


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
    assert max(*(forced[kind] for kind in RANDOM), forced["unsteered"]) < 0.4


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
        "4 of 8 cells failed, the first with: a prompt of .* shorten the prompt or max_new_tokens; "
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
