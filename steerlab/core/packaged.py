"""The contrasts in the package: register in six languages, gender after occupations in two."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from steerlab.core.contrast import contrast
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language

DATA = Path(__file__).parents[1] / "data"
_REGISTER = ("de", "es", "fr", "it", "nl", "ru")
_CHOICE = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")


def register(langs: Iterable[str] | None = None) -> Corpus:
    """216 sentences to a person who is addressed familiarly, and the same to one who is addressed
    politely, in de, es, fr, it, nl and ru: labels `informal@de`, `formal@de`.

    Pairs are the same in all languages, and the splits are by pair. Written for the package
    (steerlab/data/register).

    Args:
        langs: the languages, by default all; another one raises `SteerlabError`.
    """
    chosen = _chosen(langs, _REGISTER)
    pairs = {lang: _table(f"register/{lang}.tsv") for lang in chosen}
    piles = {
        name: {lang: [row[side] for row in rows] for lang, rows in pairs.items()}
        for side, name in enumerate(("informal", "formal"))
    }
    return contrast(piles, aligned=True, name="register")


def register_prompts(numbers: Sequence[int]) -> list[str]:
    """The English of lines of `register`, whose `you` says nothing of register, for a model that
    translates. Only the lines of dev and test have one; another raises `SteerlabError`.

    Args:
        numbers: of the lines, such as `register().split("dev").numbers`.
    """
    english = {int(number): text for number, text in _table("register/english.tsv")}
    if missing := [number for number in numbers if number not in english]:
        raise SteerlabError(
            f"line {missing[0]} of register has no English; the lines of dev and test have"
        )
    return [english[number] for number in numbers]


def occupations(langs: Iterable[str] | None = None) -> Corpus:
    """288 sentences with an occupation and a pronoun for a woman, and the same for a man, in en and
    sv: labels `she@en`, `he@en`.

    12 templates of 24 occupations; the splits hold different occupations, and `occupation_groups`
    says which is which. Written for the package (steerlab/data/gender).

    Args:
        langs: the languages, by default both; another one raises `SteerlabError`.
    """
    chosen = _chosen(langs, ["en", "sv"])
    piles = {
        name: {
            lang: [
                _filled(_CHOICE.sub(lambda found, side=side: found[side + 1], template), noun)  # type: ignore[misc]
                for template in _templates(lang)
                for noun in _nouns(lang)
            ]
            for lang in chosen
        }
        for side, name in enumerate(("she", "he"))
    }
    return contrast(piles, aligned=True, name="occupations")


def occupation_prompts(lang: str) -> list[str]:
    """What stands before the pronoun in each line of `occupations`, for continuations."""
    [code] = _chosen([lang], ["en", "sv"])
    return [
        _filled(_CHOICE.split(template)[0], noun).rstrip()
        for template in _templates(code)
        for noun in _nouns(code)
    ]


def occupation_groups(numbers: Sequence[int] | None = None) -> dict[str, list[str]]:
    """The `template` and the `occupation` (in English) of lines of `occupations`, as
    `held_out_probe` takes them; by default of all lines."""
    nouns = _nouns("en")
    lines = range(len(nouns) * len(_templates("en"))) if numbers is None else numbers
    return {
        "template": [f"template {line // len(nouns)}" for line in lines],
        "occupation": [nouns[line % len(nouns)] for line in lines],
    }


def _chosen(langs: Iterable[str] | None, there: Sequence[str]) -> list[str]:
    if langs is None:
        return list(there)
    names = langs.replace(",", " ").split() if isinstance(langs, str) else langs
    codes = [language(lang).iso for lang in names]
    if missing := [code for code in codes if code not in there]:
        raise SteerlabError(
            f"the package has no such sentences in {language(missing[0]).name}; it has "
            f"{' '.join(there)}: make your own by contrast"
        )
    return codes


def _filled(template: str, noun: str) -> str:
    text = template.replace("{}", noun)
    return text[:1].upper() + text[1:]


def _templates(lang: str) -> list[str]:
    return [row[1] for row in _table("gender/templates.tsv") if row[0] == lang]


def _nouns(lang: str) -> list[str]:
    head, *rows = _table("gender/occupations.tsv")
    return [row[head.index(lang)] for row in rows]


@lru_cache(maxsize=16)
def _table(name: str) -> list[list[str]]:
    lines = (DATA / name).read_text("utf-8").splitlines()
    return [line.split("\t") for line in lines]
