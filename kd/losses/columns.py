"""Whether two models' logits can be compared column by column."""

from kd.errors import LossError
from kd.losses.catalogue import LossInfo, available_losses


def require_common_columns(info: LossInfo, student: int, teacher: int) -> None:
    """Refuse vocabularies of different sizes to a loss that compares token by token.

    Args:
        info: the loss.
        student: tokens of the student's vocabulary.
        teacher: tokens of the teacher's.

    Raises:
        LossError: they differ, and the loss needs one vocabulary.
    """
    if not info.same_vocabulary or student == teacher:
        return
    others = [
        other.name
        for other in available_losses().values()
        if other.needs_teacher and not other.same_vocabulary
    ]
    raise LossError(
        f"loss '{info.name}' compares token by token, but the student's vocabulary "
        f"has {student} tokens and the teacher's {teacher}: share the tokenizer, "
        f"or use a loss across vocabularies ({', '.join(others)})."
    )
