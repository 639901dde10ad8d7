"""Small tasks in sixteen languages, to see what else an edit changes: sums, pairs, lists, reading,
agreement.

Written for the package (steerlab/data/abilities). Every item has a prompt and a few choices, one of
which is right. Two solved items stand before each question, so that a base model sees what is
asked.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.core.packaged import DATA

LANGS = tuple("bg de en es fr hi hu it ja nl pl pt ru sv tr uk".split())
TASKS = ("arithmetic", "analogy", "list", "reading", "agreement")

# Sums of two numbers up to five; two others are solved before each.
_SUMS = tuple(
    (a, b) for a in range(1, 6) for b in range(max(a, 2), 6) if (a, b) not in {(1, 3), (1, 5)}
)
_SOLVED_SUMS = ((1, 3), (2, 6))


@dataclass(frozen=True)
class Item:
    """A question with choices.

    Args:
        task: one of "arithmetic", "analogy", "list", "reading", "agreement".
        number: of the item within its task; the same in every language.
        instruction: the language of the first line.
        language: the language of the question.
        answer: the language of the choices.
        prompt: the text before the answer.
        choices: possible answers, the right one first.
    """

    task: str
    number: int
    instruction: str
    language: str
    answer: str
    prompt: str
    choices: tuple[str, ...]


def ability_items(
    langs: Iterable[str] | None = None,
    tasks: Iterable[str] = TASKS,
    *,
    instruction: str | None = None,
    answer: str | None = None,
) -> list[Item]:
    """Questions of each task in each language, 12 of each task (6 of agreement).

    - arithmetic: the sum of two number words, among it and its neighbours;
    - analogy: a country's capital, a word's opposite, among those of others;
    - list: how a list of one kind goes on (animals, colours, food, the body), among words of other
      kinds: the odd one out has the least likelihood;
    - reading: who has what, after three sentences;
    - agreement: of number, gender, person or colour, right or wrong; not in Japanese.

    With `instruction` the first line is in that language; with `answer` the answers are, and those
    of the solved items: instruction in one language, question in another, answer in a third.
    Agreement has no answer in another language and is left out then. Raises `SteerlabError` for
    another language or task.

    Args:
        langs: the languages of the questions, by default all sixteen.
        tasks: which tasks.
        instruction: the language of the first line, by default the question's.
        answer: the language of the answers, by default the question's.
    """
    codes = [_code(lang) for lang in (LANGS if langs is None else langs)]
    wanted = [tasks] if isinstance(tasks, str) else list(tasks)
    for task in wanted:
        if task not in TASKS:
            raise SteerlabError(f"there is no task {task!r}; the tasks are {', '.join(TASKS)}")
    first = None if instruction is None else _code(instruction)
    last = None if answer is None else _code(answer)
    items = []
    for code in codes:
        for task in wanted:
            if task == "agreement" and last not in (None, code):
                continue
            asked, told = _words(code), _words(last or code)
            line = _words(first or code)["instructions"][task]
            for number, (text, choices) in enumerate(_QUESTIONS[task](asked, told)):
                names = (first or code, code, last or code)
                items.append(Item(task, number, *names, f"{line}\n\n{text}", tuple(choices)))
    return items


def _code(name: str) -> str:
    code = language(name).iso
    if code not in LANGS:
        raise SteerlabError(
            f"the package has no tasks in {language(code).name}; it has {' '.join(LANGS)}"
        )
    return code


@lru_cache(maxsize=len(LANGS))
def _words(code: str) -> Mapping[str, Any]:
    return dict(json.loads((DATA / "abilities" / f"{code}.json").read_text("utf-8")))


Question = tuple[str, list[str]]  # the text before the answer, and the choices, the right one first


def _arithmetic(asked: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Question]:
    def sum_of(a: int, b: int) -> str:
        return f"{asked['numbers'][a - 1]} + {asked['numbers'][b - 1]} ="

    solved = [f"{sum_of(a, b)} {told['numbers'][a + b - 1]}" for a, b in _SOLVED_SUMS]
    for a, b in _SUMS:
        total = a + b
        near = [total + step for step in (1, -1, 2, -2, -3) if 1 <= total + step <= 10][:3]
        choices = [told["numbers"][number - 1] for number in (total, *near)]
        yield "\n".join([*solved, sum_of(a, b)]), choices


def _analogy(asked: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Question]:
    for kind in ("capitals", "opposites"):
        firsts = [pair[0] for pair in asked[kind]]
        seconds = [pair[1] for pair in told[kind]]
        count = len(firsts)
        for index in range(count):
            shown = [(index + step) % count for step in (1, 2)]
            lines = [f"{firsts[i]} – {seconds[i]}" for i in shown]
            others = [i for i in range(count) if i not in (index, *shown)]
            yield (
                "\n".join([*lines, f"{firsts[index]} –"]),
                [seconds[index], *(seconds[i] for i in others)],
            )


def _list(asked: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Question]:
    kinds = list(asked["categories"])
    for index, kind in enumerate(kinds):
        shown, *others = [kinds[(index + step) % len(kinds)] for step in (1, 2, 3)]
        words = asked["categories"][shown]
        solved = ", ".join([*words[:4], told["categories"][shown][4]])
        for turn in range(3):
            order = [(place + turn) % 5 for place in range(5)]
            begun = ", ".join(asked["categories"][kind][i] for i in order[:4])
            wrong = [told["categories"][other][(turn + i) % 5] for other in others for i in (0, 2)]
            yield f"{solved}\n{begun},", [told["categories"][kind][order[4]], *wrong]


def _reading(asked: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Question]:
    names = asked["reading"]["names"]
    things = asked["reading"]["things"]
    before = told["reading"]["sentence"].partition("{thing}")[0].rstrip()
    for turn in range(4):
        owned = [(place + turn) % 4 for place in range(3)]
        lines = [
            asked["reading"]["sentence"].format(name=name, thing=things[thing])
            for name, thing in zip(names, owned, strict=True)
        ]
        for place, name in enumerate(names):
            right = owned[place]
            wrong = [i for i in range(4) if i != right]
            question = before.format(name=name)
            yield (
                "\n".join([*lines, question]),
                [told["reading"]["things"][i] for i in (right, *wrong)],
            )


def _agreement(asked: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Question]:
    del told  # its answers are of the question's language
    pairs = asked["agreement"]
    for index, (begun, right, wrong) in enumerate(pairs):
        shown = [pairs[(index + step) % len(pairs)] for step in (1, 2)]
        solved = [f"{start} {form}" for start, form, _ in shown]
        yield "\n".join([*solved, begun]), [right, wrong]


_QUESTIONS = {
    "arithmetic": _arithmetic,
    "analogy": _analogy,
    "list": _list,
    "reading": _reading,
    "agreement": _agreement,
}
