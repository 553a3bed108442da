"""Results held against their lists: whole ones pass, and all that can happen to a file is told."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from model_maker import make_model
from small_model import simulate, write_counts

from cellscribe.checksums import read_list, write_list
from cellscribe.errors import InputError
from cellscribe.model.manifest import file_sha256

FAILURES = "sample\tstep\texit_code\tmeaning\tmessage\n"


def command(root: Path, name: str, *arguments: object) -> Result:
    main = runpy.run_path(str(root / "bin" / name))["main"]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """As a run leaves them: two good samples, one that failed at once and one that failed at its report."""
    results = tmp_path / "results"
    for sample in ("a", "b.1"):
        folder = results / "samples" / sample
        write_counts(simulate(9), folder / f"{sample}.cellxgene.h5ad", sample=sample)
        (folder / f"{sample}.report.html").write_text("<p>page</p>")
        write_list(sorted(folder.iterdir()), folder / f"{sample}.sha256")
    late = results / "samples" / "late"
    late.mkdir()
    (late / "late.qc.json").write_text("{}")
    summary = results / "summary"
    summary.mkdir()
    status = {"a": "done", "b.1": "done", "late": "failed", "never": "failed"}
    (summary / "summary.tsv").write_text(
        "sample\tstatus\n" + "".join(f"{sample}\t{word}\n" for sample, word in status.items())
    )
    (summary / "multiqc_report.html").write_text("<p>run</p>")
    write_list(sorted(summary.iterdir()), summary / "summary.sha256")
    (summary / "failures.tsv").write_text(
        FAILURES + "late\tREPORT\t70\tan error\tx\nnever\tCONVERT\t3\tbad input\tx\n"
    )
    make_model(results / "models" / "small")
    return results


def test_whole_results_pass_with_a_line_for_each_sample(root: Path, results: Path) -> None:
    done = command(root, "verify_output.py", results)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "a: 2 files as listed",
        "b.1: 2 files as listed",
        "late: 1 file, and no list; failed at REPORT (summary/failures.tsv)",
        "never: failed at CONVERT (summary/failures.tsv)",
    ]
    assert lines[4] == "summary: 2 files as listed" and lines[5].startswith("models/small: ")
    assert lines[-1] == f"All as published: {results}"


def test_files_of_an_earlier_run_are_not_taken_for_those_of_a_sample_that_failed(
    root: Path, results: Path
) -> None:
    with (results / "summary" / "failures.tsv").open("a") as table:
        table.write("a\tCONVERT\t3\tbad input\tx\nb.1\tCURATE\t3\tbad input\tx\n")
    done = command(root, "verify_output.py", results)
    assert done.exit_code == 3
    assert "it failed in this run: what lies here is, in part or whole, of an earlier one" in done.output
    assert "b.1: 2 files as listed; failed at CURATE" in done.output


def test_what_an_earlier_run_left_is_told(root: Path, results: Path) -> None:
    shutil.copytree(results / "samples" / "a", results / "samples" / "old")
    for file in (results / "samples" / "old").iterdir():
        file.rename(file.with_name(file.name.replace("a.", "old.", 1)))
    listed = results / "samples" / "old" / "old.sha256"
    listed.unlink()
    write_list(sorted(listed.parent.iterdir()), listed)
    merged = results / "merged"
    merged.mkdir()
    (merged / "composition.tsv").write_text("sample\tlabel\tn_cells\tshare\na\tx\t1\t1\nold\tx\t1\t1\n")
    write_list(sorted(merged.iterdir()), merged / "merged.sha256")
    with (results / "summary" / "failures.tsv").open("a") as table:
        table.write("\tCHECK_INPUT\t3\tbad input\tx\n")
    done = command(root, "verify_output.py", results)
    assert done.exit_code == 0, done.output
    assert "old: 2 files as listed; of an earlier run" in done.output
    assert "merged: 1 file as listed; of an earlier run" in done.output
    assert (
        "the run: failed at CHECK_INPUT" in done.output and "\na: 2 files as listed\n" in f"\n{done.output}"
    )


def test_the_lists_are_those_of_sha256sum(results: Path) -> None:
    if not shutil.which("sha256sum"):
        pytest.skip("there is no sha256sum here")
    for name in ("a", "b.1"):
        check = ["sha256sum", "--check", "--strict", f"{name}.sha256"]
        done = subprocess.run(check, cwd=results / "samples" / name, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def missing(results: Path) -> str:
    (results / "samples/a/a.report.html").unlink()
    return "a.report.html: is missing"


def changed(results: Path) -> str:
    (results / "samples/a/a.report.html").write_text("<p>pagf</p>")
    return "a.report.html: was changed since it was published"


def extra(results: Path) -> str:
    (results / "samples/a/a.new.tsv").write_text("")
    return "a.new.tsv: is not listed in a.sha256"


def no_list(results: Path) -> str:
    (results / "samples/a/a.sha256").unlink()
    return "there is no a.sha256"


def no_folder(results: Path) -> str:
    shutil.rmtree(results / "samples/a")
    return "summary.tsv says that it is done, and its folder is missing"


def cut_h5ad(results: Path) -> str:
    path = results / "samples/a/a.cellxgene.h5ad"
    path.write_bytes(path.read_bytes()[:-3000])
    return "a.cellxgene.h5ad: it cannot be read"


def wrong_h5ad(results: Path) -> str:
    """One that was listed as it is, as a bug of ours would."""
    folder = results / "samples/a"
    cells = simulate(9)
    cells.X.data[0] = 0.5
    write_counts(cells, folder / "a.cellxgene.h5ad")
    write_list([path for path in folder.iterdir() if path.suffix != ".sha256"], folder / "a.sha256")
    return "a.cellxgene.h5ad: 1 numbers of X are not whole"


def not_annotated(results: Path) -> str:
    folder = results / "samples/a"
    (folder / "a.cellxgene.h5ad").rename(folder / "a.annotated.h5ad")
    write_list([path for path in folder.iterdir() if path.suffix != ".sha256"], folder / "a.sha256")
    return "a.annotated.h5ad: no annotation is in it"


def bad_list(results: Path) -> str:
    (results / "samples/a/a.sha256").write_text(f"{'0' * 64}  ../../summary/summary.tsv\n")
    return "a.sha256: line 1 is no sha256 and a name"


def changed_model(results: Path) -> str:
    (results / "models/small/card.md").write_text("another")
    return "card.md"


def changed_summary(results: Path) -> str:
    with (results / "summary/multiqc_report.html").open("a") as file:
        file.write(" ")
    return "multiqc_report.html: was changed"


DAMAGES = [missing, changed, extra, no_list, no_folder, cut_h5ad, wrong_h5ad, not_annotated, bad_list]
DAMAGES += [changed_model, changed_summary]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_whatever_happens_to_a_file_is_told_and_ends_the_command(root: Path, results: Path, damage) -> None:
    told = damage(results)
    done = command(root, "verify_output.py", results)
    assert done.exit_code == 3, done.output
    assert told in done.stdout and "All as published" not in done.stdout
    assert "b.1: 2 files as listed" in done.stdout, "the others are told as ever"
    assert " wrong, in 1 of " in done.stderr


def test_a_folder_in_which_nothing_was_published_is_no_success(root: Path, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    done = command(root, "verify_output.py", tmp_path)
    assert done.exit_code == 3 and "Give the --outdir of a run" in done.stderr


def test_lists_of_earlier_steps_are_joined_and_sorted(root: Path, tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    assert (
        command(root, "checksums.py", "--output", tmp_path / "one.sha256", tmp_path / "b.txt").exit_code == 0
    )
    both = ("--listed", tmp_path / "one.sha256", "--output", tmp_path / "all.sha256")
    assert command(root, "checksums.py", *both, tmp_path / "c.txt", tmp_path / "a.txt").exit_code == 0
    listed = read_list(tmp_path / "all.sha256")
    assert list(listed) == ["a.txt", "b.txt", "c.txt"]
    assert all(sha256 == file_sha256(tmp_path / name) for name, sha256 in listed.items())


def test_two_files_of_one_name_are_not_listed_as_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for folder in (tmp_path, tmp_path / "folder"):
        (folder / "a.txt").write_text(str(folder))
    with pytest.raises(InputError, match=r"two different files are called 'a\.txt'"):
        write_list([tmp_path / "a.txt", tmp_path / "folder" / "a.txt"], tmp_path / "list.sha256")
