"""Words on a command line: each verb is one library call on files."""

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence

from steerlab.cli import clas, explore, files, importing, report, run, serve, sweep
from steerlab.cli.options import Verb
from steerlab.core.errors import SteerlabError, note

_GIVE_UP = ("strict", "surrogateescape")  # what a stream does about letters it cannot write


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and give its exit code.

    That is 2 for a user's error, which is printed in one line, and 130 for a stop by Ctrl-C, which
    says how to go on.
    """
    _write_whatever()
    try:
        options = parser().parse_args(arguments)
        return int(options.verb(options) or 0)
    except SteerlabError as error:
        note(str(error))
        return 2
    except KeyboardInterrupt:
        print(
            "\nsteerlab: stopped; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:  # whoever read the answer, such as `head`, has read enough
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 0
    except OSError as error:
        note(f"{error}; what was finished is kept, the same command goes on from there")
        return 2


def _write_whatever() -> None:
    """Let both streams write what their encoding does not have as escapes: a terminal of ASCII
    shall not cost the answer."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _GIVE_UP:
            with contextlib.suppress(
                OSError
            ):  # some files cannot be set anew: they stay as they are
                stream.reconfigure(errors="backslashreplace")


def parser() -> argparse.ArgumentParser:
    """The parser of every verb."""
    steerlab_parser = argparse.ArgumentParser(
        prog="steerlab", description="Find, measure and steer the language of a language model."
    )
    verbs = steerlab_parser.add_subparsers(
        title="verbs", required=True, metavar="VERB", parser_class=Verb
    )
    for module in (run, report, explore, serve, files, importing, sweep, clas):
        module.add_verbs(verbs)
    return steerlab_parser
