"""The real Nextflow on real files. What costs a minute is run once and shared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from nextflow_runner import NEXTFLOW, Launch, Run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.pipeline)


@pytest.fixture(scope="session", autouse=True)
def nextflow() -> None:
    if not NEXTFLOW.exists():
        pytest.skip("there is no .tools/bin/nextflow; `make nextflow` brings it")


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch(tmp_path)


@dataclass
class Demo:
    """The demo sample, from matrix to page, with the embedded model."""

    launch: Launch
    run: Run


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    launch = Launch(tmp_path_factory.mktemp("demo"))
    return Demo(launch, launch.run("-profile", "test"))


@dataclass
class Trained:
    """A model made by --mode train, then a sheet of one good and one bad sample named with it."""

    train: Run
    annotate: Run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from small_model import simulate, write_cl_map, write_reference

    launch = Launch(tmp_path_factory.mktemp("a launch folder"))
    write_reference(simulate(), launch.folder / "reference.h5ad")
    write_reference(simulate(120, seed=1), launch.folder / "good.h5ad")
    write_cl_map(launch.folder / "cl.csv")
    launch.write("bad.h5ad", "this is no HDF5 file")
    launch.write("sheet.csv", "sample,path\ngood,good.h5ad\nbad,bad.h5ad\n")
    arguments = (
        "--mode train --reference reference.h5ad --label_key cell_type --batch_key donor --levels broad"
    )
    small = "--model_kind logistic --cl_map cl.csv --n_top_genes 100 --model_name small"
    train = launch.run(*f"{arguments} {small}".split())
    query = "--input sheet.csv --model results/models/small --run_name day1 --doublets off"
    annotate = launch.run(*query.split())
    return Trained(train, annotate)
