"""Which modules' code makes a student. Imports nothing heavy: the workflow asks, too."""

from kd.losses.catalogue import loss_info


def distillation_modules(loss: str) -> tuple[str, ...]:
    """The stage's module and those of the losses that it looks up by name at run time.

    The other losses are not among them: adding or editing one re-runs only its own students.
    """
    infos = [loss_info(name) for name in ("cross_entropy", loss) if name != "none"]
    return ("kd.training.distillation", *(module for info in infos for module in info.modules))
