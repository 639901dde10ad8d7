"""Small tasks in sixteen languages: every item is whole, the likeliest choice is taken, edits are
scored as if each were alone on the model."""

import numpy as np
import pytest
import torch

import steerlab as sl
from steerlab.analysis.effects.learning import abilities_changed
from steerlab.core.abilities import LANGS, TASKS, ability_items
from steerlab.core.errors import SteerlabError
from steerlab.engine.abilities import abilities
from steerlab.engine.conditional import conditional
from steerlab.engine.prompts import encode


@pytest.mark.parametrize("lang", LANGS)
def test_every_item_is_whole(lang: str) -> None:
    items = ability_items([lang])
    counts = {task: sum(item.task == task for item in items) for task in TASKS}
    wanted = {"arithmetic": 12, "analogy": 12, "list": 12, "reading": 12, "agreement": 6}
    assert counts == wanted | ({"agreement": 0} if lang == "ja" else {})
    for item in items:
        assert len(set(item.choices)) == len(item.choices) >= 2
        assert len({item.language, item.answer, item.instruction}) == 1
        assert not any(mark in item.prompt for mark in "{}|")
        assert item.prompt == item.prompt.strip()
        if item.task in ("analogy", "list"):  # what is asked is not shown already
            asked = item.prompt.split("\n", 2)[2]
            assert not any(choice in asked.split() for choice in item.choices)
    assert len({item.prompt for item in items}) == len(items)


def test_sums_are_sums() -> None:
    numbers = "one two three four five six seven eight nine ten".split()
    for item in ability_items(["en"], ["arithmetic"]):
        *_, question = item.prompt.splitlines()
        a, _, b, _ = question.split()
        assert numbers.index(a) + numbers.index(b) + 2 == numbers.index(item.choices[0]) + 1


def test_instruction_question_and_answer_in_three_languages() -> None:
    [item] = ability_items(["de"], ["arithmetic"], instruction="en", answer="fr")[:1]
    assert (
        item.prompt
        == "Add the numbers.\n\neins + drei = quatre\nzwei + sechs = huit\neins + zwei ="
    )
    assert item.choices[0] == "trois"
    tasks = {item.task for item in ability_items(["de"], answer="fr")}
    assert tasks == set(TASKS) - {"agreement"}
    reading = ability_items(["de"], ["reading"], answer="fr")[0]
    assert reading.prompt.endswith("Maria hat ein Haus.\nAnna a")
    assert reading.choices[0] == "un chien"


@pytest.mark.parametrize(
    ("given", "message"),
    [({"langs": ["sw"]}, "no tasks in Swahili"), ({"tasks": ["sums"]}, "no task 'sums'")],
)
def test_what_is_not_there_raises(given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        ability_items(**given)  # type: ignore[arg-type]


def test_each_edit_is_scored_as_if_alone(polyglot) -> None:  # type: ignore[no-untyped-def]
    edits = [
        sl.edit(lambda h: 0.05 * torch.ones_like(h), layer=1),
        sl.edit(lambda h: 0.1 * torch.ones_like(h), layer=5),
    ]
    items = ability_items(["de", "en"], ["list"])[:3]
    pairs = [(item.prompt, choice) for item in items for choice in item.choices]
    nats, lengths = conditional(polyglot, pairs, [sl.Edit(()), *edits])
    assert nats.shape == (3, len(pairs))
    plain, again = conditional(polyglot, pairs)
    np.testing.assert_allclose(nats[0], plain[0], rtol=1e-4)
    assert torch.equal(lengths, again)
    for index, edit in enumerate(edits, start=1):
        with edit.on(polyglot):
            for place in (0, 4):
                prompt, choice = pairs[place]
                begun = encode(polyglot.tokenizer, [prompt])[0]
                more = polyglot.tokenizer(f" {choice}", add_special_tokens=False).input_ids
                ids = torch.tensor([[*begun, *more]])
                with torch.inference_mode():
                    logits = polyglot.forward(ids, torch.ones_like(ids, dtype=torch.bool))[0][0]
                wanted = torch.nn.functional.cross_entropy(
                    logits[len(begun) - 1 : -1], torch.tensor(more), reduction="sum"
                )
                assert nats[index, place] == pytest.approx(float(wanted), rel=1e-3)


def test_rows_and_their_change(polyglot) -> None:  # type: ignore[no-untyped-def]
    items = ability_items(["de", "en"], ["list", "agreement"])
    shift = sl.edit(lambda h: 3 * torch.ones_like(h), layer=3)
    rows = abilities(polyglot, {"shift": shift}, items=items)
    assert len(rows) == 2 * len(items)
    assert (rows["correct"] == (rows["margin"] > 0)).all()
    assert rows[rows["task"] == "agreement"]["chance"].unique().tolist() == [0.5]
    table = abilities_changed(rows)
    assert table[["task", "language", "n"]].to_numpy().tolist() == [
        ["list", "de", 12],
        ["agreement", "de", 6],
        ["list", "en", 12],
        ["agreement", "en", 6],
    ]
    means = rows.groupby(["edit", "task", "language"])["correct"].mean().to_dict()
    for task, lang, change in table[["task", "language", "change"]].to_numpy():
        wanted = means["shift", task, lang] - means["none", task, lang]
        assert change == pytest.approx(wanted)
    with pytest.raises(SteerlabError, match="give abilities"):
        abilities_changed(rows[rows["edit"] == "none"])


def test_an_edit_that_is_none_is_no_name(polyglot) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SteerlabError, match="may be called 'none'"):
        abilities(polyglot, {"none": sl.Edit(())}, items=ability_items(["en"], ["list"]))
    with pytest.raises(SteerlabError, match="no question"):
        abilities(polyglot, items=[])
