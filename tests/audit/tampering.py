"""Faults planted into a finished tree, by hand as it were: files flipped, cut, swapped, forged."""

import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any

import yaml

from kd.provenance.canonical import digest, file_digest
from tests.audit.fabrication import World, copy_table, remake_table, run_of
from tests.audit.small_files import DATASET

Tamper = Callable[[World], None]

RUN = run_of("uld", 0).path
EVAL = f"{RUN}/eval/{DATASET}"
OTHER = run_of("teacher_text", 0).path
LOGITS = f"teachers/llama/{DATASET}/logits"


def flip(part: str) -> Tamper:
    """Flip the last bit of a file."""

    def tamper(world: World) -> None:
        file = world.results / part
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    return tamper


def cut(part: str) -> Tamper:
    """Cut the last bytes off a file."""

    def tamper(world: World) -> None:
        file = world.results / part
        file.write_bytes(file.read_bytes()[:-16])

    return tamper


def copy_over(victim: str, other: str) -> Tamper:
    """Put a copy of another file in the place of one."""
    return lambda world: shutil.copy(world.results / other, world.results / victim)


def remove(part: str) -> Tamper:
    return lambda world: (world.results / part).unlink()


def replace_text(part: str, old: str, new: str) -> Tamper:
    """Replace the first `old` in a file below the checkout."""

    def tamper(world: World) -> None:
        file = world.root / part
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{part} does not hold {old}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    return tamper


def edit_manifest(part: str, change: Callable[[dict[str, Any]], Any], *, rehash: bool) -> Tamper:
    """Change a manifest, and its identity with it if `rehash`."""

    def tamper(world: World) -> None:
        file = world.results / f"{part}.manifest.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        change(content)
        if rehash:
            content["identity"] = digest(content["hashed"])
        file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    return tamper


def edit_context(part: str, **values: Any) -> Tamper:
    """Change what a manifest does not hash."""
    return edit_manifest(part, lambda m: m["context"].update(values), rehash=False)


def edit_every_manifest(change: Callable[[dict[str, Any]], Any]) -> Tamper:
    def tamper(world: World) -> None:
        for file in world.results.rglob("*.manifest.json"):
            part = file.relative_to(world.results).as_posix().removesuffix(".manifest.json")
            edit_manifest(part, change, rehash=False)(world)

    return tamper


def swap(first: str, second: str) -> Tamper:
    """Exchange two files or folders."""

    def tamper(world: World) -> None:
        left, right = world.results / first, world.results / second
        aside = left.with_name("aside")
        left.rename(aside)
        right.rename(left)
        aside.rename(right)

    return tamper


def swap_and_cover_up(first: str, second: str) -> Tamper:
    """Exchange two runs, make the table anew from them, and track it anew."""

    def tamper(world: World) -> None:
        swap(first, second)(world)
        remake_table(world)

    return tamper


def link(part: str) -> Tamper:
    """Put a symbolic link in place of a file; its bytes stay the same."""

    def tamper(world: World) -> None:
        file = world.results / part
        elsewhere = world.root / "elsewhere.bin"
        file.rename(elsewhere)
        file.symlink_to(elsewhere)

    return tamper


def change_experiment(**keys: Any) -> Tamper:
    """Change keys of the experiment file after the experiment has run."""

    def tamper(world: World) -> None:
        content = yaml.safe_load(world.file.read_text(encoding="utf-8"))
        world.file.write_text(yaml.safe_dump(content | keys), encoding="utf-8")

    return tamper


def query(sql: str) -> Tamper:
    def tamper(world: World) -> None:
        with sqlite3.connect(world.results / "mlflow.db") as database:
            assert database.execute(sql).rowcount > 0
        database.close()

    return tamper


def unhash_lock(world: World) -> None:
    (world.root / "requirements.lock").write_text("numpy==2.4.6\n", encoding="utf-8")


def forge(end: str, change: Callable[[str], str]) -> Tamper:
    """Change a file of the table and everything that vouches for it: its digest, the manifest's
    identity and the copy."""

    def tamper(world: World) -> None:
        file = world.table.with_suffix(f".{end}")
        text = file.read_text(encoding="utf-8")
        assert change(text) != text, "nothing was forged"
        file.write_text(change(text), encoding="utf-8")
        edit_manifest(
            "tables/table2",
            lambda m: m["hashed"]["outputs"].update({file.name: file_digest(file)}),
            rehash=True,
        )(world)
        copy_table(world)

    return tamper


def forge_column(column: str, value: str) -> Tamper:
    """Put `value` into the first line of a column of the table's csv, and cover it up."""

    def change(text: str) -> str:
        header, first, *rest = csv.reader(io.StringIO(text))
        first[header.index(column)] = value
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([header, first, *rest])
        return out.getvalue()

    return forge("csv", change)


def leave_checkpoint(world: World) -> None:
    folder = world.root / "checkpoints/tiny" / RUN / "abc/step-00000200"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}", encoding="utf-8")
