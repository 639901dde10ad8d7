"""The page's sentences: what was asked of the model, the answer by the criterion, the families."""

from collections.abc import Mapping
from html import escape
from typing import Any

from steerlab.figures.style import readable
from steerlab.studies.main.page.values import (
    controls,
    joint,
    methods,
    named,
    number,
    protagonist,
    setting,
    share,
    triple,
)

JOINT_FLOOR, LFS_FLOOR = 0.05, 0.5  # what the paired differences must exceed; set before any run


def byline(summary: Mapping[str, Any]) -> str:
    """Corpus, sentences, languages and prompt form, in one line."""
    targets = ", ".join(named(iso) for iso in summary["targets"])
    return (
        f"Corpus {escape(str(summary.get('corpus', '?')))} · "
        f"{escape(str(summary.get('n_sentences', '?')))} test "
        f"sentences, from {named(summary['source'])} to {len(summary['targets'])} languages "
        f"({targets}) · "
        f"prompt form “{escape(str(summary.get('prompt', '?')))}”"
    )


def answer(summary: Mapping[str, Any]) -> str:
    """The plain answer: a verdict, then the numbers it rests on."""
    name, results = protagonist(summary), summary["results"]
    if name is None:
        return "<p>This run holds no result of any method, so there is nothing to answer.</p>"
    result = results[name]
    said = [
        f"<span class='verdict'>{verdict(summary)}</span>",
        f"Steered by {escape(readable(name))} ({setting(result)}), {escape(str(summary['model']))} "
        "writes in the asked "
        f"language in {share(result.get('lfs'))} of its outputs; in {share(result.get('joint'))} "
        "it does so "
        "<em>and</em> says what it was given to say (the right reference by chance: "
        f"{share(summary.get('chance'))}).",
    ]
    nulls = [
        control
        for control in controls(summary)
        if control != "prompt" and joint(summary, control) >= 0
    ]
    if nulls:
        strongest = max(nulls, key=lambda control: joint(summary, control))
        reached = share(results[strongest]["joint"])
        said.append(
            f"The strongest control ({escape(readable(strongest).lower())}) reaches {reached}."
        )
    if joint(summary, "prompt") >= 0:
        reached, spoken = share(results["prompt"]["joint"]), share(results["prompt"].get("lfs"))
        said.append(
            f"Asked for the language in the prompt instead, it reaches {reached} ({spoken} in the "
            "language)."
        )
    best = max(methods(summary), key=lambda method: joint(summary, method))
    if best != name:
        said.append(
            f"The best method here is {escape(readable(best))} with "
            f"{share(results[best]['joint'])}."
        )
    return (
        f"<p>{' '.join(said)}</p><p class='note'>Brackets: 95&nbsp;% intervals by resampling "
        "sentences. “Yes” means, "
        "by a criterion set before the run: over every control but the prompt, the paired "
        "difference has its lower "
        f"bound above {JOINT_FLOOR:g} in joint and above {LFS_FLOOR:g} in LFS.</p>"
    )


def verdict(summary: Mapping[str, Any]) -> str:
    """Holds, fails or cannot be told, by the paired differences from every control but the
    prompt."""
    given = [
        item for control, item in (summary.get("differences") or {}).items() if control != "prompt"
    ]
    language = holds([item.get("lfs") for item in given], LFS_FLOOR)
    meaning = holds([item.get("joint") for item in given], JOINT_FLOOR)
    if language and meaning:
        return "Yes."
    if language:
        return f"The language, yes; the meaning, {'no' if meaning is False else 'not shown'}."
    return "No." if language is False else "This run cannot tell."


def holds(values: list[Any], floor: float) -> bool | None:
    """True where every lower bound is above the floor, False where an upper bound is below it,
    else None."""
    bounds = [known for value in values if (known := triple(value))]
    if bounds and all(low > floor for _, low, _ in bounds):
        return True
    return False if any(high < floor for *_, high in bounds) else None


def families(summary: Mapping[str, Any]) -> str:
    """Whether a language's nearest neighbour is of its own family, beside what shared tokens
    would give."""
    found = summary.get("families") or {}
    if triple(found.get("nearest_neighbour")) is None:
        return ""
    beside = {
        "unigram_nearest_neighbour": "token unigrams alone",
        "embedding_nearest_neighbour": "the embedding layer",
        "latin_nearest_neighbour": "within Latin script",
    }
    others = []
    for key, label in beside.items():
        if triple(found.get(key)):
            p = found.get(key.replace("nearest_neighbour", "p"))
            others.append(
                f"{label} {share(found[key])}"
                + (f" (p&nbsp;=&nbsp;{number(p)})" if triple(p) else "")
            )
    return (
        f"<h3>Families</h3><p>At layer {escape(str(found.get('layer', '?')))}, "
        f"{share(found['nearest_neighbour'])} of "
        "the languages have their nearest neighbour in their own family "
        f"(p&nbsp;=&nbsp;{number(found.get('p'))}, permuting the family labels, maximum over "
        "layers)"
        + (f". For comparison: {', '.join(others)}" if others else "")
        + f". The tree's cophenetic correlation is {number(found.get('cophenetic'))}.</p>"
    )
