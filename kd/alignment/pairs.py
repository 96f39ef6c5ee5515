"""What an alignment reads and what it returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AnswerTokens:
    """The answer tokens of a batch, M on this side, as far as an alignment needs them."""

    lengths: Tensor  # [B] int64: answer tokens of each sequence
    ends: Tensor | None = None  # [M] int64: byte of the answer's text at which each token ends


@dataclass(frozen=True)
class Alignment:
    """N pairs of spans of answer tokens, ordered by sequence and then by position.

    Positions count the answer tokens of their sequence from 0; the prompt does not count. A
    span goes from its first token to its last one; under `truncate` each is a single token.
    """

    sequence: Tensor  # [N] int64: which sequence of the batch
    student: Tensor  # [N] int64: the last of the student's tokens in the span
    teacher: Tensor  # [N] int64: the last of the teacher's
    student_first: Tensor  # [N] int64
    teacher_first: Tensor  # [N] int64
