"""The failures that a user can meet, each with its exit code.

A message names the sample, the file, what was seen, and what to do. `EXIT_CODES` is the only table of
exit codes; docs/errors.md is checked against it by a test.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

EXIT_CODES: dict[int, str] = {
    0: "done",
    2: "wrong usage of a command",
    3: "bad input",
    4: "model and data do not fit",
    5: "nothing left after quality control",
    6: "model or reference could not be fetched or verified",
    70: "an error inside cellscribe, or of the machine",
}
OUT_OF_MEMORY = 137

# What no input and no code can mend, by the operating system's own number.
FULL = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file grew beyond what the file system or a limit (ulimit -f) allows",
    errno.EROFS: "the file system is read-only",
}
_CLOSED = {
    errno.EACCES: "there is no right to read or write here",
    errno.EPERM: "there is no right to read or write here",
    errno.EIO: "the disk failed",
    errno.ESTALE: "the network's file system lost the file",
    errno.EMFILE: "too many files are open at once (ulimit -n)",
    errno.ENFILE: "too many files are open at once on this machine",
}
_AGAIN = "then run the same command again: with Nextflow's -resume what is done is not done again."


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
    """What was written is not what it should be: the machine's fault, or a bug of ours."""

    exit_code = 70


class MachineError(CellscribeError):
    """The machine has no room, or gives no right."""

    exit_code = 70


class OutOfMemoryError(CellscribeError):
    """Memory ran out, which ends as where the machine kills for it: Nextflow tries again with more."""

    exit_code = OUT_OF_MEMORY


def of_the_machine(error: BaseException) -> CellscribeError | None:
    """What `error` says of the machine in plain words, or None where it is no failure of the machine.

    An InputError whose cause is a full disk is one too: a scratch file that cannot be written is not the input's fault.
    """
    cause = error.__cause__ if isinstance(error, CellscribeError) else error
    known = FULL if isinstance(error, CellscribeError) else FULL | _CLOSED
    number = number_of(cause)
    if isinstance(cause, MemoryError) or number == errno.ENOMEM:
        return OutOfMemoryError(
            f"memory ran out: {str(cause) or 'no more is given'}",
            "Nextflow tries it again with more, up to --max_memory. By hand: run it where more is free.",
        )
    if number not in known:
        return None
    file = getattr(cause, "filename", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(f"{known[number]} ({_free(file)})", f"Make room, {_AGAIN}", file=file)
    return MachineError(known[number], f"Mend that, or choose another folder, {_AGAIN}", file=file)


def number_of(error: BaseException | None) -> int | None:
    """The operating system's number of a failure; h5py tells it in words alone where it closes a file."""
    if isinstance(error, OSError) and error.errno == errno.ENOENT and "temporary directory" in str(error):
        return errno.ENOSPC
    if isinstance(error, OSError) and error.errno:
        return error.errno
    told = re.search(r"\berrno = (\d+)", str(error)) if isinstance(error, (OSError, RuntimeError)) else None
    return int(told[1]) if told else None


def _free(file: str | None) -> str:
    """How much room there is where a step writes: beside `file`, in its own folder, and for temporary files."""
    beside = [Path(file).resolve().parent] if file else []
    places = dict.fromkeys((*beside, Path.cwd(), Path(os.environ.get("TMPDIR", "/tmp"))))
    free = {place: shutil.disk_usage(place).free for place in places if place.is_dir()}
    return ", ".join(f"free at '{place}': {n / 1e6:,.1f} MB" for place, n in free.items())
