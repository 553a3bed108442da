#!/usr/bin/env python3
"""Hold what a run published against its lists of checksums and the output contract."""

from __future__ import annotations

from pathlib import Path

import click

from cellscribe.cli import SETTINGS, exit_codes, folder_in


@click.command(context_settings=SETTINGS)
@click.argument("results", type=folder_in)
@exit_codes
def main(results: Path) -> None:
    """Check each file below RESULTS, the --outdir of a run: missing, changed, not listed, or not as promised."""
    from cellscribe.errors import InputError
    from cellscribe.published import check_results

    checked = check_results(results)
    for one in checked:
        click.echo(str(one))
    wrong = sum(len(one.problems) for one in checked)
    if wrong:
        raise InputError(
            f"{wrong} wrong, in {sum(bool(one.problems) for one in checked)} of {len(checked)} folders",
            "Run again with -resume: what is done is published again, not done again. What is not listed, take away.",
            file=results,
        )
    click.echo(f"All as published: {results}")


if __name__ == "__main__":
    main()
