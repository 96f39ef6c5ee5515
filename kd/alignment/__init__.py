"""Which student position is compared with which teacher position.

Student and teacher cut the same answer into different tokens. An alignment looks at both
sides' answer tokens and says which of them are compared; it never touches logits.
`ALIGNMENTS` lists them by the name that an experiment uses.
"""

from collections.abc import Callable

from kd.alignment.chunks import chunks
from kd.alignment.pairs import Alignment, AnswerTokens
from kd.alignment.spans import spans
from kd.alignment.student import student_rows
from kd.alignment.truncate import truncate
from kd.errors import LossError, nearest

Aligner = Callable[[AnswerTokens, AnswerTokens], Alignment]

ALIGNMENTS: dict[str, Aligner] = {
    "truncate": truncate,
    "spans": spans,
    "chunks": chunks,
    "student": student_rows,
}

__all__ = [
    "ALIGNMENTS",
    "Aligner",
    "Alignment",
    "AnswerTokens",
    "chunks",
    "find_alignment",
    "spans",
    "student_rows",
    "truncate",
]


def find_alignment(name: str) -> Aligner:
    """The alignment called `name`.

    Raises:
        LossError: there is no such alignment.
    """
    if name not in ALIGNMENTS:
        raise LossError(f"'{name}' is no alignment. {nearest(name, ALIGNMENTS)}")
    return ALIGNMENTS[name]
