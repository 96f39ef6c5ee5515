"""Stage `table`: scores become `<table>.csv`, `.long.csv`, `.json`, `.md` and `.tex`."""

from pathlib import Path

from kd.experiment.stages import TableSpec
from kd.provenance.files import write_text
from kd.provenance.manifest import StageRecord
from kd.tables.as_csv import render_csv, render_long_csv
from kd.tables.as_json import render_json
from kd.tables.content import build_content
from kd.tables.cost import render_costs
from kd.tables.latex import render_latex
from kd.tables.markdown import render_markdown
from kd.tables.published import read_published


def write_table(spec: TableSpec, results: Path, out: Path, published: Path | None = None) -> None:
    """Write a table, its manifest and its costs into the folder `out`.

    The same scores and specification give the same bytes.

    Args:
        spec: lines, methods, metrics, seeds and claims.
        results: the experiment's results folder.
        out: folder of the tables.
        published: csv of the paper's own scores, shown beside ours.

    Raises:
        ArtifactError: a score file is missing, malformed, or not what its stage wrote.
    """
    content = build_content(spec, results, read_published(published) if published else None)
    inputs = {
        path: results / path
        for line in content.lines
        for cell in line.cells.values()
        for path in cell.scores
    }
    if published is not None:
        inputs["published"] = published
    record = StageRecord(
        "table",
        spec,
        inputs,
        ("kd.tables.assembly",),
        name=spec.name,
        external=("published",),
        tensors=False,
    )
    identities = {role: entry["identity"] for role, entry in record.inputs.items()}
    texts = {
        "csv": render_csv(content),
        "long.csv": render_long_csv(content, identities),
        "json": render_json(content, identities),
        "md": render_markdown(content),
        "tex": render_latex(content),
    }
    paths = {suffix: out / f"{spec.name}.{suffix}" for suffix in texts}
    for suffix, text in texts.items():
        write_text(paths[suffix], text)
    record.write(*paths.values())
    write_text(out / f"{spec.name}.cost.csv", render_costs(spec, results))
