"""Languages: their codes, English names, families and scripts.

A language goes by its ISO 639-1 code, or by its ISO 639-3 code where it has none; in a script that
is not its own, by the code of three letters and the script: `hin_Latn`. `code_of` finds that code
for any other name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from steerlab.core.errors import SteerlabError

if TYPE_CHECKING:
    import langcodes

UNKNOWN = "unknown"  # the family, or the script, of a language of which nobody here knows it


@dataclass(frozen=True)
class Language:
    """A language: its code and family branch. The rest comes from the package langcodes, unless it
    is given.

    Args:
        iso: its code, such as "de".
        family: the branch of its family, such as "Germanic"; "unknown" where that is not known.
        given_script: the script that it is mostly written in (ISO 15924).
        given_name: its English name.
    """

    iso: str
    family: str
    given_script: str | None = None
    given_name: str | None = None

    # Cached, since a figure asks for the same few names again and again.
    @cached_property
    def iso3(self) -> str:
        """Its ISO 639-3 code, of three letters; its own code where it has none."""
        base = self.iso.partition("_")[0]
        if base in _ISO3:
            return _ISO3[base]
        try:
            return _tag(base).to_alpha3()
        except LookupError:
            return base

    @cached_property
    def name(self) -> str:
        """Its English name."""
        if self.given_name:
            return self.given_name
        base, _, script = self.iso.partition("_")
        if script:
            written = _tag(f"und-{script}").script_name()
            return f"{language(base).name} ({written})"
        return _NAMES.get(base) or _tag(base).language_name()

    @cached_property
    def script(self) -> str:
        """The script that it is mostly written in (ISO 15924); "unknown" where that is not
        known."""
        base, _, script = self.iso.partition("_")
        return self.given_script or script or _OTHER_SCRIPTS.get(base) or _likely_script(base)


def _tag(iso: str) -> "langcodes.Language":
    """The language as langcodes describes it."""
    import langcodes  # here, since it takes 50 ms that most commands do not need

    # Without normalising: it would turn Tagalog into Filipino.
    return langcodes.Language.get(iso, normalize=False)


def _likely_script(iso: str) -> str:
    """The script that CLDR or the registry of BCP 47 gives for a language."""
    from langcodes.data_dicts import DEFAULT_SCRIPTS, LIKELY_SUBTAGS

    if iso not in LIKELY_SUBTAGS and iso not in DEFAULT_SCRIPTS:
        return UNKNOWN  # `maximize` would say Latin, whatever the language
    return str(_tag(iso).maximize().script)


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
_LISTED = dict(LANGUAGES)  # without those that `add_language` adds

# Of other languages, the branches alone: which other ones there are, langcodes knows.
_OTHER_BRANCHES = {
    "Germanic": "is fo fy lb li nds nn sco yi gsw bar vls frr pfl",
    "Romance": "la gl oc rm an ast co fur lij lmo mwl nap pms scn sc vec wa",
    "Slavic": "be mk sr hr bs sh sl cu csb dsb hsb rue szl",
    "Baltic": "lt lv ltg sgs",
    "Celtic": "ga gd gv cy br kw",
    "Albanian": "sq",
    "Armenian": "hy",
    "Uralic": "se kv koi krl mhr mrj myv mdf udm vep vro liv",
    "Turkic": "az azb ba crh cv gag kaa krc kum ky nog sah tk tt tyv ug uz",
    "Mongolic": "mn bxr xal",
    "Indo-Aryan": "pa pnb gu mr ne si as or sa sd dv awa bho "
    "bpy dty gom hif hne kok ks mag mai pi rom",
    "Iranian": "ku ckb ps tg os prs bal diq glk lrc mzn zza",
    "Dravidian": "ta te kn ml tcy",
    "Sino-Tibetan": "yue wuu lzh nan hak gan hsn cdo my dz new mni lus kac",
    "Austroasiatic": "km sat kha mnw",
    "Austronesian": "ms jv su mg ace ban bcl bjn bug ceb ch fj haw hil ilo mh mi min na pag "
    "pam sm tet to ty war",
    "Semitic": "am ti arz ary acm acq aeb ajp apc ars arc syr gez",
    "Berber": "ber kab taq tzm zgh",
    "Chadic": "ha",
    "Cushitic": "so om aa sid",
    "Niger-Congo": "yo ig zu xh rw rn sn st nso tn ts ss ve nr nd ny lg ln lu lua kg kmb ki "
    "kam bem cjk tum umb hz ng kj wo ff fuc ak tw ee fon bm dyu mos kbp sg",
    "Nilotic": "luo din nus dik",
    "Saharan": "kr",
    "Kartvelian": "xmf lzz",
    "Abkhaz-Adyghe": "ab ady kbd",
    "Nakh-Daghestanian": "ce av inh lez lbe",
    "Basque": "eu",
    "Kra-Dai": "lo shn za",
    "Hmong-Mien": "hmn mww",
    "Quechuan": "qu",
    "Aymaran": "ay",
    "Tupian": "gn",
    "Mayan": "quc kek yua",
    "Uto-Aztecan": "nah",
    "Eskimo-Aleut": "kl iu ik",
    "Athabaskan": "nv",
    "Algic": "cr oj",
    "Iroquoian": "chr",
    "Creole": "ht pap tpi bi jam cbk gcr",
    "Constructed": "eo ia ie io vo jbo tlh",
}
_FAMILY_OF = {code: branch for branch, codes in _OTHER_BRANCHES.items() for code in codes.split()}

# Scripts that CLDR has no entry for.
_OTHER_SCRIPTS = {
    **dict.fromkeys("prs acm acq aeb ajp apc ars arz ary".split(), "Arab"),
}

# Codes that mean a language which goes by another one here: an individual language of ISO 639-3
# that stands for its macrolanguage, as corpora and identifiers name it, and Tagalog.
_SAME = {
    "arb": "ar",
    "pes": "fa",
    "ekk": "et",
    "swh": "sw",
    "swa": "sw",
    "fil": "tl",
    "cmn": "zh",
    **dict.fromkeys(("nb", "nob", "nor"), "no"),
    **{"nno": "nn", "azj": "az", "uzn": "uz", "lvs": "lv", "als": "sq", "plt": "mg", "khk": "mn"},
    "hbs": "sh",
    **{"zsm": "ms", "npi": "ne", "ory": "or", "pbt": "ps", "ydd": "yi", "gaz": "om", "quy": "qu"},
    **{"ayr": "ay", "kmr": "ku", "fuv": "ff", "knc": "kr", "twi": "tw"},
}
# Scripts that count as a language's own beside the one of the table.
_OWN_SCRIPTS = {"zh": ("Hans", "Hant", "Hani"), "ko": ("Kore", "Hang")}
# ISO 639's codes for: no linguistic content, undetermined, several, uncoded.
NO_LANGUAGE = ("zxx", "und", "mul", "mis")
_NAME = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")


def language(name: str) -> Language:
    """The language of a code: ISO 639-1 or 639-3, BCP 47, or with a script such as `eng_Latn`.

    Raises `SteerlabError` for an unknown code, and lists the codes of the languages that steerlab
    lists itself.
    """
    code = code_of(name)
    if code is None:
        raise SteerlabError(
            f"unknown language code {name!r}; known codes: {' '.join(LANGUAGES)}, and those "
            "of every other language in ISO 639; add_language adds one that is in no list"
        )
    return LANGUAGES.get(code) or _other(code)


def is_language(name: str) -> bool:
    """Whether `language` knows a code."""
    return code_of(name) is not None


def is_plainly_language(name: object) -> bool:
    """Whether a name in a table is a language's code: one of the listed, of two letters, of a known
    family or with a script. Of the others some are words, such as the methods lda and pca."""
    if not isinstance(name, str):
        return False
    plain = name in LANGUAGES or name in _FAMILY_OF or len(name) == 2 or "_" in name
    return plain and code_of(name) == name


def code_of(name: object) -> str | None:
    """The code that a language goes by, from any code of it; None where it is the code of none.

    `eng`, `eng_Latn`, `en-GB` and `EN` are "en", `yor` is "yo", `pt_BR` "pt", `zho_Hant` "zh".
    """
    if not isinstance(name, str):  # a table may hold anything
        return None
    if name in LANGUAGES:
        return name
    return _code_of(name) if _NAME.fullmatch(name) else None


def add_language(
    code: str, *, family: str = UNKNOWN, script: str | None = None, name: str | None = None
) -> Language:
    """Add a language that is in no list, or say more of one that is; in this process.

    Args:
        code: what files and columns call it: letters, as in a file's name.
        family: the branch of its family, such as "Germanic": figures group by it.
        script: the script that it is mostly written in, as ISO 15924 has it, such as "Latn".
        name: its English name.
    """
    if not re.fullmatch(r"[a-z]{2,8}(_[A-Z][a-z]{3})?", code):
        raise SteerlabError(
            f"{code!r} is no code of a language; give two to eight small letters, such as 'rw'"
        )
    if script is not None and not (
        re.fullmatch(r"[A-Z][a-z]{3}", script) and _tag(f"und-{script}").is_valid()
    ):
        raise SteerlabError(f"{script!r} is no code of a script; give one such as 'Latn'")
    known = LANGUAGES.get(code) or (_other(code) if _code_of(code) == code else None)
    if known is None and name is None:
        name = code
    if family == UNKNOWN and known is not None:
        family = known.family
    if known is not None:
        script, name = script or known.given_script, name or known.given_name
    LANGUAGES[code] = Language(code, family, script, name)
    _code_of.cache_clear()
    _other.cache_clear()
    return LANGUAGES[code]


def added() -> tuple[Language, ...]:
    """What `add_language` has added or changed, for another process."""
    return tuple(entry for code, entry in LANGUAGES.items() if _LISTED.get(code) != entry)


def add_all(entries: Iterable[Language]) -> None:
    """Take over what `added` gave in another process."""
    LANGUAGES.update({entry.iso: entry for entry in entries})
    _code_of.cache_clear()
    _other.cache_clear()


def families(isos: Iterable[str]) -> list[str]:
    """The family branch of each language, in order; an unknown code raises `SteerlabError`."""
    return [language(lang).family for lang in isos]


def all_families() -> tuple[str, ...]:
    """Every family: those of the listed languages in their order, then the others', and last
    "unknown"."""
    listed = [entry.family for entry in LANGUAGES.values() if entry.family != UNKNOWN]
    return tuple(dict.fromkeys([*_BRANCHES, *_OTHER_BRANCHES, *listed, UNKNOWN]))


def own_scripts(code: str) -> tuple[str, ...]:
    """The scripts (ISO 15924) in which a text counts as one of a language without a remark; none
    where its script is unknown."""
    script = language(code).script
    return () if script == UNKNOWN else _OWN_SCRIPTS.get(code, (script,))


@cache
def _other(code: str) -> Language:
    """A language that is not listed, by the code that it goes by."""
    base, _, script = code.partition("_")
    if script:
        return Language(code, language(base).family)
    return Language(code, _FAMILY_OF.get(code, UNKNOWN))


@cache
def _code_of(name: str) -> str | None:
    """`code_of` for what is not listed."""
    import langcodes

    try:
        tag = langcodes.Language.get(name.replace("_", "-"), normalize=False)
    except ValueError:  # no tag at all
        return None
    base = None if tag.language is None else _base_of(tag.language)
    if base is None or not tag.script or tag.script in (own_scripts(base) or (tag.script,)):
        return base
    # Corpora and identifiers name the individual language, where there is one: arb_Latn.
    individual = {general: code for code, general in _SAME.items() if len(code) == 3}
    return f"{individual.get(base, language(base).iso3)}_{tag.script}"


def _base_of(code: str) -> str | None:
    """The code that a language goes by, from one of two or three letters; None for no language."""
    import langcodes

    code = _SAME.get(code, code)
    if code in LANGUAGES:
        return code
    # langcodes replaces old codes (`iw`) and those of three letters for which there is one of two.
    fresh = langcodes.Language.get(code)
    if fresh.to_tag() == fresh.language:  # not where it would become another one: sh, prs
        code = _SAME.get(fresh.language, fresh.language)
    private = len(code) == 3 and "qaa" <= code <= "qtz"
    if code in NO_LANGUAGE or private or not _tag(code).is_valid():
        return None
    return code
