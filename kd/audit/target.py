"""What is to be audited: a table, a run, an experiment, or whatever a path turns out to be."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kd.audit.chain import SUFFIX
from kd.errors import ArtifactError, nearest

Kind = Literal["table", "run", "experiment"]

TABLE_FILES = (".csv", ".md", ".json", ".tex")
_TOP = ("data", "hub", "models", "teachers", "native", "runs", "tables")
CELL_KEYS = ("dataset", "test", "teacher", "student", "fraction", "metric", "method", "seed")


@dataclass(frozen=True)
class Target:
    """An experiment's results folder, and what of it is audited.

    `name` is a table's name, or the folder of a run below `results`. `copy` is a table's file
    that was copied out of the folder, such as `results/table2.csv`.
    """

    kind: Kind
    results: Path
    name: str
    copy: Path | None = None
    cell: dict[str, str] = field(default_factory=dict)

    def title(self) -> str:
        """What a report calls it; never where it lies."""
        what = {
            "table": f"{self.name} of {self.results.name}",
            "run": f"{self.name} of {self.results.name}",
            "experiment": self.results.name,
        }[self.kind]
        chosen = ", ".join(f"{key}={value}" for key, value in self.cell.items())
        return f"{what} ({chosen})" if chosen else what


def parse_cell(text: str) -> dict[str, str]:
    """Read `dataset=squad,student=opt,…`.

    Raises:
        ArtifactError: a part is no `key=value`, or its key is no axis.
    """
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not value:
            raise ArtifactError(f"--cell {text}: '{part}' is no 'key=value'.")
        if key not in CELL_KEYS:
            raise ArtifactError(f"--cell {text}: no axis '{key}'. {nearest(key, CELL_KEYS)}")
        found[key] = value.strip()
    return found


def table_target(path: Path, cell: dict[str, str] | None = None) -> Target:
    """The table that a file is part of; `<table>.long.csv` is, too.

    Raises:
        ArtifactError: no such file, or nothing tells which experiment it belongs to.
    """
    if path.suffix not in TABLE_FILES:
        raise ArtifactError(f"{path}: no table. Give its csv, as results/table2.csv.")
    path = path.with_name(path.name.partition(".")[0] + path.suffix)
    if path.parent.name == "tables":
        _require_table(path)
        return Target("table", path.parent.parent, path.stem, None, cell or {})
    return _copied_table(path, cell or {})


def _require_table(path: Path) -> None:
    beside = [path.with_suffix(suffix) for suffix in (*TABLE_FILES, SUFFIX)]
    if not any(file.is_file() for file in beside):
        known = [file.name.removesuffix(SUFFIX) for file in path.parent.glob(f"*{SUFFIX}")]
        raise ArtifactError(f"{path}: no such table. {nearest(path.stem, known)}")


def _copied_table(path: Path, cell: dict[str, str]) -> Target:
    beside = path.with_suffix(".json")
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
        experiment, table = str(content["experiment"]), str(content["table"])
    except OSError:
        raise ArtifactError(
            f"{path}: no {beside.name} beside it says which experiment it belongs to. Give the "
            "table in its own folder, results/<experiment>/tables/<table>.csv."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{beside}: not a table's json. Make the table again.") from None
    results = path.parent / experiment
    if not results.is_dir():
        raise ArtifactError(f"{results}: no such results folder, although {beside} names it.")
    return Target("table", results, table, path, cell)


def run_target(folder: Path) -> Target:
    """A run, or any other folder below an experiment's results: its manifests and all below.

    Raises:
        ArtifactError: no such folder, no manifest in it, or not inside a results folder.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder. Give that of a run, …/f100/s0.")
    for results in folder.resolve().parents:
        inside = folder.resolve().relative_to(results)
        if inside.parts[0] in _TOP and _is_results(results):
            if not any(folder.rglob(f"*{SUFFIX}")):
                raise ArtifactError(f"{folder}: no manifest in it or below. Run its stage first.")
            return Target("run", _as_given(folder, inside), inside.as_posix())
    raise ArtifactError(f"{folder}: not inside an experiment's results folder.")


def _as_given(folder: Path, inside: Path) -> Path:
    """The results folder as the caller spelled it, where `folder` spells it out."""
    parts = folder.parts[: -len(inside.parts)]
    return Path(*parts) if parts else folder.resolve().parents[len(inside.parts) - 1]


def experiment_target(name: str) -> Target:
    """An experiment by its name (below `results/`), its file, or its results folder.

    Raises:
        ArtifactError: it has no results.
    """
    path = Path(name)
    folder = path if _is_results(path) else Path("results") / path.stem
    if not _is_results(folder):
        known = [found.name for found in Path("results").glob("*") if _is_results(found)]
        raise ArtifactError(f"{folder}: no results. {nearest(path.stem, known)}")
    return Target("experiment", folder, folder.name)


def guess_target(text: str, cell: dict[str, str] | None = None) -> Target:
    """Tell a table, a run and an experiment apart.

    Raises:
        ArtifactError: the path is none of them.
    """
    path = Path(text)
    if path.suffix in TABLE_FILES:
        return table_target(path, cell)
    if _is_results(path) or path.suffix == ".yaml" or not path.exists():
        return experiment_target(text)
    return run_target(path if path.is_dir() else path.parent)


def _is_results(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).is_dir() for name in _TOP)
