"""What people look at: charts of a table, the report of an experiment, its results in words."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Spec = Annotated[str, typer.Option(help="What is read of the experiment: JSON text, or a file.")]
Results = Annotated[Path, typer.Option(help="The experiment's results folder.")]


@app.command(
    epilog='Example:  kd chart --spec \'{"table": "table2"}\' --results results/micro '
    "--out results/micro/tables"
)
def chart(
    spec: Spec,
    results: Results,
    out: Annotated[Path, typer.Option(help="Folder of the tables, for svg and png, too.")],
) -> None:
    """Draw a table's charts: gains, dataset sizes, training curves, reliability."""
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import ChartSpec
    from kd.report.chart import write_charts

    write_charts(parse_spec(ChartSpec, spec), results, out)


@app.command(
    epilog="Example:  kd report --spec report.json --results results/micro "
    "--out results/micro/report.html"
)
def report(
    spec: Spec,
    results: Results,
    out: Annotated[Path, typer.Option(help="HTML file to write, in the results folder.")],
) -> None:
    """Write an experiment's report: one page that needs no network and no other file."""
    from kd.experiment.spec_files import parse_spec
    from kd.experiment.stages import ReportSpec
    from kd.report.page import write_report

    write_report(parse_spec(ReportSpec, spec), results, out)


@app.command(
    epilog="Examples:  kd results micro --markdown > docs/results.md  |  "
    "kd results --check docs/results.md"
)
def results(
    experiment: Annotated[str, typer.Argument(help="Name of an experiment.")] = "micro",
    markdown: Annotated[bool, typer.Option(help="Write the whole page, in Markdown.")] = False,
    check: Annotated[
        Path | None,
        typer.Option(help="A page: say whether experiment or code changed since. Exit status 0."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--results", help="By default results/<experiment>.")
    ] = None,
) -> None:
    """Say in words what an experiment found: its claims, or the page docs/results.md."""
    from kd.experiment.loading import find_experiment, load_experiment
    from kd.report.results_page import check_results, render_claims, render_results

    if check is not None:
        changed = check_results(check, lambda name: load_experiment(find_experiment(name)))
        told = f"stale, since these were changed: {', '.join(changed)}" if changed else "current"
        print(f"{check}: {told}.")
        return
    loaded = load_experiment(find_experiment(experiment))
    write = render_results if markdown else render_claims
    print(write(loaded, folder or Path("results") / loaded.name), end="")
