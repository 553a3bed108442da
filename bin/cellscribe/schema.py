"""Values from outside held to a JSON Schema, with messages that say what to do.

Nextflow and sample sheets bring numbers as text and text as numbers; `coerce` gives each value its schema's type
first. Every problem is reported, not the first alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from cellscribe.places import hidden

WORDS = {"true": True, "false": False}


def parameters(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every parameter of a Nextflow schema: name to its own schema, in the order of the groups."""
    return {
        name: part for group in schema["$defs"].values() for name, part in group.get("properties", {}).items()
    }


def coerce(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value` in the type that `schema` asks for, where it can be read as one; else as it came.

    Text is stripped; empty text is None, which means "not given". Numbers become text where text is wanted
    (`--run_name 5`), text becomes a number or a boolean where one is wanted (`--seed '5'`), and true and false
    become text only where the schema lists these words.
    """
    if isinstance(value, str):
        value = value.strip()
    if value is None or value == "":
        return None
    wanted = schema.get("type")
    if wanted == "string":
        if isinstance(value, bool):
            word = str(value).lower()
            return word if word in schema.get("enum", ()) else value
        return str(value) if isinstance(value, int | float) else value
    if wanted == "boolean" and isinstance(value, str):
        return WORDS.get(value.lower(), value)
    if wanted in ("number", "integer") and isinstance(value, str):
        value = _number(value)
    # 10.0 and 1e1 are whole numbers, and the commands want them written as such.
    return int(value) if wanted == "integer" and isinstance(value, float) and value.is_integer() else value


def _number(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number) or "_" in text:
        return text
    return int(number) if number.is_integer() and text.lstrip("+-").isdigit() else number


def problem(value: Any, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a value that `coerce` gave, and what to give instead; None where nothing is."""
    from jsonschema import Draft202012Validator

    error = next(iter(Draft202012Validator(schema).iter_errors(value)), None)
    if error is None:
        return None
    return f"{shown(value)} {_wanted(error.validator, value, schema)}"


def _wanted(rule: Any, value: Any, schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        bounds = f" from {low} to {high}"
    elif low is not None:
        bounds = f" of {low} or more"
    else:
        bounds = f" of {high} or less" if high is not None else ""
    if rule == "enum":
        near = nearest(str(value), [str(word) for word in schema["enum"]])
        return f"is not one of {', '.join(str(word) for word in schema['enum'])}{near}"
    if rule == "pattern":
        return str(schema.get("errorMessage", f"does not fit {schema['pattern']}"))
    if rule in ("type", "minimum", "maximum"):
        if schema["type"] in ("number", "integer"):
            kind = "a whole number" if schema["type"] == "integer" else "a number"
            return f"is not {kind}{bounds}"
        if schema["type"] == "boolean":
            return "is neither true nor false"
        if isinstance(value, bool):
            return "stands where a value should: write one after the parameter's name"
        return "is not text"
    return f"does not fit the rule '{rule}'"


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, without an address's password or signature, its middle left out
    where it is long, as the end of a path says which file it is.
    """
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = "".join(letter if letter.isprintable() else "?" for letter in hidden(text))
    return f"'{text[:98]}...{text[-99:]}'" if len(text) > 200 else f"'{text}'"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known name is near, else nothing. Case, `-` and `_` make no difference."""
    from rapidfuzz import fuzz, process

    found = process.extractOne(name, list(known), scorer=fuzz.ratio, processor=_plain, score_cutoff=65)
    return f"; did you mean '{found[0]}'?" if found else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
