"""The failures that a user can meet, each with its exit code.

A message names the sample, the file, what was seen, and what to do. `EXIT_CODES` is the only table of
exit codes; docs/errors.md is checked against it by a test.
"""

from __future__ import annotations

EXIT_CODES: dict[int, str] = {
    0: "done",
    2: "wrong usage of a command",
    3: "bad input",
    4: "model and data do not fit",
    5: "nothing left after quality control",
    6: "model or reference could not be fetched or verified",
    7: "output did not pass its own check",
    70: "an error inside cellscribe",
}


class CellscribeError(Exception):
    """A failure with a cause that the user can mend.

    `seen` says what was found and where; `todo` says what to do about it.
    """

    exit_code = 70

    def __init__(
        self, seen: str, todo: str = "", *, sample: str | None = None, file: object | None = None
    ) -> None:
        self.seen, self.todo, self.sample, self.file = seen, todo, sample, file
        super().__init__(seen)

    def __str__(self) -> str:
        where = ", ".join(
            part
            for part in (
                f"sample '{self.sample}'" if self.sample else "",
                f"file '{self.file}'" if self.file else "",
            )
            if part
        )
        first = f"{where}: {self.seen}" if where else self.seen
        return f"{first}\n{self.todo}" if self.todo else first


class InputError(CellscribeError):
    """Bad input: a sheet, a parameter, a matrix that cannot be used as it is."""

    exit_code = 3


class ModelMismatchError(CellscribeError):
    """The model and the data do not fit: another organism, too few shared genes."""

    exit_code = 4


class NothingLeftError(CellscribeError):
    """Too few cells are left after quality control."""

    exit_code = 5


class ModelFetchError(CellscribeError):
    """The model or the reference could not be fetched, unpacked or verified."""

    exit_code = 6


class OutputError(CellscribeError):
    """What was written, or published, is not what it should be."""

    exit_code = 7
