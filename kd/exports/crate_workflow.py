"""The workflow in a crate: Snakefile, stages as tools, steps, what goes in and what comes out."""

import io
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kd
from kd.audit.chain import Artifact
from kd.audit.scope import Scope
from kd.errors import ArtifactError
from kd.exports.subject import commits

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

_LANGUAGE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
_STEPS = {
    "data": "read the rows of a dataset",
    "pretrain": "train a model from its configuration",
    "fetch": "fetch a model from the hub",
    "answer": "let a teacher answer the training rows",
    "extract": "store a teacher's next-token distributions over its answers",
    "distill": "train a student on a teacher's answers and distributions",
    "predict": "let a model answer the test rows",
    "score": "score predictions",
    "table": "lay scores out as a table",
}


def tool_id(artifact: Artifact) -> str:
    """The id of the tool that made an artifact: its stage, in the code that it ran."""
    return f"#kd-{artifact.stage}-{str(artifact.hashed.get('code'))[:12]}"


def describe_workflow(
    crate: "ROCrate", scope: Scope, parameters: Any, entities: dict[str, Any]
) -> dict[str, Any]:
    """Add the main workflow, its steps and its tools; returns the tools and steps by their ids."""
    from rocrate.model import ContextEntity

    workflow = _add_snakefile(crate, scope)
    _add_rest_of_workflow(crate, scope)
    crate.add(
        ContextEntity(
            crate,
            _LANGUAGE,
            properties={
                "@type": "ComputerLanguage",
                "name": "Snakemake",
                "identifier": {"@id": "https://snakemake.github.io"},
                "url": {"@id": "https://snakemake.github.io"},
            },
        )
    )
    tools = _add_tools(crate, scope)
    steps = _add_steps(crate, scope, tools)
    workflow["hasPart"] = list(tools.values())
    workflow["step"] = list(steps.values())
    workflow["input"] = _parameter(crate, "recorded-parameters", parameters)
    outputs = [
        _parameter(crate, f"table-{view.artifact.name}", entities[f"{view.artifact.key}.csv"])
        for view in scope.tables
        if f"{view.artifact.key}.csv" in entities
    ]
    if outputs:
        workflow["output"] = outputs[0] if len(outputs) == 1 else outputs
    crate.root_dataset["mainEntity"] = workflow
    return tools | steps


def _add_snakefile(crate: "ROCrate", scope: Scope) -> Any:
    made_from = commits(scope)
    content, origin = _at_commit(scope, "Snakefile")
    return crate.add_file(
        io.BytesIO(content),
        "Snakefile",
        properties={
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": "kd: knowledge distillation from rows to tables",
            "description": f"the rules that made these results, {origin}",
            "encodingFormat": "text/plain",
            "version": made_from[0] if made_from else kd.__version__,
            "programmingLanguage": {"@id": _LANGUAGE},
            "conformsTo": {
                "@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
            },
        },
    )


def _add_rest_of_workflow(crate: "ROCrate", scope: Scope) -> None:
    checkout = scope.settings.checkout
    rules = sorted(path.relative_to(checkout).as_posix() for path in checkout.glob("rules/*.smk"))
    for name in (*rules, "requirements.lock"):
        if (checkout / name).is_file():
            content, origin = _at_commit(scope, name)
            crate.add_file(
                io.BytesIO(content),
                name,
                properties={"name": name, "description": origin, "encodingFormat": "text/plain"},
            )


def _at_commit(scope: Scope, name: str) -> tuple[bytes, str]:
    """A file of the workflow as it was when the results were made, where git still knows it.

    Raises:
        ArtifactError: there is none.
    """
    checkout = scope.settings.checkout
    for commit in commits(scope)[:1]:
        try:
            done = subprocess.run(
                ["git", "-C", str(checkout), "show", f"{commit}:{name}"],
                capture_output=True,
                check=True,
                timeout=10,
            )
        except (OSError, subprocess.SubprocessError):
            break
        return done.stdout, f"as it was at commit {commit[:12]}"
    path = Path(checkout, name)
    if not path.is_file():
        raise ArtifactError(
            f"{path}: the workflow is part of a crate, and is not here. Export from a checkout."
        )
    return path.read_bytes(), "as it was at export"


def _add_tools(crate: "ROCrate", scope: Scope) -> dict[str, Any]:
    from rocrate.model import ContextEntity

    tools: dict[str, Any] = {}
    for artifact in scope.artifacts:
        identifier = tool_id(artifact)
        if identifier not in tools:
            properties = {
                "@type": "SoftwareApplication",
                "name": f"kd {artifact.stage}",
                "description": _STEPS.get(artifact.stage, artifact.stage),
                "softwareVersion": f"syntax trees with SHA-256 {artifact.hashed.get('code')}",
            }
            tools[identifier] = crate.add(ContextEntity(crate, identifier, properties=properties))
    return tools


def _add_steps(crate: "ROCrate", scope: Scope, tools: dict[str, Any]) -> dict[str, Any]:
    """One step a tool: a stage that ran in several codes has several."""
    from rocrate.model import ContextEntity

    order = list(_STEPS)
    stage_of = {tool_id(artifact): artifact.stage for artifact in scope.artifacts}
    steps = {}
    for identifier, tool in tools.items():
        stage = stage_of[identifier]
        position = order.index(stage) if stage in order else len(order)
        step = ContextEntity(
            crate,
            step_id(identifier),
            properties={
                "@type": "HowToStep",
                "name": _STEPS.get(stage, stage),
                "position": str(position),
                "workExample": {"@id": tool.id},
            },
        )
        steps[step_id(identifier)] = crate.add(step)
    return steps


def step_id(tool: str) -> str:
    """The id of the step that runs a tool."""
    return f"#step-{tool.removeprefix('#')}"


def _parameter(crate: "ROCrate", name: str, example: Any) -> Any:
    from rocrate.model import ContextEntity

    parameter = crate.add(
        ContextEntity(
            crate,
            f"#{name}",
            properties={
                "@type": "FormalParameter",
                "name": name,
                "additionalType": "File",
                "workExample": {"@id": example.id},
                "conformsTo": {
                    "@id": "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"
                },
            },
        )
    )
    example["exampleOfWork"] = {"@id": parameter.id}
    return parameter
