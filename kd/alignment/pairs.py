"""What an alignment reads and what it returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AnswerTokens:
    """The answer tokens of a batch, on one side, as far as an alignment needs them."""

    lengths: Tensor  # [B] int64: answer tokens of each sequence


@dataclass(frozen=True)
class Alignment:
    """N pairs of answer tokens, ordered by sequence and then by position.

    Positions count the answer tokens of their sequence from 0; the prompt does not count.
    """

    sequence: Tensor  # [N] int64: which sequence of the batch
    student: Tensor  # [N] int64: which of the student's answer tokens
    teacher: Tensor  # [N] int64: which of the teacher's answer tokens
