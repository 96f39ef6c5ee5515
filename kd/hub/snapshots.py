"""Files of a repository at one commit, in the hub's own cache.

Weights are read from safetensors, which hold numbers and nothing else. A pickle can run code
when it is read: it is never downloaded unless an experiment asks for its conversion.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd.hub.access import HubError, Repository, hub_errors

INDEX = "model.safetensors.index.json"
SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors", INDEX)
PICKLES = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")
# Configuration and tokenizer; the card states the licence.
DESCRIPTION = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",
    "LICENSE*",
)
ROWS = ("*.parquet", "*.jsonl", "*.json", "*.csv", "*.jsonl.gz", "*.json.gz", "*.csv.gz")


@dataclass(frozen=True)
class Snapshot:
    """A repository's files at one commit: a folder of the hub's cache."""

    repository: Repository
    folder: Path

    @property
    def commit(self) -> str:
        """The commit, 40 hexadecimal digits: the cache names the folder by it."""
        return self.folder.name

    def files(self, patterns: Sequence[str]) -> list[Path]:
        """Files at the top of the folder that match a pattern, sorted by name."""
        return sorted({file for pattern in patterns for file in self.folder.glob(pattern)})

    def licence(self) -> str | None:
        """The licence that the repository's card states."""
        card = self.folder / "README.md"
        return card_licence(card.read_text(encoding="utf-8")) if card.is_file() else None


def card_licence(text: str) -> str | None:
    """The licence in the head of a card; None where it states none."""
    import yaml

    parts = text.split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    found = head.get("license") if isinstance(head, dict) else None
    return ", ".join(map(str, found)) if isinstance(found, list) else found and str(found)


def fetch(
    repository: Repository,
    patterns: Sequence[str],
    *,
    folders: bool = False,
    cached: bool = False,
) -> Snapshot:
    """Download what matches `patterns`, or find it in the cache.

    Args:
        repository: which, and at which revision.
        patterns: of names of files.
        folders: also in the repository's folders.
        cached: do not ask the hub.

    Raises:
        HubError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(repository):
        try:
            folder = snapshot_download(
                repository.name,
                repo_type=repository.kind,
                revision=repository.revision,
                allow_patterns=list(patterns),
                ignore_patterns=None if folders else ["*/*"],
                local_files_only=cached,
            )
        except ValueError as error:
            if type(error) is not ValueError:  # its subclasses have sentences of their own
                raise
            raise HubError(
                f"{repository} holds none of the files that are wanted ({error}).", "refused"
            ) from None
    return Snapshot(repository, Path(folder))


def fetch_weights(repository: Repository, *, convert_pickle: bool) -> Snapshot:
    """A model's configuration, tokenizer and weights.

    Args:
        repository: which, and at which revision.
        convert_pickle: without safetensors, take what can be converted (`kd.hub.conversion`).

    Raises:
        HubError: it cannot be had, or has no weights that may be read.
    """
    snapshot = fetch(repository, (*DESCRIPTION, *SAFETENSORS))
    if not (snapshot.folder / "config.json").is_file():
        raise HubError(
            f"{repository} has no config.json: it is no model of the transformers library. "
            "Correct its 'repo' or 'revision'.",
            "refused",
        )
    if has_safetensors(snapshot):
        return snapshot
    if convert_pickle:
        return fetch(repository, (*DESCRIPTION, *PICKLES))
    raise HubError(
        f"{repository} holds no safetensors, and a pickle could run code when it is read. Name a "
        "revision that has them (often 'refs/pr/N', which the hub's converter opened; see "
        f"{repository.page}/discussions), or set 'convert_pickle: true' to have the weights read "
        "by torch's restricted unpickler and written as safetensors.",
        "refused",
    )


def has_safetensors(snapshot: Snapshot) -> bool:
    """Whether all weights are there as safetensors.

    Raises:
        HubError: only some of them are.
    """
    index = snapshot.folder / INDEX
    if not index.is_file():
        return (snapshot.folder / SAFETENSORS[0]).is_file()
    shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    missing = [shard for shard in shards if not (snapshot.folder / shard).is_file()]
    if missing:
        raise HubError(
            f"{snapshot.repository}: {len(missing)} of {len(shards)} files of weights are not in "
            f"the cache (first: {missing[0]}). Fetch it again where there is network.",
            "refused",
        )
    return True
