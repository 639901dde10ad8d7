"""What polyglot reads: clean lines, held-out lines, a tokenizer, and an endless stream of packed
documents.

`python experiments/polyglot/data.py TEXT OUT` reads TEXT/mono/<iso>.txt and TEXT/pairs/en-<iso>.tsv
and writes OUT/tokenizer/, OUT/lines.json (what `Documents` draws from), OUT/held_out.json and
OUT/counts.json.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

sys.path.append(str(Path(__file__).resolve().parents[1]))  # experiments

from saes.lines import is_held_out, normalised, read_lines

NAMES = {
    "en": "English", "de": "German", "nl": "Dutch", "sv": "Swedish", "es": "Spanish", "fr": "French",
    "it": "Italian", "pt": "Portuguese", "ru": "Russian", "uk": "Ukrainian", "bg": "Bulgarian", "pl": "Polish",
    "hu": "Hungarian", "tr": "Turkish", "hi": "Hindi", "ja": "Japanese",
}  # fmt: skip
VOCABULARY = 12_288
MAX_CHARACTERS = 110  # of a monolingual line
MAX_PAIR_CHARACTERS = 72  # of one side of a pair
GIVEN_WEIGHT = 0.3  # of the loss on the line that a translation is made from
# A word keeps its combining marks (Hindi vowel signs are marks, not letters); a line break is a
# token of its own.
WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\n|\s+"
PACKAGE_PARALLEL = Path(__file__).parents[2] / "steerlab" / "data" / "parallel"


def forbidden_lines(text: Path) -> set[str]:
    """Every line of the embedded corpus and of the parallel test sets, normalised."""
    files = [*PACKAGE_PARALLEL.glob("??.txt"), *(text / "parallel").glob("*/??.txt")]
    return {normalised(line) for file in files for line in read_lines(file)}


def read_corpus(text: Path) -> tuple[dict, dict, dict]:
    """(training, held out, counts): `mono` lines per language, and `groups` joined through their
    English line."""
    forbidden = forbidden_lines(text)
    dropped: Counter[str] = Counter()
    train: dict = {"mono": {}, "groups": []}
    held: dict = {"mono": {}, "pairs": {}}
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    held_sides: dict[str, set[str]] = defaultdict(set)
    for iso in NAMES:
        if iso == "en":
            continue
        held["pairs"][iso] = []
        for row in read_lines(text / "pairs" / f"en-{iso}.tsv"):
            english, other = (side.strip() for side in row.split("\t"))
            if max(len(english), len(other)) > MAX_PAIR_CHARACTERS:
                dropped["pair_long"] += 1
            elif normalised(english) in forbidden or normalised(other) in forbidden:
                dropped["pair_in_test_sets"] += 1
            elif is_held_out(english):
                held["pairs"][iso].append((english, other))
                held_sides[iso].add(normalised(other))
            else:
                group = groups[normalised(english)]
                for code, side in (("en", english), (iso, other)):
                    if side not in group[code]:
                        group[code].append(side)
    train["groups"] = [dict(group) for group in groups.values()]
    for iso in NAMES:
        train["mono"][iso], held["mono"][iso] = [], []
        for line in read_lines(text / "mono" / f"{iso}.txt"):
            if normalised(line) in forbidden:
                dropped["mono_in_test_sets"] += 1
            elif normalised(line) in held_sides[iso] or len(line) > MAX_CHARACTERS:
                dropped["mono_long_or_held_out_pair"] += 1
            else:
                (held if is_held_out(line) else train)["mono"][iso].append(line)
    counts = {
        "dropped": dict(dropped),
        "mono_lines": {iso: len(lines) for iso, lines in train["mono"].items()},
        "groups": len(train["groups"]),
        "pairs": dict(Counter(iso for group in train["groups"] for iso in group if iso != "en")),
        "held_out_mono": {iso: len(lines) for iso, lines in held["mono"].items()},
        "held_out_pairs": {iso: len(pairs) for iso, pairs in held["pairs"].items()},
    }
    return train, held, counts


def train_tokenizer(train: dict, characters_each: int = 1_200_000) -> Tokenizer:
    """Byte-level BPE over equal numbers of characters of each language (twice as many of
    English)."""
    sample, rng = [], np.random.default_rng(0)
    for iso, lines in train["mono"].items():
        budget = characters_each * (2 if iso == "en" else 1)
        for index in rng.permutation(len(lines)):
            sample.append(lines[index])
            budget -= len(lines[index])
            if budget < 0:
                break
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


class Documents:
    """An endless, seeded stream of token documents, each one line or more, each starting with BOS.

    `mixture` gives the shares of documents: monolingual runs, bare translation groups, instructed
    pairs.
    """

    def __init__(
        self,
        train: dict,
        tokenizer: Tokenizer,
        *,
        mixture: tuple[float, float, float],
        seed: int = 0,
    ):
        self.rng, self.mixture = np.random.default_rng(seed), np.array(mixture)
        self.bos = tokenizer.token_to_id("<s>")
        encode = lambda lines: [  # noqa: E731
            np.array(e.ids, dtype=np.int16)
            for e in tokenizer.encode_batch_fast(lines, add_special_tokens=False)
        ]
        self.mono = {
            iso: encode([line + "\n" for line in lines]) for iso, lines in train["mono"].items()
        }
        self.label = dict(zip(NAMES, encode([f"{name}:" for name in NAMES.values()]), strict=True))
        flat = [
            (g, iso, line)
            for g, group in enumerate(train["groups"])
            for iso in group
            for line in group[iso]
        ]
        bare, instructed = encode([f[2] + "\n" for f in flat]), encode([f" {f[2]}\n" for f in flat])
        self.groups: list[dict[str, list]] = [defaultdict(list) for _ in train["groups"]]
        for (g, iso, _), b, i in zip(flat, bare, instructed, strict=True):
            self.groups[g][iso].append((b, i))
        self.having = {
            iso: np.array([g for g, group in enumerate(self.groups) if iso in group])
            for iso in NAMES
            if iso != "en"
        }
        self.isos = list(NAMES)
        size = np.array([sum(map(len, self.mono[iso])) for iso in self.isos], dtype=float) ** 0.5
        size[0] *= 1.5
        self.p_mono = size / size.sum()
        pairs = np.array([len(self.having[iso]) for iso in self.isos[1:]], dtype=float) ** 0.5
        self.p_pair = pairs / pairs.sum()
        self.read: Counter[str] = Counter()

    def monolingual(self) -> list[np.ndarray]:
        iso = self.isos[self.rng.choice(len(self.isos), p=self.p_mono)]
        lines = self.mono[iso]
        parts = [lines[i] for i in self.rng.integers(len(lines), size=self.rng.integers(3, 9))]
        self.read[f"mono {iso}"] += sum(map(len, parts))
        return parts

    def _members(self) -> tuple[dict, list[str]]:
        """A group and the order of its languages: a language drawn by share, English beside it,
        more if there are."""
        iso = self.isos[1:][self.rng.choice(len(self.p_pair), p=self.p_pair)]
        group = self.groups[self.rng.choice(self.having[iso])]
        others = [code for code in group if code not in ("en", iso)]
        self.rng.shuffle(others)
        first_english = self.rng.random() < 0.75
        order = ["en", iso] if first_english else [iso, "en"]
        draw = self.rng.random()
        if others and draw < 0.1:
            order = [iso, others[0]]
        elif others and draw < 0.5:
            order += others[: self.rng.integers(1, 3)]
        return group, order

    def _tally(self, kind: str, order: list[str], lengths: list[int]) -> None:
        for iso, length in zip(order, lengths, strict=True):
            self.read[f"{kind} {iso}"] += length

    def translations(self) -> list[np.ndarray]:
        group, order = self._members()
        parts = [group[iso][self.rng.integers(len(group[iso]))][0] for iso in order]
        self._tally("bare", order, [len(p) for p in parts])
        return parts

    def instructed(self) -> list[np.ndarray]:
        group, order = self._members()
        parts = [
            np.concatenate([self.label[iso], group[iso][self.rng.integers(len(group[iso]))][1]])
            for iso in order
        ]
        self._tally("instructed", order, [len(p) for p in parts])
        return parts

    def document(self, longest: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, weights of their loss) [pos]: BOS and whole lines up to `longest` tokens."""
        kinds = (self.monolingual, self.translations, self.instructed)
        while True:
            kind = self.rng.choice(3, p=self.mixture)
            tokens, weights = [np.array([self.bos], np.int16)], [np.zeros(1, np.float32)]
            for part in kinds[kind]():
                if sum(map(len, tokens)) + len(part) > longest:
                    break
                given = kind > 0 and len(tokens) == 1
                tokens.append(part)
                weights.append(np.full(len(part), GIVEN_WEIGHT if given else 1.0, np.float32))
            if len(tokens) > 1:
                return np.concatenate(tokens), np.concatenate(weights)

    def batch(self, rows: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(tokens, weights, document number) [row pos]: documents packed into rows; number 0
        marks padding."""
        tokens, numbers = np.zeros((rows, length), np.int64), np.zeros((rows, length), np.int64)
        weights = np.zeros((rows, length), np.float32)
        used, count, misses = np.zeros(rows, int), np.zeros(rows, int), 0
        while misses < 12:
            document, weight = self.document(length)
            fits = np.flatnonzero(used + len(document) <= length)
            if not len(fits):
                misses += 1
                continue
            row = fits[np.argmax(used[fits])]
            span = slice(used[row], used[row] + len(document))
            count[row] += 1
            tokens[row, span], weights[row, span], numbers[row, span] = document, weight, count[row]
            used[row] += len(document)
        return tokens, weights, numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, help="a folder with mono/, pairs/ and parallel/")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    (options.out / "tokenizer").mkdir(parents=True, exist_ok=True)
    train, held, counts = read_corpus(options.text)
    tokenizer = train_tokenizer(train)
    tokenizer.save(str(options.out / "tokenizer" / "tokenizer.json"))
    for name, value in (("lines", train), ("held_out", held), ("counts", counts)):
        (options.out / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False), "utf-8")
    print(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
