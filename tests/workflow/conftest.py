"""A checkout of its own, in which the smoke experiment has run once, for all workflow tests."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "kd", "rules", "profiles", "experiments", "pyproject.toml")


def job_counts(output: str) -> dict[str, int]:
    """The table below "Job stats:", without its total; empty where nothing is to be done."""
    _, _, table = output.partition("Job stats:")
    rows = [line.split() for line in table.partition("\n\n")[0].splitlines()]
    return {
        row[0]: int(row[1])
        for row in rows
        if len(row) == 2 and row[1].isdigit()
        if row[0] != "total"
    }


@dataclass(frozen=True)
class Checkout:
    """A copy of the project, with commands run against the copy's own package."""

    path: Path

    def run(self, *command: str, timeout: int = 600) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONPATH": str(self.path),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        return subprocess.run(
            command,
            cwd=self.path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("snakemake", "--cores", "2", *arguments)

    def smoke(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("snakemake", *arguments, "--workflow-profile", "profiles/smoke")

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs by rule that a dry run of the smoke experiment would run."""
        done = self.smoke("-n", "--quiet", "rules", *arguments)
        assert done.returncode == 0, done.stdout
        return job_counts(done.stdout)

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.path / name
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{name} no longer holds {old!r}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")


def copy_checkout(target: Path) -> Checkout:
    target.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=ignored)
        else:
            shutil.copy(source, target / part)
    return Checkout(target)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which nothing has run."""
    return copy_checkout(tmp_path_factory.mktemp("plain") / "kd")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which the smoke experiment ran, with two jobs at a time."""
    copy = copy_checkout(tmp_path_factory.mktemp("finished") / "kd")
    done = copy.smoke()
    assert done.returncode == 0, done.stdout
    return copy


@pytest.fixture
def edited(finished: Checkout):
    """The finished copy, for a test that edits it; restored afterwards."""
    backup = finished.path.with_name("backup")
    shutil.copytree(finished.path, backup, symlinks=True)
    yield finished
    for part in PARTS:
        current = finished.path / part
        if current.is_dir():
            shutil.rmtree(current)
        else:
            current.unlink()
        shutil.move(backup / part, current)
    shutil.rmtree(backup)
