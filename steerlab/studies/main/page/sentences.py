"""What the page's sentences say: what was asked of the model, the answer by the criterion, the
families."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlab.figures.style import YARDSTICKS, readable
from steerlab.studies.html import environment
from steerlab.studies.html.formats import Interval, interval
from steerlab.studies.main.page.values import controls, joint, methods, protagonist, setting
from steerlab.studies.main.page.verdicts import MORE, relation

JOINT_FLOOR, LFS_FLOOR = 0.05, 0.5  # what the paired differences must exceed; set before any run

ALPHA = 0.05  # of the tests, where a summary names none

# What the families of the directions are compared with, and the words for it.
_BESIDE = {"unigram": "token unigrams alone", "embedding": "the embedding layer"}


@dataclass(frozen=True)
class Byline:
    """What was read: corpus, number of sentences, languages, prompt form."""

    corpus: str
    sentences: str
    source: str
    targets: list[str]
    prompt: str
    reason: str


@dataclass(frozen=True)
class Reached:
    """How far a method or control came: its joint score, and the share in the language."""

    name: str
    joint: Interval | None
    lfs: Interval | None


@dataclass(frozen=True)
class Highest(Reached):
    """The method with the highest score, and what a test says of it beside the main one; `relation`
    is empty where nothing was tested."""

    relation: str
    p: float | None


@dataclass(frozen=True)
class Answer:
    """The verdict and the numbers that it rests on; `control`, `prompt`, `fewshot` and `best` only
    where there is something to say."""

    verdict: str
    model: str
    setting: str
    method: Reached
    chance: Interval | None
    control: Reached | None
    prompt: Reached | None
    fewshot: Reached | None
    best: Highest | None
    faithful: Interval | None
    alpha: float
    joint_floor: float = JOINT_FLOOR
    lfs_floor: float = LFS_FLOOR


@dataclass(frozen=True)
class Neighbours:
    """The share of languages whose nearest neighbour is of their own family, by other vectors, and
    what a test says of the directions beside them; `relation` is empty where none was made."""

    label: str
    share: Interval
    relation: str
    gained: int | None
    lost: int | None
    p: float | None


@dataclass(frozen=True)
class Families:
    """Families at one layer, what other vectors of the languages give (`beside`), and whether the
    directions give more than every one of them; None where that was not tested."""

    layer: str
    own: Interval
    languages: str
    p: float | None
    beside: list[Neighbours]
    more: bool | None
    latin: Interval | None
    latin_p: float | None
    cophenetic: float | None
    null: tuple[float, float] | None


def byline(summary: Mapping[str, Any]) -> Byline:
    """Corpus, sentences, languages and prompt form, for one line."""
    return Byline(
        corpus=str(summary.get("corpus", "?")),
        sentences=str(summary.get("n_sentences", "?")),
        source=str(summary["source"]),
        targets=[str(lang) for lang in summary["targets"]],
        prompt=str(summary.get("prompt", "?")),
        reason=_reason(summary.get("prompt_form") or {}),
    )


def _reason(form: Mapping[str, Any]) -> str:
    """Why the prompt has its form; empty where it was asked for."""
    if "copied" not in form:
        return ""
    return (
        f"chosen by what the model does unsteered: with {form['tried']} it says "
        f"{form['copied']} of {form['of']} dev lines again word for word, "
        f"{'more' if form['above'] else 'not more'} than {form['level']:g} of them"
    )


def answer(summary: Mapping[str, Any]) -> Answer | None:
    """The plain answer; nothing where no method has a result."""
    name = protagonist(summary)
    results = summary["results"]
    if name is None:
        return None
    # The prompt is a yardstick, no null, and is named by itself.
    nulls = [
        control
        for control in controls(summary)
        if control not in YARDSTICKS and joint(summary, control) >= 0
    ]
    strongest = max(nulls, key=lambda control: joint(summary, control), default=None)
    best = max(methods(summary), key=lambda method: joint(summary, method))
    return Answer(
        verdict=verdict(summary),
        model=str(summary["model"]),
        setting=setting(results[name]),
        method=_reached(name, results[name]),
        chance=interval(summary.get("chance")),
        control=_reached(strongest, results[strongest]) if strongest else None,
        prompt=_reached("prompt", results["prompt"]) if joint(summary, "prompt") >= 0 else None,
        fewshot=_reached("fewshot", results["fewshot"]) if joint(summary, "fewshot") >= 0 else None,
        best=_highest(summary, best, name) if best != name else None,
        faithful=interval(results[name].get("faithful")),
        alpha=_alpha(summary),
    )


def _reached(name: str, result: Mapping[str, Any]) -> Reached:
    return Reached(readable(name), interval(result.get("joint")), interval(result.get("lfs")))


def _highest(summary: Mapping[str, Any], best: str, main: str) -> Highest:
    reached = _reached(best, summary["results"][best])
    test = _tested(summary, best, main)
    if test is None:
        return Highest(reached.name, reached.joint, reached.lfs, "", None)
    words = relation(test["difference"], test["p_holm"], alpha=_alpha(summary))
    return Highest(reached.name, reached.joint, reached.lfs, words, test["p_holm"])


def _tested(summary: Mapping[str, Any], a: str, b: str) -> Mapping[str, Any] | None:
    """The test of one method less another or less a control; None where there is none."""
    pairs = (summary.get("tests") or {}).get("pairs") or {}
    return (pairs.get(a) or {}).get(b)


def _alpha(summary: Mapping[str, Any]) -> float:
    return float((summary.get("tests") or {}).get("alpha", ALPHA))


def verdict(summary: Mapping[str, Any]) -> str:
    """Holds, fails or cannot be decided, by the paired differences from every control but the
    prompts that ask for the language: their intervals against the floors and, for `joint`, the
    adjusted p of their tests."""
    differences = summary.get("differences") or {}
    nulls = {control: item for control, item in differences.items() if control not in YARDSTICKS}
    language = holds([item.get("lfs") for item in nulls.values()], LFS_FLOOR)
    meaning = holds([item.get("joint") for item in nulls.values()], JOINT_FLOOR)
    if meaning and not _all_pass(summary, nulls):
        meaning = None
    if language and meaning:
        return "Yes."
    if language:
        said = "not" if meaning is False else "not shown to be"
        return f"The language, yes; its own sentence is {said} recognised."
    return "No." if language is False else "This run cannot tell."


def _all_pass(summary: Mapping[str, Any], nulls: Mapping[str, Any]) -> bool:
    """Whether the main method has more `joint` than each control by its test too, where there is
    one: an interval far from 0 says little where so few sentences can pass no test."""
    main = protagonist(summary)
    for control, item in nulls.items():
        test = _tested(summary, main or "", control)
        found = interval(item.get("joint"))
        if test and (
            relation(test["difference"], test["p_holm"], alpha=_alpha(summary), interval=found)
            != MORE
        ):
            return False
    return True


def holds(values: list[Any], floor: float) -> bool | None:
    """True where every lower bound is above the floor, False where an upper bound is below it,
    else None."""
    bounds = [read for value in values if (read := interval(value))]
    if bounds and all(read.low > floor for read in bounds):
        return True
    return False if any(read.high < floor for read in bounds) else None


def families(summary: Mapping[str, Any]) -> Families | None:
    """Whether a language's nearest neighbour is of its own family, beside what shared tokens
    would give, and the tree's fit beside that of vectors without structure."""
    result = summary.get("families") or {}
    own = interval(result.get("nearest_neighbour"))
    if own is None:
        return None
    tests = result.get("beyond") or {}
    beside = [
        _beside(label, share, tests.get(key) or {}, _alpha(summary))
        for key, label in _BESIDE.items()
        if (share := interval(result.get(f"{key}_nearest_neighbour")))
    ]
    null = result.get("cophenetic_null")
    return Families(
        layer=str(result.get("layer", "?")),
        own=own,
        languages=str(result.get("n", "?")),
        p=_number(result.get("p")),
        beside=beside,
        more=all(item.relation == MORE for item in beside) if tests else None,
        latin=interval(result.get("latin_nearest_neighbour")),
        latin_p=_number(result.get("latin_p")),
        cophenetic=_number(result.get("cophenetic")),
        null=(float(null[0]), float(null[1])) if null else None,
    )


def families_note(summary: Mapping[str, Any]) -> str:
    """The paragraph about families as the page has it, in HTML; empty where there is none."""
    template = environment("steerlab.studies.main.page").get_template("kinship.html.jinja")
    return template.render(families=families(summary)) if families(summary) else ""


def _beside(label: str, share: Interval, test: Mapping[str, Any], alpha: float) -> Neighbours:
    words = relation(test["difference"], test["p_holm"], alpha=alpha) if test else ""
    return Neighbours(
        label=label,
        share=share,
        relation=words,
        gained=test.get("gained"),
        lost=test.get("lost"),
        p=_number(test.get("p_holm")),
    )


def _number(value: Any) -> float | None:
    read = interval(value)
    return read.value if read else None
