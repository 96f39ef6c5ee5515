"""Where MLflow runs go, and how MLflow is opened, without surprises.

By default each experiment has its own sqlite file in its results folder. MLflow's telemetry
is off, its start-up chatter is silenced, and no credential of a tracking URI is ever shown.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kd.errors import KdError
from kd.tracking.own_disk import in_one_step, on_own_disk

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Always: what MLflow would otherwise send or print (it prints links with their credentials).
FORCED = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Unless the caller says otherwise: seven retries take minutes to report a wrong host.
DEFAULTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
# What SQLite says of a disk: nothing is wrong with the database.
DISK_TROUBLE = ("disk is full", "readonly database", "disk I/O error", "unable to open database")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


class TrackingError(KdError):
    """MLflow cannot be reached or used."""


@dataclass(frozen=True)
class Place:
    """A tracking URI, and the folder for artifacts (None: the server decides)."""

    uri: str
    database: Path | None
    artifacts: Path | None

    def __str__(self) -> str:
        """The place as it may be shown: without user, password and query."""
        if self.database is not None:
            return str(self.database)
        parts = urlsplit(self.uri)
        if parts.hostname is None:
            return without_credentials(self.uri)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}"


def place_of(results: Path, tracking_uri: str | None) -> Place:
    """The caller's tracking URI, or `results/mlflow.db` with artifacts in `results/mlruns`."""
    artifacts = results.resolve() / "mlruns"
    if not tracking_uri:
        database = results / "mlflow.db"
        return Place(f"sqlite:///{database.resolve()}", database, artifacts)
    scheme = urlsplit(tracking_uri).scheme.partition("+")[0]
    return Place(tracking_uri, None, artifacts if scheme in DATABASES else None)


def without_credentials(text: str) -> str:
    """`text` with whatever stands before an @ in an address, and any query, removed."""
    return re.sub(r"\?\S*", "", re.sub(r"//\S*@", "//", text))


@contextmanager
def open_mlflow(place: Place, experiment: str) -> Iterator[tuple["MlflowClient", str]]:
    """Yield a client and the id of `experiment`, which is created if there is none.

    Raises:
        TrackingError: naming the place without credentials, when MLflow refuses anything.
    """
    os.environ.update(FORCED)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # two seconds; after the settings above
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for chatter in ("alembic", "mlflow"):
        logging.getLogger(chatter).setLevel(logging.ERROR)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        with _writable(place) as opened:
            _follow_moved_folder(opened, experiment)
            client = MlflowClient(tracking_uri=opened.uri)
            yield client, _experiment_id(client, opened, experiment)
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        reason = _reason(str(error))
        remedy = _remedy(place, reason)
        raise TrackingError(f"{place}: MLflow cannot be used ({reason}). {remedy}") from None


def _remedy(place: Place, reason: str) -> str:
    if place.database is None:
        return (
            "Check MLFLOW_TRACKING_URI and that the server runs, or unset it to use mlflow.db in "
            "the results folder."
        )
    if any(words in reason for words in DISK_TROUBLE):
        return "Free some space, or make the disk writable, and run the same command again."
    return f"Delete {place} and run `kd track` again, which rebuilds it from the results."


@contextmanager
def _writable(place: Place) -> Iterator[Place]:
    """The place to open for writing: for a database on a network file system, a copy of it."""
    if place.database is None:
        yield place
        return
    _write_without_waiting()
    if not place.database.exists():
        # MLflow makes its tables in many steps, and refuses a database that has not seen them all.
        with in_one_step(place.database) as database:
            _make_tables(database)
    with on_own_disk(place.database) as database:
        yield replace(place, uri=f"sqlite:///{database.resolve()}", database=database)


def _make_tables(database: Path) -> None:
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{database.resolve()}").search_experiments()


def _write_without_waiting() -> None:
    """Let sqlite leave it to the system when to write to the disk.

    MLflow makes a dozen transactions a run, each of which would wait for the disk twice. A killed
    process loses nothing by it; after a power cut the database can be rebuilt.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if not event.contains(Engine, "connect", _without_waiting):
        event.listen(Engine, "connect", _without_waiting)


def _without_waiting(connection: sqlite3.Connection, record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def _reason(message: str) -> str:
    if "Max retries exceeded" in message:
        return "no answer"
    lines = without_credentials(message).strip().splitlines()
    telling = [line for line in lines if any(words in line for words in DISK_TROUBLE)]
    return [*telling, *lines][0][:160]


def _experiment_id(client: "MlflowClient", place: Place, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # Explicit, or MLflow takes ./mlruns of the folder it happens to be called in.
    location = place.artifacts.as_uri() if place.artifacts is not None else None
    return client.create_experiment(name, artifact_location=location)


def _follow_moved_folder(place: Place, experiment: str) -> None:
    """Mend the absolute artifact paths that MLflow stored, if the results folder was moved.

    MLflow has no call for this, and would go on writing to the old place.
    """
    if place.database is None or place.artifacts is None or not place.database.exists():
        return
    with closing(sqlite3.connect(place.database)) as database, database:
        select = "SELECT artifact_location FROM experiments WHERE name = ?"
        found = database.execute(select, (experiment,)).fetchone()
        new = place.artifacts.as_uri()
        if found is None or found[0] == new:
            return
        change = (new, len(found[0]) + 1)
        database.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE experiment_id = "
            "(SELECT experiment_id FROM experiments WHERE name = ?)",
            (*change, experiment),
        )
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = ?", (new, experiment)
        )
