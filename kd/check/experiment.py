"""All findings about an experiment at once: models, datasets, licences, memory, revisions."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kd.check.findings import Finding, ordered
from kd.check.memory import gpu_memory, memory_findings
from kd.check.models import Asked, Description, asked_models, problems
from kd.check.pairs import pair_findings
from kd.check.repositories import Described, Hub
from kd.errors import ArtifactError
from kd.experiment.datasets import FilesDataset, HubDataset
from kd.experiment.expansion import table_rows
from kd.experiment.loading import EXPERIMENTS
from kd.experiment.models import HubModel
from kd.experiment.schema import Experiment
from kd.hub.access import HubError, Repository
from kd.tables.published import read_published

# Parts of the hub's names of licences that restrict use, or that name none it knows.
CONDITIONS = ("-nc", "other", "unknown", "llama", "gemma", "rail")


def check_experiment(
    experiment: Experiment, gpu: Callable[[], float | None] = gpu_memory
) -> list[Finding]:
    """What would stop `experiment` here, what would surprise, and what could not be checked.

    Small files of models are fetched (configuration, tokenizer), weights and rows are not. An
    experiment whose models and rows are all made inside the workflow has no findings.

    Args:
        experiment: what is checked.
        gpu: bytes of a GPU of this machine, or None.
    """
    hub = Hub()
    models = list(asked_models(experiment, _uses(experiment)))
    described: dict[str, Description] = {}
    found = [
        *_models(experiment, models, hub, described),
        *pair_findings(experiment, described),
        *_datasets(experiment, hub),
        *_encoder(experiment, hub),
    ]
    if models:
        found.extend(memory_findings(experiment, models, gpu(), described))
    if found and not hub.reachable:
        found.append(
            Finding(
                "unknown",
                "machine",
                "the hub was not asked (offline): access, licences and what branches stand for are "
                "those of the cache, and what is not there was not checked. Where there is "
                f"network: `kd check {experiment.name}`, then `snakemake sources --config "
                f"experiment={experiment.name}`.",
            )
        )
    return ordered([*found, *_files(experiment), *_published(experiment)])


def _uses(experiment: Experiment) -> dict[str, list[str]]:
    """The datasets that each model answers or learns from."""
    uses: dict[str, list[str]] = {}
    for table in experiment.tables:
        for row in table_rows(experiment, table):
            for model in (row.teacher, row.student):
                for dataset in (row.dataset, row.tested):
                    if dataset not in uses.setdefault(model, []):
                        uses[model].append(dataset)
    return uses


def _models(
    experiment: Experiment, models: Iterable[Asked], hub: Hub, described: dict[str, Description]
) -> Iterator[Finding]:
    """Findings of each model; those whose small files are at hand are added to `described`."""
    for asked in models:
        if isinstance(asked.model, HubModel):
            yield from _hub_model(experiment, asked, asked.model, hub, described)
            continue
        found = described[asked.key] = Description(Path(asked.model.path))
        yield from _described(experiment, asked, found, f"in {found.folder}")


def _hub_model(
    experiment: Experiment,
    asked: Asked,
    model: HubModel,
    hub: Hub,
    known: dict[str, Description],
) -> Iterator[Finding]:
    repository = Repository("model", model.repo, model.revision)
    yield from _floating(experiment, asked.key, repository)
    try:
        described = hub.describe(repository)
    except HubError as error:
        yield _unavailable(asked.key, repository, error)
        return
    yield from _licence(asked.key, repository, described)
    weights = "safetensors" if described.safetensors else "a pickle, which is converted"
    if not described.safetensors and not model.convert_pickle:
        # A cache may hold the small files alone.
        where = "the cache holds" if described.cached else "the repository holds"
        yield Finding(
            "error",
            asked.key,
            f"{repository}: {where} no safetensors. Name a revision that has them (often "
            "'refs/pr/N'), or set 'convert_pickle: true'; offline, fetch it first.",
        )
        return
    assert described.folder is not None
    found = known[asked.key] = Description(described.folder)
    yield from _described(experiment, asked, found, f"{repository}, {weights}")


def _described(
    experiment: Experiment, asked: Asked, found: Description, told: str
) -> Iterator[Finding]:
    wrong = list(problems(experiment, asked, found))
    for severity, text in wrong:
        yield Finding(severity, asked.key, text)
    if not any(severity == "error" for severity, _ in wrong):
        reads = f"{found.positions} tokens" if found.positions else "no fixed length"
        yield Finding("ok", asked.key, f"{told}, reads {reads}.")


def _datasets(experiment: Experiment, hub: Hub) -> Iterator[Finding]:
    for name, dataset in experiment.datasets.items():
        if isinstance(dataset, HubDataset):
            repository = Repository("dataset", dataset.repo, dataset.revision)
            yield from _reachable(experiment, f"datasets.{name}", repository, hub)


def _files(experiment: Experiment) -> Iterator[Finding]:
    """Files of datasets that do not exist."""
    for name, dataset in experiment.datasets.items():
        if isinstance(dataset, FilesDataset):
            paths = [Path(experiment.data_root, path) for path in dataset.paths.values()]
            absent = [str(path) for path in paths if not path.is_file()]
            if absent:
                yield Finding(
                    "error",
                    f"datasets.{name}",
                    f"{', '.join(absent)}: no such file. Give the folder that holds it: --config "
                    "data_root=FOLDER, here as for snakemake.",
                )


def _published(experiment: Experiment) -> Iterator[Finding]:
    """Published figures that cannot be read."""
    if experiment.published is not None:
        try:
            read_published(EXPERIMENTS / experiment.published)
        except ArtifactError as error:
            yield Finding("error", "published", str(error))


def _encoder(experiment: Experiment, hub: Hub) -> Iterator[Finding]:
    """BERTScore's encoder; without it that score is missing from tables, and nothing fails."""
    settings = experiment.evaluation.bertscore
    if settings is None or Path(settings.model).is_dir():
        return
    repository = Repository("model", settings.model, settings.revision or "main")
    for finding in _reachable(experiment, "evaluation.bertscore", repository, hub):
        if finding.severity != "error":
            yield finding
        else:
            text = f"{finding.text} Without it tables show 'n/a' for BERTScore."
            yield Finding("warning", finding.subject, text)


def _reachable(
    experiment: Experiment, key: str, repository: Repository, hub: Hub
) -> Iterator[Finding]:
    yield from _floating(experiment, key, repository)
    try:
        described = hub.describe(repository)
    except HubError as error:
        yield _unavailable(key, repository, error)
        return
    yield from _licence(key, repository, described)
    yield Finding("ok", key, f"{repository}.")


def _unavailable(key: str, repository: Repository, error: HubError) -> Finding:
    """What to do when offline is the same for all, and said once."""
    if error.problem in ("offline", "unreachable"):
        text = f"{repository} is not in this machine's cache, and the hub cannot be asked."
        return Finding("error", key, text)
    return Finding("error", key, str(error))


def _floating(experiment: Experiment, key: str, repository: Repository) -> Iterator[Finding]:
    if not repository.pinned:
        yield Finding(
            "warning",
            key,
            f"'revision: {repository.revision}' floats: it may mean something else tomorrow, and "
            f"`kd audit` refuses it. Run `kd pin {experiment.name}`.",
        )


def _licence(key: str, repository: Repository, described: Described) -> Iterator[Finding]:
    licence = described.licence
    if licence is None:
        where = " in the cache" if described.cached else f" at {repository.page}"
        yield Finding("unknown", key, f"licence: none is stated{where}. Ask its authors.")
    elif any(word in licence for word in CONDITIONS):
        yield Finding(
            "warning",
            key,
            f"licence '{licence}' sets conditions (read {repository.page}): students that learn "
            "from it may be bound by them.",
        )
