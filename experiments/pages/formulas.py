r"""Formulas of the documentation as MathML, which browsers draw without a script: a hook of mkdocs.

They are written as on GitHub: a block fenced as `math`, or $`\mu_t`$ within a line.
"""

import re
from typing import Any

from latex2mathml.converter import convert

BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`\n]+)`\$")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Convert a page's formulas."""
    markdown = BLOCK.sub(lambda found: _display(found[1]), markdown)
    return INLINE.sub(lambda found: convert(found[1]), markdown)


def _display(block: str) -> str:
    r"""A block, a formula on each line that `\\` ends."""
    lines = [line.strip() for line in block.replace("\n", " ").split(r"\\")]
    shown = [convert(line, display="block") for line in lines if line]
    return '<div class="formula">' + "".join(shown) + "</div>"
