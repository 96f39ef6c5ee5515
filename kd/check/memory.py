"""Whether a GPU holds what an experiment asks of it: an estimate, from sizes and precision."""

from collections.abc import Iterable, Iterator, Mapping
from math import ceil

from kd.check.findings import Finding
from kd.check.models import LONG, Asked, Description
from kd.experiment.models import Scale
from kd.experiment.placement import Placement
from kd.experiment.requirements import runs_teacher
from kd.experiment.schema import Experiment
from kd.plan.physical import HALF, SINGLE, TOKENS, WEIGHT_BYTES

SPARE = 2e9  # CUDA itself, fragments


def teacher_bytes(scale: Scale, load: Placement | None) -> float:
    """What a teacher takes while it answers, loaded so: weights, room for keys and values."""
    load = load or Placement()
    plain = SINGLE if load.dtype == "float32" else HALF
    return scale.parameters * WEIGHT_BYTES.get(load.quantisation or "", plain) * 1.2 + SPARE


def student_bytes(
    experiment: Experiment, asked: Asked, scale: Scale, described: Description | None
) -> tuple[float, str]:
    """What a student takes while it learns, and on which dataset it takes most.

    A batch is as long as its longest row. Activations count where the model's configuration
    (`described`) says how many layers there are, and how wide.
    """
    from kd.training.memory import Shapes, settings_of

    layers, width = described.layers_and_width if described else (0, 0)
    largest, where = 0.0, ""
    for name in asked.datasets:
        training = experiment.training_for(name)
        question, _ = TOKENS[experiment.datasets[name].task]
        longest = int(LONG * question) + experiment.generation.max_new_tokens
        rows = ceil(training.batch_size / training.processes)
        weights = int(scale.parameters)
        shapes = Shapes(
            parameters=weights,
            trained=weights,
            layers=layers,
            width=width,
            vocabulary=scale.vocabulary,
            rows=rows,
            length=min(longest, training.max_length),
        )
        need = settings_of(training, rows).bytes(shapes) + SPARE
        if need >= largest:
            largest, where = need, name
    return largest, where


def _beside(experiment: Experiment) -> float:
    """What the largest teacher takes beside a student, where a method runs it in every step."""
    if not any(runs_teacher(method) for method in experiment.methods.values()):
        return 0.0
    sizes = [(getattr(one, "scale", None), one.load) for one in experiment.teachers.values()]
    return max((teacher_bytes(scale, load) for scale, load in sizes if scale), default=0.0)


def memory_findings(
    experiment: Experiment,
    models: Iterable[Asked],
    available: float | None,
    described: Mapping[str, Description],
) -> Iterator[Finding]:
    """One finding for each model that does not fit, and one for the machine.

    Args:
        experiment: what is asked.
        models: those that are not made inside the workflow.
        available: bytes of the GPU here; None where there is none.
        described: configurations that are at hand, by the model's key.
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
        if asked.teacher:
            need, where = teacher_bytes(scale, asked.model.load), ""
        else:
            need, where = student_bytes(experiment, asked, scale, described.get(asked.key))
            need += _beside(experiment)
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
        "Set 'load: {dtype: bfloat16}' or a 'quantisation', name a smaller model, or a GPU with "
        "more memory"
        if asked.teacher
        else "Set 'training.fused_head: true', a smaller 'micro_batch', 'gradient_checkpointing: "
        "true', or name a smaller model"
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
