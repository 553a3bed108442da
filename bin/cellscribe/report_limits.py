"""The part of a sample's page that tells by which limits cells got no name, and whose limits these are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellscribe.contract import FAR, STRANGE, UNEXPECTED_GENES
from cellscribe.report_words import count, number, percent
from cellscribe.words import plural

OF_THE_MODEL = "the model's own"
NOT_USED = "not used (--reject_novel false)"
NOT_JUDGED = "not judged"


def limits_changed(parameters: Mapping[str, Any]) -> str:
    """A sentence with the limits that the user has changed; "" where none is. parameters: of annotation.json."""
    given = [
        f"--{name} {f'{value:g}' if isinstance(value, float) else str(value).lower()}"
        for name in ("min_probability", "novelty_limit", "reject_novel")
        if (value := parameters.get(name)) not in (None, True)
    ]
    return f"The limits for names were changed: {', '.join(given)}." if given else ""


def limits_used(annotation: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row a limit, in the order in which they are asked: `limit` in words, `whose` it is, `n` cells that it met.

    manifest: of the model; {} of one made by others. Of several models the first rows are the consensus's, then those
    of each by itself, under `model`.
    """
    rows = _rows(annotation, manifest)
    for part in annotation.get("models") or []:
        title = f"{part['model']['name']} {part['model']['version']}".strip()
        rows += [row | {"model": title} for row in _rows(part, {})]
    return rows


def _rows(annotation: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    parameters = annotation.get("parameters") or {}
    limits = parameters.get("consensus") or parameters.get("rejection") or {}
    reasons, causes = annotation.get("reasons") or {}, annotation.get("novel_by") or {}
    rows = []

    def add(limit: str, met: Any, asked: str = "", *, novel: bool = False) -> None:
        whose = f"set by --{asked}" if asked in parameters else OF_THE_MODEL
        if novel and parameters.get("reject_novel") is False:
            whose = NOT_USED
        rows.append({"model": "", "limit": limit, "whose": whose, "n": count(met)})

    if "least_counts" in limits:
        add(
            f"fewer than {number(limits['least_counts'])} counts on the model's genes",
            reasons.get("low_information", 0),
        )
    if FAR in causes and "distance_quantile" in limits:
        share = percent(float(limits["distance_quantile"]))
        add(f"farther from the reference than {share} of its own cells", causes[FAR], novel=True)
    if UNEXPECTED_GENES in causes and "unexpected_share" in limits:
        of_a_batch = (manifest.get("training") or {}).get("n_batches") == 1
        add(
            f"{number(limits['least_unexpected_counts'])} counts or more, and more than "
            f"{percent(float(limits['unexpected_share']), 2)} of all, on genes that no reference type expresses"
            + (", beyond what the sample's labels have of these in common" if of_a_batch else ""),
            causes[UNEXPECTED_GENES],
            novel=True,
        )
    if STRANGE in causes and "novelty" in limits:
        add(
            f"a novelty of {float(limits['novelty']):g} or more, as {percent(1 - float(limits['novelty']))} of known "
            "held-out cells have",
            causes[STRANGE],
            "novelty_limit",
            novel=True,
        )
    elif "novelty_from_cells" in parameters:
        n_cells = plural(int(annotation.get("n_cells") or 0), "cell")
        why = f"novelty, which is judged from {number(parameters['novelty_from_cells'])} cells on; here are {n_cells}"
        rows.append({"model": "", "limit": why, "whose": NOT_JUDGED, "n": count(None)})
    if "least_probability" in limits:
        add(
            f"a best label of a probability below {float(limits['least_probability']):g}; it gives way to a broader "
            f"name of {float(limits['ancestor_probability']):g} or more, or to none",
            reasons.get("ambiguous", 0),
            "min_probability",
        )
    if "most_uncertainty" in limits:
        add(
            f"an uncertainty above {float(limits['most_uncertainty']):g}",
            reasons.get("ambiguous", 0),
            "min_probability",
        )
    return rows
