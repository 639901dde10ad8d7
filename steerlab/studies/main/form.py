"""Which form the prompts of a run have, and why: `echo` where the model copies with it.

With `echo` a model that is left alone says the sentence again. Then what a direction changes is the
language alone, and whether the output still says its own thing is a plain question. A model that
does not copy would be measured by accident, and gets the sentence alone.
"""

from dataclasses import dataclass, field
from typing import Any

from steerlab.core.corpus import Corpus
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import encode, prompt
from steerlab.engine.shots import Examples, examples, read_shots, shots, with_number
from steerlab.models.model import Model
from steerlab.scores.text import first_line
from steerlab.sweeps.settings import AUTO

LEVEL = 0.9  # the share of lines above which a model copies; set before any run
LINES = 48  # that it is measured on, of dev


@dataclass(frozen=True)
class Form:
    """The form of a run's prompts.

    Args:
        name: with the number of its examples.
        examples: the lines of each form with examples that the run has.
        measured: what the choice rests on, where the run was to choose.
    """

    name: str
    examples: tuple[Examples, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the manifest says of it."""
        lines = [each.metadata for each in self.examples]
        return {"name": self.name, **self.measured, "examples": lines}


def form_of(asked: str, model: Model, corpus: Corpus, source: str) -> Form:
    """The form that was asked for, or for `AUTO` the one that fits the model.

    Args:
        asked: the setting.
        model: the model, which is run only for `AUTO`.
        corpus: the sentences.
        source: the language of the prompts.
    """
    measured: dict[str, Any] = {}
    name = asked
    if asked == AUTO:
        measured = _copying(with_number("echo"), model, corpus, source)
        name = measured["tried"] if measured["above"] else "line"
    if read_shots(name) is None:
        return Form(name, measured=measured)
    forms = dict.fromkeys([name, with_number("fewshot")])  # that of the few-shot control too
    return Form(name, tuple(examples(corpus, form, source) for form in forms), measured)


def _copying(form: str, model: Model, corpus: Corpus, source: str) -> dict[str, Any]:
    """How many dev lines the model, unsteered, says again word for word."""
    lines = corpus.split("dev").take(LINES)[source]
    given = shots(corpus, form, source, source)
    prompts = [
        prompt(model.tokenizer, form, line, source=source, target=source, shots=given)
        for line in lines
    ]
    longest = max(len(ids) for ids in encode(model.tokenizer, lines))
    outputs = decode(model, prompts, max_new_tokens=longest, one_line=True).texts
    pairs = zip(outputs, lines, strict=True)
    copied = sum(first_line(output) == line for output, line in pairs)
    return {
        "tried": form,
        "copied": copied,
        "of": len(lines),
        "level": LEVEL,
        "above": copied > LEVEL * len(lines),
    }
