"""`steerlab import`: directions that others released, into a file like those of `fit`."""

import argparse
from pathlib import Path
from typing import Any

from steerlab.cli.options import add_out


def add_verbs(verbs: Any) -> None:
    released = verbs.add_parser("import", help="read released directions into a file")
    released.add_argument("format", choices=("clas-bench", "means"))
    released.add_argument(
        "path",
        type=Path,
        help="clas-bench: a folder of <kind>.<language>.<model>; means: a .safetensors file",
    )
    add_out(released, "a .safetensors file")
    released.add_argument(
        "--kind", default="vector", help="clas-bench: vector (default), lda or probe"
    )
    released.add_argument("--model", help="clas-bench: llama or aya, where the folder holds both")
    released.set_defaults(verb=_import)


def _import(options: argparse.Namespace) -> None:
    from steerlab.core.files import need_target
    from steerlab.estimate.released import clas_bench, language_means

    need_target(options.out, ".safetensors", inputs=[options.path], force=options.force)
    if options.format == "means":
        directions = language_means(options.path)
    else:
        directions = clas_bench(options.path, kind=options.kind, model=options.model)
    print(directions.save(options.out, force=options.force))
