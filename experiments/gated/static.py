"""A selector of clusters and a static neuron, as operators of a sweep."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import regex  # type: ignore[import-untyped]

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Direction
from steerlab.edits import Edit, Operator
from steerlab.engine.static_neuron import static_neuron
from steerlab.models.model import Model

K = 3
STRENGTHS = (0.5, 0.75, 1.0, 1.5)  # of the selector, in gaps, as `add` has them
FACTORS = (2.0, 4.0, 6.0, 8.0, 10.0)  # of the neuron


def selectors(
    model: Model, estimate: Corpus, targets: Sequence[str], layers: Sequence[int]
) -> tuple[Mapping[str, Any], list[str]]:
    """(operators by name, which neuron each target has), fitted on sentences to estimate."""
    texts = sl.collect_texts(model, estimate.select(["en", *targets]), layers=list(layers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no clusters is in the table above
        found = {target: sl.estimate.clustered(texts, target, k=K) for target in targets}
    neurons, told = {}, []
    for target in targets:
        word = commonest(estimate[target], estimate["en"])
        neurons[target] = static_neuron(model, before(estimate[target], word), f" {word}")
        one = neurons[target]
        told.append(f"{target}: *{word}*, layer {one.layer}, neuron {one.neuron}")

    def pick(direction: Direction, *, strength: float) -> Edit:
        return found[direction.target].edit(direction.layers[0], strength=strength)

    def louder(direction: Direction, *, strength: float) -> Edit:
        return neurons[direction.target].edit(factor=strength)

    operators = {
        "selector of clusters": Operator(
            make=pick, knob="strength", unit="gaps", grid=STRENGTHS, no_twin="add has one"
        ),
        "static neuron": Operator(
            make=louder,
            knob="strength",
            unit="times its value",
            grid=FACTORS,
            no_twin="it is a control itself",
            whole=True,  # it acts where the neuron is
        ),
    }
    return operators, told


def commonest(lines: Sequence[str], english: Sequence[str]) -> str:
    """The word of the most lines that no English line has."""
    taken = {word for line in english for word in _words(line)}
    counts = Counter(word for line in lines for word in set(_words(line)) if word not in taken)
    return counts.most_common(1)[0][0]


def before(lines: Sequence[str], word: str) -> list[str]:
    """What stands before the word in each line that has it, but not first."""
    begun = []
    for line in lines:
        place = regex.search(rf"(?<=\S)\s+{regex.escape(word)}\b", line)
        if place:
            begun.append(line[: place.start()])
    return begun


def _words(line: str) -> list[str]:
    return [str(word) for word in regex.findall(r"\p{L}+", line.lower())]
