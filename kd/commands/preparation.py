"""What a worker has done before its first command: the stages' imports, and their digests."""

import importlib

from kd.provenance.code import code_digest

# The command line, and what the functions of `kd.commands.stages` import.
_MODULES = (
    "kd.commands.application",
    "kd.evaluation.predict",
    "kd.evaluation.score",
    "kd.experiment.spec_files",
    "kd.experiment.stages",
    "kd.models.stage",
    "kd.teacher.answers",
    "kd.teacher.extraction",
    "kd.training.distillation",
)
# Stages whose manifests name nothing but this module's code: as many jobs as there are cells.
_DIGESTED = ("kd.evaluation.predict", "kd.evaluation.score")


def prepare() -> None:
    """Import the code of all stages, and compute the digests that most of their jobs need."""
    for module in _MODULES:
        importlib.import_module(module)
    for module in _DIGESTED:
        code_digest(module)
