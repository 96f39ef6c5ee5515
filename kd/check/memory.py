"""Whether a GPU holds what an experiment asks of it: an estimate, from sizes and precision."""

from collections.abc import Iterable, Iterator

from kd.check.findings import Finding
from kd.check.models import Asked
from kd.experiment.models import Scale
from kd.experiment.schema import Experiment
from kd.plan.physical import HALF, SINGLE, TOKENS

# Weights, gradients and two moments of AdamW, and the best weights so far on the host.
TRAINED = 4 * SINGLE
# Logits, their log-probabilities and their gradient, in float32.
LOGITS = 3 * SINGLE
SPARE = 2e9  # CUDA itself, activations of a checkpointed layer, fragments


def teacher_bytes(scale: Scale) -> float:
    """What a teacher takes while it answers: half precision, and room for keys and values."""
    return scale.parameters * HALF * 1.2 + SPARE


def student_bytes(experiment: Experiment, asked: Asked, scale: Scale) -> tuple[float, str]:
    """What a student takes while it learns, and on which dataset it takes most.

    The logits of a step are counted whole, or once a part with `training.fused_head`.
    """
    largest, where = 0.0, ""
    for name in asked.datasets:
        training = experiment.training_for(name)
        length = min(sum(TOKENS[experiment.datasets[name].task]), training.max_length)
        rows = 1 if training.fused_head else training.batch_size
        logits = rows * length * scale.vocabulary * LOGITS
        if logits >= largest:
            largest, where = logits, name
    return scale.parameters * TRAINED + largest + SPARE, where


def memory_findings(
    experiment: Experiment, models: Iterable[Asked], available: float | None
) -> Iterator[Finding]:
    """One finding for each model that does not fit, and one for the machine.

    Args:
        experiment: what is asked.
        models: those that are not made inside the workflow.
        available: bytes of the GPU here; None where there is none.
    """
    needs = {}
    for asked in models:
        scale = asked.model.scale
        if scale is None:
            yield Finding(
                "unknown",
                asked.key,
                "memory: its size is not known. Write it: 'scale: {parameters: …, vocabulary: …}'.",
            )
            continue
        need, where = (
            (teacher_bytes(scale), "") if asked.teacher else student_bytes(experiment, asked, scale)
        )
        needs[asked.key] = need
        if available is not None and need > available:
            yield Finding("error", asked.key, _too_large(asked, need, where, available))
    if not needs:
        return
    most = max(needs, key=lambda key: needs[key])
    told = f"the most is asked by {most}: about {_giga(needs[most])} (estimate)"
    if available is None:
        yield Finding(
            "unknown",
            "machine",
            f"no GPU is visible here, so memory is not compared; {told}. Jobs with these models "
            "need one each.",
        )
    else:
        yield Finding("ok", "machine", f"GPU with {_giga(available)}; {told}.")


def _too_large(asked: Asked, need: float, where: str, available: float) -> str:
    what = "to answer" if asked.teacher else f"to train on {where}"
    help_ = (
        "Name a smaller model, or a GPU with more memory"
        if asked.teacher
        else "Set 'training.fused_head: true', a smaller 'batch_size', or name a smaller model"
    )
    return f"needs about {_giga(need)} {what}, but the GPU has {_giga(available)}. {help_}."


def _giga(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def gpu_memory() -> float | None:
    """Bytes of the smallest visible GPU; None where none is visible."""
    import torch

    if not torch.cuda.is_available():
        return None
    devices = range(torch.cuda.device_count())
    return float(min(torch.cuda.get_device_properties(index).total_memory for index in devices))
