"""Find the counts that Cell Ranger wrote: in an outs folder, a matrix folder, an .h5, or a folder above one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cellscribe.errors import InputError
from cellscribe.other_programs import of_another_program
from cellscribe.tenx_files import file_kind
from cellscribe.words import first_names

# In the order of preference: filtered before raw, h5 (one file, quick to read) before mtx.
PLACES = tuple(
    f"{folder}{kind}{matrix}"
    for kind in ("filtered_", "sample_filtered_", "raw_", "sample_raw_")
    for matrix in ("feature_bc_matrix.h5", "feature_bc_matrix", "gene_bc_matrices_h5.h5", "gene_bc_matrices")
    for folder in ("", "count/", "multi/count/")
)


@dataclass
class Found:
    """Where the counts of a sample lie: an h5, h5ad, or the folders of a matrix (one a genome)."""

    kind: str
    paths: list[Path]
    named_raw: bool = False
    metrics: Path | None = None
    notes: list[str] = field(default_factory=list)


def find_input(path: Path) -> Found:
    """Find the counts at `path`: a file, a matrix folder, an outs folder, or a folder above one.

    Raises InputError where there is nothing, or several samples, to read.
    """
    if path.is_file():
        return Found(file_kind(path), [path], _is_raw(path.name), _metrics_near(path.parent))
    if not path.is_dir():
        raise InputError("this is neither a file nor a folder", "Give a file or a folder.", file=path)
    if found := _matrix_folder(path):
        return found
    for folder in (path, path / "outs"):
        if found := _outs(folder):
            return found
    below = [
        found for child in _folders(path) for place in (child, child / "outs") if (found := _outs(place))
    ]
    if len(below) == 1:
        return below[0]
    if below:
        listed = "\n".join(f"  {found.paths[0]}" for found in below)
        raise InputError(
            f"the folder holds {len(below)} samples:\n{listed}",
            "Give each its own row in the sample sheet.",
            file=path,
        )
    seen = sorted(child.name for child in path.iterdir() if not child.name.startswith("."))
    todo = (
        "Give an outs folder, a matrix folder (matrix.mtx, barcodes.tsv, features.tsv), an .h5 or an .h5ad."
    )
    if {".zgroup", "zarr.json"} & {child.name for child in path.iterdir()}:
        todo = "This is a zarr store: write it as an .h5ad (anndata.read_zarr, then write_h5ad)."
    elif deeper := _deeper(path):
        todo = f"Deeper in it there are {first_names(deeper)}: give one of these."
    else:
        todo = of_another_program(path) or todo
    raise InputError(
        f"no Cell Ranger matrix was found in this folder; it holds {first_names(seen) or 'nothing'}",
        todo,
        file=path,
    )


def _deeper(path: Path) -> list[str]:
    """Matrices two and three folders below, as those of Visium HD's bins."""
    names = (f"{kind}filtered_feature_bc_matrix.h5" for kind in ("", "sample_"))
    found = {place for name in names for above in ("*/*", "*/*/*") for place in path.glob(f"{above}/{name}")}
    return sorted(str(place.relative_to(path)) for place in found)


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _is_raw(name: str) -> bool:
    return any(f"raw_{kind}_bc_matri" in name for kind in ("feature", "gene"))


def _metrics_near(folder: Path) -> Path | None:
    for place in (folder, *list(folder.parents)[:2]):
        if (metrics := place / "metrics_summary.csv").is_file():
            return metrics
    return None


def _outs(folder: Path) -> Found | None:
    """The best matrix of one outs folder, or None. `multi`: the one sample's; several are an error."""
    if not folder.is_dir():
        return None
    samples = [
        found
        for base in ("per_sample_outs", "multi/per_sample_outs")
        if (folder / base).is_dir()
        for child in _folders(folder / base)
        if (found := _outs(child))
    ]
    if len(samples) > 1:
        listed = "\n".join(f"  {_sample_folder(found.paths[0])}" for found in samples)
        raise InputError(
            f"this Cell Ranger multi run holds {len(samples)} samples:\n{listed}",
            "Give each of these folders its own row in the sample sheet.",
            file=folder,
        )
    if samples:
        samples[0].notes.append(
            f"The one sample of this multi run is '{_sample_folder(samples[0].paths[0]).name}'."
        )
        return samples[0]
    for place in PLACES:
        if found := _at_place(folder / place, place):
            found.metrics = next(
                (
                    name
                    for name in (folder / "metrics_summary.csv", folder.parent / "metrics_summary.csv")
                    if name.is_file()
                ),
                None,
            )
            return found
    downloads = [
        child
        for ending in (
            "filtered_feature_bc_matrix.h5",
            "filtered_gene_bc_matrices_h5.h5",
            "raw_feature_bc_matrix.h5",
        )
        for child in sorted(folder.glob(f"*{ending}"))
        if not child.name.startswith(".")
    ]
    filtered = [child for child in downloads if not _is_raw(child.name)] or downloads
    if len(filtered) == 1:
        return Found(
            file_kind(filtered[0]), filtered, _is_raw(filtered[0].name), notes=[_used(filtered[0].name)]
        )
    if filtered:
        raise InputError(
            f"the folder holds {len(filtered)} matrices: {first_names([child.name for child in filtered])}",
            "Give each its own row in the sample sheet.",
            file=folder,
        )
    return None


def _sample_folder(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.parent.name == "per_sample_outs")


def _used(name: str) -> str:
    return f"The counts were read from {name}."


def _at_place(path: Path, place: str) -> Found | None:
    if path.is_file() and path.suffix == ".h5":
        return Found(file_kind(path), [path], _is_raw(place), notes=[_used(place)])
    if not path.is_dir():
        return None
    if found := _matrix_folder(path):
        found.named_raw, found.notes = _is_raw(place), [_used(place)]
        return found
    genomes = [child for child in _folders(path) if _matrix_folder(child)]
    if not genomes:
        return None
    return Found("mtx", genomes, _is_raw(place), notes=[_used(place)])


def _matrix_folder(path: Path) -> Found | None:
    """`path` itself as a matrix folder, v2 or v3; also the folder of genomes of v2."""
    if pick(path, "matrix.mtx"):
        raw = any(_is_raw(name) for name in (path.name, path.parent.name))
        return Found("mtx", [path], raw, _metrics_near(path.parent))
    if _is_raw(path.name) or "filtered_gene_bc_matrices" in path.name:
        genomes = [child for child in _folders(path) if pick(child, "matrix.mtx")]
        if genomes:
            return Found("mtx", genomes, _is_raw(path.name), _metrics_near(path.parent))
    return None


def pick(folder: Path, *names: str) -> Path | None:
    """The file of `folder` that ends in one of `names`, plain or gzipped; None where there is none.

    A prefix is allowed (files from GEO have one), but only one prefix a folder. Junk (`._*`) is ignored.
    """
    for name in names:
        for exact in (folder / f"{name}.gz", folder / name):
            if exact.is_file():
                return exact
        prefixed = sorted(
            child
            for child in folder.glob(f"*{name}*")
            if child.name.endswith((name, f"{name}.gz"))
            and not child.name.startswith(".")
            and child.is_file()
        )
        if len(prefixed) > 1:
            raise InputError(
                f"there are {len(prefixed)} files named *{name}: {first_names([f.name for f in prefixed])}",
                "Put each sample's three files into a folder of its own.",
                file=folder,
            )
        if prefixed:
            return prefixed[0]
    return None
