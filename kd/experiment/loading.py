"""From a file to a checked `Experiment`: `extends`, overrides, and errors as sentences."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kd.errors import ExperimentError, nearest
from kd.experiment import base, claims, datasets, logits, models, schema
from kd.experiment.references import check_references

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"

_BLOCKS = {
    name: model
    for module in (claims, datasets, logits, models, schema)
    for name, model in vars(module).items()
    if isinstance(model, type) and issubclass(model, base.Strict)
}


class _DistinctKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in one block; YAML would keep the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value == "<<" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice in one block", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Lay `override` over `base`, key by key.

    `null` removes a key. A block that names another `source` replaces the inherited one,
    since the keys of one source mean nothing to another.
    """
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(old, dict) and isinstance(value, dict) and _same_source(old, value):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _same_source(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "source" not in new or new["source"] == old.get("source")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _DistinctKeys)
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}: not UTF-8 ({error.reason}). Convert it.") from None
    except OSError:
        stem = path.stem
        known = (file.stem for file in path.parent.glob("*.yaml"))
        raise ExperimentError(f"{path}: no such experiment. {nearest(stem, known)}") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ExperimentError(f"{path}: not valid YAML: {problem}") from None
    if not isinstance(content, dict):
        raise ExperimentError(f"{path}: must hold keys and values (name, datasets, …).")
    return content


def read_resolved(path: Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's content with all `extends` resolved: a later file wins, and this one over all."""
    path = path.resolve() if not _seen else path
    if path in _seen:
        raise ExperimentError(f"{path}: 'extends' goes round in a circle.")
    content = _read_yaml(path)
    parents = content.pop("extends", [])
    parents = parents if isinstance(parents, list) else [parents]
    if not all(isinstance(parent, str) for parent in parents):
        raise ExperimentError(f"{path}: 'extends' must name a file beside it, or a list of them.")
    base: dict[str, Any] = {}
    for parent in parents:
        base = merge(base, read_resolved((path.parent / parent).resolve(), (*_seen, path)))
    return merge(base, content) if parents else content


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys allowed where an unknown one was found, by walking the schema along `location`."""
    model: Any = schema.Experiment
    for part in location:
        fields = getattr(model, "model_fields", {})
        if part in fields:
            model = _blocks_in(fields[part].annotation)
        elif isinstance(model, list):
            # A union discriminated by `source`: pydantic puts its tag into the location.
            model = next((block for block in model if _is_tagged(block, part)), model)
        if isinstance(model, list) and len(model) == 1:
            model = model[0]
    return sorted(getattr(model, "model_fields", {}))


def _blocks_in(annotation: Any) -> Any:
    """The schema blocks that an annotation mentions."""
    text = repr(annotation)
    return [block for name, block in _BLOCKS.items() if f".{name}" in text.replace("'", "")]


def _is_tagged(block: type[base.Strict], tag: int | str) -> bool:
    source = block.model_fields.get("source")
    return source is not None and repr(tag) in repr(source.annotation)


def _sentence(error: ErrorDetails) -> str:
    tags = ("micro", "files", "hub", "local")
    location = error["loc"]
    # The tag of a discriminated union is pydantic's, not a key of the file: leave it out.
    shown = [
        str(part)
        for index, part in enumerate(location)
        if not (part in tags and index == 2 and location[0] in ("datasets", "teachers", "students"))
    ]
    key = ".".join(shown) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"'{key}' is not a known key. {nearest(shown[-1], _known_keys(location[:-1]))}"
    if error["type"] == "missing":
        return f"'{key}' is missing."
    message = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    if error["type"] == "literal_error":
        known = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        return f"'{key}' is {given!r}. {nearest(str(given), known)}"
    if error["type"] == "float_type" and isinstance(given, str) and _is_number(given):
        return f"'{key}': YAML reads {given} as text. Write it with a dot, as 1.0e-3."
    short = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"'{key}': {message}{short}."


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def validate(content: Mapping[str, Any], where: str) -> schema.Experiment:
    """Check resolved content.

    Raises:
        ExperimentError: one line per finding, all findings at once.
    """
    try:
        experiment = schema.Experiment.model_validate(content)
    except ValidationError as error:
        lines = [f"{where}: {_sentence(detail)}" for detail in error.errors()]
        raise ExperimentError("\n".join(lines)) from None
    findings = check_references(experiment)
    if findings:
        raise ExperimentError("\n".join(f"{where}: {finding}" for finding in findings))
    return experiment


def load_experiment(path: Path, overrides: Mapping[str, Any] | None = None) -> schema.Experiment:
    """Load, resolve and check an experiment file.

    Args:
        path: the YAML file.
        overrides: keys laid over the file's, as `extends` would. An integer for `seeds`
            means that many: 3 becomes [0, 1, 2].

    Raises:
        ExperimentError: naming the file, the key and the remedy.
    """
    content = merge(read_resolved(path), dict(overrides or {}))
    if isinstance(content.get("seeds"), int):
        content["seeds"] = list(range(content["seeds"]))
    experiment = validate(content, path.name)
    if experiment.name != path.stem:
        raise ExperimentError(
            f"{path.name}: 'name' is '{experiment.name}', but results are found by the "
            f"file's name. Make it '{path.stem}'."
        )
    return experiment


def experiment_files() -> list[Path]:
    """The experiment files of this checkout, sorted by name."""
    return sorted(EXPERIMENTS.glob("*.yaml"))


def find_experiment(name: str) -> Path:
    """The file of an experiment given by name, by its file, or by its folder of results."""
    path = Path(name)
    if path.suffix == ".yaml":
        return path
    return EXPERIMENTS / f"{path.name if path.is_dir() else name}.yaml"
