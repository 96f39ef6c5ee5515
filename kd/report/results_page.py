"""`docs/results.md`: what an experiment found, claim by claim, written from its tables."""

from collections.abc import Callable, Container, Iterator
from pathlib import Path

from tabulate import tabulate

from kd.audit.chain import Chain
from kd.errors import ArtifactError
from kd.experiment.schema import Experiment
from kd.report.content import Row, Table, Verdict, read_table
from kd.report.names import readable
from kd.report.origin import (
    Origin,
    experiment_digest,
    read_origin,
    recorded_code,
    stale_parts,
)
from kd.report.verdicts import Verdicts, verdicts_of_experiment
from kd.report.words import (
    ONE_SEED,
    basis_text,
    count_text,
    gain_text,
    is_significant,
    mean_text,
    reason_text,
    score_text,
    unit_sentence,
)

MOST_LINES = 60  # of a table on the page; larger ones show their means alone


def render_results(experiment: Experiment, results: Path) -> str:
    """The page, in Markdown. It names its command, and the digests of what it was made from.

    Raises:
        ArtifactError: none of the experiment's tables was made, or one cannot be read.
    """
    judged = verdicts_of_experiment(experiment, results)
    tables = _tables(experiment, results, judged)
    made = [table.table for table in tables]
    chain = Chain(results)
    artifacts = [chain.artifact("tables", name) for name in made]
    origin = Origin(
        experiment.name,
        # Tables of another experiment file are stale from the start.
        "" if judged.outdated else experiment_digest(experiment),
        recorded_code(chain.closure(artifacts)),
        {name: one.identity or "" for name, one in zip(made, artifacts, strict=True)},
    )
    absent = [name for name in experiment.tables if name not in made]
    parts = [*_head(experiment, tables, judged, origin), *_claims(tables)]
    parts += _not_run(experiment, judged)
    for table in tables:
        parts += _table(table)
    if absent:
        parts += [f"Declared, but not made yet: {', '.join(absent)}.", ""]
    parts += [*_deviations(experiment), *_origin(origin)]
    return "\n".join(parts).rstrip() + "\n"


def render_claims(experiment: Experiment, results: Path) -> str:
    """Means and claims alone, for the terminal.

    Raises:
        ArtifactError: as `render_results`.
    """
    judged = verdicts_of_experiment(experiment, results)
    tables = _tables(experiment, results, judged)
    lines = [f"{table.table}: {mean_text(table, one)}." for table in tables for one in table.means]
    told = [_count(experiment, tables, judged), "", *_claims(tables)]
    return "\n".join([*lines, *told, *_not_run(experiment, judged)]).rstrip() + "\n"


def _tables(experiment: Experiment, results: Path, judged: Verdicts) -> list[Table]:
    """The experiment's tables, those that were made, with the claims that it still makes."""
    files = (results / "tables" / f"{name}.json" for name in experiment.tables)
    found = [read_table(file) for file in files if file.is_file()]
    if not found:
        raise ArtifactError(f"{results}: no table to write about. Run `snakemake` first.")
    gone = {*judged.not_judged, *judged.withdrawn}
    return [_without_claims(table, gone) for table in found]


def _without_claims(table: Table, gone: Container[str]) -> Table:
    kept = [claim for claim in table.claims if f"{table.table}: {claim.name}" not in gone]
    return table.model_copy(update={"claims": kept})


def _count(experiment: Experiment, tables: list[Table], judged: Verdicts) -> str:
    """How all of the experiment's claims came out; empty where it makes none."""
    verdicts = [verdict for table in tables for verdict in table.claims]
    absent = len(list(_absent(experiment, judged)))
    if not verdicts and not absent:
        return ""
    one_seed = all(table.one_seed for table in tables)
    return f"{count_text(verdicts, absent, one_seed=one_seed)}."


def _absent(experiment: Experiment, judged: Verdicts) -> Iterator[tuple[str, str]]:
    """The experiment's claims without a verdict, by name, and why."""
    for name, claim in experiment.claims.items():
        if claim.table in judged.not_made:
            yield name, f"table {claim.table} was not made"
        elif f"{claim.table}: {name}" in judged.not_judged:
            yield name, f"written or edited after table {claim.table} was made"


def _not_run(experiment: Experiment, judged: Verdicts) -> Iterator[str]:
    absent = list(_absent(experiment, judged))
    if absent:
        yield "Not run:"
        yield ""
        for name, why in absent:
            claim = experiment.claims[name]
            yield f"- **Not run:** {claim.text} ({why}; {claim.source or 'no source'})"
        yield ""


def _head(
    experiment: Experiment, tables: list[Table], judged: Verdicts, origin: Origin
) -> Iterator[str]:
    yield f"# Results of `{experiment.name}`"
    yield ""
    yield origin.comment()
    yield f"<!-- written by: kd results {experiment.name} --markdown > docs/results.md -->"
    yield ""
    yield f"{experiment.description[:1].upper()}{experiment.description[1:]}."
    count = _count(experiment, tables, judged)
    if count:
        yield count
    yield ""
    if any(table.one_seed for table in tables):
        yield f"With one seed, intervals are over test examples only. {ONE_SEED}"
        yield ""
    for what in judged.outdated:
        yield f"**Stale:** {what}: the experiment file was edited since."
        yield ""


def _claims(tables: list[Table]) -> Iterator[str]:
    """Every claim with its verdict, the value and its interval."""
    if not any(table.claims for table in tables):
        return
    yield "## Claims"
    yield ""
    for table in tables:
        for verdict in table.claims:
            yield from _claim(verdict, table)
    yield ""


def _claim(verdict: Verdict, table: Table) -> Iterator[str]:
    outcome = verdict.outcome.capitalize()
    yield f"- **{outcome}:** {verdict.text} {reason_text(verdict)}"
    yield f"  ({table.table}; {verdict.source or 'no source'})"


def _table(table: Table) -> Iterator[str]:
    yield f"## {table.title or readable(table.table)}"
    yield ""
    for mean in table.means:
        yield f"{mean_text(table, mean)}."
        yield ""
    yield f"{unit_sentence(table)} {basis_text(table).replace('bold:', 'asterisk:')}"
    yield ""
    if len(table.rows) > MOST_LINES:
        yield f"All {len(table.rows)} lines: results/{table.experiment}/tables/{table.table}.csv."
    else:
        lines = [_line(table, row) for row in table.rows]
        columns = [*table.columns.scores, *(_gain_name(table, g) for g in table.columns.gains)]
        head = [readable(name) for name in (*table.columns.axes, "metric", *columns)]
        yield tabulate(lines, head, tablefmt="github", disable_numparse=True)
    yield ""


def _gain_name(table: Table, column: str) -> str:
    return "gain" if table.one_method_a_line else f"gain of {table.columns.gains[column]}"


def _line(table: Table, row: Row) -> list[str]:
    scores = [score_text(row.cells[name], row.metric) for name in table.columns.scores]
    gains = [
        gain_text(row.cells[name], row.metric) + (" *" if is_significant(row.cells[name]) else "")
        for name in table.columns.gains
    ]
    return [*(readable(row.axis(axis)) for axis in table.columns.axes), row.metric, *scores, *gains]


def _deviations(experiment: Experiment) -> Iterator[str]:
    if experiment.deviations:
        yield "## Deviations from the paper"
        yield ""
        yield from (f"- {text}" for text in experiment.deviations)
        yield ""


def _origin(origin: Origin) -> Iterator[str]:
    """The digests, for readers."""
    yield "## Made from"
    yield ""
    rows = [
        ("experiment", origin.experiment),
        *((f"code of {kind}", sha256) for kind, sha256 in origin.code.items()),
        *((f"table {name}", identity) for name, identity in origin.tables.items()),
    ]
    yield tabulate(
        [(what, f"`{sha256[:16]}`") for what, sha256 in rows],
        ["what", "SHA-256, first digits"],
        tablefmt="github",
    )
    yield ""
    yield "`kd results --check docs/results.md` says whether these are still today's."


def check_results(page: Path, experiment_of: Callable[[str], Experiment]) -> list[str]:
    """What changed since a results page's results were made; empty where nothing did.

    Args:
        page: the page.
        experiment_of: loads an experiment by its name.

    Raises:
        ArtifactError: it is no results page.
    """
    try:
        origin = read_origin(page.read_text(encoding="utf-8"))
    except OSError:
        raise ArtifactError(f"{page}: no such file.") from None
    except ValueError:
        raise ArtifactError(f"{page}: no text. Write it with `kd results --markdown`.") from None
    if origin is None:
        raise ArtifactError(f"{page}: carries no digests. Write it with `kd results --markdown`.")
    return list(stale_parts(origin, experiment_of(origin.name)))
