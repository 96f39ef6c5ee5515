"""What a method needs of the chain, and why a loss cannot serve a pair of models."""

from kd.experiment.methods import Method
from kd.experiment.models import MicroModel, Model
from kd.losses.catalogue import available_losses, loss_info


def runs_teacher(method: Method) -> bool:
    """Whether the teacher itself has to run in every step of training."""
    if method.loss == "none":
        return False
    return method.responses.policy != "teacher" or loss_info(method.loss).needs_live_teacher


def reads_teacher_model(method: Method) -> bool:
    """Whether the distillation stage reads the teacher's model folder."""
    if method.loss == "none":
        return False
    needs = {"vocabularies", "embeddings", "models"}
    return runs_teacher(method) or bool(needs & set(loss_info(method.loss).setup))


def reads_logits(method: Method) -> bool:
    """Whether the distillation stage reads the teacher's stored logits."""
    if method.loss == "none" or runs_teacher(method):
        return False
    return loss_info(method.loss).needs_distributions


def same_tokenizer(first: Model, second: Model) -> bool:
    """Whether two models declare the same tokenizer, as far as the file can tell."""
    if isinstance(first, MicroModel) and isinstance(second, MicroModel):
        corpus = first.pretraining.rows == second.pretraining.rows
        return corpus and first.tokenizer == second.tokenizer
    return True  # files decide; the distillation stage compares the tokenizers themselves


def inapplicable(method: Method, teacher: Model, student: Model) -> str | None:
    """Why `method` is not defined for a pair of models, naming losses that are; or None."""
    if method.loss == "none":
        return None
    loss = loss_info(method.loss)
    if loss.same_vocabulary and not same_tokenizer(teacher, student):
        across = ", ".join(_across_tokenizers())
        return (
            f"'{loss.name}' needs one shared tokenizer. Losses that work across tokenizers: "
            f"{across}."
        )
    return None


def _across_tokenizers() -> list[str]:
    return [
        info.name
        for info in available_losses().values()
        if info.needs_teacher and not info.same_vocabulary
    ]
