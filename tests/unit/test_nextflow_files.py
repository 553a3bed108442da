"""The Nextflow files obey the strict parser of Nextflow 26.04, and agree with the schemas and the library."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cellscribe.errors import EXIT_CODES
from cellscribe.schema import coerce, parameters, problem
from cellscribe.step_options import ABOUT

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    ROOT / "main.nf",
    *sorted((ROOT / "workflows").glob("*.nf")),
    *sorted((ROOT / "modules").rglob("*.nf")),
]
CONFIGS = [ROOT / "nextflow.config", *sorted((ROOT / "conf").glob("*.config"))]
MODULES = sorted((ROOT / "modules").glob("*/main.nf"))
SCHEMA = json.loads((ROOT / "nextflow_schema.json").read_text())
ROWS = json.loads((ROOT / "assets" / "schema_input.json").read_text())["items"]["properties"]
PARAMETERS = parameters(SCHEMA)

FORBIDDEN = {
    "Channel with a capital": r"\bChannel\b",
    "implicit it": r"\bit\b",
    "a loop": r"\b(for|while)\s*\(",
    "switch": r"\bswitch\b",
    "a class, enum or interface": r"^\s*(class|enum|interface)\s",
    "import": r"^\s*import\s",
    "addParams": r"\baddParams\b",
    "finally": r"\bfinally\b",
    "++ or --": r"\w(\+\+|--)(?!\w)",
    "a cast": r"\((Map|List|String|int|Integer|Path|boolean)\)\s*\w",
    "shell:": r"^\s*shell:",
    "when:": r"^\s*when:",
    "an unquoted env": r"\benv\s+[A-Z]",
    "spread": r"[(\[,]\s*\*\w",
    "a keyword as a property": r"\.(assert|catch|else|enum|if|new|throw|try)\b",
    "a closure called as a function": r"\bdef\s+(\w+)\s*=\s*\{[\s\S]*?(?<![.\w])\1\(",
    "an assignment inside an expression": r"\b(if|return)\s*\(?[^=\n]*[^=!<>~]=(?![=~>])[^=]",
}


def code(path: Path) -> str:
    """The file without comments, texts and command blocks, with its lines kept."""
    text = re.sub(r'"""[\s\S]*?"""', lambda found: "''" + "\n" * found[0].count("\n"), path.read_text())
    text = re.sub(r"'(\\.|[^'\\\n])*'", "''", text)
    text = re.sub(r'"(\\.|[^"\\\n])*"', "''", text)
    return re.sub(r"(?<!:)//.*", "", text)


def identifier(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SCRIPTS, ids=identifier)
@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_script_uses_what_the_strict_parser_refuses(path: Path, what: str) -> None:
    assert not re.findall(FORBIDDEN[what], code(path), flags=re.MULTILINE)


@pytest.mark.parametrize("path", SCRIPTS, ids=identifier)
def test_a_script_has_declarations_alone_at_its_top(path: Path) -> None:
    depth, outside = 0, []
    for line in code(path).splitlines():
        if depth == 0 and line.strip() and not re.match(r"(include|process|workflow|def)\b", line):
            outside.append(line)
        depth += len(re.findall(r"[{\[(]", line)) - len(re.findall(r"[}\])]", line))
    assert outside == []


@pytest.mark.parametrize("path", SCRIPTS, ids=identifier)
def test_every_local_is_declared_with_def(path: Path) -> None:
    text = code(path)
    assigned = set(re.findall(r"^\s*(\w+)\s*=(?![=~>])", text, flags=re.MULTILINE))
    assert assigned <= set(re.findall(r"\bdef\s+(\w+)\s*=", text))


@pytest.mark.parametrize("path", CONFIGS, ids=identifier)
def test_a_config_has_no_logic(path: Path) -> None:
    assert not re.search(r"^\s*(def|if|else|for|while|switch|try|import)\b", code(path), flags=re.MULTILINE)


@pytest.mark.parametrize("path", MODULES, ids=identifier)
def test_a_process_has_a_script_a_stub_and_a_label(path: Path) -> None:
    text = path.read_text()
    assert text.count("\nprocess ") + text.startswith("process ") == 1
    for part in ("    script:\n", "    stub:\n", "    label 'process_", "    output:\n"):
        assert part in text


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent.name != "multiqc"], ids=identifier)
def test_a_command_line_carries_the_pipelines_version_and_threads(path: Path) -> None:
    script = path.read_text().split("    script:\n")[1].split("    stub:\n")[0]
    version = "${CodeVersion.of(projectDir, workflow.manifest.version)}"
    assert f"--cpus ${{task.cpus}} --pipeline-version {version}" in script
    command = re.search(r"(\w+\.py)", script)
    assert command and (ROOT / "bin" / command[1]).stat().st_mode & 0o111


@pytest.mark.parametrize("path", MODULES, ids=identifier)
def test_a_command_line_names_only_options_that_the_command_has(path: Path) -> None:
    commands = commands_of(path)
    assert commands
    for name, line in commands.items():
        known = set(re.findall(r'"(--[a-z0-9-]+)"', (ROOT / "bin" / name).read_text()))
        known |= set(re.findall(r'"(--[a-z0-9-]+)"', (ROOT / "bin" / "cellscribe" / "cli.py").read_text()))
        assert set(re.findall(r"(?<=[ \"])(--[a-z0-9-]+)", line)) <= known


def test_what_a_user_named_lies_in_no_place_that_its_step_writes_to() -> None:
    """Beside it, a model called `models` would be written into, and models.csv, a sheet, would be no catalogue."""
    for name, folders in {
        "fetch_model": ["given/*"],
        "train": ["_reference?/*", "_labels?/*", "_label_map/*", "_cl_map/*"],
        "check_input": ["ours/*", "own/*"],
    }.items():
        text = (ROOT / "modules" / name / "main.nf").read_text()
        assert re.findall(r"stageAs: '(.*?)'", text) == folders, name
        written = re.findall(
            r"path\(['\"](.*?)['\"]", text.split("    output:\n")[1].split("    script:\n")[0]
        )
        assert not {folder.split("/")[0] for folder in folders} & {one.split("/")[0] for one in written}
    # TRAIN writes to a folder of the model's name.
    for folder in ("_reference1", "_labels", "_label_map", "_cl_map"):
        assert problem(folder, PARAMETERS["model_name"])


def commands_of(path: Path) -> dict[str, str]:
    """Our commands in a module's script, each with its whole line."""
    script = path.read_text().split("    script:\n")[1].split("    stub:\n")[0]
    lines = script.replace("\\\\\n", " ").splitlines()
    return {found[1]: line for line in lines if (found := re.match(r" *(\w+\.py) ", line))}


def published(name: str) -> set[str]:
    """The files that a module's list of checksums names, by their endings."""
    line = commands_of(ROOT / "modules" / name / "main.nf")["checksums.py"]
    return {own or every for own, every in re.findall(r"\$\{meta\.id\}\.([\w.]+)|(\*\.[\w.]+)", line)}


def test_what_a_sample_step_publishes_is_what_it_lists() -> None:
    config = (ROOT / "conf" / "modules.config").read_text()
    for name in ("QC", "ANNOTATE", "CURATE"):
        pattern = re.search(rf"withName: {name} \{{.*?pattern: '\*\.\{{(.*?)\}}'", config, flags=re.S)
        assert pattern
        listed = {ending for ending in published(name.lower()) if not ending.endswith(".sha256")}
        assert listed == set(pattern[1].split(",")), name
    report = re.search(r"withName: REPORT \{.*?pattern: '\*\.\{(.*?)\}'", config, flags=re.S)
    assert report and {f"*.{ending}" for ending in report[1].split(",")} == {
        *(ending for ending in published("report") if ending.startswith("*.")),
        "*.sha256",
    }


def configured() -> dict[str, Any]:
    """The defaults in nextflow.config."""
    block = re.search(r"^params \{\n(.*?)^\}", (ROOT / "nextflow.config").read_text(), flags=re.M | re.S)
    assert block
    words = {"null": None, "true": True, "false": False}
    found = re.findall(r"^\s+(\w+)\s*=\s*(.+)$", block[1], flags=re.MULTILINE)
    return {
        name: words[value] if value in words else value[1:-1] if value.startswith("'") else float(value)
        for name, value in found
    }


def test_the_schema_describes_exactly_the_parameters_of_the_config_with_their_defaults() -> None:
    assert {name: part.get("default") for name, part in PARAMETERS.items()} == configured()


def test_the_schemas_are_valid_and_every_group_is_in_force() -> None:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator.check_schema(json.loads((ROOT / "assets" / "schema_input.json").read_text()))
    assert [part["$ref"].split("/")[-1] for part in SCHEMA["allOf"]] == list(SCHEMA["$defs"])


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_described_and_its_default_passes_its_own_rule(name: str) -> None:
    part = PARAMETERS[name]
    assert part["description"].endswith(".")
    assert "default" not in part or problem(coerce(part["default"], part), part) is None


@pytest.mark.parametrize("part", [*PARAMETERS.items(), *ROWS.items()], ids=lambda item: item[0])
def test_no_text_reaches_a_command_line_unheld(part: tuple[str, dict[str, Any]]) -> None:
    name, rule = part
    if name == "help" or rule["type"] != "string":
        return
    if name in ABOUT.values():
        assert problem("a\nb", rule)
        return
    for hostile in ("a'b", 'a"b', "$(touch x)", "`touch x`", "a\nb", "a;b", "-x", "a\\b"):
        assert problem(hostile, rule), f"{name} lets {hostile!r} pass"


def test_the_run_says_every_exit_code_as_the_library_does() -> None:
    meanings = dict(re.findall(r"'(\d+)'\s*: '(.*)'", (ROOT / "workflows" / "failures.nf").read_text()))
    assert {int(code): text for code, text in meanings.items() if int(code) <= 70} == {
        code: text for code, text in EXIT_CODES.items() if code
    }


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    config = (ROOT / "nextflow.config").read_text()
    assert f"version         = '{version}'" in config
    assert f":{version}-cpu'" in config and f":{version}-cuda'" in config


def test_usage_lists_every_parameter_and_every_column_of_the_sheet() -> None:
    text = (ROOT / "docs" / "usage.md").read_text()
    listed = re.findall(r"^\| `--(\w+)`", text.split("\n## Parameters\n")[1], flags=re.MULTILINE)
    assert listed == list(PARAMETERS)
    sheet = text.split("## The sample sheet")[1].split("\n## ")[0]
    columns = re.findall(r"^\| `(\w+)`", sheet, flags=re.MULTILINE)
    assert columns == list(ROWS)


def test_seqera_platform_shows_every_page_of_a_run() -> None:
    shown = re.findall(r'^  "(.+)":$', (ROOT / "tower.yml").read_text(), re.MULTILINE)
    told = re.findall(r"^\| `(\S+\.html)`", (ROOT / "docs" / "outputs.md").read_text(), re.MULTILINE)
    assert len(told) >= 3
    assert {page.replace("/S", "/*") for page in told} <= set(shown)
