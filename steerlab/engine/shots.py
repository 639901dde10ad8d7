"""Prompt forms with examples, the shots: sentences of the corpus that stand before a sentence and
show the model what to do.

In `echo` each example is said twice, in the source language and in no other: a base model then says
the sentence again, which makes "says the same" mean something without any instruction. In `fewshot`
each example stands beside its translation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import regex  # type: ignore[import-untyped]

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import spoken

SHOT_FORMS = {"echo": 5, "fewshot": 3}  # and how many examples each has unless it says so
SPLIT = "estimate"  # that examples are of, so that no sentence that is reported on is one

# What an example must not have: a model would go on with it, or count.
_NOISY = regex.compile(r'[\p{N}\p{Pi}\p{Pf}\p{Ps}\p{Pe}":;/–—…]')

Shot = tuple[str, str]  # what is said, and what is answered


def read_shots(form: str) -> tuple[str, int] | None:
    """The form and its number of examples: "echo:5" -> ("echo", 5); None for another form.

    A number that is none raises `SteerlabError`.
    """
    base, colon, number = form.partition(":")
    if base not in SHOT_FORMS:
        return None
    if not colon:
        return base, SHOT_FORMS[base]
    if not (number.isascii() and number.isdigit() and int(number) > 0):
        raise SteerlabError(
            f"the prompt form {form!r} does not say how many examples it has; write {base}, which "
            f"has {SHOT_FORMS[base]}, or a number as in {base}:4"
        )
    return base, int(number)


def with_number(form: str) -> str:
    """A form with the number of its examples in its name: "echo" -> "echo:5"; another one as it
    is."""
    read = read_shots(form)
    return form if read is None else f"{read[0]}:{read[1]}"


def with_shots(
    form: str, text: str, shots: Sequence[Shot], *, source: str, target: str | None
) -> str:
    """The text of a prompt with examples before the sentence.

    Raises `SteerlabError` where there are not as many as the form has.

    Args:
        form: one of `SHOT_FORMS`, with or without a number.
        text: the sentence.
        shots: the examples, in order.
        source: the code of the language of the sentence.
        target: the code of the language of the answers of `fewshot`.
    """
    base, count = read_shots(form) or ("", 0)
    if len(shots) != count:
        raise SteerlabError(
            f"the prompt form {form!r} has {count} examples and got {len(shots)}; a sweep and a "
            "study take them from their corpus, prompt() takes shots=, and what collects reads "
            "plain lines"
        )
    if base == "echo":
        return "".join(f"{said}\n{again}\n\n" for said, again in shots) + f"{text}\n"
    if target is None:
        raise SteerlabError("the prompt form 'fewshot' names the target language; give target=")
    said_in, asked_in = (spoken(lang, "the form 'fewshot'").name for lang in (source, target))
    ask = f"{said_in}: {{}}\n{asked_in}:"
    return "".join(f"{ask.format(said)} {answer}\n\n" for said, answer in shots) + ask.format(text)


@dataclass(frozen=True)
class Examples:
    """The lines of a corpus that are a form's examples in one source language.

    Which lines they are follows from the corpus, the language and the number alone. Of the lines
    of `SPLIT` without digits, quotes, brackets, colons and dashes those of the second quarter by
    length are taken, and of these as many as are asked for, evenly spread over the corpus.

    Args:
        form: with its number.
        source: the language of the sentences.
        sentences: the lines' numbers in the corpus' files, from 0.
        lines: the lines in the source language.
    """

    form: str
    source: str
    sentences: tuple[int, ...]
    lines: tuple[str, ...]

    @property
    def metadata(self) -> dict[str, Any]:
        """What an artefact says of them."""
        return {
            "form": self.form,
            "source": self.source,
            "sentences": list(self.sentences),
            "lines": list(self.lines),
        }


def examples(corpus: Corpus, form: str, source: str) -> Examples:
    """The examples of a form with shots; a corpus with too few lines raises `SteerlabError`."""
    _, count = read_shots(form) or ("", 0)
    texts = corpus.split(SPLIT)
    lines = texts[source]
    plain = [index for index, line in enumerate(lines) if not _NOISY.search(line)]
    if len(plain) < count:
        raise SteerlabError(
            f"the prompt form {form!r} needs {count} plain lines of {source} in {texts.name!r}, "
            f"which has {len(plain)} without digits, quotes, colons or dashes; ask for fewer"
        )
    by_length = sorted(plain, key=lambda index: (len(lines[index]), index))
    # The shortest quarter is interjections; long ones make every prompt long.
    start = min(len(by_length) // 4, len(by_length) - count)
    band = sorted(by_length[start : start + max(count, len(by_length) // 4)])
    chosen = [band[turn * len(band) // count] for turn in range(count)]
    return Examples(
        with_number(form),
        source,
        tuple(texts.numbers[index] for index in chosen),
        tuple(lines[index] for index in chosen),
    )


def shots(corpus: Corpus, form: str, source: str, target: str) -> tuple[Shot, ...]:
    """The examples of a form as `with_shots` takes them: each beside itself, or in `fewshot`
    beside its translation into the target language."""
    found = examples(corpus, form, source)
    base, _ = read_shots(form) or ("", 0)
    if base == "echo":
        return tuple(zip(found.lines, found.lines, strict=True))
    texts = corpus.split(SPLIT)
    index_of = {number: index for index, number in enumerate(texts.numbers)}
    answers = [texts[target][index_of[number]] for number in found.sentences]
    return tuple(zip(found.lines, answers, strict=True))
