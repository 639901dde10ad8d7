"""Words that belong to other sentences: what a parallel corpus itself knows of translation."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache

from steerlab.scores.words import alike, words

RARE_SOURCE = (6, 0.025)  # lines that a source word is in, at most: a number, or a share of all
RARE = (3, 0.0125)  # the same of a word of the target
SHORTEST = 4  # letters of such a word, at least; half as many where words have no spaces


class Lexicon:
    """The lines of two languages that are translations of one another, by their words.

    A word of the target that is in few lines stands, in each, for a word of the source line beside
    it. If no such line shares a rare word with the source of an output, then the word says
    something of another sentence there: "Garten" where the source has no "garden". It is a check
    of what was said, and knows only the words of the corpus.
    """

    def __init__(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        self._counts = Counter(word for line in sources for word in set(words(line)))
        self._most_source = max(RARE_SOURCE[0], int(RARE_SOURCE[1] * len(sources)))
        self._most = max(RARE[0], int(RARE[1] * len(sources)))
        self._content = [self._rare(line) for line in sources]
        self._lines: defaultdict[str, set[int]] = defaultdict(set)
        for index, line in enumerate(targets):
            for word in words(line):
                self._lines[word].add(index)

    def strangers(self, text: str, reference: str, source: str) -> list[str]:
        """The words of a text that its reference has not in any form, and that belong to other
        sentences.

        Args:
            text: an output.
            reference: what it should say.
            source: the sentence that both are of.
        """
        wanted = words(reference)
        own = self._rare(source)
        return [
            word
            for word in words(text)
            if self._is_content(word)
            and not any(alike(word, other) for other in wanted)
            and not any(self._shares(own, line) for line in self._lines[word])
        ]

    def _is_content(self, word: str) -> bool:
        """Whether a word is one that says something, and that the corpus knows."""
        shortest = SHORTEST if word.isascii() or not _is_spaceless(word) else SHORTEST // 2
        return len(word) >= shortest and 0 < len(self._lines.get(word, ())) <= self._most

    def _rare(self, source: str) -> frozenset[str]:
        """The rare words of a source line, which are those that say something."""
        return frozenset(
            word
            for word in words(source)
            if len(word) > 2 and self._counts[word] <= self._most_source
        )

    def _shares(self, own: frozenset[str], line: int) -> bool:
        return any(alike(word, other) for word in own for other in self._content[line])


def _is_spaceless(word: str) -> bool:
    """Whether a word has letters of a script that is written without spaces."""
    return any("\u3040" <= char <= "\u9fff" for char in word)


@lru_cache(maxsize=64)
def lexicon(sources: tuple[str, ...], targets: tuple[str, ...]) -> Lexicon:
    """The lexicon of two lists of lines, kept: every cell of a sweep asks the same one."""
    return Lexicon(sources, targets)
