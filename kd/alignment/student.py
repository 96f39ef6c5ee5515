"""No pairs, but rows: every answer token of the student, for losses that look for partners."""

import torch

from kd.alignment.pairs import Alignment, AnswerTokens


def student_rows(student: AnswerTokens, teacher: AnswerTokens) -> Alignment:
    """All answer tokens of the student in sequences that both sides answer.

    The teacher's token is the one at the same place, or its last one. It is there for the
    form's sake: a loss under this alignment finds what it compares with by itself.
    """
    lengths = student.lengths.where(teacher.lengths > 0, 0)  # [B]
    sequences = torch.arange(len(lengths), device=lengths.device)
    sequence = torch.repeat_interleave(sequences, lengths)  # [N]
    position = torch.arange(len(sequence), device=lengths.device)
    position = position - (lengths.cumsum(0) - lengths)[sequence]
    other = torch.minimum(position, teacher.lengths[sequence] - 1)
    return Alignment(sequence, position, other, position, other)
