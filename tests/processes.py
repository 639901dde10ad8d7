"""Processes that need not import everything anew: a server that has imported it forks them.

Each is a process of its own, which can be killed or given limits as any other. What is tested about
the installed command itself (how it starts, what Ctrl-C does) starts that command instead.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

# What a run imports on its way. The server imports it before the first process is forked.
HEAVY = [
    "steerlab.studies.main.run",
    "steerlab.studies.main.study",
    "steerlab.sweeps.runner",
    "transformers.models.llama.modeling_llama",
    "torch.distributed.tensor",
    "torch._dynamo",
    "scipy.stats",
    "plotly.io",
]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(HEAVY)


def steerlab(*words: str, full: int | None = None) -> subprocess.CompletedProcess[str]:
    """`steerlab` with these words; `stderr` is all that it wrote, to stdout as well.

    `full`: the disk is full, no file may grow beyond so many bytes.
    """
    reader, writer = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_main, args=(words, writer, full), daemon=True)
    process.start()
    writer.close()  # so that the end of the process is the end of what can be read
    with os.fdopen(os.dup(reader.fileno()), encoding="utf-8") as file:
        written = file.read()
    process.join()
    assert process.exitcode is not None
    return subprocess.CompletedProcess(words, process.exitcode, stderr=written)


def _main(words: Sequence[str], writer: Connection, full: int | None) -> None:
    """What the process does: the command, with both streams into the pipe."""
    from steerlab.cli import main

    for stream in (1, 2):  # not a file: it would have to obey the limit, too
        os.dup2(writer.fileno(), stream)
    writer.close()
    if full is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, full))
    sys.exit(main(list(words)))
