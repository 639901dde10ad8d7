"""Labels: what a pile of texts is called.

A label is a language's code (`de`), a concept in a language (`informal@de`), or, where languages
play no part, the name of a concept alone (`python`). What stands for a language in a label is found
here; what only a language has (a name, a script, an identifier's code) is asked of it.
"""

import re
from collections.abc import Iterable
from functools import cache

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import UNKNOWN, Language, code_of, language

AT = "@"  # between a concept and its language
_CONCEPT = re.compile(r"\w(?:[\w .+#-]*[\w.+#-])?")
# One or two small letters are meant as a language's code, so that a mistyped one is told.
_CODE = re.compile(r"[a-z]{1,2}")


def label(name: object) -> str:
    """The label of a name, its language by the code that it goes by: `formal@deu` is `formal@de`.

    Raises `SteerlabError` for an unknown code, for an `@` that is not between a concept and a
    language, and for what is no name.
    """
    if not isinstance(name, str):
        raise SteerlabError(f"a label is a word, not {name!r}; give one such as 'formal@de'")
    concept, at, lang = name.partition(AT)
    if not at:
        return _alone(name)
    if not concept or not lang or AT in lang:
        raise SteerlabError(
            f"{name!r} is no label; write a concept and a language with one @ between them, such "
            "as 'formal@de', or a word without @"
        )
    return f"{need_concept(concept)}{AT}{language(lang).iso}"


def _alone(name: str) -> str:
    """A label without `@`: a language by the code that it goes by, or the name of a concept."""
    code = _code(name)
    if code is not None:
        return code
    if _CODE.fullmatch(name) or not _CONCEPT.fullmatch(name):
        return language(name).iso  # raises, as it is none, and lists those that there are
    return name


def need_concept(name: object) -> str:
    """The name of a concept; raises `SteerlabError` for one that rows and files could not hold."""
    if not isinstance(name, str) or not _CONCEPT.fullmatch(name):
        raise SteerlabError(
            f"{name!r} is no name of a concept; give letters, digits, spaces and ._+-#, without @: "
            "contrast puts the language behind it"
        )
    return name


def concept_of(name: str) -> str | None:
    """The concept in a label; None where it is a language's code alone."""
    concept, at, _ = name.partition(AT)
    if at:
        return concept
    return None if language_of(name) else name


def language_of(name: str) -> str | None:
    """The code of the language in a label; None where no language plays a part."""
    _, at, lang = name.partition(AT)
    if at:
        return lang
    return _code(name)


def languages_of(names: Iterable[str]) -> list[str]:
    """The distinct languages in some labels, in their order."""
    found = (language_of(name) for name in names)
    return list(dict.fromkeys(lang for lang in found if lang is not None))


def spoken(name: str, purpose: str) -> Language:
    """The language in a label; raises `SteerlabError` where it has none, for the purpose that is
    the subject of the message: "the prompt form 'instructed'"."""
    lang = language_of(label(name))
    if lang is None:
        raise SteerlabError(
            f"{purpose} asks for a language, and the label {name!r} names none; give one such as "
            f"'{name}@de'"
        )
    return language(lang)


@cache
def _code(name: str) -> str | None:
    """The code that a language goes by, from any code of it with a script or region that there
    is: eng_Latn and pt-BR are languages, and "no-op" is no Norwegian."""
    code = code_of(name)
    if code is None or code == name or re.fullmatch(r"[A-Za-z]+", name):
        return code
    import langcodes

    return code if langcodes.tag_is_valid(name.replace("_", "-")) else None


@cache
def _labelled(name: str) -> Language:
    concept, at, lang = name.partition(AT)
    if not at:
        return Language(name, UNKNOWN, given_script=UNKNOWN, given_name=concept)
    spoken = language(lang)
    return Language(name, spoken.family, spoken.script, f"{concept}, {spoken.name}")


def labelled(name: str) -> Language:
    """What figures and tables say of a label: its language's entry, or one with the family and the
    script of the language in it, and a name that has the concept too.

    Raises `SteerlabError` as `label` does.
    """
    whole = label(name)
    return language(whole) if concept_of(whole) is None else _labelled(whole)


def families_of(names: Iterable[str]) -> list[str]:
    """The family branch of the language of each label, in order; "unknown" where it has none."""
    return [labelled(name).family for name in names]
