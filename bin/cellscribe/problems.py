"""All that is wrong with what a user gave, gathered to be told at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellscribe.errors import InputError

MOST_SHOWN = 500


@dataclass
class Problems:
    """All that is wrong, in the order seen, each once."""

    found: dict[str, None] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """Note one problem, on one line."""
        self.found.setdefault(text)

    def about(self, name: str) -> bool:
        """Whether one of a parameter was noted."""
        return any(text.startswith(f"--{name}: ") for text in self.found)

    def stop(self) -> None:
        """Raise InputError with every problem, if there is any; of very many, the first."""
        if not self.found:
            return
        count = "1 problem" if len(self.found) == 1 else f"{len(self.found):,} problems"
        lines = "\n".join(f"  - {text}" for text in list(self.found)[:MOST_SHOWN])
        if len(self.found) > MOST_SHOWN:
            lines += f"\n  and {len(self.found) - MOST_SHOWN:,} more"
        raise InputError(
            f"{count} in the parameters and the input:\n{lines}",
            "Mend all of them and start again. The parameters: nextflow run ... --help; the sheet: docs/usage.md.",
        )
