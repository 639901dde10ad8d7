"""How polyglot's languages cluster: the dendrogram of DiffMean vectors at the layer where
families show best."""

from pathlib import Path

import steerlab as sl
from steerlab.analysis.geometry import family_neighbours, scripts

OUT = Path("build/figures")


def main() -> None:
    corpus = sl.corpus()
    moments = sl.collect(sl.load(), corpus.split("estimate"), also=[])
    means = moments.mean.transpose(0, 1).numpy()
    kin = family_neighbours(means, corpus.langs, within=scripts(corpus.langs))
    layer = kin.layers[kin.best]
    note = f"1-nearest-neighbour family accuracy {kin.accuracy[kin.best]:.2f} of {kin.n} languages, p = {kin.p:.4f} within scripts"
    OUT.mkdir(parents=True, exist_ok=True)
    figure = sl.figures.dendrogram(sl.diffmean(moments).at(layer), note=note)
    figure.write_html(OUT / "families.html", include_plotlyjs=True)
    print(f"{OUT / 'families.html'}: layer {layer}, {note}")


if __name__ == "__main__":
    main()
