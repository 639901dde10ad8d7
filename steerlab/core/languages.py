"""Languages: their codes, English names, families and scripts."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from steerlab.core.errors import SteerlabError

if TYPE_CHECKING:
    import langcodes


@dataclass(frozen=True)
class Language:
    """A language: its ISO 639-1 code and family branch. The rest comes from the package langcodes.

    Args:
        iso: the code of two letters, such as "de".
        family: the branch of its family, such as "Germanic".
    """

    iso: str
    family: str

    # Cached, since a figure asks for the same few names again and again.
    @cached_property
    def iso3(self) -> str:
        """Its ISO 639-3 code, of three letters."""
        return _ISO3.get(self.iso) or _tag(self.iso).to_alpha3()

    @cached_property
    def name(self) -> str:
        """Its English name."""
        return _NAMES.get(self.iso) or _tag(self.iso).language_name()

    @cached_property
    def script(self) -> str:
        """The script that it is mostly written in (ISO 15924)."""
        return str(_tag(self.iso).maximize().script)


def _tag(iso: str) -> "langcodes.Language":
    """The language as langcodes describes it."""
    import langcodes  # here, since it takes 50 ms that most commands do not need

    # Without normalising: it would turn Tagalog into Filipino.
    return langcodes.Language.get(iso, normalize=False)


# The branches stand here because no library has them. Their order, and that of the codes in each,
# is the order of every list of languages in the package.
_BRANCHES = {
    "Germanic": "en de nl sv da no af",
    "Romance": "es fr it pt ro ca",
    "Slavic": "ru uk bg pl cs sk",
    "Uralic": "hu fi et",
    "Turkic": "tr kk",
    "Indo-Aryan": "hi ur bn",
    "Iranian": "fa",
    "Japonic": "ja",
    "Koreanic": "ko",
    "Sino-Tibetan": "zh bo",
    "Austroasiatic": "vi",
    "Austronesian": "id tl",
    "Semitic": "ar he mt",
    "Hellenic": "el",
    "Niger-Congo": "sw",
    "Kartvelian": "ka",
    "Kra-Dai": "th",
}

# Where this package differs from langcodes on purpose. langcodes gives the macrolanguages nor and
# swa, but the packaged sentences, and the labels of language identifiers, are Bokmål and Coastal
# Swahili.
_ISO3 = {"no": "nob", "sw": "swh"}

# CLDR, from which langcodes has its names, says Bangla; the benchmarks' prompts say Bengali.
_NAMES = {"bn": "Bengali"}


def _languages() -> dict[str, Language]:
    """All languages by code, in the order of `_BRANCHES`."""
    table = {}
    for branch, codes in _BRANCHES.items():
        for code in codes.split():
            table[code] = Language(code, branch)
    return table


LANGUAGES: dict[str, Language] = _languages()


def language(iso: str) -> Language:
    """The language with this ISO 639-1 code.

    Raises `SteerlabError` for an unknown code, and lists the known ones.
    """
    if iso not in LANGUAGES:
        raise SteerlabError(f"unknown language code {iso!r}; known codes: {' '.join(LANGUAGES)}")
    return LANGUAGES[iso]


def families(isos: Iterable[str]) -> list[str]:
    """The family branch of each language, in order; an unknown code raises `SteerlabError`."""
    return [language(lang).family for lang in isos]
