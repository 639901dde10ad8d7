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
    """A language: its ISO 639-1 code and family branch; what else it has comes from langcodes."""

    iso: str
    family: str

    @cached_property
    def iso3(self) -> str:
        """Its ISO 639-3 code."""
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
    """The language as langcodes knows it, imported when first asked: 50 ms."""
    import langcodes

    return langcodes.Language.get(iso, normalize=False)  # normalised, Tagalog would be Filipino


_BRANCHES = {  # no library knows these; the order is that of every list of languages
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

# Where ours differ on purpose. langcodes gives the macrolanguages nor and swa; our lines, and the
# labels of identifiers, are Bokmål and Coastal Swahili. CLDR calls Bengali Bangla; the benchmarks'
# prompts do not.
_ISO3 = {"no": "nob", "sw": "swh"}

_NAMES = {"bn": "Bengali"}


LANGUAGES: dict[str, Language] = {
    iso: Language(iso, branch) for branch, isos in _BRANCHES.items() for iso in isos.split()
}


def language(iso: str) -> Language:
    """The language with this ISO 639-1 code; an unknown code raises and lists the known ones."""
    if iso not in LANGUAGES:
        raise SteerlabError(f"unknown language code {iso!r}; known codes: {' '.join(LANGUAGES)}")
    return LANGUAGES[iso]


def families(isos: Iterable[str]) -> list[str]:
    """The family of each language, in order."""
    return [language(iso).family for iso in isos]
