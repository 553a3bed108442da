"""A small annotated sample, and the real server of CELLxGENE Explorer on a file."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from small_model import small_counts, small_mapping, small_model

from cellscribe.annotate import run_annotate
from cellscribe.contract import OutputNames


def annotated(folder: Path, sample: str = "s1") -> Path:
    """A small sample, annotated."""
    output = folder / f"{sample}.annotated.h5ad"
    run_annotate(
        small_counts(),
        [small_mapping("consensus")],
        [small_model("consensus")],
        sample=sample,
        output=output,
        predictions=folder / f"{sample}.predictions.tsv.gz",
        summary=folder / f"{sample}.annotation.json",
        names=OutputNames.of(),
    )
    return output


@contextmanager
def launched(programs: Path, file: Path, folder: Path, *options: str | Path) -> Iterator[str]:
    """The address of `cellxgene launch` on a file, once it answers; ended with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [programs / "cellxgene", "launch", file, "--host", "127.0.0.1", "--port", str(port), *options]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}/"
        fetch(f"{address}api/v0.2/schema", server)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def fetch(url: str, server: subprocess.Popen[bytes] | None = None) -> bytes:
    """The answer of a server that may still be starting."""
    deadline = time.monotonic() + 90
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except OSError:
            assert server is None or server.poll() is None, "the server ended"
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
