"""How long work took: manifests of finished stages, and a record of the reference machine."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from kd.plan.work import Work, World, model_kind, work_of

STAGES = ("data", "pretrain", "answer", "extract", "distill", "predict", "score")
_DAMAGE = (OSError, ValueError, KeyError, TypeError)  # what reading a damaged manifest raises
_LIMIT = 300  # manifests of one stage and experiment: more would not tell more


@dataclass(frozen=True)
class Measured:
    """Work that was done, and the seconds and the memory it took."""

    work: Work
    seconds: float
    memory: float = 0.0  # MiB, at its peak; 0: not known


def read_history(results: Path) -> list[Measured]:
    """What the manifests of all experiments below `results` say of time.

    On CPU the processor's time counts, where it is known: what else the machine had to do is no
    part of the work. On GPU it is the time of the clock. Damaged manifests are left to the audit.
    """
    folders = sorted(path for path in results.glob("*") if path.is_dir())
    return [measured for folder in folders for measured in _of_experiment(folder)]


def _of_experiment(folder: Path) -> list[Measured]:
    world = _world(folder)
    found = []
    for stage in STAGES:
        # MLflow's store holds copies.
        found_at = folder.glob(f"**/{stage}.manifest.json")
        paths = sorted(path for path in found_at if "mlruns" not in path.parts)
        for path in paths[:: len(paths) // _LIMIT + 1]:
            with suppress(*_DAMAGE):
                found.append(_measured(_read(path), path.relative_to(folder).as_posix(), world))
    return found


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _world(folder: Path) -> World:
    kinds, splits = {}, {}
    for path in sorted(folder.glob("models/*/pretrain.manifest.json")):
        with suppress(*_DAMAGE):
            kinds[path.parent.name] = model_kind(_read(path)["hashed"]["spec"]["model"])
    for path in sorted(folder.glob("data/*/data.manifest.json")):
        with suppress(*_DAMAGE):
            splits[path.parent.name] = _read(path)["notes"]["rows"]
    return World(kinds, splits)


def _measured(manifest: dict[str, Any], place: str, world: World) -> Measured:
    hashed, context = manifest["hashed"], manifest["context"]
    on_cpu = hashed["numerics"]["device"] == "cpu"
    seconds = context.get("cpu_seconds") if on_cpu else None
    work = work_of(hashed["stage"], hashed["spec"], place, world)
    memory = float(context.get("peak_memory_mib") or 0)
    return Measured(work, float(context["seconds"] if seconds is None else seconds), memory)


def reference() -> list[Measured]:
    """What work took on the machine of the README's figures (`benchmarks/plan_reference.py`)."""
    text = files("kd.plan").joinpath("reference.json").read_text(encoding="utf-8")
    return [
        Measured(
            Work(one["stage"], one["units"], tuple(one["traits"])), one["seconds"], one["memory"]
        )
        for one in json.loads(text)["measured"]
    ]


def as_json(measured: Iterable[Measured]) -> list[dict[str, Any]]:
    """The inverse of what `reference` reads."""
    return [asdict(one.work) | {"seconds": one.seconds, "memory": one.memory} for one in measured]
