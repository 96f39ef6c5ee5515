"""The alignment of GOLD: the whole text of the answer, span by span."""

from kd.alignment.chunks import pair_texts
from kd.alignment.pairs import Alignment, AnswerTokens


def spans(student: AnswerTokens, teacher: AnswerTokens) -> Alignment:
    """Pair spans of tokens that end at the same byte of the answer; leftovers are one last pair.

    Where both sides encode the same text, their last tokens end together and nothing is left
    over. One side's leftovers without the other's, such as an end-of-text token, are left out.

    Source: GOLD (General Online Logit Distillation) as in Hugging Face TRL's `GOLDTrainer`.

    Raises:
        LossError: the ends of tokens are missing on one side.
    """
    return pair_texts("spans", student, teacher, leftovers=True)
