"""The explorer in a notebook, and what a command opens: a session, where it begins, its server."""

import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.studies.explore.run_folder import Run, best, read_run
from steerlab.studies.explore.session import Session
from steerlab.studies.explore.setting import Setting

SENTENCE = "The weather is nice today."  # where the explorer begins, in English
NO_RUN = (
    "There are no scores beside this setting. After steerlab run, steerlab explore --run FOLDER "
    "shows how well each layer and strength does, and a click goes there."
)


def explore(
    model: Any = None,
    directions: Directions | Mapping[str, Directions] | None = None,
    *,
    run: str | os.PathLike[str] | None = None,
    corpus: Corpus | str | os.PathLike[str] | None = None,
    height: int = 900,
    port: int = 0,
) -> "Explorer":
    """Steer with sliders: a page that says a sentence steered beside unsteered, token by token.

    In a notebook the last line of a cell shows it; its `url` opens in any browser of this machine.
    It listens on loopback alone, and serves until `close()` or the end of the process. Raises
    `SteerlabError` for a model that does not load, a folder that holds no run, and without the
    extra `explore`.

    Args:
        model: what `load` takes; by default the run's, or the packaged one.
        directions: what to steer along, or several by name; by default the run's, or those that
            every estimator fits from the corpus when it is first chosen.
        run: the folder of a run or of a sweep, whose scores are shown as a map beside the setting.
        corpus: the sentences that directions are fitted from, and examples of prompts are taken
            from: a `Corpus` or a folder; by default the run's, or those in the package.
        height: pixels of the frame in a notebook.
        port: where it listens; 0 for a free one.
    """
    session, page = prepared(model, directions, run=run, corpus=corpus)
    return Explorer(session, page, height=height, port=port)


def prepared(
    model: Any = None,
    directions: Directions | Mapping[str, Directions] | Path | None = None,
    *,
    run: str | os.PathLike[str] | None = None,
    corpus: Corpus | str | os.PathLike[str] | None = None,
    options: Mapping[str, str] | None = None,
) -> tuple[Session, dict[str, Any]]:
    """The session and what its page offers; `explore` says what goes in.

    Raises where the extra is missing before anything is loaded.

    Args:
        model: what `load` takes; by default the run's.
        directions: fitted ones, by name or in a file; by default the run's.
        run: the folder of a run, whose model, corpus, directions and scores are taken.
        corpus: what directions are fitted on; by default the run's, else the package's.
        options: of `load`, such as a dtype.
    """
    from steerlab.studies.explore.server import controls

    session, folder = opened(model, directions, run=run, corpus=corpus, options=options)
    scores = folder.scores if folder is not None else []
    start = _start(session, scores, "en" if folder is None else folder.source)
    if folder is not None:
        start["prompt"] = folder.prompt
    setting = Setting.of(start).model_dump(mode="json")
    title = f"Steering {session.model.name}"
    page = controls(session, title=title, setting=setting, scores=scores, note=NO_RUN)
    return session, page


def opened(
    model: Any = None,
    directions: Directions | Mapping[str, Directions] | Path | None = None,
    *,
    run: str | os.PathLike[str] | None = None,
    corpus: Corpus | str | os.PathLike[str] | None = None,
    options: Mapping[str, str] | None = None,
) -> tuple[Session, Run | None]:
    """A session, and the run that it is of, if any.

    Args:
        model: what `load` takes; by default the run's.
        directions: fitted ones, by name or in a file; by default the run's.
        run: the folder of a run, whose model, corpus and directions are taken.
        corpus: what directions are fitted on; by default the run's, else the package's.
        options: of `load`, such as a dtype.
    """
    folder = None if run is None else read_run(Path(run))
    if folder is not None:
        model = folder.model if model is None else model
        corpus = folder.corpus if corpus is None else corpus
        options = {**folder.options, **(options or {})}
    given = directions if directions is not None or folder is None else folder.directions
    by_name = model is None or isinstance(model, (str, os.PathLike))
    session = Session(
        model,
        given,
        corpus=corpus if corpus is None or isinstance(corpus, Corpus) else os.fspath(corpus),
        files=folder.files if folder is not None and directions is None else {},
        options=dict(options or {}) if by_name else {},
    )
    return session, folder


def _start(session: Session, scores: list[dict[str, Any]], source: str) -> dict[str, Any]:
    """Where a page begins: the best cell of the first directions, or five eighths up the model."""
    if len(session.langs) < 2:
        raise SteerlabError(
            f"there is one language, {' '.join(session.langs)}; to steer, there have to be two"
        )
    if source not in session.langs:
        source = session.langs[0]
    own = next(iter(session.own.directions.values()), None)
    if own is not None and own.source is not None:
        source = own.source
    targets = [lang for lang in session.langs if lang != source]
    estimator = session.names[0]
    operators = session.operators(estimator)
    if not operators:
        raise SteerlabError(f"no operator acts along {estimator!r}; give other directions")
    operator = operators[0]
    layers = session.layers
    layer, strength = best(scores, estimator, operator) or (layers[len(layers) * 5 // 8], 1.0)
    if layer not in layers:  # of an operator that acts on all of them
        layer = layers[len(layers) * 5 // 8]
    text = SENTENCE
    if source != "en" and source in session.texts.langs:
        text = session.texts[source][0]
    return {
        "text": text,
        "source": source,
        "target": "es" if "es" in targets else targets[0],
        "estimator": estimator,
        "operator": operator,
        "layers": [layer],
        "strength": strength,
    }


class Explorer:
    """A running explorer; a notebook shows it in a frame.

    Attributes:
        url: where it is.
    """

    def __init__(
        self, session: Session, page: dict[str, Any], *, height: int = 900, port: int = 0
    ) -> None:
        from steerlab.studies.explore.server import page_server

        self._server = page_server(session, page, port=port, framed=True)
        self._server.start()
        self.height = height
        self.url = self._server.url

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def __repr__(self) -> str:
        return f"Explorer at {self.url}"

    def _repr_html_(self) -> str:
        url = html.escape(self.url)
        return (
            f'<iframe src="{url}" title="steerlab explorer" width="100%" height="{self.height}" '
            'style="border:0" allow="clipboard-write"></iframe>'
            f'<p><a href="{url}" target="_blank">{url}</a>, on the machine that runs the '
            "notebook</p>"
        )
