"""The parameters of a run held to their schema, and values of the sheet to theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cellscribe.contract import OutputNames
from cellscribe.differential import parse_comparisons
from cellscribe.errors import InputError
from cellscribe.places import secret_problem
from cellscribe.problems import Problems
from cellscribe.schema import coerce, nearest, parameters, problem, shown

ORGANISMS = {"Homo sapiens": "human", "Mus musculus": "mouse"}
# What files for -c that sites share (nf-core/configs) say of themselves.
OF_SITES = re.compile(r"(config_profile|custom_config)_\w+")
ORDERED = (
    ("min_counts", "max_counts"),
    ("min_genes", "max_genes"),
    ("min_gene_overlap", "warn_gene_overlap"),
)


def check_parameters(
    given: Mapping[str, Any], schema: Mapping[str, Any], problems: Problems
) -> dict[str, Any]:
    """Every parameter of the schema in its type; its default, or None, where none is given or it is wrong, which is
    noted.
    """
    known = parameters(schema)
    for name in _unknown(given, known):
        problems.add(f"--{name}: there is no such parameter{nearest(name, known)}")
    checked: dict[str, Any] = {}
    for name, part in known.items():
        value = coerce(given.get(name), part)
        wrong = None if value is None else what_is_wrong(value, part)
        if wrong:
            problems.add(f"--{name}: {wrong}")
        checked[name] = part.get("default") if wrong or value is None else value
    checked["organism"] = ORGANISMS.get(checked["organism"], checked["organism"])
    check_order(checked, "", problems)
    if checked["novelty_limit"] is not None and not checked["reject_novel"]:
        problems.add(
            "--novelty_limit: says from which novelty on cells are left unassigned, and with --reject_novel false none "
            "is for that; leave out one of the two"
        )
    if checked["compare"] is not None:
        try:
            parse_comparisons(checked["compare"])
        except ValueError as error:
            problems.add(f"--compare: {error}")
    if checked["run_name"]:
        try:
            OutputNames.of(checked["annotation_prefix"], checked["annotation_type"], checked["run_name"])
        except InputError as error:
            problems.add(f"--run_name: {error.seen}")
    return checked


def what_is_wrong(value: Any, part: Mapping[str, Any]) -> str | None:
    """What is wrong with a value, passwords first: what fits the pattern may hold one all the same.

    A rule that says itself where a password belongs goes before.
    """
    secret = secret_problem(value) if isinstance(value, str) else None
    if secret and "password" not in part.get("errorMessage", ""):
        return f"{shown(value)} {secret}"
    return problem(value, part)


def _unknown(given: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Names that are no parameters. Nextflow adds to each `a-b` an `aB` of its own: told once, as it was typed."""
    unknown = [name for name in given if name not in known and not OF_SITES.fullmatch(name)]
    twins = {re.sub(r"-(\w)", lambda found: found[1].upper(), name) for name in unknown if "-" in name}
    return [name for name in unknown if name not in twins]


def check_order(
    values: Mapping[str, Any], where: str, problems: Problems, changed: Iterable[str] | None = None
) -> None:
    """Note bounds in the wrong order; with `changed`, only those that one of these names is part of."""
    for low, high in ORDERED:
        if changed is not None and not {low, high} & set(changed):
            continue
        lowest, highest = values.get(low), values.get(high)
        if lowest is not None and highest is not None and lowest > highest:
            problems.add(f"{where}{low} ({lowest}) is above {high} ({highest}); nothing fits between them")
