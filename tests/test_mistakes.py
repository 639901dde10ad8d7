"""What a user is likely to give by mistake: a sentence each, or what was plainly meant.

In a process of its own, since in this one every type is checked before a function is called.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.engine.cross_entropy import bits_per_byte, cross_entropy
from steerlab.models.model import Model

# What is called, and a part of what it says.
MISTAKES = {
    "sl.add(directions)": "one direction is needed, not Directions; give directions.between(",
    "sl.rotate(directions, share=1.0)": "one direction is needed, not Directions",
    "sl.ablate(directions)": "one direction is needed, not Directions",
    "sl.affine(directions)": "one direction is needed, not Directions",
    "sl.generate(model, 'No.', edit=direction)": "an edit is needed, not a Direction; an operator",
    "sl.generate(model, 'No.', edit=directions)": "an edit is needed, not a Directions; an",
    "sl.generate(model, ['No.'], edit=[edit])": "not a list; stack(edits) makes one of several",
    "sl.generate(model, ['No.'], edit=len)": "edit(function, layer=5) makes one of a function",
    "sl.stack([direction])": "an edit is needed, not a Direction",
    "sl.cross_entropy(model, ['No.'], [direction])": "an edit is needed, not a Direction",
    "sl.cross_entropy(model, ['No.'], [])": "there is no edit; give Edit(()) for the model as",
    "sl.generate(model, [1])": "number 0 is a int: 1; give strings",
    "sl.generate(model, ['a', None])": "number 1 is a NoneType: None; give strings",
    "sl.generate(model, 3)": "takes a list of texts, and was given a int",
    "sl.generate(model, b'No.')": "takes a list of texts, and was given a bytes",
    "sl.generate(model, {'a': 'b'})": "takes a list of texts, and was given a dict",
    "sl.generate(model, {'No.'})": "was given a set, which has no order",
    "sl.generate(model, pd.DataFrame({'text': ['No.']}))": "a DataFrame; give strings, such as one",
    "sl.generate(model, np.array('No.'))": "takes a list of texts, and was given a ndarray",
    "sl.generate(model, np.array([['No.']]))": "a ndarray; give strings, such as one column of it",
    "sl.generate(model, pd.Series(['No.', None]))": "number 1 is a",
    "sl.generate(model, bytearray(b'No.'))": "takes a list of texts, and was given a bytearray",
    "sl.cross_entropy(model, ['No.'], 5)": "an edit is needed, not a int",
    "sl.cross_entropy(model, ['No.'], directions)": "an edit is needed, not a Directions",
    "sl.diffmean(texts)": "moments are needed, not a Corpus; give collect(model, corpus)",
    "sl.diffmean(None)": "moments are needed, not a NoneType",
    "sl.lda(directions)": "moments are needed, not a Directions",
    "sl.pca('x')": "moments are needed, not a str",
    "sl.probe(model)": "moments are needed, not a HuggingFaceModel",
    "sl.collect(model, texts, layers='4')": "layers is '4'; give their numbers, such as [4, 5]",
    "sl.collect(model, texts, layers=[1.5])": "a layer is a whole number, not 1.5",
    "sl.collect(model, texts, layers=4.0)": "layers is 4.0; give their numbers",
    "sl.collect(model, texts, batch='4')": "a batch of '4' texts is none",
    "sl.add(direction, strength='1')": "strength is '1'; give a finite number",
    "sl.add(direction, strength=[1, 2])": "strength is [1, 2]; give a finite number",
    "sl.edits.turn_to(direction, degrees='60')": "degrees is '60'; give a finite number",
    "sl.add(None)": "one direction is needed, not a NoneType; give directions.between(",
    "sl.add(direction.unit)": "one direction is needed, not a Tensor",
    "sl.rotate(None, share=1.0)": "one direction is needed, not a NoneType",
    "sl.ablate(edit)": "one direction is needed, not a Edit",
    "sl.affine('de')": "one direction is needed, not a str",
    "sl.edits.slerp(directions)": "one direction is needed, not Directions",
    "sl.edits.cap(3)": "one direction is needed, not a int",
    "sl.stack(edit)": "stack takes a list of edits, one for each row, and was given a Edit",
    "sl.stack(None)": "stack takes a list of edits, one for each row, and was given a NoneType",
    "edit | None": "an edit is needed, not a NoneType",
    "edit | direction": "an edit is needed, not a Direction",
    "edit.on('polyglot').__enter__()": "an edit goes on a model, not on a str; load(...) makes",
    "edit.on(model.hf).__enter__()": "an edit goes on a model, not on a LlamaForCausalLM",
    "edit.on(None).__enter__()": "an edit goes on a model, not on a NoneType",
    "sl.generate(model, 'No.', temperature='hot')": "temperature is 'hot'; give 0 (greedy)",
    "sl.generate(model, 'No.', max_new_tokens=1.5)": "max_new_tokens is 1.5; give a whole number",
    "sl.generate(model, 'No.', max_new_tokens=True)": "max_new_tokens is True; give a whole",
    "sl.generate(model, 'No.', seed='a', temperature=1.0)": "a seed is 'a'; give a whole number",
    "sl.generate(model, 'No.', seed=2**70)": "give a whole number of at most 64 bits",
    "sl.generate(model, 'No.', batch='2')": "batch is '2'; give a number of rows, or None",
    "sl.sweep(model, ['a'])": "a corpus is needed, not a list; give corpus(folder)",
    "sl.collect(model, 'nowhere')": "there is no folder nowhere",
    "sl.collect(model, ['No.'])": "a corpus is needed, not a list; give corpus(folder)",
    "sl.collect(model, texts, batch=-5)": "a batch of -5 texts is none; give 1 or more",
    "sl.collect(model, texts, batch=0)": "a batch of 0 texts is none",
    "sl.collect(model, texts, layers=[5, 5])": "a layer stands twice in (5, 5); name each once",
    "sl.collect_units(model, 'nowhere')": "there is no folder nowhere",
    "sl.generate(model, 'No.', batch=-5)": "a batch of -5 rows is none",
    "sl.generate(model, 'No.', temperature=float('inf'))": "temperature is inf; give 0 (greedy)",
    "sl.generate(model, 'No.', max_new_tokens=0)": "max_new_tokens is 0; give 1 or more",
    "sl.stream(model, ['No.'])": "stream continues one text, and was given a list",
    "sl.stream(model, 'No.', direction=directions)": "one direction is needed, not Directions",
    "sl.stream(model, 'No.', edit=direction)": "an edit is needed, not a Direction",
    "directions.at(5, 5)": "layer 5 stands twice; name each once",
    "direction.at(5, 5)": "layer 5 stands twice; name each once",
    "sl.corpus(langs='en,qq')": "unknown language code 'qq'",
    "sl.scores.relevance('a', ['en'], [0], {})": "relevance takes a list of texts, and was given",
    "ChrfIndex('abc')": "ChrfIndex takes a list of texts",
}

SCRIPT = """
import sys, traceback
import numpy as np, pandas as pd
import steerlab as sl
from steerlab.scores.chrf import ChrfIndex
model, texts = sl.load("polyglot"), sl.corpus(langs=["en", "de"]).take(48)
directions = sl.Directions.load(sys.argv[1])
direction = directions.between("en", "es").at(5)
edit = sl.add(direction)
for line in sys.stdin.read().splitlines():
    try:
        eval(line)
        print("nothing was raised")
    except sl.SteerlabError as error:
        print("steerlab:", " ".join(str(error).split()))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}".replace(chr(10), " "))
"""


def test_likely_mistakes_get_a_sentence(directions: Directions, tmp_path: Path) -> None:
    file = directions.save(tmp_path / "a.safetensors")
    calls = list(MISTAKES)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file)],
        input="\n".join(calls),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    said = dict(zip(calls, run.stdout.splitlines(), strict=True))
    wrong = {
        call: said[call]
        for call in calls
        if not said[call].startswith("steerlab: ") or MISTAKES[call] not in said[call]
    }
    assert wrong == {}, run.stderr


def test_one_string_in_one_result_out(polyglot: Model, directions: Directions) -> None:
    texts = ["The weather is nice today.\n", "No.\n"]
    each = sl.generate(polyglot, texts)
    assert [sl.generate(polyglot, text) for text in texts] == each
    edit = sl.add(directions.between("en", "es").at(5))
    plain = sl.stack([edit]).__class__(())
    table = cross_entropy(polyglot, texts, [plain, edit])
    assert table.shape == (2, 2)
    torch.testing.assert_close(cross_entropy(polyglot, texts[0], [plain, edit]), table[:, 0])
    torch.testing.assert_close(cross_entropy(polyglot, texts, edit), table[1])
    torch.testing.assert_close(cross_entropy(polyglot, texts[1], edit), table[1, 1])
    assert bits_per_byte(polyglot, texts[0]) == pytest.approx(bits_per_byte(polyglot, texts)[0])


@pytest.mark.parametrize(
    "wrap", [tuple, np.array, pd.Series, pd.Index, iter, lambda texts: [*map(np.str_, texts)]]
)
def test_texts_in_any_order_that_is_one(wrap: Any, polyglot: Model) -> None:
    texts = ["The weather is nice today.\n", "No.\n"]
    assert sl.generate(polyglot, wrap(texts)) == sl.generate(polyglot, texts)
    assert sl.generate(polyglot, np.str_(texts[0])) == sl.generate(polyglot, texts[0])


def test_a_tiny_temperature_is_greedy(polyglot: Model) -> None:
    texts = ["The weather is nice today.\n", "No.\n"]
    greedy = sl.generate(polyglot, texts)
    for temperature in (1e-4, 1e-38, 1e-320):
        assert sl.generate(polyglot, texts, temperature=temperature) == greedy
    assert sl.generate(polyglot, texts, temperature=2.0) != greedy


def test_a_folder_is_read_where_a_corpus_is_asked_for(polyglot: Model, tmp_path: Path) -> None:
    for iso, text in (("eng", "One.\nTwo.\n"), ("de", "Eins.\nZwei.\n")):
        (tmp_path / f"{iso}.txt").write_text(text)
    read = sl.collect(polyglot, tmp_path, layers=[5])
    asked = sl.collect(polyglot, sl.corpus(tmp_path), layers=[5])
    assert read.langs == asked.langs == ("de", "en")
    assert torch.equal(read.mean, asked.mean)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.uint8])
def test_a_mask_of_numbers_counts_each_token_once(dtype: torch.dtype) -> None:
    h = torch.randn(2, 4, 3)
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0]])
    counted = Moments(["en"], [0], 3)
    counted.update("en", {"blocks.0.hook_resid_post": h}, mask.bool())
    numbered = Moments(["en"], [0], 3)
    numbered.update("en", {"blocks.0.hook_resid_post": h}, mask.to(dtype))
    assert torch.equal(counted.mean, numbered.mean)
    assert counted.count.tolist() == numbered.count.tolist() == [5]
    with pytest.raises(SteerlabError, match="the mask holds numbers beside 0 and 1"):
        numbered.update("en", {"blocks.0.hook_resid_post": h}, 2 * mask.to(dtype))
    assert counted.count.tolist() == [5], "a refused batch leaves no trace"


def test_what_stands_twice_is_refused(directions: Directions) -> None:
    with pytest.raises(SteerlabError, match="a language stands twice in en en; name each once"):
        Moments(["en", "en"], [0], 3)
    with pytest.raises(SteerlabError, match="a layer stands twice in 1 1"):
        Moments(["en"], [1, 1], 3)
    with pytest.raises(SteerlabError, match="layer 1 stands twice"):
        directions.at(1, 2, 1)
    assert not hasattr(directions, "unit")
    assert not hasattr(directions, "something")
