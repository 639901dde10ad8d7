"""Pairs of answers to learn from: the sentence in the target language, and what the model itself
says."""

from dataclasses import dataclass, replace
from typing import Any

from steerlab.core.corpus import Corpus, as_corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine.decoding import decode
from steerlab.engine.inputs import need_count
from steerlab.engine.prompts import prompt, read_form
from steerlab.engine.shots import Shot, read_shots, shots
from steerlab.models.model import Model

# Behind these a line break ends an answer; behind a chat's template the end of a turn does.
ONE_LINE = ("line", "instructed", "echo", "fewshot")


@dataclass(frozen=True)
class Preferences:
    """What `preferences` makes: sentences with an answer to prefer, and one to leave, for each.

    Args:
        texts: the sentences, in source and target language.
        source: the language of the prompts.
        target: the language of the chosen answers.
        form: how a sentence becomes a prompt.
        new: the most tokens of the model's own answers.
        shots: the examples of `form`.
        rejected: the answers to leave; None for the model's own, unsteered.
    """

    texts: Corpus
    source: str
    target: str
    form: str = "line"
    new: int = 24
    shots: tuple[Shot, ...] = ()
    rejected: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, limit: int) -> "Preferences":
        """At most `limit` of the sentences, evenly spread."""
        return self._keep(self.texts.take(limit))

    def drop(self, limit: int) -> "Preferences":
        """Those that `take(limit)` leaves out."""
        return self._keep(self.texts.drop(limit))

    def _keep(self, texts: Corpus) -> "Preferences":
        if self.rejected is None:
            return replace(self, texts=texts)
        of_number = dict(zip(self.texts.numbers, self.rejected, strict=True))
        return replace(
            self, texts=texts, rejected=tuple(of_number[number] for number in texts.numbers)
        )

    def prompts(self, model: Model) -> list[str]:
        """What the model reads for each sentence."""
        return [
            prompt(
                model.tokenizer,
                self.form,
                line,
                source=self.source,
                target=self.target,
                shots=self.shots,
            )
            for line in self.texts[self.source]
        ]

    @property
    def chosen(self) -> list[str]:
        """The sentences in the target language, as an answer behind the prompt would end."""
        base = read_form(self.form)[0]
        end = "\n" if base in ONE_LINE else ""
        return [f"{line}{end}" for line in self.texts[self.target]]

    def answers(self, model: Model) -> list[str]:
        """The answers to leave: those that were given, or the model's own."""
        if self.rejected is not None:
            return list(self.rejected)
        model.need_unedited("the model's own answer")
        return decode(model, self.prompts(model), max_new_tokens=self.new).texts

    def triples(self, model: Model) -> list[tuple[str, str, str]]:
        """(prompt, chosen, rejected) of each sentence, without those of which nothing can be
        learnt: an empty answer, or one that is the chosen one."""
        given = zip(self.prompts(model), self.chosen, self.answers(model), strict=True)
        return [each for each in given if each[2].strip() and each[1].strip() != each[2].strip()]

    @property
    def metadata(self) -> dict[str, Any]:
        """What an artefact records of them."""
        pair = self.texts.select([self.source, self.target])
        return {
            "name": self.texts.name,
            "hash": pair.hash,
            "lines": len(self),
            "form": self.form,
            "chosen": f"the sentence in {self.target}",
            "rejected": "given" if self.rejected is not None else f"the model's own, {self.new}",
        }


def preferences(
    corpus: Any,
    source: str,
    target: str,
    *,
    split: str | None = None,
    form: str = "line",
    new: int = 24,
    rejected: Any = None,
) -> Preferences:
    """Sentences with two answers each: the chosen one is the sentence in the target language, the
    rejected one what the model itself says, unsteered.

    Behind a prompt in the form `line` the chosen answer is a translation; behind `echo`, whose
    examples say each sentence twice, it is the echo in the target language. The model's own answers
    are made when something learns from the pairs. Source: BiPO (arXiv 2406.00045) and YaPO (arXiv
    2601.08441), whose rejected answers are of the model too.

    Raises `SteerlabError` for unaligned text, a language that is not there, and one twice.

    Args:
        corpus: aligned sentences, or their folder. The examples of a form are of its `estimate`
            split, as in a sweep.
        source: the language of the prompts.
        target: the language of the chosen answers.
        split: which sentences to take: "estimate", "dev" or "test"; None for all.
        form: how a sentence becomes a prompt: line, echo:5, chat, ...
        new: the most tokens of the model's own answers.
        rejected: answers to leave, one for each line, in place of the model's own.
    """
    whole = as_corpus(corpus)
    whole.need_aligned("preferences")
    pair = whole.select([source, target])
    if split is not None:
        pair = pair.split(split)
    if len(pair.langs) < 2:
        raise SteerlabError(
            f"source and target are both {source!r}; a preference needs two languages"
        )
    source, target = pair.langs
    read_form(form)  # raises for an unknown one
    need_count("new", new)
    examples: tuple[Shot, ...] = ()
    if read_shots(form) is not None:
        examples = shots(whole, form, source, target)
    if rejected is not None:
        rejected = tuple(rejected)
        if len(rejected) != len(pair):
            raise SteerlabError(
                f"there are {len(rejected)} rejected answers to {len(pair)} sentences; give each "
                "one, or leave rejected out for the model's own"
            )
    return Preferences(pair, source, target, form, new, examples, rejected)
