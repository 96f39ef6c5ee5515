"""Verdicts on claims, read from finished tables: nothing is computed again."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from kd.errors import ArtifactError
from kd.experiment.schema import Experiment
from kd.report.currency import changed_parts
from kd.tables.as_json import definition
from kd.tables.claims import Outcome
from kd.tables.finished import Finished, read_finished

TABLE_FILES = (".csv", ".md", ".json", ".tex")


@dataclass(frozen=True)
class Judged:
    """One claim with its verdict, as a table's json holds it."""

    table: str
    name: str
    text: str
    outcome: Outcome
    sentence: str
    tested: bool  # whether all scores that it needs were there
    definition: dict[str, Any]


@dataclass(frozen=True)
class Verdicts:
    """What finished tables say of their claims.

    Attributes:
        experiment: the experiment's name.
        claims: claims with their verdicts, table by table.
        not_made: tables that have claims and are not made yet.
        not_judged: claims that a table does not know, as `table: name`: they were written
            or edited after it was made.
        withdrawn: claims of a table, as `table: name`, that the experiment makes no longer.
        outdated: as `table: what`, what the experiment file says otherwise than when the
            table, or something below it, was made.
        unknown: whether there is no experiment file of that name to compare with.
    """

    experiment: str
    claims: list[Judged]
    not_made: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    unknown: bool = False

    def exit_code(self) -> int:
        """1 where a claim does not hold, else 2 where one was not put to the test, else 0."""
        if any(claim.outcome == "does not hold" for claim in self.claims):
            return 1
        if not all(claim.tested for claim in self.claims):
            return 2
        untested = self.not_made or self.not_judged or self.withdrawn or self.outdated
        return 2 if untested or self.unknown else 0

    def as_json(self) -> str:
        """The verdicts for programs."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def table_json(path: Path) -> Path:
    """The json beside the table's file `path`.

    Raises:
        ArtifactError: `path` is no name of a table's file.
    """
    if path.suffix not in TABLE_FILES:
        raise ArtifactError(f"{path}: no table. Give its csv or json, as results/table2.csv.")
    return path.with_name(f"{path.name.partition('.')[0]}.json")


def verdicts_of_table(path: Path, experiment_of: Callable[[str], Experiment | None]) -> Verdicts:
    """The claims of the table that `path` is a file of.

    Args:
        path: any of the table's files.
        experiment_of: the experiment of a name as it is now; None where there is none.

    Raises:
        ArtifactError: no such table, or its json is malformed, altered or of another schema.
    """
    beside = table_json(path)
    finished = read_finished(beside)
    name, table = str(finished.content["experiment"]), str(finished.content["table"])
    experiment = experiment_of(name)
    found = Verdicts(name, list(_judged(beside, finished.content)), unknown=experiment is None)
    if experiment is not None:
        _compare(found, experiment, table, finished)
    return found


def verdicts_of_experiment(experiment: Experiment, results: Path) -> Verdicts:
    """The claims of all tables of an experiment, found in its folder `results`.

    Raises:
        ArtifactError: a table's json is malformed, altered or of another schema.
    """
    found = Verdicts(experiment.name, [])
    for table in dict.fromkeys(claim.table for claim in experiment.claims.values()):
        path = results / "tables" / f"{table}.json"
        if not path.is_file():
            found.not_made.append(table)
            continue
        finished = read_finished(path)
        found.claims.extend(_judged(path, finished.content))
        _compare(found, experiment, table, finished)
    return found


def _compare(found: Verdicts, experiment: Experiment, table: str, finished: Finished) -> None:
    """Note what the experiment says otherwise than when the table was made."""
    stated = [
        (name, claim.text, definition(claim))
        for name, claim in experiment.claims.items()
        if claim.table == table
    ]
    own = [claim for claim in found.claims if claim.table == table]
    known = [(claim.name, claim.text, claim.definition) for claim in own]
    found.not_judged.extend(f"{table}: {one[0]}" for one in stated if one not in known)
    names = [one[0] for one in stated]
    found.withdrawn.extend(f"{table}: {one.name}" for one in own if one.name not in names)
    found.outdated.extend(
        f"{table}: {what}" for what in changed_parts(experiment, table, finished.results)
    )


def _judged(path: Path, content: dict[str, Any]) -> Iterable[Judged]:
    try:
        for claim in content["claims"]:
            if claim["outcome"] not in get_args(Outcome):
                raise ValueError(f"'{claim['outcome']}' is no verdict")
            shown = {name: str(claim[name]) for name in ("name", "text", "sentence")}
            yield Judged(
                str(content["table"]),
                outcome=claim["outcome"],
                tested=claim["value"] is not None,
                definition=dict(claim["definition"]),
                **shown,
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: its claims cannot be read ({error}). Make the table again."
        ) from None
