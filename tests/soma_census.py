"""Writes a small Census of its own: `python soma_census.py FOLDER`, in an environment with tiledbsoma.

The layout is that of CELLxGENE Census: census_data/homo_sapiens is an experiment with obs, its raw counts ms/RNA/X/raw.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import tiledbsoma

GENES = Path(__file__).parents[1] / "assets" / "models" / "pbmc" / "genes.tsv"
TYPES = {"B cell": "CL:0000236", "T cell": "CL:0000084", "monocyte": "CL:0000576", "unknown": "unknown"}
N_GENES = 300
CELLS = 1_200


def write_frame(parent, name, frame):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    domain = [(0, len(frame) - 1)]
    with parent.add_new_dataframe(
        name, schema=table.schema, index_column_names=["soma_joinid"], domain=domain
    ) as made:
        made.write(table)


def write_census(folder):
    generator = np.random.default_rng(0)
    types = generator.choice(list(TYPES), CELLS, p=[0.4, 0.4, 0.18, 0.02])
    with GENES.open() as handle:
        genes = [row for _, row in zip(range(N_GENES), csv.DictReader(handle, delimiter="\t"), strict=False)]
    obs = pd.DataFrame(
        {
            "soma_joinid": np.arange(CELLS),
            "cell_type": types,
            "cell_type_ontology_term_id": [TYPES[name] for name in types],
            "donor_id": generator.choice(["d1", "d2", "d3"], CELLS),
            "dataset_id": generator.choice(["first", "second"], CELLS),
            "assay": "10x 3' v3",
            "tissue": generator.choice(["lung", "lung parenchyma", "blood"], CELLS),
            "is_primary_data": generator.random(CELLS) < 0.9,
        }
    )
    obs["tissue_general"] = obs["tissue"].replace("lung parenchyma", "lung")
    var = pd.DataFrame(
        {
            "soma_joinid": np.arange(N_GENES),
            "feature_id": [gene["gene_id"] for gene in genes],
            "feature_name": [gene["symbol"] for gene in genes],
        }
    )
    rates = np.full((CELLS, N_GENES), 0.5)
    for i, name in enumerate(TYPES):
        rates[np.ix_(types == name, range(i * 40, (i + 1) * 40))] = 4
    counts = generator.poisson(rates)
    rows, columns = np.nonzero(counts)
    # Both datasets are of one collection, so that a donor of one name is one donor.
    datasets = pd.DataFrame(
        {"soma_joinid": [0, 1], "dataset_id": ["first", "second"], "collection_id": "both"}
    )
    with tiledbsoma.Collection.create(str(folder)) as census:
        write_frame(census.add_new_collection("census_info"), "datasets", datasets)
        experiment = census.add_new_collection("census_data").add_new_collection(
            "homo_sapiens", tiledbsoma.Experiment
        )
        write_frame(experiment, "obs", obs)
        rna = experiment.add_new_collection("ms").add_new_collection("RNA", tiledbsoma.Measurement)
        write_frame(rna, "var", var)
        layers = rna.add_new_collection("X")
        with layers.add_new_sparse_ndarray("raw", type=pa.float32(), shape=counts.shape) as raw:
            values = counts[rows, columns].astype(np.float32)
            raw.write(pa.table({"soma_dim_0": rows, "soma_dim_1": columns, "soma_data": values}))
    obs.to_csv(Path(folder) / "obs.csv", index=False)
    np.savez_compressed(Path(folder) / "counts.npz", counts=counts)


if __name__ == "__main__":
    write_census(Path(sys.argv[1]))
