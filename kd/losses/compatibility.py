"""Whether a teacher's distributions, as they are given, are what a loss can read."""

from kd.errors import LossError
from kd.losses.answers import TeacherAnswers
from kd.losses.catalogue import LossInfo, available_losses
from kd.losses.teacher import TeacherLogits


def check_teacher(info: LossInfo, width: int, teacher: TeacherAnswers | None) -> None:
    """Refuse a teacher that `info` is not defined on; `width` is the student's vocabulary.

    Raises:
        LossError: the vocabularies differ and must not, token ids are missing, or tokens were
            drawn that the loss would make biased estimates of.
    """
    if teacher is None:
        return
    if info.same_vocabulary and width != teacher.vocabulary:
        others = [
            info.name
            for info in available_losses().values()
            if info.needs_teacher and not info.same_vocabulary
        ]
        raise LossError(
            f"loss '{info.name}' compares token by token, but the student's vocabulary has "
            f"{width} tokens and the teacher's {teacher.vocabulary}: share the tokenizer, or use a "
            f"loss across vocabularies ({', '.join(others)})."
        )
    if not isinstance(teacher, TeacherLogits) or not info.needs_distributions:
        return
    if info.reads_ids and not teacher.has_ids:
        raise LossError(
            f"loss '{info.name}' reads which tokens the teacher's probabilities are of, but they "
            "were stored without ids: extract with 'logits: {ids: true}'."
        )
    if teacher.draws and not info.unbiased_on_draws:
        raise LossError(
            f"loss '{info.name}' is not linear in the teacher's probabilities: on drawn tokens it "
            "would be biased. Extract without 'sampling'."
        )
