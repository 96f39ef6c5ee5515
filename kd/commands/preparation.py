"""What a worker has done before its first command: imports, digests of code, versions."""

import importlib

from kd.provenance import environment
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
    """Import the code of all stages, and find what the manifests of most jobs say of it."""
    for module in _MODULES:
        importlib.import_module(module)
    for module in _DIGESTED:
        code_digest(module)
    environment.numerics(tensors=False)
