#!/usr/bin/env python3
"""How long naming takes beside scANVI with surgery, and beside CELLxGENE Annotate with our own model; same cells, same
run.

    .venv/bin/python benchmarks/speed/peers.py --data ../shared/data/labelled --work WORK --cellxgene PROGRAMS

PROGRAMS: the folder of the programs of an environment with `cellxgene[annotate]==1.3.0` and what
assets/models/pbmc/requirements.txt asks for; without it that part is left out. The query is pbmc4k (2,150 cells);
scANVI's model and ours are of the same reference cells. Writes benchmarks/results/speed/peers.csv.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "benchmarks")
sys.path[1:1] = [str(ROOT / "bin"), str(ROOT / "benchmarks" / "speed")]
PROGRAMS = ROOT / "benchmarks" / "speed" / "programs"
MODEL = ROOT / "assets" / "models" / "pbmc"


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Labelled files.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Where models and files go.")
@click.option("--cellxgene", type=click.Path(exists=True, path_type=Path), help="Its folder of programs.")
@click.option("--repeats", type=int, default=3)
@click.option("--cpus", type=int, default=2)
def main(data: Path, work: Path, cellxgene: Path | None, repeats: int, cpus: int) -> None:
    """Run every program several times, in turn; the medians are written."""
    import pandas as pd
    from accuracy.measure import Measured, run_measured
    from accuracy.pairs import Sets
    from accuracy.programs import thread_limits
    from inference import write_reference

    from cellscribe.io import write_h5ad
    from cellscribe.model.archive import pack_model

    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    env = thread_limits(cpus) | {
        "NUMBA_CACHE_DIR": str(work / "numba"),
        "MPLCONFIGDIR": str(work / "matplotlib"),
    }
    query, log = work / "query.h5ad", work / "log.txt"
    write_h5ad(Sets(data).get("pbmc4k"), query)

    def run(*command: str | Path, more: dict[str, str] | None = None) -> Measured:
        done = run_measured(command, log, limit=3600.0, env=env | (more or {}))
        if done.status != "ok":
            raise click.ClickException(f"{command[1]}: {done.message}")
        return done

    python = sys.executable
    rows = []

    def note(program: str, done: list[Measured], name: float | None = None) -> None:
        rows.append(
            {
                "program": program,
                "name_s": name,
                "process_s": round(sum(one.seconds for one in done), 2),
                "cpu_s": round(sum(one.cpu_seconds for one in done), 2),
                "peak_mib": max(one.peak_kib for one in done) >> 10,
            }
        )
        click.echo(rows[-1])

    reference, scanvi = work / "reference.h5ad", work / "scanvi"
    if not scanvi.is_dir():
        write_reference(data, reference)
        run(python, PROGRAMS / "run_scanvi.py", "--train", reference, scanvi)
    counts, mapping = work / "q.counts.h5ad", work / "q.mapping.h5ad"
    step = ["--sample", "q", "--cpus", str(cpus)]
    run(
        *(python, ROOT / "bin" / "convert.py", *step, "--input", query, "--output", counts),
        *("--metrics", work / "q.convert.json"),
    )
    archive = work / "pbmc.zip"
    pack_model(MODEL, archive)
    annotate = [
        *(python, ROOT / "bin" / "annotate.py", *step, "--counts", counts, "--mapping", mapping),
        *("--model", MODEL, "--output", work / "q.annotated.h5ad"),
        *("--predictions", work / "q.predictions.tsv.gz", "--summary", work / "q.annotation.json"),
    ]
    for _ in range(repeats):
        done = [run(python, PROGRAMS / "run_scanvi.py", query, scanvi, work / "scanvi.csv")]
        note("scANVI, surgery of 100 epochs", done, json.loads(log.read_text().splitlines()[-1])["name"])
        done = [run(python, PROGRAMS / "run_cellscribe.py", query, MODEL, work / "ours.csv", str(cpus))]
        note("cellscribe consensus", done, json.loads(log.read_text().splitlines()[-1])["name"])
        done = [
            run(
                *(python, ROOT / "bin" / "map.py", *step, "--counts", counts),
                *("--model", MODEL, "--output", mapping),
            ),
            run(*annotate),
        ]
        note("cellscribe MAP + ANNOTATE", done)
        if cellxgene:
            done = [
                run(
                    # In WORK, as MLflow leaves a folder `mlruns` where it is started.
                    *("env", "-C", work, cellxgene.resolve() / "cellxgene", "annotate", counts),
                    *("-m", archive, "-o", work / "theirs.h5ad"),
                    *("--mlflow-env-manager", "local", "--overwrite"),
                    more={"PATH": f"{cellxgene.resolve()}:{os.environ['PATH']}"},
                )
            ]
            if "Annotation failed" in log.read_text():
                raise click.ClickException(log.read_text()[-500:])
            note("cellxgene annotate, our model", done)
    table = pd.DataFrame(rows).groupby("program", sort=False).median().round(2).reset_index()
    target = ROOT / "benchmarks" / "results" / "speed" / "peers.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(target, index=False)
    click.echo(table.to_string())


if __name__ == "__main__":
    main()
