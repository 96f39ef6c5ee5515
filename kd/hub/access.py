"""What can go wrong on the way to the hub, each as one sentence that says what to do."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kd.errors import KdError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

COMMIT = re.compile(r"[0-9a-f]{40}")
SITE = "https://huggingface.co"

Kind = Literal["model", "dataset"]
Problem = Literal["gated", "not found", "revision", "offline", "unreachable", "refused"]


class HubError(KdError):
    """A repository cannot be had; `problem` says in which way."""

    def __init__(self, message: str, problem: Problem) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True)
class Repository:
    """A model or a dataset on the hub at a revision: a commit, a branch, a tag or `refs/…`."""

    kind: Kind
    name: str
    revision: str

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which nobody can move."""
        return COMMIT.fullmatch(self.revision) is not None

    @property
    def page(self) -> str:
        """Where people read about it, and ask for access."""
        return f"{SITE}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    def __str__(self) -> str:
        short = self.revision[:12] if self.pinned else self.revision
        return f"{self.kind} '{self.name}' at '{short}'"


def offline() -> bool:
    """Whether the hub may not be asked: HF_HUB_OFFLINE=1, as on a cluster's nodes."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def has_token() -> bool:
    """Whether there is a token of an account: `hf auth login`, or HF_TOKEN."""
    from huggingface_hub import get_token

    return get_token() is not None


@contextmanager
def hub_errors(repository: Repository) -> Iterator[None]:
    """Turn what the hub's client raises about `repository` into a `HubError`.

    Raises:
        HubError: one sentence: what is wrong, and what to do.
    """
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # any connection's

    try:
        yield
    except errors.HFValidationError:
        raise HubError(
            f"'{repository.name}' is no name of a repository. Write ORGANISATION/NAME, or name a "
            "folder with 'source: local'.",
            "not found",
        ) from None
    except errors.HfHubHTTPError as error:
        raise _answered(repository, error) from None
    except (errors.LocalEntryNotFoundError, ConnectionError, HTTPError) as error:
        raise _unavailable(repository, error) from None


def _answered(repository: Repository, error: "HfHubHTTPError") -> HubError:
    """The hub answered, and said no."""
    from huggingface_hub import errors

    code = error.response.status_code
    if isinstance(error, errors.GatedRepoError | errors.DisabledRepoError) or code == 403:
        return _gated(repository)
    if isinstance(error, errors.RepositoryNotFoundError):
        return _not_found(repository)
    if code == 401:  # a public repository, too, is refused to a token that is none
        return HubError(
            f"{repository}: the hub does not accept the token of this machine (HF_TOKEN, or `hf "
            "auth login`): it has expired, or was mistyped. Run `hf auth login`, or remove it.",
            "refused",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            f"{repository} has no such revision. Look at {repository.page}/commits/main, or write "
            "'revision: main' and run `kd pin`.",
            "revision",
        )
    return HubError(
        f"{repository}: the hub answers with status {code}. Try again later; "
        "https://status.huggingface.co says whether it is down.",
        "unreachable",
    )


def _gated(repository: Repository) -> HubError:
    token = (
        "the token of this machine (HF_TOKEN, or `hf auth login`) has no access to it"
        if has_token()
        else "no token is set here"
    )
    return HubError(
        f"{repository} is gated, and {token}. Accept its terms at {repository.page}, then run "
        "`hf auth login`, or use an ungated one (experiments/paper_open.yaml does).",
        "gated",
    )


def _not_found(repository: Repository) -> HubError:
    hint = "" if has_token() else " A private one needs a token: `hf auth login`."
    return HubError(
        f"{repository}: the hub knows no such repository. Correct its 'repo'; {repository.page} "
        f"must show it.{hint}",
        "not found",
    )


def _unavailable(repository: Repository, error: Exception) -> HubError:
    folder = os.environ.get("HF_HOME", "~/.cache/huggingface")
    if offline():
        why = "and the hub may not be asked (HF_HUB_OFFLINE=1)"
        problem: Problem = "offline"
    else:
        why = "and the hub cannot be reached"
        problem = "unreachable"
    partly = "only partly" if type(error).__name__ == "IncompleteSnapshotError" else "not"
    return HubError(
        f"{repository} is {partly} in the cache below {folder}, {why}. Run `snakemake sources "
        "--config experiment=NAME` where there is network, on a disk that this machine shares.",
        problem,
    )
