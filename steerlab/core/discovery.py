"""What the modules of a package export under one name: how a method in its own file is found."""

import importlib
import pkgutil
from typing import Any

from steerlab.core.errors import SteerlabError


def language_of(texts: list[str]) -> list[str]:
    """The languages of texts, by the package's identifier.

    It is a score, and scores stand on a floor above what has texts to show: it is found by its name
    when something is shown, and not before.
    """
    identifier = importlib.import_module("steerlab.scores.langid").identifier()
    codes: list[str] = identifier.identify(texts)
    return codes


def exported(package: str, attribute: str) -> dict[str, Any]:
    """The dicts that the modules of a package export as `attribute`, merged into one.

    Nothing is registered from elsewhere: each module of the package is imported, in the order of
    the modules' names, and a module without the attribute adds nothing; packages inside it are left
    alone. A key that two modules export raises.
    """
    merged: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for entry in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if entry.ispkg:
            continue
        # The module that asks is half imported at this moment, and so exports nothing.
        module = importlib.import_module(f"{package}.{entry.name}")
        for key, value in getattr(module, attribute, {}).items():
            if key in merged:
                raise SteerlabError(
                    f"{key!r} stands in {attribute} of {owner[key]} and of {module.__name__}; "
                    "rename one of the two"
                )
            merged[key], owner[key] = value, module.__name__
    return merged
