"""A bar on stderr for what takes minutes: where somebody looks, and nowhere else."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import (
        Progress,
    )  # a tenth of a second, which a file of settings need not wait


def is_shown(*, progress: bool | None) -> bool:
    """Whether to show how far a work is: as told; where nothing was told, in a terminal and in a
    notebook, and not in a pipe or a file."""
    if progress is not None:
        return progress
    if in_notebook():
        return find_spec("ipywidgets") is not None  # without, nothing can be drawn anew
    return bool(getattr(sys.stderr, "isatty", lambda: False)())


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def bar(*, progress: bool | None) -> Iterator["Progress"]:
    """A display of progress, for the length of a `with`; it is gone afterwards."""
    from rich.console import Console
    from rich.progress import Progress

    shown = is_shown(progress=progress)
    with Progress(console=Console(stderr=True), disable=not shown, transient=True) as display:
        yield display
