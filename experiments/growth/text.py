"""What small models are grown on: the lines of polyglot's training, as token numbers in one file.

`python experiments/growth/text.py TEXT FILE` reads TEXT/mono/<iso>.txt and TEXT/pairs/en-<iso>.tsv,
without the lines that polyglot's were without, and writes FILE (.npz, some megabytes).
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from steerlab.models.loading import PACKAGED

sys.path.append(str(Path(__file__).resolve().parents[1] / "polyglot"))
from data import NAMES, read_corpus

LANGS = tuple(NAMES)  # English first
EACH = 25_000  # lines of a language alone, at most


@dataclass(frozen=True)
class Text:
    """Lines as token numbers, each with its line break.

    Args:
        tokens: of all lines, one line after another.
        ends: where each line ends, [line].
        first: the first line of each language alone, and where the last of them end, [lang + 1].
        groups: a line of each language that says the same, or -1, [group lang].
    """

    tokens: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    groups: np.ndarray

    def save(self, file: Path) -> None:
        np.savez_compressed(file, **vars(self))

    @classmethod
    def load(cls, file: Path) -> "Text":
        with np.load(file, allow_pickle=False) as held:
            return cls(**{name: held[name] for name in ("tokens", "ends", "first", "groups")})


def read(text: Path, each: int = EACH, seed: int = 0) -> Text:
    """The lines of a folder; of a language alone `each` at most, drawn at random."""
    train, _, _ = read_corpus(text)
    tokenizer: Any = Tokenizer.from_file(str(PACKAGED / "tokenizer.json"))
    random = np.random.default_rng(seed)
    lines: list[str] = []
    first = [0]
    for iso in LANGS:
        of_lang = train["mono"][iso]
        drawn = random.permutation(len(of_lang))[:each]
        lines += [of_lang[i] for i in sorted(drawn)]
        first.append(len(lines))
    groups = np.full((len(train["groups"]), len(LANGS)), -1, np.int32)
    for number, group in enumerate(train["groups"]):
        for iso, said in group.items():
            groups[number, LANGS.index(iso)] = len(lines)
            lines.append(said[0])
    made = tokenizer.encode_batch_fast([f"{line}\n" for line in lines], add_special_tokens=False)
    ids = [np.array(each.ids, np.uint16) for each in made]
    ends = np.cumsum([len(each) for each in ids]).astype(np.int32)
    return Text(np.concatenate(ids), ends, np.array(first, np.int32), groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="a folder with mono/, pairs/ and parallel/")
    parser.add_argument("file", type=Path)
    parser.add_argument("--each", type=int, default=EACH, help="lines of a language alone, at most")
    given = parser.parse_args()
    made = read(given.text, given.each)
    given.file.parent.mkdir(parents=True, exist_ok=True)
    made.save(given.file)
    print(f"{len(made.tokens):,} tokens, {len(made.ends):,} lines, {len(made.groups):,} groups")


if __name__ == "__main__":
    main()
