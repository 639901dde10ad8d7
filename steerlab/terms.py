"""What every other module uses: sites, hook names, languages, the one error, generators, equality by content."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
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
    import torch  # only here: it takes a second, and the words of a command line need none of it

    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def by_content(one: Any, other: Any) -> Any:
    """The `__eq__` of a dataclass that holds tensors: equal where the classes are one and all fields are `same`.

    A class that takes it has no hash: a tensor can change in place, and a set would not find it again.
    """
    if type(one) is not type(other):
        return NotImplemented
    return all(same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, and so are all tensors and arrays in them: never raises, and NaN is NaN.

    Tensors are equal in shape, dtype and numbers, on whatever device they lie.
    """
    import numpy as np
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return False
        return torch.allclose(one.cpu(), other.cpu(), rtol=0, atol=0, equal_nan=True)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(same(*both) for both in zip(one, other, strict=True))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    arrays = (torch.Tensor, np.ndarray)  # whose == gives no single answer
    return not isinstance(one, arrays) and not isinstance(other, arrays) and bool(one == other)


def has_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer has a BOS of its own: TransformerLens gives one that has none its EOS."""
    if tokenizer.bos_token == tokenizer.eos_token:  # GPT-2's own are one token too: only its files tell
        return bool(tokenizer.init_kwargs.get("bos_token"))
    return tokenizer.bos_token_id is not None


@dataclass(frozen=True)
class Language:
    """A language: its ISO 639-1 code, ISO 639-3 code, English name, family branch and script (ISO 15924)."""

    iso: str
    iso3: str
    name: str
    family: str
    script: str


def _table() -> dict[str, Language]:
    rows = """
        en eng English Germanic Latn | de deu German Germanic Latn | nl nld Dutch Germanic Latn
        sv swe Swedish Germanic Latn | da dan Danish Germanic Latn | no nob Norwegian Germanic Latn
        af afr Afrikaans Germanic Latn | es spa Spanish Romance Latn | fr fra French Romance Latn
        it ita Italian Romance Latn | pt por Portuguese Romance Latn | ro ron Romanian Romance Latn
        ca cat Catalan Romance Latn | ru rus Russian Slavic Cyrl | uk ukr Ukrainian Slavic Cyrl
        bg bul Bulgarian Slavic Cyrl | pl pol Polish Slavic Latn | cs ces Czech Slavic Latn
        sk slk Slovak Slavic Latn | hu hun Hungarian Uralic Latn | fi fin Finnish Uralic Latn
        et est Estonian Uralic Latn | tr tur Turkish Turkic Latn | kk kaz Kazakh Turkic Cyrl
        hi hin Hindi Indo-Aryan Deva | ur urd Urdu Indo-Aryan Arab | bn ben Bengali Indo-Aryan Beng
        fa fas Persian Iranian Arab | ja jpn Japanese Japonic Jpan | ko kor Korean Koreanic Kore
        zh zho Chinese Sino-Tibetan Hans | bo bod Tibetan Sino-Tibetan Tibt | vi vie Vietnamese Austroasiatic Latn
        id ind Indonesian Austronesian Latn | tl tgl Tagalog Austronesian Latn | ar ara Arabic Semitic Arab
        he heb Hebrew Semitic Hebr | mt mlt Maltese Semitic Latn | el ell Greek Hellenic Grek
        sw swh Swahili Niger-Congo Latn | ka kat Georgian Kartvelian Geor | th tha Thai Kra-Dai Thai
    """
    cells = [cell.split() for line in rows.strip().splitlines() for cell in line.split("|")]
    return {iso: Language(iso, iso3, name, family, script) for iso, iso3, name, family, script in cells}


LANGUAGES: dict[str, Language] = _table()


def language(iso: str) -> Language:
    """The language with this ISO 639-1 code; an unknown code raises and lists the known ones."""
    if iso not in LANGUAGES:
        raise SteerlabError(f"unknown language code {iso!r}; known codes: {' '.join(LANGUAGES)}")
    return LANGUAGES[iso]


def families(isos: Iterable[str]) -> list[str]:
    """The family of each language, in order."""
    return [language(iso).family for iso in isos]
