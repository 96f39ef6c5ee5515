"""Artifacts in HTML: the chain behind a cell, and one section for each manifest."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from kd.audit.chain import Artifact
from kd.audit.page_rows import example_rows
from kd.audit.scope import Scope
from kd.audit.weights import DamagedWeightsError, parameter_count

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0}th{background:#f3f3f3}
th,td{border:1px solid #ccc;padding:.2rem .5rem;text-align:left;vertical-align:top}
code,pre{font:13px/1.4 ui-monospace,monospace}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2rem 0}
.fail{color:#a40000}.warn{color:#8a5a00}.pass{color:#0a6b2b}.not-applicable{color:#666}.findings{list-style:none;padding-left:0}
.findings li{margin:.4rem 0;color:#222}.verdict{font-size:1.2rem}summary{cursor:pointer}
.results td{white-space:nowrap}ol.chain{margin:.3rem 0;padding-left:1.4rem;font-size:13px}
.text{white-space:pre-wrap;overflow-wrap:anywhere}
small{color:#666;white-space:normal}
details.artifact{border-left:3px solid #ccc;padding-left:.7rem;margin:.4rem 0}
"""


def anchor(key: str) -> str:
    """The id of an artifact's section."""
    return f"a-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def cell_details(scope: Scope, shown: str, scores: Sequence[str]) -> str:
    """A cell that opens its chain: from its scores back to the rows, each a link.

    Args:
        scope: what is audited, or reported.
        shown: HTML of the closed cell.
        scores: files below the results folder that the cell rests on: scores or training curves.
    """
    ends = [scope.chain.maker(path) for path in scores]
    items = "".join(
        f"<li>{_link(artifact.key, f'{artifact.stage}: {artifact.folder}')} "
        f"<code>{escape((artifact.identity or 'no manifest')[:12])}</code></li>"
        for artifact in reversed(scope.chain.closure(ends))
    )
    return (
        f"<details class='cell'><summary>{shown}</summary><ol class='chain'>{items}</ol></details>"
    )


def artifact_sections(scope: Scope, *, files: bool = False) -> Iterator[str]:
    """One section for each artifact in scope.

    Args:
        scope: what is audited, or reported.
        files: link to each manifest's file. The page must then lie in the results folder.
    """
    for artifact in scope.artifacts:
        manifest = artifact.file.relative_to(scope.results).as_posix()
        rows = [
            ("manifest", f"<a href='{escape(manifest)}'>{escape(manifest)}</a>" if files else ""),
            ("rows", example_rows(scope.results, artifact)),
            ("identity", f"<code>{escape(artifact.identity or 'none')}</code>"),
            ("made", escape(_made(artifact))),
            ("command", f"<pre>{escape(_command(artifact))}</pre>"),
            ("code", f"<code>{escape(str(artifact.hashed.get('code')))}</code>"),
            ("inputs", _inputs(scope, artifact)),
            ("outputs", _outputs(scope, artifact)),
            ("numerics", _json(artifact.numerics)),
            ("notes", _json(artifact.notes)),
        ]
        body = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in rows if text)
        problem = (
            f" <span class='fail'>{escape(artifact.problem)}</span>" if artifact.problem else ""
        )
        yield (
            # The anchor lies inside: browsers open what hides the target of a link.
            f"<details class='artifact'><summary>"
            f"<b>{escape(artifact.stage)}</b> {escape(artifact.folder)}{problem}</summary>"
            f"<div class='box' id='{anchor(artifact.key)}'><table>{body}</table></div></details>"
        )


def _link(key: str, text: str) -> str:
    return f"<a href='#{anchor(key)}'>{escape(text)}</a>"


def _made(artifact: Artifact) -> str:
    context = artifact.context
    dirty = ", with uncommitted changes" if context.get("dirty") else ""
    return (
        f"{context.get('started')}, in {artifact.seconds:g} s, from commit "
        f"{context.get('commit')}{dirty}"
    )


def _command(artifact: Artifact) -> str:
    """The stage's command with its parameters; paths are left to whoever runs it."""
    return f"kd {artifact.stage} --spec '{json.dumps(artifact.spec, sort_keys=True)}' …"


def _inputs(scope: Scope, artifact: Artifact) -> str:
    items = []
    for source in scope.chain.sources(artifact):
        name = source.path if source.writer else f"{Path(source.path).name} (from outside)"
        text = _link(source.writer, name) if source.writer else escape(name)
        items.append(f"<li>{escape(source.role)}: {text} <code>{source.sha256[:12]}</code></li>")
    return f"<ul>{''.join(items)}</ul>" if items else "none"


def _outputs(scope: Scope, artifact: Artifact) -> str:
    items = []
    for name, sha256 in sorted(artifact.outputs.items()):
        count = _parameters(scope.results / artifact.folder / name)
        size = f", {count:,} parameters" if count else ""
        items.append(f"<li>{escape(name)}{size} <code>{escape(sha256)}</code></li>")
    return f"<ul>{''.join(items)}</ul>"


def _parameters(folder: Path) -> int:
    """Parameters of a model's folder; 0 where it is none."""
    if not (folder / "config.json").is_file():
        return 0
    try:
        return sum(parameter_count(path) for path in folder.glob("*.safetensors"))
    except (DamagedWeightsError, OSError):
        return 0


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1, sort_keys=True))}</pre>" if value else ""
