#!/opt/venv/bin/python
"""Lists what an image holds, as CycloneDX 1.5: Python's packages, Debian's, and Python itself.

cellscribe-sbom > sbom.cdx.json
"""

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ENVIRONMENTS = ("/opt/venv", "/opt/aws")


def python_packages(environment: str) -> list[dict]:
    """The packages of a virtual environment."""
    folders = [str(folder) for folder in Path(environment).glob("lib/python3*/site-packages")]
    found = []
    for package in metadata.distributions(path=folders):
        name, version = str(package.metadata["Name"]), package.version
        component = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower()}@{version}",
        }
        licence = package.metadata.get("License-Expression")
        if licence:
            component["licenses"] = [{"expression": licence}]
        found.append(component)
    return found


def debian_packages() -> list[dict]:
    """The packages that dpkg knows; none where there is no dpkg."""
    asked = ["dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n"]
    try:
        listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        return []
    return [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}",
        }
        for name, version, architecture in (line.split("\t") for line in listed.splitlines())
    ]


def inventory(environments: tuple[str, ...] = ENVIRONMENTS) -> dict:
    """Everything, each once, sorted, so that the same image has the same list."""
    version = platform.python_version()
    components = [
        {"type": "platform", "name": "python", "version": version, "purl": f"pkg:generic/python@{version}"}
    ]
    components += [package for environment in environments for package in python_packages(environment)]
    components += debian_packages()
    once = {component["purl"]: {"bom-ref": component["purl"], **component} for component in components}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "cellscribe"}},
        "components": [once[purl] for purl in sorted(once)],
    }


if __name__ == "__main__":
    json.dump(inventory(), sys.stdout, indent=1, sort_keys=True)
    print()
