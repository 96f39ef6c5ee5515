"""What manifests tell of a result, as a checklist or a card asks for it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.audit.chain import Artifact
from kd.audit.notes import counted
from kd.audit.places import run_at
from kd.audit.scope import Scope
from kd.audit.weights import DamagedWeightsError, parameter_count
from kd.experiment.layout import Run
from kd.exports.subject import commits


@dataclass(frozen=True)
class Facts:
    """Answers in the words of a checklist; an empty one says that no manifest knows."""

    seeds: str
    spread: str
    hyperparameters: str
    selection: str
    splits: str
    prompts: str
    metrics: str
    compute: str
    sizes: str
    software: str
    code: str
    identities: str
    sources: str


def gather(scope: Scope) -> Facts:
    """Read all facts of the artifacts in scope."""
    return Facts(
        seeds=_seeds(scope),
        spread=_spread(scope),
        hyperparameters=_hyperparameters(scope),
        selection=_selection(scope),
        splits=_splits(scope),
        prompts=_prompts(scope),
        metrics=_metrics(scope),
        compute=_compute(scope),
        sizes=_sizes(scope),
        software=_software(scope),
        code=_code(scope),
        identities=_identities(scope),
        sources=_sources(scope),
    )


def distillations(scope: Scope) -> list[tuple[Run, Artifact]]:
    """The runs in scope, with the manifests of their training."""
    found = ((run_at(artifact.folder), artifact) for artifact in scope.of_stage("distill"))
    return [(run, artifact) for run, artifact in found if run is not None]


def _seeds(scope: Scope) -> str:
    runs = distillations(scope)
    if not runs:
        return ""
    seeds = sorted({run.seed for run, _ in runs})
    cells = {(run.dataset, run.teacher, run.student, run.method, run.fraction) for run, _ in runs}
    listed = ", ".join(str(seed) for seed in seeds)
    return (
        f"{counted(len(runs), 'distillation')} of {counted(len(cells), 'setting')}; "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {listed}"
    )


def _spread(scope: Scope) -> str:
    """Whether the tables show how results vary, and over what."""
    several = [
        view.artifact.name for view in scope.tables if view.spec and len(view.spec.seeds) > 1
    ]
    if not several:
        return ""
    return (
        f"tables {', '.join(several)}: standard deviation and number of seeds beside each score; "
        "for each gain an interval, its p-value with Holm's correction, and what it was taken over"
    )


def _hyperparameters(scope: Scope) -> str:
    """Every setting of training, generation and losses; several values where runs differ."""
    generating = (*scope.of_stage("predict"), *scope.of_stage("answer"))
    parts = [
        _settings("training", (one.spec.get("training") for one in scope.of_stage("distill"))),
        _methods(scope),
        _settings("generation", (one.spec.get("generation") for one in generating)),
        _settings("logits", (one.spec.get("logits") for one in scope.of_stage("extract"))),
    ]
    return "; ".join(part for part in parts if part)


def _methods(scope: Scope) -> str:
    methods = {
        run.method: artifact.spec.get("method", {}) for run, artifact in distillations(scope)
    }
    told = [f"{name} ({_pairs(method)})" for name, method in sorted(methods.items())]
    return f"methods: {', '.join(told)}" if told else ""


def _pairs(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items() if value not in (None, {}))


def _settings(name: str, found: Iterable[dict[str, Any] | None]) -> str:
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for settings in found:
        for key, value in (settings or {}).items():
            values[key][str(value)] = None
    told = [f"{key} {' or '.join(options)}" for key, options in values.items()]
    return f"{name}: {', '.join(told)}" if told else ""


def _selection(scope: Scope) -> str:
    rules = {
        str(artifact.spec.get("training", {}).get("select")) for _, artifact in distillations(scope)
    }
    if not rules:
        return ""
    told = {
        "validation_loss": "the checkpoint with the lowest loss on the validation split",
        "last": "the last checkpoint",
    }
    return " or ".join(told.get(rule, rule) for rule in sorted(rules))


def _splits(scope: Scope) -> str:
    told = []
    for artifact in scope.of_stage("data"):
        rows = artifact.notes.get("rows")
        if isinstance(rows, dict):
            counts = ", ".join(f"{count} {split}" for split, count in rows.items())
            told.append(f"{artifact.spec.get('name')}: {counts}")
    dropped = sum(_dropped(artifact) for _, artifact in distillations(scope))
    tail = f"; {dropped} training rows were left out as too long or unanswered" if told else ""
    return "; ".join(told) + tail


def _dropped(artifact: Artifact) -> int:
    counts = artifact.notes.get("counts", {}).get("train", {})
    return sum(int(count) for name, count in counts.items() if name.startswith("dropped"))


def _prompts(scope: Scope) -> str:
    shots = {
        f"{one.spec.get('shots')} on {one.spec.get('dataset')}"
        for one in (*scope.of_stage("answer"), *scope.of_stage("predict"))
    }
    if not shots:
        return ""
    return f"few-shot examples: {', '.join(sorted(shots))}; each prompt is known by its SHA-256"


def _metrics(scope: Scope) -> str:
    found = dict.fromkeys(
        metric
        for one in scope.of_stage("score")
        for metric in one.spec.get("evaluation", {}).get("metrics", [])
    )
    encoders = {
        str(bertscore.get("model", "")).rpartition("/")[2]
        for one in scope.of_stage("score")
        if (bertscore := one.spec.get("evaluation", {}).get("bertscore"))
    }
    extra = [f"BERTScore with {name}" for name in sorted(encoders)]
    return ", ".join([*found, *extra])


def _compute(scope: Scope) -> str:
    """Processor or GPU hours by stage, and the largest memory: of these artifacts alone."""
    seconds: dict[str, float] = defaultdict(float)
    for artifact in scope.artifacts:
        seconds[artifact.stage] += artifact.seconds
    if not any(seconds.values()):
        return ""
    stages = ", ".join(
        f"{stage} {hours(value)}" for stage, value in sorted(seconds.items(), key=lambda e: -e[1])
    )
    memory = max((_memory(artifact) for artifact in scope.artifacts), default=0)
    return (
        f"{hours(sum(seconds.values()))} in {counted(len(scope.artifacts), 'job')} on "
        f"{', '.join(_machines(scope))} ({stages}); at most {memory} MiB of main memory"
    )


def hours(seconds: float) -> str:
    """A duration in the unit that reads best."""
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds:.0f} s"


def _memory(artifact: Artifact) -> int:
    return int(artifact.context.get("peak_memory_mib") or 0)


def _machines(scope: Scope) -> list[str]:
    return sorted({_machine(artifact.numerics) for artifact in scope.artifacts})


def _machine(numerics: dict[str, Any]) -> str:
    if numerics.get("device") == "cuda":
        return str(numerics.get("gpu"))
    threads = counted(int(numerics.get("threads") or 1), "thread")
    return f"{numerics.get('machine')} CPU, {threads}"


def _sizes(scope: Scope) -> str:
    """Numbers of parameters, from the weights' own headers."""
    told = {}
    for artifact in (*scope.of_stage("pretrain"), *scope.of_stage("distill")):
        run = run_at(artifact.folder)
        name = run.student if run else artifact.folder.rpartition("/")[2]
        if name not in told:
            files = sorted((scope.results / artifact.folder / "model").glob("*.safetensors"))
            told[name] = sum(_count(file) for file in files)
    return ", ".join(f"{name} {count:,}" for name, count in sorted(told.items()) if count)


def _count(file: Path) -> int:
    try:
        return parameter_count(file)
    except DamagedWeightsError:
        return 0


def _software(scope: Scope) -> str:
    versions: dict[str, dict[str, None]] = defaultdict(dict)
    for artifact in scope.artifacts:
        for name, version in artifact.numerics.get("packages", {}).items():
            if version:
                versions[name][str(version)] = None
        versions["Python"][str(artifact.numerics.get("python"))] = None
    return ", ".join(f"{name} {' and '.join(found)}" for name, found in sorted(versions.items()))


def _code(scope: Scope) -> str:
    found = commits(scope)
    if not found:
        return ""
    dirty = sum(bool(artifact.context.get("dirty")) for artifact in scope.artifacts)
    tail = f"; {counted(dirty, 'artifact')} made with uncommitted changes" if dirty else ""
    return f"{'commit' if len(found) == 1 else 'commits'} {', '.join(found)}{tail}"


def _identities(scope: Scope) -> str:
    tables = (view.artifact for view in scope.tables)
    return ", ".join(f"{table.name} {table.identity}" for table in tables if table.identity)


def _sources(scope: Scope) -> str:
    """Where rows and models are from, as far as their parameters say."""
    told = []
    for artifact in scope.of_stage("data"):
        dataset = artifact.spec.get("dataset", {})
        told.append(f"{artifact.spec.get('name')} ({_origin(dataset)})")
    for artifact in scope.of_stage("pretrain"):
        told.append(f"{artifact.spec.get('name')} (trained from its configuration)")
    for artifact in scope.of_stage("fetch"):
        told.append(
            f"{artifact.folder.split('/')[1]} ({_origin(artifact.spec | {'source': 'hub'})})"
        )
    return ", ".join(told)


def _origin(dataset: dict[str, Any]) -> str:
    if dataset.get("source") == "hub":
        return f"hub, {dataset.get('repo')} at {dataset.get('revision')}"
    return {"micro": "generated", "files": "local files, known by SHA-256"}.get(
        str(dataset.get("source")), str(dataset.get("source"))
    )
