"""The errors that a user can cause or must hear of. Everything else is a bug and keeps its traceback.

HairpinError                 exit 1
InvalidFieldError          exit 2   a field of a file, flag or request is wrong
NotFoundError              exit 3   no such target, session, binary or mesh
ConflictError              exit 4   someone else holds the requests
UnavailableError           exit 5   the control plane, agent or tunnel can't be reached
SkewError                  exit 6   laptop and cluster are of versions that don't work together

`hairpin explain-egress` exits with 7 for what is refused.
"""

from __future__ import annotations


class HairpinError(Exception):
    """What went wrong, in words for the user; the command line prints it without a traceback."""

    exit_code = 1


class InvalidFieldError(HairpinError):
    """A field whose value can't be used.

    Args:
        field: where it stands, as a dotted path or a flag: `spec.match.header.name`, `--port`.
        value: what was found; None where there was nothing: the message then reads `FIELD PROBLEM; REMEDY`.
        problem: what is wrong with it.
        remedy: what would be right.
    """

    exit_code = 2

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        found = field if value is None else f"{field}: {value!r}"
        super().__init__(f"{found} {problem}; {remedy}")
        self.field = field
        self.value = value
        self.problem = problem
        self.remedy = remedy


class NotFoundError(HairpinError):
    """What was named does not exist."""

    exit_code = 3


class ConflictError(HairpinError):
    """The requests are taken by another session."""

    exit_code = 4


class UnavailableError(HairpinError):
    """A part that is needed does not answer."""

    exit_code = 5


class SkewError(HairpinError):
    """Two programs are of versions that don't work together; the message names both and the one to upgrade."""

    exit_code = 6
