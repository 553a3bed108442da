"""Nextflow's jars, as setup/nextflow.lock names them: one `sha256 group:artifact:version` a line.

fetch FOLDER  downloads them into FOLDER (needs jgo)
check FOLDER  fails unless FOLDER holds exactly them
lock VERSION  resolves a version of Nextflow and prints its lock (needs jgo)
"""

import hashlib
import os
import ssl
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LOCK = Path(__file__).with_name("nextflow.lock")


def locked() -> dict[str, str]:
    """Coordinates to sha256."""
    lines = [line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    return {coordinates: digest for digest, coordinates in lines}


def jar_name(coordinates: str) -> str:
    _group, artifact, version = coordinates.split(":")
    return f"{artifact}-{version}.jar"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wrong(folder: Path) -> list[str]:
    """What differs between the folder and the lock."""
    expected = {jar_name(coordinates): digest for coordinates, digest in locked().items()}
    found = {path.name: sha256(path) for path in folder.glob("*.jar")}
    return sorted(name for name in expected | found if expected.get(name) != found.get(name))


def repository(folder: str):
    """Maven Central, with `folder` to keep what is downloaded."""
    # The certificates that the rest of the machine trusts, a company's own included.
    system = ssl.get_default_verify_paths().cafile
    for bundle in (os.environ.get("SSL_CERT_FILE"), os.environ.get("PIP_CERT"), system):
        if bundle:
            os.environ.setdefault("REQUESTS_CA_BUNDLE", bundle)
    import jgo

    return jgo.MavenContext(repo_cache=Path(folder), remote_repos={"central": jgo.MAVEN_CENTRAL_URL})


def download(context, coordinates: str) -> Path:
    group, artifact, version = coordinates.split(":")
    return Path(context.project(group, artifact).at_version(version).artifact().resolve())


def fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".jars") as cache:
        context = repository(cache)
        staged = Path(cache) / "staged"
        staged.mkdir()
        with ThreadPoolExecutor(max_workers=8) as pool:
            for jar in pool.map(lambda coordinates: download(context, coordinates), locked()):
                jar.rename(staged / jar.name)
        if different := wrong(staged):
            raise SystemExit(f"error: not the jars that {LOCK.name} names: {', '.join(different)}")
        staged.rename(folder)


def lock(version: str) -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["M2_REPO"] = cache
        repository(cache)
        import jgo

        print("# Nextflow and what it needs. Made by: setup/fetch_nextflow.py lock", version)
        for artifact in jgo.resolve(f"io.nextflow:nextflow:{version}"):
            print(
                sha256(Path(artifact.resolve())),
                f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}",
            )


if __name__ == "__main__":
    action, argument = sys.argv[1:]
    if action == "lock":
        lock(argument)
    elif action == "fetch":
        fetch(Path(argument))
    elif different := wrong(Path(argument)):
        raise SystemExit(f"not as {LOCK.name} says: {', '.join(different)}")
