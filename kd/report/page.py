"""`report.html`: an experiment's tables, charts, claims, costs and deviations on one page.

The page needs nothing else: no network, no file beside it. A cell opens the chain behind it,
and each link of the chain opens its manifest and rows further down the page.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kd.audit.chain import Artifact, Chain
from kd.audit.page_artifacts import STYLE, artifact_sections
from kd.audit.places import CHART
from kd.audit.scope import Scope, Settings
from kd.audit.target import Target
from kd.errors import ArtifactError
from kd.experiment.stages import ReportSpec
from kd.provenance.canonical import file_digest
from kd.provenance.files import write_text
from kd.provenance.finished import check_finished
from kd.report.compute import duration, stage_costs, training_cpu_seconds
from kd.report.content import Table, read_table
from kd.report.svg import inline_svg, unsafe_part
from kd.report.tables import Shown, lay_out, shown_scores
from kd.report.words import basis_text, count_text, mean_text, reason_text, unit_sentence

CAPTIONS = {
    "sizes": "Scores against the share of training rows.",
    "gains": "Gain over the baseline in each line, with its interval.",
    "training": "Cross-entropy during training, mean over teachers and seeds, on the largest "
    "share of rows: validation with markers, training thin.",
    "reliability": "How often answers are right, by the model's confidence in them. On the "
    "diagonal it is right as often as it believes.",
}

MOST_MEANS = 5  # of the first table, in the verdict line


@dataclass(frozen=True)
class _View:
    """A table as the template wants it."""

    table: Table
    identity: str
    shown: Shown
    charts: list[tuple[str, Markup]]

    @property
    def title(self) -> str:
        return self.table.title or self.table.table

    @property
    def basis(self) -> str:
        return basis_text(self.table)

    @property
    def units(self) -> str:
        return unit_sentence(self.table)

    @property
    def means(self) -> list[str]:
        return [mean_text(self.table, mean) for mean in self.table.means]


def write_report(spec: ReportSpec, results: Path, out: Path) -> None:
    """Write the report of the tables in `spec`, which lie below `results`, to the file `out`.

    Raises:
        ArtifactError: a table is missing or is no table of this version.
    """
    write_text(out, render_report(spec, results))


def render_report(spec: ReportSpec, results: Path) -> str:
    """The whole page."""
    chain = Chain(results)
    tables = [read_table(results / "tables" / f"{name}.json") for name in spec.tables]
    artifacts = [chain.artifact("tables", table.table) for table in tables]
    behind = chain.closure(artifacts)
    scope = _scope(chain, [path for table in tables for path in shown_scores(table, tables)])
    views = [
        _View(
            table,
            artifact.identity or "",
            lay_out(table, tables, scope),
            list(_charts(results, table)),
        )
        for table, artifact in zip(tables, artifacts, strict=True)
    ]
    environment = Environment(
        loader=PackageLoader("kd.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "reason": reason_text}
    return environment.get_template("report.html").render(
        spec=spec,
        style=Markup(STYLE),
        verdict=_verdict(tables),
        made=_made(behind),
        views=views,
        one_seed=all(table.one_seed for table in tables),
        claims=[(view.title, verdict) for view in views for verdict in view.table.claims],
        costs=stage_costs(behind),
        cpu=training_cpu_seconds(results / "tables" / f"{name}.cost.csv" for name in spec.tables),
        machines=_machines(behind),
        sections=map(Markup, artifact_sections(scope, files=True)),
    )


def _scope(chain: Chain, scores: Sequence[str]) -> Scope:
    """What the page shows of the chain: all behind `scores`."""
    target = Target("experiment", chain.results, chain.results.name)
    ends = (chain.maker(path) for path in scores)
    return Scope(target, Settings(), chain, [], chain.closure(ends), None, "")


def _charts(results: Path, table: Table) -> Iterator[tuple[str, Markup]]:
    """The charts that were drawn of a table: caption and svg.

    Raises:
        ArtifactError: the charts were altered, drawn of another table, or hold what could run.
    """
    folder = results / "tables" / f"{table.table}.charts"
    if not folder.is_dir():
        return
    _check_charts(folder, results / "tables" / f"{table.table}.json")
    for name, caption in CAPTIONS.items():
        file = folder / f"{name}.svg"
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            unsafe = unsafe_part(text)
            if unsafe:
                raise ArtifactError(
                    f"{file}: holds {unsafe}, which no chart does. {_redraw(folder)}"
                )
            picture = inline_svg(text, f"{table.table}-{name}-", caption)
            if picture:
                yield caption, Markup(picture)


def _check_charts(folder: Path, table: Path) -> None:
    """Refuse charts that are not what stage `chart` drew of the table as it is."""
    manifest = check_finished(folder, f"{table.stem}{CHART}")
    drawn_of = manifest["hashed"]["inputs"].get(f"tables/{table.name}", {}).get("sha256")
    if drawn_of != file_digest(table):
        raise ArtifactError(f"{folder}: drawn of another {table.name}. {_redraw(folder)}")


def _redraw(folder: Path) -> str:
    return f"Delete it and run `snakemake {folder.with_suffix('.svg')}`."


def _verdict(tables: Sequence[Table]) -> str:
    """The first table's means, named, and how many claims hold over all tables."""
    first = tables[0]
    means = first.means
    told = [mean_text(first, mean) for mean in means[:MOST_MEANS]]
    if told and len(tables) > 1:
        title = first.title or first.table
        told[0] = f"{title}{'' if title.endswith('?') else ':'} {told[0]}"
    if len(means) > MOST_MEANS:
        told.append(f"{len(means) - MOST_MEANS} more methods stand below")
    claims = [verdict for table in tables for verdict in table.claims]
    if claims:
        told.append(count_text(claims, one_seed=all(table.one_seed for table in tables)))
    return ". ".join(told) + "." if told else ""


def _made(artifacts: Sequence[Artifact]) -> str:
    """When, and from which code."""
    started = sorted(str(one.context.get("started", "")) for one in artifacts if one.content)
    commits = sorted({str(one.context.get("commit") or "unknown")[:12] for one in artifacts})
    dirty = any(one.context.get("dirty") for one in artifacts)
    days = dict.fromkeys(text[:10] for text in (started[:1] + started[-1:]))
    today = datetime.now(UTC).date().isoformat()
    return (
        f"Results made {' to '.join(days)} from commit {', '.join(commits[:3])}"
        f"{' and others' if len(commits) > 3 else ''}{', uncommitted changes' if dirty else ''}; "
        f"this page on {today}."
    )


def _machines(artifacts: Sequence[Artifact]) -> list[str]:
    """Kinds of machine and versions, each once."""
    found = []
    for one in artifacts:
        numerics = one.numerics
        if numerics.get("cpu_capability"):
            packages = numerics.get("packages", {})
            found.append(
                f"{numerics.get('gpu') or numerics.get('device')}, {numerics.get('machine')} "
                f"({numerics.get('cpu_capability')}), {one.context.get('cpus')} processors, "
                f"{numerics.get('threads')} thread a job; Python {numerics.get('python')}, torch "
                f"{packages.get('torch')}, transformers {packages.get('transformers')}"
            )
    return list(dict.fromkeys(found))
