#!/usr/bin/env python3
"""What a model loses where fewer of its reference cells are neighbours: scores on held-out donors of the references.

    .venv/bin/python benchmarks/neighbours.py --data ../shared/data/labelled

Trains on two thirds of the donors of pbmc3k and the six samples of five studies, names the others, three times over.
Writes benchmarks/results/neighbours.csv.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))
REFERENCES = ("pbmc3k_labelled", "multistudy_pbmc_6samples")
LABEL_KEY = "cell_type_harmonized"


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--cells", default="1000,2000,10000", help="Most cells that are neighbours.")
@click.option("--cpus", type=int, default=2)
def main(data: Path, cells: str, cpus: int) -> None:
    """Score each number."""
    from cellscribe.cli import set_threads

    set_threads(cpus)
    import pandas as pd

    from cellscribe.training import members
    from cellscribe.training.calibrate import score_classifiers
    from cellscribe.training.held_out import hold_out
    from cellscribe.training.options import TrainOptions
    from cellscribe.training.reference import read_reference

    files = tuple(data / f"{name}.h5ad" for name in REFERENCES)
    reference = read_reference(files, LABEL_KEY, batch_key="donor")
    codes = reference.codes
    rows = []
    encoders: dict[int, Any] = {}
    train_encoder = members.train_encoder

    def trained_once(counts: Any, *arguments: Any, **how: Any) -> Any:
        """The encoder is the same whatever cells become neighbours: once for each fold, told by its counts."""
        if counts.nnz not in encoders:
            encoders[counts.nnz] = train_encoder(counts, *arguments, **how)
        return encoders[counts.nnz]

    members.train_encoder = trained_once
    for most in map(int, cells.split(",")):
        members.most_neighbours = lambda _, most=most: most
        options = TrainOptions(files, LABEL_KEY, Path("none"), "neighbours", cpus=cpus)
        held = hold_out(reference, options)
        names = ("neighbours", "consensus")
        scored = score_classifiers(held, names, codes, reference.batches, reference.names, options.seed)
        for classifier in names:
            found = scored.classifiers[classifier]
            rows.append(
                {"most_neighbours": most, "classifier": classifier}
                | {key: found[key] for key in ("accuracy", "macro_f1", "log_loss", "ece")}
            )
            click.echo(rows[-1])
    target = ROOT / "benchmarks" / "results" / "neighbours.csv"
    pd.DataFrame(rows).to_csv(target, index=False)


if __name__ == "__main__":
    main()
