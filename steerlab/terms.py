"""The words that every other module uses: sites, hook names, languages and their families, the one error."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import langcodes
    import torch

Site = Literal["resid_pre", "resid_post", "mlp_pre", "mlp_post"]
SITES: tuple[str, ...] = get_args(Site)


class SteerlabError(Exception):
    """What was given, what is allowed, what to do: the message of every error that a user can cause."""


def hook_name(site: str, layer: int) -> str:
    """The TransformerLens name of a site at a layer, such as `blocks.5.hook_resid_post`."""
    if site not in SITES:
        raise SteerlabError(f"there is no site {site!r}; the sites are {', '.join(SITES)}")
    if site.startswith("mlp_"):
        return f"blocks.{layer}.mlp.hook_{site.removeprefix('mlp_')}"
    return f"blocks.{layer}.hook_{site}"


def generator(purpose: str, seed: int) -> "torch.Generator":
    """A generator of its own for each purpose and seed: what one purpose draws is no other's, whatever their seeds.

    Formula: the first 63 bits of the SHA-256 of "purpose seed". A seed added to a number of the purpose's own would
    make seed k + 1 of one purpose seed k of another.
    """
    import torch  # here, for the words of this module need no second's wait

    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def has_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer has a BOS of its own: TransformerLens gives one that has none its EOS."""
    if tokenizer.bos_token == tokenizer.eos_token:  # GPT-2's own are one token too: only its files tell
        return bool(tokenizer.init_kwargs.get("bos_token"))
    return tokenizer.bos_token_id is not None


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
# Where ours differ on purpose. langcodes gives the macrolanguages nor and swa; our lines, and the labels of
# identifiers, are Bokmål and Coastal Swahili. CLDR calls Bengali Bangla; the benchmarks' prompts do not.
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
