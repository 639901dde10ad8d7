"""What the page's sentences say: what was asked of the model, the answer by the criterion, the
families."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlab.figures.style import readable
from steerlab.studies.html.formats import Interval, interval
from steerlab.studies.main.page.values import controls, joint, methods, protagonist, setting

JOINT_FLOOR, LFS_FLOOR = 0.05, 0.5  # what the paired differences must exceed; set before any run

# What the families of the directions are compared with, and the words for it.
_BESIDE = {
    "unigram_nearest_neighbour": "token unigrams alone",
    "embedding_nearest_neighbour": "the embedding layer",
    "latin_nearest_neighbour": "within Latin script",
}


@dataclass(frozen=True)
class Byline:
    """What was read: corpus, number of sentences, languages, prompt form."""

    corpus: str
    sentences: str
    source: str
    targets: list[str]
    prompt: str


@dataclass(frozen=True)
class Reached:
    """How far a method or control came: its joint score, and the share in the language."""

    name: str
    joint: Interval | None
    lfs: Interval | None


@dataclass(frozen=True)
class Answer:
    """The verdict and the numbers that it rests on; `control`, `prompt` and `best` only where there
    is something to say."""

    verdict: str
    model: str
    setting: str
    method: Reached
    chance: Interval | None
    control: Reached | None
    prompt: Reached | None
    best: Reached | None
    faithful: Interval | None
    joint_floor: float = JOINT_FLOOR
    lfs_floor: float = LFS_FLOOR


@dataclass(frozen=True)
class Neighbours:
    """The share of languages whose nearest neighbour is of their own family; `p` where it was
    tested."""

    label: str
    share: Interval
    p: float | None


@dataclass(frozen=True)
class Families:
    """Families at one layer, and what other representations give (`beside`)."""

    layer: str
    own: Interval
    p: float | None
    beside: list[Neighbours]
    cophenetic: float | None


def byline(summary: Mapping[str, Any]) -> Byline:
    """Corpus, sentences, languages and prompt form, for one line."""
    return Byline(
        corpus=str(summary.get("corpus", "?")),
        sentences=str(summary.get("n_sentences", "?")),
        source=str(summary["source"]),
        targets=[str(lang) for lang in summary["targets"]],
        prompt=str(summary.get("prompt", "?")),
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
        if control != "prompt" and joint(summary, control) >= 0
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
        best=_reached(best, results[best]) if best != name else None,
        faithful=interval(results[name].get("faithful")),
    )


def _reached(name: str, result: Mapping[str, Any]) -> Reached:
    return Reached(readable(name), interval(result.get("joint")), interval(result.get("lfs")))


def verdict(summary: Mapping[str, Any]) -> str:
    """Holds, fails or cannot be decided, by the paired differences from every control but the
    prompt."""
    differences = summary.get("differences") or {}
    nulls = [item for control, item in differences.items() if control != "prompt"]
    language = holds([item.get("lfs") for item in nulls], LFS_FLOOR)
    meaning = holds([item.get("joint") for item in nulls], JOINT_FLOOR)
    if language and meaning:
        return "Yes."
    if language:
        said = "not" if meaning is False else "not shown to be"
        return f"The language, yes; its own sentence is {said} recognised."
    return "No." if language is False else "This run cannot tell."


def holds(values: list[Any], floor: float) -> bool | None:
    """True where every lower bound is above the floor, False where an upper bound is below it,
    else None."""
    bounds = [read for value in values if (read := interval(value))]
    if bounds and all(read.low > floor for read in bounds):
        return True
    return False if any(read.high < floor for read in bounds) else None


def families(summary: Mapping[str, Any]) -> Families | None:
    """Whether a language's nearest neighbour is of its own family, beside what shared tokens
    would give."""
    result = summary.get("families") or {}
    own = interval(result.get("nearest_neighbour"))
    if own is None:
        return None
    beside = []
    for key, label in _BESIDE.items():
        if read := interval(result.get(key)):
            p = interval(result.get(key.replace("nearest_neighbour", "p")))
            beside.append(Neighbours(label, read, p.value if p else None))
    p = interval(result.get("p"))
    cophenetic = interval(result.get("cophenetic"))
    return Families(
        layer=str(result.get("layer", "?")),
        own=own,
        p=p.value if p else None,
        beside=beside,
        cophenetic=cophenetic.value if cophenetic else None,
    )
