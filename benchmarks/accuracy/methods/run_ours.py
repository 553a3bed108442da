"""cellscribe: one model of kind `consensus` of the reference, every classifier of it on the query.

The model is trained without seeing the query, on all genes of the reference, and kept in the cache folder, for other
queries of the same reference. Seconds and memory of its training are told apart, so that a model taken from the cache
costs what it cost when it was made.

`--way as_given` trains with `--correct-labels false`; `--way surgery` trains an encoder that takes the batch, and
fine-tunes it on the query.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from exchange import Exchange
from kept_model import train_once

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bin"))


def train(exchange, folder):
    """Train the model of this reference."""
    from cellscribe.training.options import TrainOptions
    from cellscribe.training.train import run_train

    run_train(
        TrainOptions(
            reference=(exchange.options.reference,),
            label_key="label",
            batch_key="batch",
            cl_map=exchange.options.labels,
            organism="human",
            output=folder,
            name="benchmark",
            correct_labels=exchange.options.way != "as_given",
            encode_covariates=exchange.options.way == "surgery",
            seed=exchange.seed,
            cpus=exchange.cpus,
        )
    )


def main():
    """Train or take the model, then name the query's cells by each classifier."""
    from cellscribe.answer import answer_cells
    from cellscribe.h5ad_input import read_h5ad
    from cellscribe.mapping import map_cells
    from cellscribe.model.label_sets import label_sets
    from cellscribe.model.model import Model
    from cellscribe.one_file import CountsInMemory
    from cellscribe.surgery import Surgery

    exchange = Exchange(options=("--model", "--way"))
    way = exchange.options.way
    classifiers = ("consensus", "scvi") if way == "surgery" else ("consensus", "scvi", "logistic")
    with exchange.timed("train"):
        before = train_once(
            exchange.options.cache / exchange.options.model, lambda folder: train(exchange, folder)
        )
    with exchange.timed("predict"):
        model = Model(exchange.options.cache / exchange.options.model)
        read = read_h5ad(exchange.options.query)
        # The pipeline asks for half of the model's genes; here a query with fewer is named all the same.
        mapping = map_cells(
            CountsInMemory(read.matrix, read.var),
            model,
            min_gene_overlap=0.0,
            surgery=Surgery(seed=exchange.seed) if way == "surgery" else None,
        )
        labels = np.array(model.labels)
        for classifier in classifiers:
            answer = answer_cells(mapping, model, classifier=classifier)
            exchange.write(
                f"cellscribe_{classifier}" + (f"_{way}" if way else ""),
                labels,
                labels[answer.predicted],
                probabilities=answer.probabilities,
                novelty=answer.distance_quantile if answer.novelty is None else answer.novelty,
                sets=label_sets(
                    answer.probabilities, model.set_limits(classifier, mapping.info["expression_overlap"])
                ),
                final=answer.decision.final,
            )
    exchange.finish(
        n_refit_genes=mapping.info["n_refit_genes"],
        gene_overlap=float(mapping.info["gene_overlap"]),
        **before,
    )


main()
