"""What is kept beside sums: a bounded sample of tokens, and the differences of sentences and their
translations."""

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError


def derangement(count: int, seed: int) -> Tensor:
    """A seeded permutation [count] that leaves nothing in its place; of one thing, the identity."""
    generator = torch.Generator().manual_seed(seed)
    # About 1 in e of all permutations is a derangement, so a few tries do, and each derangement
    # is equally likely.
    while count > 1:
        order = torch.randperm(count, generator=generator)
        if not (order == torch.arange(count)).any():
            return order
    return torch.arange(count)


class Reservoir:
    """A uniform sample of at most `size` token vectors per language, of a stream of any length.

    `vectors` [lang size layer width], of which the first `filled(lang)` are set; `seen[lang]`
    counts all tokens of the stream. Source: reservoir sampling, algorithm R (Vitter 1985).

    Args:
        langs: how many languages.
        layers: how many layers.
        width: of the activations.
        size: how many tokens are kept of each language.
        seed: decides which.
    """

    def __init__(self, langs: int, layers: int, width: int, *, size: int, seed: int = 0):
        self.size = size
        self.seen = [0] * langs
        self.vectors = torch.zeros(langs, size, layers, width)
        self._random = torch.Generator().manual_seed(seed)

    def filled(self, lang: int) -> int:
        """How many token vectors of a language are kept."""
        return min(self.seen[lang], self.size)

    def of(self, lang: int) -> Float[Tensor, "token layer width"]:
        """The sampled token vectors of a language."""
        return self.vectors[lang, : self.filled(lang)]

    def state(self) -> dict[str, Tensor]:
        """Everything in it, for a file."""
        seen = torch.tensor(self.seen, dtype=torch.int64)
        return {"vectors": self.vectors, "seen": seen, "random": self._random.get_state()}

    def restore(self, vectors: Tensor, seen: Tensor, random: Tensor) -> None:
        """Take over what `state` gave; a stream goes on as if it had not been interrupted."""
        self.vectors = vectors
        self.seen = seen.tolist()
        self._random.set_state(random)

    def update(self, lang: int, tokens: Float[Tensor, "token layer width"]) -> None:
        """Offer more tokens of a language's stream to its sample."""
        # The first tokens of a stream are all kept.
        start = self.filled(lang)
        free = min(self.size - start, len(tokens))
        self.vectors[lang, start : start + free] = tokens[:free]
        self.seen[lang] += free
        rest = tokens[free:]
        if not len(rest):
            return
        # The n-th token of a stream draws a slot among n, and stays if that is one of ours. All
        # draws are made at once; float64, since float32 has too few values for long streams.
        order = torch.arange(self.seen[lang] + 1, self.seen[lang] + len(rest) + 1)
        draws = torch.rand(len(rest), generator=self._random, dtype=torch.float64)
        slots = (draws * order).long()
        # In the order of the stream: a later token replaces an earlier one in the same slot.
        for index in (slots < self.size).nonzero()[:, 0].tolist():
            self.vectors[lang, slots[index]] = rest[index]
        self.seen[lang] += len(rest)

    def merge(self, other: "Reservoir") -> None:
        """Take over, in place, another shard's sample, each side in proportion to what it saw.

        Raises `SteerlabError` where the two keep different numbers of tokens.
        """
        if self.size != other.size:
            raise SteerlabError(
                f"samples of {self.size} and {other.size} tokens cannot be merged; collect with "
                "one size"
            )
        for lang in range(len(self.seen)):
            mine = self.of(lang).clone()  # a copy, since the sample is overwritten below
            theirs = other.of(lang)
            total = self.seen[lang] + other.seen[lang]
            # Together they fit: nothing has to be drawn.
            if total <= self.size:
                self.update(lang, theirs)
                continue
            # Our part of the merged sample is rounded up or down by chance, so that it is right on
            # average; and neither side can give more than it has.
            share = self.seen[lang] / total
            chance = torch.rand((), generator=self._random, dtype=torch.float64)
            drawn = int(self.size * share + chance)
            take = min(len(mine), max(self.size - len(theirs), drawn))
            kept = torch.cat([self._pick(mine, take), self._pick(theirs, self.size - take)])
            self.vectors[lang, : len(kept)] = kept
            self.seen[lang] = total

    def _pick(self, vectors: Tensor, count: int) -> Tensor:
        """A random subset of token vectors."""
        order = torch.randperm(len(vectors), generator=self._random)
        return vectors[order[:count]]


class Paired:
    """Sums over differences between sentences and their translations, from one source language.

    They are what an uncentred SVD of the differences needs. With d [pair width] the differences of
    the sentences' mean activations, target less source, for each language and layer: `count` [lang]
    of pairs, `total` [lang layer width], the sum of d, `square` [lang layer width width], d.T @ d,
    and `sample`, a `Reservoir` of the differences themselves, from which a bootstrap draws.

    Raises `SteerlabError` if the source is none of the languages.

    Args:
        source: the language that all differences set out from; its own entries stay zero.
        langs: all languages, the source among them.
        layers: how many layers.
        width: of the activations.
        sample: how many differences are kept of each language.
    """

    def __init__(
        self, source: str, langs: Sequence[str], layers: int, width: int, *, sample: int = 0
    ):
        if source not in langs:
            raise SteerlabError(
                f"the pairs' source {source!r} is none of {' '.join(langs)}; take it from these"
            )
        self.source = source
        self.langs = tuple(langs)
        self.sample = Reservoir(len(langs), layers, width, size=sample)
        self.count = torch.zeros(len(langs), dtype=torch.float64)
        self.total = torch.zeros(len(langs), layers, width, dtype=torch.float64)
        # float32: this is by far the largest tensor here.
        self.square = torch.zeros(len(langs), layers, width, width)

    def update(self, means: Mapping[str, Float[Tensor, "row layer width"]]) -> None:
        """Add a block of sentences, the same ones in every language.

        `means` has each language's mean activations by sentence. Raises `SteerlabError` where the
        languages have different numbers of sentences.
        """
        numbers = {lang: len(means.get(lang, ())) for lang in self.langs}
        if len(set(numbers.values())) > 1:
            listed = ", ".join(f"{lang} {number}" for lang, number in numbers.items())
            raise SteerlabError(
                f"the pairs are unequal: {listed} sentences; give the same sentences in every "
                "language"
            )
        for index, lang in enumerate(self.langs):
            if lang == self.source:
                continue
            difference = (means[lang] - means[self.source]).float()
            self.count[index] += len(difference)
            self.total[index] += difference.sum(0)
            by_layer = rearrange(difference, "pair layer width -> layer pair width")
            self.square[index] += by_layer.mT @ by_layer
            self.sample.update(index, difference)

    def merge(self, other: "Paired") -> None:
        """Add, in place, what another shard saw of the same languages and source."""
        if (self.source, self.langs) != (other.source, other.langs):
            raise SteerlabError(
                "paired statistics of different sources or languages cannot be merged: from "
                f"{self.source} to {' '.join(self.langs)}, and from {other.source} to "
                f"{' '.join(other.langs)}; collect both alike"
            )
        self.count += other.count
        self.total += other.total
        self.square += other.square
        self.sample.merge(other.sample)
