"""The reference by the names that users type, a page for each group: a hook of mkdocs.

`reference/<group>.md` has what stands at `sl.<group>`, and `reference/door.md` what stands at `sl`
itself, each under that name, from its docstring.
"""

import inspect
import re
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import steerlab as sl

FOLDER = "reference"
MODULE = re.compile(r"^::: (steerlab\S+)\n(?:    .*\n)*", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, content in pages().items():
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """On the page by module only the modules' names: what stands at the door is on these pages, and
    nothing is shown twice."""
    return MODULE.sub(r"- `\1`\n", markdown) if page.file.src_uri == "api.md" else markdown


def pages() -> dict[str, str]:
    """The Markdown of each page, by its name: "door", and then the groups."""
    door = {name: getattr(sl, name) for name in sl.__all__}
    groups = {name: value for name, value in door.items() if inspect.ismodule(value)}
    alone = {name: value for name, value in door.items() if name not in groups}
    shown: dict[str, str] = {}  # where each thing is documented, by its path
    made = {"door": _page("sl", sl.__doc__ or "", alone, shown)}
    for name, group in groups.items():
        made[name] = _page(f"sl.{name}", group.__doc__ or "", _members(group), shown)
    return made


def _members(group: ModuleType) -> dict[str, Any]:
    return {name: getattr(group, name) for name in group.__all__}


def _page(door: str, about: str, members: dict[str, Any], shown: dict[str, str]) -> str:
    parts = [f"# {door}", _without_indent(about)]
    for name, value in members.items():
        if not hasattr(value, "__qualname__"):
            continue  # a table of records, which the page of methods explains
        path = f"{value.__module__}.{value.__qualname__}"
        if path in shown:
            parts.append(f"## {door}.{name}\n\nThe same as `{shown[path]}`.")
            continue
        shown[path] = f"{door}.{name}"
        options = f"    options:\n      heading: {door}.{name}\n      heading_level: 2"
        parts.append(f"::: {path}\n{options}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _without_indent(text: str) -> str:
    return inspect.cleandoc(text)
