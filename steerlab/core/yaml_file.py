"""YAML as settings are written in it: plain words, numbers, lists and keys, and nothing that turns
one thing into another unasked."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_bytes

LARGEST = 1_000_000  # bytes: settings have a few hundred
DEEPEST = 20  # lists in lists, and so on


def read_yaml(file: Path) -> Any:
    """What a YAML file holds; None for an empty one.

    Of words without quotes only true, false, null and numbers mean something else, as in YAML 1.2:
    `no` is Norwegian and 1:30 a word. Raises `SteerlabError` for a file that is missing, no YAML or
    larger than settings are, for a key that stands twice, for tags, and for aliases, of which a few
    lines make gigabytes.
    """
    try:
        text = read_bytes(file, limit=LARGEST).decode("utf-8-sig")
        return yaml.load(text, Loader=_Loader)  # it makes what the safe loader makes, or less
    except OSError as error:
        raise SteerlabError(
            f"there is no grid to read at {file} ({error.strerror}); give a .yaml file"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SteerlabError(f"{file} is not YAML: {reason}") from error


class _Loader(yaml.SafeLoader):
    """The safe loader of PyYAML with YAML 1.2's idea of what is a number or a truth value."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of the document, which must be no alias and not too deep."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(
                f"it has the alias *{event.anchor}{event.start_mark}; write out what it stands for"
            )
        tag = getattr(self.peek_event(), "tag", None)
        if tag not in (None, "!", "tag:yaml.org,2002:str"):
            word = tag.replace("tag:yaml.org,2002:", "!!")
            raise yaml.YAMLError(f"it has the tag {word}; write the value without")
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} lists or mappings stand in each other")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, *how: Any, **deep: Any) -> dict[Hashable, Any]:
        """A mapping whose keys are different."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.YAMLError(f"a key is no word{key_node.start_mark}")
            if key in seen:
                raise yaml.YAMLError(f"the key {key!r} stands twice{key_node.start_mark}")
            seen.add(key)
        return super().construct_mapping(node, *how, **deep)


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve("bool", r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("null", r"(?:~|null|Null|NULL|)$", "~nN")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"$"), [""])
_resolve("int", r"[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789")
_resolve(
    "float",
    r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$",
    "-+.0123456789",
)
