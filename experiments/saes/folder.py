"""Documents from a folder of plain text, one file of lines for each language, for any model."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from saes.lines import is_held_out, normalised, read_lines

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine.prompts import encode
from steerlab.models.model import Model

MOST = 20_000  # lines of a language
LONGEST = 200  # characters of a line
RUN = 8  # lines of a document, at most
SAID_TWICE = 0.2  # of the documents, those whose lines are each said twice, as the form `echo` has


@dataclass(frozen=True)
class Lines:
    """Lines of a folder by language.

    Args:
        training: what is trained on.
        held_out: what is measured on: lines of no near-duplicate class that is trained on.
        digest: SHA-256 of all of them.
    """

    training: Mapping[str, Sequence[str]]
    held_out: Mapping[str, Sequence[str]]
    digest: str


def read_folder(folder: Path, langs: Sequence[str], spared: Corpus) -> Lines:
    """The lines of <folder>/<language>.txt, at most `MOST` of each, drawn with a fixed seed.

    Lines that are longer than `LONGEST` characters and those of `spared`, which is measured on
    elsewhere, are left out. A language without a file raises `SteerlabError`.
    """
    missing = [lang for lang in langs if not (folder / f"{lang}.txt").is_file()]
    if missing:
        raise SteerlabError(
            f"there is no text of {' '.join(missing)} in {folder}; give a folder with one file of "
            "lines for each language, such as de.txt, or fewer languages by --langs"
        )
    forbidden = {normalised(line) for lang in spared.langs for line in spared[lang]}
    training: dict[str, list[str]] = {}
    held_out: dict[str, list[str]] = {}
    digest = hashlib.sha256()
    for lang in langs:
        lines = read_lines(folder / f"{lang}.txt")
        order = np.random.default_rng(0).permutation(len(lines))[:MOST]
        training[lang], held_out[lang] = [], []
        for line in (lines[index] for index in order):
            if len(line) <= LONGEST and normalised(line) not in forbidden:
                (held_out if is_held_out(line) else training)[lang].append(line)
                digest.update(f"{lang} {line}\n".encode())
        if not training[lang] or not held_out[lang]:
            raise SteerlabError(
                f"{folder}/{lang}.txt has too few lines of at most {LONGEST} characters; give some "
                "thousands"
            )
    return Lines(training, held_out, digest.hexdigest())


@dataclass
class Documents:
    """An endless, seeded stream of documents, each of a language that is as likely as any other.

    A document is 1 to `RUN` lines; in some every line is said twice, as in the prompt form `echo`.

    Args:
        model: whose tokenizer reads them.
        lines: by language.
        longest: tokens of a document, which is cut there.
        seed: decides all that is drawn.
    """

    model: Model
    lines: Mapping[str, Sequence[str]]
    longest: int = 128
    seed: int = 0
    read: Counter[str] = field(default_factory=Counter)  # tokens by language

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def __call__(self) -> list[int]:
        """The tokens of the next document, which begin as the model's texts do."""
        lang = list(self.lines)[self.random.integers(len(self.lines))]
        lines = self.lines[lang]
        chosen = self.random.integers(len(lines), size=self.random.integers(1, RUN + 1))
        twice = self.random.random() < SAID_TWICE
        form = "{0}\n{0}\n\n" if twice else "{0}\n"
        [ids] = encode(self.model.tokenizer, ["".join(form.format(lines[n]) for n in chosen)])
        ids = ids[: self.longest]
        self.read[lang] += len(ids)
        return ids
