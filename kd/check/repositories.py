"""What is known of a repository without its weights: from the hub, or from the cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kd.hub.access import HubError, Repository, hub_errors, offline
from kd.hub.snapshots import DESCRIPTION, SAFETENSORS, fetch

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo


@dataclass(frozen=True)
class Described:
    """A repository as it is at its revision.

    Attributes:
        commit: what the revision stands for now.
        licence: as its card states it.
        files: names of all files, or of those in the cache.
        folder: where its small files are: configuration and tokenizer; None for datasets.
        cached: whether the hub could not be asked, so that only the cache is known.
    """

    commit: str
    licence: str | None
    files: frozenset[str]
    folder: Path | None
    cached: bool

    @property
    def safetensors(self) -> bool:
        """Whether there are weights that can be read."""
        return bool(self.files & {SAFETENSORS[0], SAFETENSORS[-1]})


class Hub:
    """Asks the hub as long as it answers, and the cache from then on."""

    def __init__(self) -> None:
        self._reachable = not offline()

    @property
    def reachable(self) -> bool:
        """Whether the hub may be asked, and has always answered."""
        return self._reachable

    def describe(self, repository: Repository) -> Described:
        """Access, licence, names of files; of a model also its configuration and tokenizer.

        Raises:
            HubError: there is no access, no such repository or revision, or nothing in the cache.
        """
        if self._reachable:
            try:
                return self._ask(repository)
            except HubError as error:
                if error.problem != "unreachable":
                    raise
                self._reachable = False
        return _from_cache(repository)

    def _ask(self, repository: Repository) -> Described:
        from huggingface_hub import HfApi

        api = HfApi()
        with hub_errors(repository):
            ask = api.model_info if repository.kind == "model" else api.dataset_info
            info = ask(repository.name, revision=repository.revision)
            if info.gated:
                api.auth_check(repository.name, repo_type=repository.kind)
        assert info.sha is not None
        folder = None
        if repository.kind == "model":
            folder = fetch(repository, DESCRIPTION).folder
        files = frozenset(file.rfilename for file in info.siblings or [])
        return Described(info.sha, _licence(info), files, folder, cached=False)


def _licence(info: "ModelInfo | DatasetInfo") -> str | None:
    card = info.card_data
    found = card.get("license") if card is not None else None
    return ", ".join(map(str, found)) if isinstance(found, list) else found and str(found)


def _from_cache(repository: Repository) -> Described:
    snapshot = fetch(repository, DESCRIPTION, cached=True)
    files = frozenset(
        file.relative_to(snapshot.folder).as_posix()
        for file in snapshot.folder.rglob("*")
        if file.is_file()
    )
    folder = snapshot.folder if repository.kind == "model" else None
    return Described(snapshot.commit, snapshot.licence(), files, folder, cached=True)
