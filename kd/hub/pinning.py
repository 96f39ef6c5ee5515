"""Revisions that float, and the commits that they stand for, written into experiment files.

Only the revisions change: places come from the YAML parser, and the text around them, comments
included, stays as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kd.experiment.datasets import HubDataset
from kd.experiment.loading import load_experiment, read_resolved
from kd.experiment.models import HubModel
from kd.experiment.schema import Experiment
from kd.hub.access import HubError, Repository, hub_errors, offline
from kd.provenance.files import write_text

_ENCODER = "evaluation.bertscore"


@dataclass(frozen=True)
class Floating:
    """A revision that is no commit.

    Attributes:
        key: of the block that it belongs to, as `datasets.squad`.
        repository: what it is a revision of.
        file: the experiment file that says so: the one asked about, or one that it extends.
        start, end: its place in the file's text; None where the file does not write it down.
    """

    key: str
    repository: Repository
    file: Path
    start: int | None = None
    end: int | None = None


def repositories(experiment: Experiment) -> Iterator[tuple[str, Repository]]:
    """Everything that an experiment takes from the hub, by key."""
    for name, dataset in experiment.datasets.items():
        if isinstance(dataset, HubDataset):
            yield f"datasets.{name}", Repository("dataset", dataset.repo, dataset.revision)
    for role, models in (("teachers", experiment.teachers), ("students", experiment.students)):
        for name, model in models.items():
            if isinstance(model, HubModel):
                yield f"{role}.{name}", Repository("model", model.repo, model.revision)
    encoder = experiment.evaluation.bertscore
    if encoder is not None and not Path(encoder.model).exists():
        yield _ENCODER, Repository("model", encoder.model, encoder.revision or "main")


def floating(path: Path) -> list[Floating]:
    """Revisions of an experiment that are no commits, with the file that each stands in."""
    path = path.resolve()
    experiment = load_experiment(path)
    return [
        _locate(path, key, repository)
        for key, repository in repositories(experiment)
        if not repository.pinned
    ]


def pin_file(path: Path) -> list[tuple[str, Repository, str]]:
    """Write commits into `path` for all revisions in it that float; returns what was written.

    Raises:
        HubError: the hub cannot be asked, does not know one of them, or one stands in another
            file.
    """
    path = path.resolve()
    found = floating(path)
    elsewhere = sorted({one.file.stem for one in found if one.file != path})
    own = [one for one in found if one.file == path]
    try:
        commits = [(one, resolve(one.repository)) for one in own]
    except HubError as error:
        if error.problem not in ("offline", "unreachable"):
            raise
        why = "may not be asked (HF_HUB_OFFLINE=1)" if offline() else "cannot be reached"
        raise HubError(
            f"{path.name}: {len(own)} revisions float, and the hub, which alone knows the commits "
            f"that they stand for, {why}. Run `kd pin` where there is network.",
            error.problem,
        ) from None
    _write(path, commits)
    if elsewhere:
        commands = " and ".join(f"`kd pin {name}`" for name in elsewhere)
        raise HubError(
            f"{path.name}: revisions that it takes over from other files float. Run {commands}.",
            "refused",
        )
    return [(one.key, one.repository, commit) for one, commit in commits]


def resolve(repository: Repository) -> str:
    """The commit that a revision stands for now.

    Raises:
        HubError: the hub cannot be asked, or knows no such repository or revision.
    """
    from huggingface_hub import HfApi

    with hub_errors(repository):
        api = HfApi()
        ask = api.model_info if repository.kind == "model" else api.dataset_info
        info = ask(repository.name, revision=repository.revision)
    if info.sha is None:
        raise HubError(f"{repository}: the hub names no commit. Try again later.", "unreachable")
    return info.sha


def _write(path: Path, commits: list[tuple[Floating, str]]) -> None:
    text = path.read_text(encoding="utf-8")
    unwritten = [one.key for one, _ in commits if one.start is None]
    if unwritten:
        told = ", ".join(f"{one.key}.revision: {sha}" for one, sha in commits if one.start is None)
        raise HubError(
            f"{path.name}: '{unwritten[0]}' has no 'revision' to be replaced. Write: {told}.",
            "refused",
        )
    new = text
    places = {(one.start or 0, one.end): commit for one, commit in commits}  # some share one
    for (start, end), commit in sorted(places.items(), reverse=True):
        new = new[:start] + commit + new[end:]
    if new != text:
        write_text(path, new)


def _locate(path: Path, key: str, repository: Repository) -> Floating:
    """Where the revision of `key` is written: in `path`, or in a file that it extends."""
    text = path.read_text(encoding="utf-8")
    node = _find(yaml.compose(text, Loader=yaml.SafeLoader), f"{key}.revision")
    if node is not None:
        return Floating(key, repository, path, node.start_mark.index, node.end_mark.index)
    parents = yaml.safe_load(text).get("extends", [])
    # The last of them wins, as in `kd.experiment.loading`.
    for parent in reversed(parents if isinstance(parents, list) else [parents]):
        file = (path.parent / parent).resolve()
        if _has(read_resolved(file), key):
            return _locate(file, key, repository)
    return Floating(key, repository, path)


def _has(content: dict[str, Any], key: str) -> bool:
    value: Any = content
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _find(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """The value at a dotted key, if the file itself writes it."""
    for part in key.split("."):
        if not isinstance(node, yaml.MappingNode):
            return None
        own = {name.value: value for name, value in node.value}
        merged = own.get("<<")  # a block that another one takes over
        node = own.get(part) or (_find(merged, part) if merged is not None else None)
    return node
