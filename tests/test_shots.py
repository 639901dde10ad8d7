"""Examples in prompts: which they are, how they are written, that keys tell them apart, and which
form a model gets."""

import dataclasses

import pytest
import torch
from transformers import AutoTokenizer

from steerlab.core.corpus import Corpus, corpus, split_of
from steerlab.core.errors import SteerlabError
from steerlab.engine.collect import collect
from steerlab.engine.prompts import prompt, read_form
from steerlab.engine.shots import SHOT_FORMS, examples, read_shots, shots, with_number
from steerlab.models.data_packages import PACKAGES
from steerlab.models.loading import PACKAGED, load
from steerlab.scores.langid import identifier
from steerlab.studies.clas import Settings as ClasSettings
from steerlab.studies.main.form import LEVEL, form_of
from steerlab.studies.main.page.sentences import byline
from steerlab.studies.main.plan import Plan
from steerlab.studies.main.settings import Settings
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.grid import Grid
from steerlab.sweeps.runner import Runner

POLYGLOT = AutoTokenizer.from_pretrained(PACKAGED)
PAIRS = (("It rains.", "Es regnet."), ("No.", "Nein."))


def test_the_two_forms_are_written_as_their_names_say():
    twice = [(said, said) for said, _ in PAIRS]
    assert prompt(POLYGLOT, "echo:2", "We sing.", shots=twice) == (
        "It rains.\nIt rains.\n\nNo.\nNo.\n\nWe sing.\n"
    )
    assert prompt(POLYGLOT, "fewshot:2", "We sing.", target="de", shots=PAIRS) == (
        "English: It rains.\nGerman: Es regnet.\n\n"
        "English: No.\nGerman: Nein.\n\n"
        "English: We sing.\nGerman:"
    )
    # The last block is the zero-shot form.
    assert prompt(POLYGLOT, "fewshot:2", "We sing.", target="de", shots=PAIRS).endswith(
        prompt(POLYGLOT, "instructed", "We sing.", target="de")
    )


def test_the_number_is_part_of_the_name():
    assert [with_number(form) for form in ("echo", "echo:2", "fewshot", "line")] == [
        "echo:5",
        "echo:2",
        "fewshot:3",
        "line",
    ]
    assert read_shots("chat+de") is None
    assert read_form("echo:2") == ("echo", "")
    assert Settings(prompt="echo").prompt == Grid(prompt="echo").prompt == "echo:5"


@pytest.mark.parametrize("form", ["echo:0", "echo:", "echo:-1", "fewshot:x", "echo:1.5", "echo:²"])
def test_a_number_that_is_none_says_so(form):
    with pytest.raises(SteerlabError, match="does not say how many examples it has"):
        read_form(form)
    with pytest.raises(SteerlabError, match="prompt: .*does not say how many"):
        Settings(prompt=form)


def test_a_wrong_number_of_examples_is_refused():
    for given in ((), PAIRS):
        with pytest.raises(SteerlabError, match=f"'echo:3' has 3 examples and got {len(given)}"):
            prompt(POLYGLOT, "echo:3", "We sing.", shots=given)
    with pytest.raises(SteerlabError, match="'fewshot' names the target language"):
        prompt(POLYGLOT, "fewshot:2", "We sing.", shots=PAIRS)


@pytest.mark.parametrize("source", corpus().langs)
def test_examples_are_of_estimate_and_plain(source):
    whole = corpus()
    found = examples(whole, "echo:6", source)
    assert len(set(found.sentences)) == 6
    assert {split_of(number) for number in found.sentences} == {"estimate"}
    assert [whole[source][number] for number in found.sentences] == list(found.lines)
    assert not any(set('0123456789":;()«»„“”—') & set(line) for line in found.lines)
    assert found.sentences == tuple(sorted(found.sentences))
    longer = sorted(len(line) for line in whole.split("estimate")[source])
    assert max(map(len, found.lines)) <= longer[len(longer) // 2]


def test_examples_do_not_depend_on_the_languages_and_limits_beside():
    whole = corpus()
    few = whole.select(["de", "en"])
    assert examples(few, "echo", "en") == examples(whole, "echo", "en")


def test_translated_examples_are_the_lines_themselves():
    whole = corpus()
    for said, answer in shots(whole, "fewshot:4", "de", "ja"):
        assert whole["ja"][whole["de"].index(said)] == answer
    assert all(said == again for said, again in shots(whole, "echo", "de", "ja"))


def test_a_corpus_with_too_few_plain_lines_says_so():
    lines = tuple(f"line {number}" for number in range(24))
    with pytest.raises(SteerlabError, match="needs 5 plain lines of en .* which has 0"):
        examples(Corpus("numbers", {"en": lines}, tuple(range(24))), "echo", "en")


@pytest.fixture(scope="module")
def runner() -> Runner:
    limits = {"dev": 3, "test": 3}
    return Runner(load(), corpus(langs=["en", "de"]), {}, identifier(), limits)


def unsteered(form: str) -> Cell:
    return Cell.unsteered(source="en", target="de", split="dev", form=form)


def test_a_row_has_the_examples_of_its_corpus_and_its_key_the_form(runner):
    for form in ("echo:2", "fewshot:2"):
        rows = runner.run([unsteered(form)])
        given = shots(runner.corpus, form, "en", "de")
        assert len(given) == 2
        assert rows["prompt"].tolist() == [
            prompt(POLYGLOT, form, line, target="de", shots=given) for line in rows["question"]
        ]
    forms = ("line", "echo:2", "echo:3", "fewshot:2", "fewshot:3", "instructed")
    assert len({runner.key(unsteered(form)) for form in forms}) == len(forms)


def test_other_examples_make_another_key(runner):
    """Of a corpus with other lines, that is, at the same prompts."""
    key = runner.key(unsteered("echo:2"))
    chosen = examples(runner.corpus, "echo:2", "en").sentences[0]
    other = list(runner.corpus["en"])
    other[chosen] = other[chosen].replace("e", "i")
    lines = {**runner.corpus.lines, "en": tuple(other)}
    changed = dataclasses.replace(runner, corpus=dataclasses.replace(runner.corpus, lines=lines))
    assert changed.key(unsteered("echo:2")) != key


def test_what_collects_reads_plain_lines(runner):
    texts = runner.corpus.split("estimate").take(2)
    with pytest.raises(SteerlabError, match="what collects reads plain lines"):
        collect(load(), texts, form="echo")


def test_clas_bench_refuses_examples():
    with pytest.raises(SteerlabError, match="'echo:5' puts examples of a corpus first"):
        ClasSettings(prompt="echo", baselines=())


# ----------------------------------------------------------------------------- which form a run has


def test_the_form_that_is_asked_for_is_taken_and_measured_by_nothing(polyglot):
    texts = corpus()
    assert form_of("line", polyglot, texts, "en").metadata == {"name": "line", "examples": []}
    form = form_of("echo:4", polyglot, texts, "de")
    assert (form.name, form.measured) == ("echo:4", {})
    assert [each.form for each in form.examples] == ["echo:4", "fewshot:3"]
    assert form.metadata["examples"][0]["sentences"] == list(
        examples(texts, "echo:4", "de").sentences
    )


def test_a_model_that_does_not_copy_gets_the_line_and_the_page_says_why(polyglot):
    form = form_of("auto", polyglot, corpus(), "en")
    assert form.name == "line"
    assert form.measured["of"] == 48
    assert form.measured["copied"] <= LEVEL * 48
    summary = {"source": "en", "targets": ["de"], "prompt": form.name, "prompt_form": form.measured}
    reason = byline(summary).reason
    assert f"with echo:5 it says {form.measured['copied']} of 48 dev lines again" in reason
    assert "not more than 0.9" in reason
    assert byline({**summary, "prompt_form": {}}).reason == ""


def test_a_model_that_copies_gets_echo(monkeypatch, polyglot):
    """A copying machine in the place of the model: what it says is the last line that it reads."""
    texts = corpus()
    lines = texts.split("dev").take(48)["en"]

    def copying(share):
        def decode(model, prompts, **options):
            said = [text.rstrip("\n").rpartition("\n")[2] for text in prompts]
            kept = round(share * len(said))
            said[kept:] = ["something else"] * (len(said) - kept)
            assert options["max_new_tokens"] >= max(len(POLYGLOT(line).input_ids) for line in lines)
            return type("Decoded", (), {"texts": said})

        return decode

    monkeypatch.setattr("steerlab.studies.main.form.decode", copying(1.0))
    form = form_of("auto", polyglot, texts, "en")
    assert (form.name, form.measured["copied"], form.measured["above"]) == ("echo:5", 48, True)
    assert len(form.examples) == len(SHOT_FORMS)
    monkeypatch.setattr("steerlab.studies.main.form.decode", copying(43 / 48))  # .896
    assert form_of("auto", polyglot, texts, "en").name == "line"


def test_with_examples_the_prompt_that_asks_has_them_too():
    plain = Plan("en", ("de",), (1,), "line").design
    assert dict(plain.prompts) == {"prompt": "instructed"}
    shown = Plan("en", ("de",), (1,), "echo:5").design
    assert dict(shown.prompts) == {"prompt": "instructed", "fewshot": "fewshot:3"}
    forms = {cell.method: cell.form for cell in shown.test_cells({"diffmean": (1, 1.0)})}
    assert forms["fewshot"] == "fewshot:3"
    assert forms["unsteered"] == forms["diffmean"] == "echo:5"


@pytest.mark.timeout(1200)
@torch.inference_mode()
def test_gemma_copies():
    from test_gguf import need

    model = load(need(next(iter(PACKAGES))), dtype="auto")
    form = form_of("auto", model, corpus(), "en")
    assert form.name == "echo:5"
    assert form.measured["copied"] > 0.9 * 48
