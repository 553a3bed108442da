"""What breaks in the middle of a run, and what -resume makes of it."""

from __future__ import annotations

import filecmp
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from model_maker import make_model
from nextflow_runner import DEMO, NEXTFLOW, ROOT, Launch, Run
from small_model import simulate, small_model, write_reference

from cellscribe.model.manifest import model_sha256, verify_model

# Python imports it at its start. Where the plan has a file for a step and a sample, the process kills itself once: at
# its start ("at once"), or before it gives the file its name that is to be left after so many others ("1").
KILLER = """
import os, signal, sys
from pathlib import Path

words = sys.orig_argv
step = Path(words[1]).stem if len(words) > 1 else ''
sample = words[words.index('--sample') + 1] if '--sample' in words else ''
plan = Path(__file__).parent / f'{step}-{sample}'

def die():
    plan.rename(plan.with_suffix('.done'))
    os.kill(os.getpid(), signal.SIGKILL)

def replace(source, target, **more):
    global left
    if Path(target).resolve().parent == Path.cwd():
        if left == 0:
            die()
        left -= 1
    return rename(source, target, **more)

if plan.is_file():
    when = plan.read_text()
    if when == 'at once':
        die()
    left, rename, os.replace = int(when), os.replace, replace
"""
# CONVERT and REPORT are not tried again, so that -resume has to; the other steps are, as ever. Two threads, where the
# undisturbed run has one.
CONFIG = """
env.PYTHONPATH = '{plan}'
trace.fields   = 'name,process,tag,status,exit,attempt,memory,workdir'
process {{
    withName: 'CONVERT|REPORT'                {{ errorStrategy = 'ignore' }}
    withName: 'CONVERT|QC|MAP|ANNOTATE|REPORT' {{ cpus = 2 }}
}}
"""
TRIED_AGAIN = {
    **{
        "check_input-": "1",
        "versions-": "0",
        "fetch_model-": "at once",
        "summary-": "1",
        "multiqc-": "at once",
    },
    **{"qc-y": "2", "map-y": "0", "annotate-y": "1"},
}
FATAL = {"convert-x": "1", "report-y": "2"}
# The page has the time at which it was made, and random ids; the list has its checksum.
DIFFER = ["summary/multiqc_report.html", "summary/summary.sha256"]


def cells(folder: Path, sample: str, seed: int) -> None:
    write_reference(simulate(130, seed=seed), folder / f"{sample}.h5ad")


def prepare(folder: Path) -> tuple[Launch, list[str]]:
    """Two samples to start on, and the arguments of a run."""
    launch = Launch(folder)
    cells(launch.folder, "x", 1)
    cells(launch.folder, "y", 2)
    launch.write("sheet.csv", "sample,path\nx,x.h5ad\ny,y.h5ad\n")
    return launch, ["--input", "sheet.csv", "--model", str(small_model("consensus"))]


@pytest.mark.train
def test_a_training_that_fails_is_no_sample(tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    cells(launch.folder, "x", 1)
    arguments = ["--mode", "train", "--reference", "x.h5ad", "--label_key", "nothing", "--model_name", "mine"]
    run = launch.run(*arguments)
    assert run.returncode
    assert [(row["sample"], row["step"], row["exit_code"]) for row in run.table("summary/failures.tsv")] == [
        ("", "TRAIN", "3")
    ]
    assert "1 failed.\n" in run.output and "mine: TRAIN" not in run.output


def killed_when(launch: Launch, told: str, *arguments: str) -> Run:
    """Start a run, and kill Nextflow alone (its tasks live on) as soon as the trace has `told`."""
    trace = launch.folder / "results" / "pipeline_info" / "trace.txt"
    trace.unlink()
    log = launch.folder / "killed.log"
    with log.open("w") as output:
        running = subprocess.Popen(
            [NEXTFLOW, "run", ROOT, "-ansi-log", "false", *arguments],
            cwd=launch.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    while running.poll() is None and not (trace.exists() and told in trace.read_text()):
        time.sleep(0.05)
    running.kill()
    return Run(running.wait(), log.read_text(), launch.folder / "results")


@dataclass
class Disturbed:
    """A run in which every step is killed once, then one whose Nextflow is killed, then one with another input that
    ends well; and one of the same samples that nothing disturbs.
    """

    broken: Run
    failures: list[dict[str, str]]
    summary: list[dict[str, str]]
    page: str
    left: set[str]
    tries: list[dict[str, str]]
    killed: Run
    mended: Run
    undisturbed: Run


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    launch, arguments = prepare(tmp_path_factory.mktemp("disturbed"))
    cells(launch.folder, "y", 9)
    plan = launch.folder / "plan"
    plan.mkdir()
    (plan / "sitecustomize.py").write_text(KILLER)
    for name, when in (TRIED_AGAIN | FATAL).items():
        (plan / name).write_text(when)
    launch.write("faults.config", CONFIG.format(plan=plan))
    arguments += ["-c", "faults.config"]
    broken = launch.run(*arguments)
    after = {
        "failures": broken.table("summary/failures.tsv"),
        "summary": broken.table("summary/summary.tsv"),
        "page": (broken.results / "summary/multiqc_report.html").read_text(),
        "left": broken.files(),
        "tries": broken.table("pipeline_info/trace.txt"),
    }
    # Nextflow notes what it has done for -resume a moment after the trace: by the end of QC, CONVERT is noted.
    killed = killed_when(launch, "QC (x)", *arguments, "-resume")
    cells(launch.folder, "y", 2)
    mended = launch.run(*arguments, "-resume")
    launch, arguments = prepare(tmp_path_factory.mktemp("undisturbed"))
    return Disturbed(broken, killed=killed, mended=mended, undisturbed=launch.run(*arguments), **after)


def test_a_killed_task_ends_its_sample_alone_and_is_told_with_its_step(disturbed: Disturbed) -> None:
    assert disturbed.broken.returncode == 1
    assert [(row["sample"], row["step"], row["exit_code"]) for row in disturbed.failures] == [
        ("x", "CONVERT", "137"),
        ("y", "REPORT", "137"),
    ]
    assert "x: CONVERT ended with 137 (killed, mostly for memory)" in disturbed.broken.output


def test_the_summary_and_its_page_list_the_failures(disturbed: Disturbed) -> None:
    told = [
        [row[name] for name in ("sample", "status", "failed_step", "exit_code")] for row in disturbed.summary
    ]
    assert told == [["x", "failed", "CONVERT", "137"], ["y", "failed", "REPORT", "137"]]
    assert "2 of 2 samples were not finished" in disturbed.page
    assert disturbed.page.count("137 killed, mostly for memory") == 2


def test_nothing_half_written_is_published(disturbed: Disturbed) -> None:
    names = ("annotated.h5ad", "predictions.tsv.gz", "qc.json", "removed.tsv.gz")
    assert {name for name in disturbed.left if name.startswith("samples/")} == {
        f"samples/y/y.{name}" for name in names
    }


@pytest.mark.parametrize("name", TRIED_AGAIN)
def test_what_was_killed_is_tried_again_with_more_memory(disturbed: Disturbed, name: str) -> None:
    step, sample = name.upper().split("-")
    tries = [
        row
        for row in disturbed.tries
        if row["process"].split(":")[-1] == step and (not sample or row["tag"] == sample.lower())
    ]
    assert [(row["status"], row["exit"], row["attempt"]) for row in tries] == [
        ("FAILED", "137", "1"),
        ("COMPLETED", "0", "2"),
    ]
    first, second = (float(row["memory"].removesuffix(" GB")) for row in tries)
    assert second == 2 * first


def test_what_was_done_is_not_done_again_after_a_failure_or_a_killed_nextflow(disturbed: Disturbed) -> None:
    assert disturbed.killed.returncode == -signal.SIGKILL
    once = {"CHECK_INPUT", "FETCH_MODEL", "VERSIONS"}
    assert once | {f"{step} (y)" for step in ("CONVERT", "QC", "MAP", "ANNOTATE")} <= set(
        disturbed.killed.tasks("Cached")
    )
    assert disturbed.killed.tasks("Submitted")[0] == "CONVERT (x)"
    # y has other cells now; whether QC of x was noted yet is chance.
    assert set(disturbed.mended.tasks("Cached")) - {"QC (x)"} == once | {"CONVERT (x)"}


def test_after_all_that_every_file_is_as_an_undisturbed_run_leaves_it(disturbed: Disturbed) -> None:
    assert disturbed.mended.returncode == disturbed.undisturbed.returncode == 0, disturbed.mended.output
    assert disturbed.mended.files() == disturbed.undisturbed.files()
    one, other = disturbed.mended.results, disturbed.undisturbed.results
    names = {name for name in disturbed.undisturbed.files() if not name.startswith("pipeline_info/")}
    unlike = [name for name in sorted(names) if not filecmp.cmp(one / name, other / name, shallow=False)]
    assert unlike == DIFFER
    assert len(names) == 2 * 10 + 5


# --- --on_error ---

FAILS = """
process {
    withName: CONVERT {
        beforeScript = { meta.id == 'a' ? 'exit 5' : '%s' }
    }
}
"""


def two_samples(launch: Launch, meanwhile: str) -> list[str]:
    """Two samples, of which the first fails in CONVERT while the second does `meanwhile`; the arguments of a run."""
    launch.write("sheet.csv", f"sample,path\na,{DEMO}\nb,{DEMO}\n")
    (launch.folder / "model").mkdir()
    launch.write("fails.config", FAILS % meanwhile)
    return ["-stub-run", "--input", "sheet.csv", "--model", "./model"]


def test_with_on_error_ignore_the_others_go_on_and_the_run_ends_with_0(launch: Launch) -> None:
    run = launch.run(*two_samples(launch, "true"), "-c", "fails.config", "--on_error", "ignore")
    assert run.returncode == 0, run.output
    assert "samples/b/b.report.html" in run.files()
    (failure,) = run.table("summary/failures.tsv")
    assert (failure["sample"], failure["exit_code"]) == ("a", "5")
    assert "a: CONVERT ended with 5" in run.output
    assert (
        "The exit code is 0 all the same, as --on_error ignore asks." in run.output
        and "Done." not in run.output
    )


def test_with_on_error_stop_the_first_failure_ends_the_run_and_resume_goes_on(launch: Launch) -> None:
    arguments = [*two_samples(launch, "touch begun; sleep 300"), "--on_error", "stop"]
    run = launch.run(*arguments, "-c", "fails.config")
    assert run.returncode != 0
    (failure,) = run.table("summary/failures.tsv")
    assert (failure["sample"], failure["step"], failure["exit_code"]) == ("a", "CONVERT", "5")
    assert "The run was stopped at once, as --on_error stop asks" in run.output
    assert not any(name.startswith("QC") for name in run.tasks("Submitted"))
    again = launch.run(*arguments, "-resume")
    assert again.returncode == 0, again.output
    assert {"samples/a/a.report.html", "samples/b/b.report.html"} <= again.files()
    assert "CHECK_INPUT" in again.tasks("Cached")


# --- a disk without room ---

# In namespaces of its own: a small disk at `results`, which is full for the first run and has room for the second.
FULL = """
mount -t tmpfs -o size=84k tmpfs results || exit 77
head -c 80k /dev/zero > results/filler
"$@" > full.log 2>&1; echo $? > full.code; cp -r results full
rm results/filler; mount -o remount,size=10m results
# As of a Nextflow that was killed while it copied.
echo half > results/samples/demo/demo.qc.json
"$@" -resume > mended.log 2>&1; echo $? > mended.code; cp -r results mended
"""


def test_a_full_output_folder_is_told_and_with_room_resume_makes_it_whole(launch: Launch) -> None:
    here = launch.folder
    for name in ("results", "model"):
        (here / name).mkdir()
    command = f"{NEXTFLOW} run {ROOT} -ansi-log false -stub-run -profile test --model ./model"
    try:
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", FULL, "sh", *command.split()],
            cwd=here,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode == 77 or not (here / "full.code").exists():
        pytest.skip("no file system can be mounted here")
    said = (here / "full.log").read_text()
    assert (here / "full.code").read_text() == "1\n", said
    ended = said[said.index("The run did not end well: ") :]
    assert f"{here}/results/" in ended and "No space left on device" in ended and "-resume" in ended
    assert not (here / "full/samples/demo/demo.qc.json").exists(), "a half of it"
    assert not (here / "full/summary/failures.tsv").exists(), "a half of it"
    mended = Run(int((here / "mended.code").read_text()), (here / "mended.log").read_text(), here / "mended")
    assert mended.returncode == 0, mended.output
    assert {"CONVERT (demo)", "QC (demo)"} <= set(mended.tasks("Cached"))
    assert len([name for name in mended.files() if name.startswith("samples/demo/")]) == 10
    assert (mended.results / "samples/demo/demo.qc.json").read_text().startswith('{"sample"')
    assert mended.table("summary/failures.tsv") == []


# --- the folder of models that runs share ---

KEEPS = """
include {{ keepModel ; keptModel ; keptOrItself }} from '{root}/workflows/cache'

workflow {{
    def model = file(params.model)
    def note  = file(params.note)
    ['empty', 'half', 'damaged'].each {{ cache ->
        def before = keptModel(cache, model.name, false)
        def runs   = (1..10).collect {{ _run -> Thread.start {{ keepModel(model, [note], cache) }} }}
        runs.each {{ run -> run.join() }}
        def names  = [before, keptModel(cache, model.name, false), keptModel(cache, note.baseName, false)]
        println("${{cache}}: ${{names.collect {{ kept -> kept?.name == model.name }}}}")
    }}
    keepModel(model, [], '/dev/null/cache')
    // Tasks that take their files from a bucket have the model there; here the other file system is an archive.
    def other = java.nio.file.FileSystems.newFileSystem(file(params.packed)).getPath('/', model.name)
    def place = file("empty/${{model.name}}")
    println("kept: ${{[model, other].collect {{ found -> keptOrItself(found, 'empty') == place }}}}")
}}
"""


def test_ten_runs_that_keep_a_model_in_one_folder_leave_it_whole_whatever_an_older_run_left(
    launch: Launch,
) -> None:
    here = launch.folder
    made = make_model(here / "made")
    model = made.rename(here / model_sha256(made))
    half = here / "half" / model.name
    shutil.copytree(model, half)
    (half / "genes.tsv").unlink()
    damaged = here / "damaged" / model.name
    shutil.copytree(model, damaged)
    whole = (damaged / "genes.tsv").read_bytes()
    (damaged / "genes.tsv").write_bytes(b"x" + whole[1:])
    # What a run left that was killed two days ago, and what another is at just now.
    two_days_ago = time.time() - 2 * 24 * 3600
    for cache, name, when in (("half", "old", two_days_ago), ("damaged", "young", time.time())):
        (here / cache / f".keeping-{name}" / model.name).mkdir(parents=True)
        os.utime(here / cache / f".keeping-{name}", (when, when))
    packed = shutil.make_archive(str(here / "packed"), "zip", here, model.name)
    note = launch.write(f"{'ab' * 32}.archive", f"{model.name}\n")
    script = launch.write("main.nf", KEEPS.format(root=ROOT))
    run = launch.run("--model", str(model), "--note", str(note), "--packed", packed, script=script)
    assert run.returncode == 0, run.output
    for cache in ("empty", "half", "damaged"):
        # Neither of what is half there or damaged nor of what is not.
        assert f"{cache}: [false, true, true]" in run.output
        more = {".keeping-young"} if cache == "damaged" else set()
        assert {path.name for path in (here / cache).iterdir()} == {model.name, note.name} | more
        verify_model(here / cache / model.name)
    assert "kept: [true, false]" in run.output
    assert "the model is not kept in /dev/null/cache, and the run goes on without that" in run.output
