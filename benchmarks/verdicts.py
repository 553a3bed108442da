#!/usr/bin/env python3
"""How often the report's verdict by marker genes is right, for names that are right and for names made wrong.

    .venv/bin/python benchmarks/verdicts.py --data ../shared/data/labelled

Markers of pbmc3k judge each of multistudy's six samples, and markers of multistudy judge pbmc3k; the thresholds of
bin/cellscribe/verdicts.py were chosen on these, and on nothing else. Writes benchmarks/results/verdicts.csv.

Each sample's clusters (Leiden on principal components of its own) are judged under the name that most of their cells
have, then each under every other name. A cluster is pure where at least 80 % of its cells have that name. Names are
close within the T and NK cells, and within the monocytes and dendritic cells.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    from cellscribe.markers import Marker
    from cellscribe.verdicts import Judge

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bin"))

SETS = ("pbmc3k_labelled", "multistudy_pbmc_6samples")
LABEL_KEY, BATCH_KEY = "cell_type_harmonized", "donor"
CLOSE = ({"CD4 T cell", "CD8 T cell", "Other T cell", "NK cell"}, {"Monocyte", "Dendritic cell"})
DEPTHS = (1.0, 0.25, 0.1)
PURE = 0.8
FEW = 6
RANDOM_CELLS = 60
N_COMPONENTS = 20
COLUMNS = ("counts", "names", "n", "supported", "weak", "contradicted", "points_right", "points_wrong")


def samples(data: Path) -> Iterator[tuple[dict[str, list[Marker]], sp.csr_matrix, pd.DataFrame, np.ndarray]]:
    """Markers of the one set; counts, genes and labels of each sample of the other."""
    import numpy as np

    from cellscribe.markers import read_markers
    from cellscribe.training.genes import choose_genes
    from cellscribe.training.options import TrainOptions
    from cellscribe.training.reference import read_reference
    from cellscribe.training.train import markers_of

    for set_, other in (SETS, SETS[::-1]):
        cells = read_reference((data / f"{set_}.h5ad",), LABEL_KEY, batch_key=BATCH_KEY)
        options = TrainOptions((), LABEL_KEY, Path(), "verdicts")
        chosen = choose_genes(cells, np.ones(len(cells.labels), dtype=bool), options)
        genes = cells.genes.iloc[chosen].reset_index(drop=True)
        counts = cells.counts[:, chosen].tocsr()
        found = read_markers(markers_of(counts, genes, cells.codes, cells.batches, cells.names))
        query = read_reference((data / f"{other}.h5ad",), LABEL_KEY, batch_key=BATCH_KEY)
        labels = query.labels.astype(object)
        var = query.genes.rename(columns={"gene_id": "gene_ids", "symbol": "gene_symbols"})
        for batch in dict.fromkeys(query.batches.tolist()):
            rows = np.flatnonzero(query.batches == batch)
            yield found, query.counts[rows].tocsr(), var, labels[rows]


def clusters_of(logged: sp.csr_matrix, seed: int = 0) -> np.ndarray:
    """Leiden clusters on the first principal components of the 2,000 most variable genes, int (n_cells,)."""
    import numpy as np

    from cellscribe.clusters import leiden, neighbour_graph

    mean = np.asarray(logged.mean(axis=0)).ravel()
    variance = np.asarray(logged.multiply(logged).mean(axis=0)).ravel() - mean**2
    dense = logged[:, np.argsort(-variance)[:2000]].toarray()
    left, scale, _ = np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    place = (left[:, :N_COMPONENTS] * scale[:N_COMPONENTS]).astype(np.float32)
    return leiden(neighbour_graph(place)[0], seed=seed)


def thinned(counts: sp.csr_matrix, share: float, generator: np.random.Generator) -> sp.csr_matrix:
    """The counts of a sequencing run with that share of the reads."""
    import numpy as np

    result = counts.copy()
    if share < 1:
        result.data = generator.binomial(counts.data.astype(np.int64), share).astype(np.float32)
        result.eliminate_zeros()
    return result


def judge_of(
    logged: sp.csr_matrix,
    groups: Sequence[np.ndarray],
    located: Mapping[str, Any],
    expected: Mapping[str, Any],
) -> Judge:
    """A judge over the groups of cells that share all values of `groups`: (predicted, cluster)."""
    import numpy as np

    from cellscribe.markers import group_statistics
    from cellscribe.verdicts import Judge

    pairs = sorted(set(zip(*groups, strict=True)))
    position = {pair: i for i, pair in enumerate(pairs)}
    codes = np.array([position[pair] for pair in zip(*groups, strict=True)])
    statistics = group_statistics([(codes, logged)], len(pairs), logged.shape[1])
    predicted, cluster = (np.array(part, dtype=object) for part in zip(*pairs, strict=True))
    return Judge(statistics, predicted, cluster, located, expected, {})


def kind_of(name: str, truly: str) -> str:
    """Which kind of wrong name it is."""
    return "close type" if any({name, truly} <= group for group in CLOSE) else "another lineage"


def cases(
    logged: sp.csr_matrix,
    labels: np.ndarray,
    cluster: np.ndarray,
    located: Mapping[str, Any],
    expected: Mapping[str, Any],
    generator: np.random.Generator,
) -> Iterator[tuple[str, str, str, Judge, str]]:
    """Every name to be judged: (kind of case, the name, the true type, the judge, the cluster)."""
    import numpy as np

    for one in dict.fromkeys(cluster.tolist()):
        rows = np.flatnonzero(cluster == one)
        names, numbers = np.unique(labels[rows].astype(str), return_counts=True)
        truly, pure = str(names[numbers.argmax()]), numbers.max() >= PURE * len(rows)
        if truly not in located:
            continue
        few = cluster.copy()
        few[generator.choice(rows, min(FEW, len(rows)), replace=False)] = "few"
        yield (
            f"right, {'pure' if pure else 'mixed'} cluster",
            truly,
            truly,
            judge_of(logged, (labels, cluster), located, expected),
            one,
        )
        yield (f"right, {FEW} cells", truly, truly, judge_of(logged, (labels, few), located, expected), "few")
        if not pure:
            continue
        for name in sorted(set(located) - {truly}):
            wrong = np.where(cluster == one, name, labels)
            kind = kind_of(name, truly)
            judge = judge_of(logged, (wrong, cluster), located, expected)
            yield f"wrong, {kind}", name, truly, judge, one
            unknown = {label: hits for label, hits in located.items() if label != truly}
            judge = judge_of(logged, (wrong, cluster), unknown, expected)
            yield f"wrong, {kind}; the model lacks the true type", name, "", judge, one
            everywhere = np.where(labels == truly, name, wrong)
            judge = judge_of(logged, (everywhere, cluster), located, expected)
            yield f"wrong, {kind}; all cells of the true type too", name, truly, judge, one
            judge = judge_of(logged, (np.where(few == "few", name, labels), few), located, expected)
            yield f"wrong, {kind}, {FEW} cells", name, truly, judge, "few"
    for truly in sorted(set(located) & set(labels.tolist())):
        rows = np.flatnonzero(labels == truly)
        if len(rows) < 10:
            continue
        for name in sorted(located):
            given = np.full(len(rows), name, dtype=object)
            kind = (
                "right, a sample of one type"
                if name == truly
                else f"wrong, {kind_of(name, truly)}, a sample of one type"
            )
            yield kind, name, truly, judge_of(logged[rows], (given, given), located, expected), name
    for name in sorted(located):
        mixed = cluster.copy()
        rows = generator.choice(len(labels), min(RANDOM_CELLS, len(labels) // 4), replace=False)
        mixed[rows] = "random"
        given = np.where(mixed == "random", name, labels)
        yield (
            "wrong, cells at random",
            name,
            "",
            judge_of(logged, (given, mixed), located, expected),
            "random",
        )


def measure(data: Path) -> list[dict[str, object]]:
    """Shares of the verdicts, by depth and kind of case."""
    import numpy as np
    import scipy.sparse as sp

    from cellscribe.markers import locate_markers
    from cellscribe.model.logistic import log_normalise

    generator = np.random.default_rng(0)
    found: dict[tuple[float, str], Counter[str]] = defaultdict(Counter)
    for expected, counts, var, labels in samples(data):
        at = locate_markers(expected, var)
        columns = sorted({column for hits in at.values() for _, column in hits})
        place = {column: i for i, column in enumerate(columns)}
        for depth in DEPTHS:
            kept = thinned(counts, depth, generator)
            full = log_normalise(kept)
            logged = sp.csr_matrix(full[:, columns])
            clusters = clusters_of(full).astype(str).astype(object)
            located = {label: [(gene, place[column]) for gene, column in hits] for label, hits in at.items()}
            for kind, name, truly, judge, cluster in cases(
                logged, labels, clusters, located, expected, generator
            ):
                support = judge.support(name, judge.clusters == cluster)
                count = found[depth, kind]
                count["n"] += 1
                count[support.verdict] += 1
                if support.verdict == "contradicted" and support.rival and truly:
                    count["points_right" if support.rival == truly else "points_wrong"] += 1
    return [
        {
            "counts": depth,
            "names": kind,
            "n": count["n"],
            **{name: round(count[name] / count["n"], 3) for name in COLUMNS[3:]},
        }
        for (depth, kind), count in sorted(found.items(), key=lambda item: (-item[0][0], item[0][1]))
    ]


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/verdicts.csv")
def main(data: Path, output: Path) -> None:
    """Judge right names and wrong ones."""
    import pandas as pd

    table = pd.DataFrame(measure(data), columns=list(COLUMNS))
    output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(output, index=False)
    click.echo(table.to_string(index=False))


if __name__ == "__main__":
    main()
