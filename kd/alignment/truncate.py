"""The alignment of the ULD paper: answer tokens by position, up to the shorter answer."""

import torch

from kd.alignment.pairs import Alignment, AnswerTokens


def truncate(student: AnswerTokens, teacher: AnswerTokens) -> Alignment:
    """Pair the i-th answer tokens of both sides; what one side has beyond the other is left out.

    Source: arXiv 2402.12030, eq. 5 (the sum over t up to the smaller length).
    """
    lengths = torch.minimum(student.lengths, teacher.lengths)  # [B]
    sequences = torch.arange(len(lengths), device=lengths.device)
    sequence = torch.repeat_interleave(sequences, lengths)  # [N]
    first = lengths.cumsum(0) - lengths  # [B]: where each sequence's pairs begin
    position = torch.arange(len(sequence), device=lengths.device) - first[sequence]
    return Alignment(sequence, position, position, position, position)
