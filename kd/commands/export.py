"""Commands that export results in other people's formats. Nothing is ever uploaded."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)

_Experiment = Annotated[
    str | None, typer.Option(help="Name or file of the experiment, where it is another.")
]
_LocalNames = Annotated[
    bool, typer.Option("--local-names", help="Leave in host names and folders of this machine.")
]
_Out = Annotated[Path | None, typer.Option(help="File to write; by default it is printed.")]


@app.callback()
def _export() -> None:
    """Export results in other people's formats, from the manifests. Never uploads."""


@app.command(
    epilog="Examples:  kd export crate results/table2.csv --out table2.crate.zip  |  "
    "kd export crate micro --out crate --full --license CC-BY-4.0"
)
def crate(
    target: Annotated[str, typer.Argument(help="A table, a run's folder or an experiment.")],
    out: Annotated[Path, typer.Option(help="Folder to write, or a file that ends in .zip.")],
    full: Annotated[bool, typer.Option("--full", help="Pack weights and logits, too.")] = False,
    license_: Annotated[
        str, typer.Option("--license", help="Licence of the results: a URL or a sentence.")
    ] = "",
    agent: Annotated[
        str, typer.Option(help="Who ran the workflow: a name, or an ORCID's URL.")
    ] = "",
    experiment: _Experiment = None,
    local_names: _LocalNames = False,
) -> None:
    """Write a Workflow Run RO-Crate: results, manifests, and the runs that made them."""
    from kd.audit.target import guess_target
    from kd.exports.crate import write_crate
    from kd.exports.subject import open_subject

    scope = open_subject(guess_target(target), experiment)
    count = write_crate(
        scope, out, full=full, local_names=local_names, licence=license_, agent=agent
    )
    print(f"{out}: {count} entities about {len(scope.artifacts)} artifacts")


@app.command(epilog="Example:  kd export provenance results/table2.csv --out table2.intoto.json")
def provenance(
    table: Annotated[Path, typer.Argument(help="A table's csv.")],
    out: _Out = None,
    local_names: _LocalNames = False,
) -> None:
    """Write a table's provenance: an in-toto statement with a SLSA predicate, unsigned."""
    import json

    from kd.audit.target import table_target
    from kd.exports.statement import statement
    from kd.exports.subject import open_subject

    scope = open_subject(table_target(table))
    found = statement(scope, local_names=local_names)
    _write(json.dumps(found, indent=1, sort_keys=True), out)


@app.command(
    epilog="Example:  kd export checklist results/table2.csv --kind acl --out checklist.md"
)
def checklist(
    target: Annotated[str, typer.Argument(help="A table, or an experiment.")],
    kind: Annotated[str, typer.Option(help="neurips or acl.")] = "neurips",
    out: _Out = None,
) -> None:
    """Fill in a conference's checklist as far as manifests answer it, as markdown."""
    from kd.audit.target import guess_target
    from kd.errors import nearest
    from kd.exports.checklist import render_checklist
    from kd.exports.checklist_items import CHECKLISTS
    from kd.exports.subject import ExportError, open_subject

    if kind not in CHECKLISTS:
        raise ExportError(f"--kind {kind}: no such checklist. {nearest(kind, CHECKLISTS)}")
    text = render_checklist(CHECKLISTS[kind], open_subject(guess_target(target)))
    _write(text.rstrip("\n"), out)


@app.command(
    epilog="Example:  kd export model results/micro/runs/squad/llama/opt/uld/f100/s0 --out student"
)
def model(
    run: Annotated[Path, typer.Argument(help="A run's folder, …/f100/s0.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    license_: Annotated[
        str, typer.Option("--license", help="The hub's name of the student's licence.")
    ] = "",
    local_names: _LocalNames = False,
) -> None:
    """Write a student as a folder that the hub would take: weights, tokenizer, model card."""
    from kd.exports.model_folder import write_model_folder

    names = write_model_folder(run, out, licence=license_, local_names=local_names)
    print(f"{out}: {', '.join(names)}")


def _write(text: str, out: Path | None) -> None:
    from kd.exports.subject import ExportError
    from kd.provenance.files import write_text

    if out is None:
        print(text)
        return
    if out.exists():
        raise ExportError(f"{out}: exists already. Name another --out, or remove it.")
    write_text(out, f"{text}\n")
    print(f"{out}: written")
