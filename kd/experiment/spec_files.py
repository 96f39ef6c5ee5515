"""Specifications as a command line gives them: JSON, or a file of it."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from kd.errors import ExperimentError, nearest
from kd.experiment.base import Strict

AnySpec = TypeVar("AnySpec", bound=Strict)


def parse_spec(kind: type[AnySpec], text: str) -> AnySpec:
    """Read a specification given on a command line: JSON text, or a JSON or YAML file's path.

    Raises:
        ExperimentError: naming the key at fault.
    """
    where = "--spec"
    if not text.lstrip().startswith("{"):
        where = text
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError:
            raise ExperimentError(f"--spec {where}: no such file, and no JSON.") from None
        except ValueError:
            raise ExperimentError(f"--spec {where[:80]!r}: no file of text, and no JSON.") from None
    try:
        return kind.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ExperimentError(f"{where}: not valid JSON: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        hint = nearest(key, kind.model_fields) if problem["type"] == "extra_forbidden" else ""
        raise ExperimentError(f"{where}: '{key}': {problem['msg']}. {hint}".strip()) from None
