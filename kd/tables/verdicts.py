"""Verdicts on claims, read from finished tables: nothing is computed again."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from kd.errors import ArtifactError
from kd.experiment.schema import Experiment
from kd.tables.as_json import SCHEMA, definition
from kd.tables.claims import Outcome

TABLE_FILES = (".csv", ".md", ".json", ".tex")


@dataclass(frozen=True)
class Judged:
    """One claim with its verdict, as a table's json holds it."""

    table: str
    name: str
    text: str
    outcome: Outcome
    sentence: str
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
    """

    experiment: str
    claims: list[Judged]
    not_made: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)

    def exit_code(self) -> int:
        """1 where a claim does not hold, else 2 where one was not judged, else 0."""
        if any(claim.outcome == "does not hold" for claim in self.claims):
            return 1
        return 2 if self.not_made or self.not_judged else 0

    def as_json(self) -> str:
        """The verdicts for programs."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def verdicts_of_table(path: Path) -> Verdicts:
    """The claims of the table that `path` is a file of.

    Raises:
        ArtifactError: no such table, or its json is malformed or of another schema.
    """
    if path.suffix not in TABLE_FILES:
        raise ArtifactError(f"{path}: no table. Give its csv or json, as results/table2.csv.")
    beside = path.with_name(f"{path.name.partition('.')[0]}.json")
    content = _read(beside)
    return Verdicts(str(content["experiment"]), list(_judged(beside, content)))


def verdicts_of_experiment(experiment: Experiment, results: Path) -> Verdicts:
    """The claims of all tables of an experiment, found in its folder `results`.

    Raises:
        ArtifactError: a table's json is malformed or of another schema.
    """
    found = Verdicts(experiment.name, [])
    for table in dict.fromkeys(claim.table for claim in experiment.claims.values()):
        path = results / "tables" / f"{table}.json"
        if not path.is_file():
            found.not_made.append(table)
            continue
        claims = list(_judged(path, _read(path)))
        known = [(claim.name, claim.text, claim.definition) for claim in claims]
        found.claims.extend(claims)
        found.not_judged.extend(
            f"{table}: {name}"
            for name, claim in experiment.claims.items()
            if claim.table == table and (name, claim.text, definition(claim)) not in known
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ArtifactError(f"{path}: no such table. Make it with `snakemake {path}`.") from None
    except ValueError:
        raise ArtifactError(f"{path}: not a table's json. Make the table again.") from None
    if not isinstance(content, dict) or "table" not in content or "experiment" not in content:
        raise ArtifactError(f"{path}: not a table's json. Make the table again.")
    if content.get("schema_version") != SCHEMA:
        raise ArtifactError(
            f"{path}: schema {content.get('schema_version', 1)}, expected {SCHEMA}: it was made "
            "by another version. Make the table again."
        )
    return content


def _judged(path: Path, content: dict[str, Any]) -> Iterable[Judged]:
    try:
        for claim in content["claims"]:
            if claim["outcome"] not in get_args(Outcome):
                raise ValueError(f"'{claim['outcome']}' is no verdict")
            shown = {name: str(claim[name]) for name in ("name", "text", "sentence")}
            yield Judged(
                str(content["table"]),
                outcome=claim["outcome"],
                definition=dict(claim["definition"]),
                **shown,
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: its claims cannot be read ({error}). Make the table again."
        ) from None
