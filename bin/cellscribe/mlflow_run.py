"""Running the code of a model made by others: `mlflow models predict` in a process of its own.

The user has said that the code is trusted. It is kept from what it has no need of all the same: it runs in a folder of
its own, and gets none of the variables that hold keys. Nothing else holds it: it has the rights of whoever runs it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cellscribe.cli import log
from cellscribe.errors import ModelFetchError, ModelMismatchError

LOCAL = "local"

# What passes: all that a program needs to run. Not a list of what is kept back, which would never be whole.
_PASSED = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|LD_LIBRARY_PATH|DYLD_\w+|PYTHONNOUSERSITE|PYTHONDONTWRITEBYTECODE"
    r"|(OMP|OPENBLAS|MKL|NUMBA|POLARS|NUMEXPR|VECLIB)_\w+|(CUDA|NVIDIA|ROCR|HIP)_\w+"
)
# What finding an environment needs besides: where tools and environments lie.
_PASSED_TO_FIND = re.compile(r"HOME|USER|LOGNAME|(PYENV|CONDA|MAMBA)_\w+|MLFLOW_(ENV_ROOT|CONDA_\w+)")
# And making one: the way to the package index, which may hold a password. The model's code never gets it.
_PASSED_TO_MAKE = re.compile(
    r"PIP_\w+|(?i:(https?|no|all|ftp)_proxy)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
)
_KEYS = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|(ACCESS|API)_?KEY", re.I)
# What `mlflow models predict` does, in the environment that `mlflow models prepare-env` made: the program itself, from
# MLflow 3 on, makes another one for each call, its Python compiled anew, and throws it away.
_PREDICT_IN_KEPT_ENVIRONMENT = """
import sys
from mlflow.models.flavor_backend_registry import get_flavor_backend
model, env_manager, input_path, output_path = sys.argv[1:]
backend = get_flavor_backend(model, env_manager=env_manager, install_mlflow=False)
backend.predict(model_uri=model, input_path=input_path, output_path=output_path, content_type="csv")
"""
_LINES_SHOWN = 15
_LONGEST_LINE = 300


def passed_on(environ: Mapping[str, str], env_manager: str, *, making: bool = False) -> dict[str, str]:
    """The variables that a model's code gets, or, with `making`, the program that makes its environment; AWS_*, tokens,
    passwords and the like are none of them.
    """
    kinds = [_PASSED]
    if env_manager != LOCAL:
        kinds += [_PASSED_TO_FIND, *([_PASSED_TO_MAKE] if making else [])]

    def passes(name: str) -> bool:
        return any(kind.fullmatch(name) for kind in kinds) and not _KEYS.search(name)

    return {name: value for name, value in environ.items() if passes(name)}


def predict_by_mlflow(model: Path, request: str, folder: Path, *, env_manager: str = LOCAL) -> list[str]:
    """Give a model one request, as CELLxGENE Annotate does: a CSV of one row and one column.

    folder: a fresh one of the model's own, where it runs. env_manager: local, virtualenv or conda. Returns the last
    lines that it said. Raises ModelFetchError where MLflow is not there or cannot make the model's environment, and
    ModelMismatchError where the code fails.
    """
    program = _program()
    compiled = folder / "numba"
    compiled.mkdir(exist_ok=True)
    own = {
        "TMPDIR": str(folder),
        # What our steps keep of scanpy's compiled code can be read only where its types are named (compiled.py).
        "NUMBA_CACHE_DIR": str(compiled),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "PATH": f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    if env_manager == LOCAL:
        own["HOME"] = str(folder)
    environ = passed_on(os.environ, env_manager) | own
    chosen = ["--model-uri", str(model.resolve()), "--env-manager", env_manager]
    if env_manager != LOCAL:
        log(f"Making the environment that the model names, by {env_manager}, where it is not there yet")
        with _one_at_a_time(environ):
            with_index = passed_on(os.environ, env_manager, making=True) | own
            code, said = _run([program, "models", "prepare-env", *chosen], folder, with_index)
        if code:
            raise ModelFetchError(
                f"MLflow could not make the environment that the model names, by {env_manager} "
                f"(exit code {code}). Its last lines:\n{shown_lines(said)}",
                _what_is_needed(env_manager),
                file=model,
            )
    asked, answer = folder / "request.csv", folder / "answer.json"
    asked.write_text('0\n"' + request.replace('"', '""') + '"\n')
    log("Running the model's code")
    if env_manager == LOCAL:
        files = ["--content-type", "csv", "--input-path", str(asked), "--output-path", str(answer)]
        command = [program, "models", "predict", *chosen, *files]
    else:
        python = str(Path(program).with_name("python"))
        arguments = [str(model.resolve()), env_manager, str(asked), str(answer)]
        command = [python, "-c", _PREDICT_IN_KEPT_ENVIRONMENT, *arguments]
    code, said = _run(command, folder, environ)
    if code:
        raise _failed(code, said, model, env_manager)
    return said


def shown_lines(said: list[str]) -> str:
    """Lines of another program as part of a message of ours: none of them is taken for the message's own."""
    return "\n".join(f"  | {line}" for line in said) or "  | (it said nothing)"


def _program() -> str:
    """The `mlflow` beside our Python, else the PATH's: the environment in which `local` runs a model."""
    beside = Path(sys.executable).parent / "mlflow"
    found = str(beside) if beside.is_file() else shutil.which("mlflow")
    if not found:
        raise ModelFetchError(
            "there is no mlflow beside Python or on the PATH, and a model made by others is run by it",
            "`make setup` brings it; in containers the image of --container_cpu has it.",
        )
    return found


def _run(command: list[str], folder: Path, environ: dict[str, str]) -> tuple[int, list[str]]:
    """Run to the end, repeating each line as it comes; the exit code and the last lines."""
    last: deque[str] = deque(maxlen=_LINES_SHOWN)
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            plain = _plain(line)
            if plain and not plain.startswith("Downloading artifacts:"):
                last.append(plain)
                log(f"  | {plain}")
    return process.returncode, list(last)


def _plain(line: str) -> str:
    """A line without the colours and control characters that a terminal would act on."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.rstrip())
    return "".join(c if c.isprintable() else " " for c in text)[:_LONGEST_LINE].rstrip()


def _failed(code: int, said: list[str], model: Path, env_manager: str) -> ModelMismatchError:
    todo = "Ask whoever made the model; the lines are its code's own."
    if env_manager == LOCAL and any("ModuleNotFoundError" in line or "ImportError" in line for line in said):
        todo = (
            "Its code needs packages that are not here (its requirements.txt names them): use --mlflow_env_manager "
            "virtualenv or conda, or a container image that has them (docs/models.md)."
        )
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    error = ModelMismatchError(
        f"the model's code {ended}. Its last lines:\n{shown_lines(said)}", todo, file=model
    )
    if code < 0:
        # As a shell says it, so that Nextflow tries again with more memory what was killed for want of it.
        error.exit_code = 128 - code
    return error


def _what_is_needed(env_manager: str) -> str:
    if env_manager == "conda":
        return "It needs conda on the PATH, and the network."
    return "It needs pyenv on the PATH, which brings the Python that the model names, and the network."


@contextmanager
def _one_at_a_time(environ: Mapping[str, str]) -> Iterator[None]:
    """Let samples that run side by side make an environment once: MLflow would take a half-made one for whole.

    What a run that was killed left half-made is removed before: while one is made, a file names those that are whole.
    """
    root = Path(
        environ.get("MLFLOW_ENV_ROOT") or Path(environ.get("HOME", "~")).expanduser() / ".mlflow" / "envs"
    )
    whole = root / ".cellscribe.whole"
    with ExitStack() as stack:
        # Where nothing can be written none can be made either: MLflow says so better.
        with suppress(OSError):
            root.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context((root / ".cellscribe.lock").open("w")), fcntl.LOCK_EX)
            if whole.exists():
                kept = whole.read_text().split("\n")
                for folder in root.glob("mlflow-*"):
                    if folder.name not in kept:
                        log(f"Removing {folder}, which an earlier run that was killed left half-made")
                        shutil.rmtree(folder)
            whole.write_text("\n".join(folder.name for folder in root.glob("mlflow-*")))
        yield
        with suppress(OSError):
            whole.unlink(missing_ok=True)
