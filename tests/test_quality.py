"""The gates: lint, format, types, size of modules, and the direction of imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "kd").rglob("*.py"))

# Arrows point down: a package may import those on its right, and itself.
ALLOWED = {
    "losses": {"alignment"},
    "alignment": set(),
    "provenance": set(),
    "parallel": set(),
    "resume": {"parallel", "provenance"},
    "experiment": {"losses"},
    "logits": {"losses", "provenance"},
    "data": {"experiment", "hub", "provenance"},
    "hub": {"experiment", "provenance"},
    "models": {"data", "experiment", "provenance", "resume"},
    "evaluation": {"data", "experiment", "models", "provenance", "resume"},
    "teacher": {"data", "evaluation", "experiment", "logits", "models", "provenance", "resume"},
    "training": {"data", "experiment", "logits", "losses", "models", "provenance", "teacher"},
    "tables": {"experiment", "provenance"},
    "cluster": {"provenance"},
    "check": {"data", "experiment", "hub", "losses", "plan", "tables", "training"},
    "worker": set(),
    "plan": {"experiment", "workflow"},
    "tracking": {"data", "evaluation", "experiment", "provenance", "training"},
}
ALLOWED["audit"] = {"data", "evaluation", "experiment", "logits", "models", "provenance", "tables"}
ALLOWED["training"] |= {"parallel", "resume"}
ALLOWED["audit"] |= {"training", "workflow"}  # whose code makes a student; what would run again
ALLOWED["exports"] = {"audit", "evaluation", "experiment", "provenance", "tables"}
ALLOWED["report"] = {"audit", "data", "evaluation", "experiment", "provenance", "tables"}
ALLOWED["commands"] = set(ALLOWED) | {"workflow"}
LEAVES = {"errors", "gpus", "interruption", "progress"}


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint():
    run(sys.executable, "-m", "ruff", "check", ".")


def test_format():
    run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_types():
    run(sys.executable, "-m", "mypy", "kd")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_read_in_a_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kd."):
            found.add(node.module.split(".")[1])
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("kd.")}
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_down(package):
    for path in (ROOT / "kd" / package).rglob("*.py"):
        extra = imported_packages(path) - ALLOWED[package] - LEAVES - {package}
        assert not extra, f"{path.relative_to(ROOT)} imports kd.{', kd.'.join(sorted(extra))}"


def test_every_package_has_a_place():
    packages = {path.parent.name for path in (ROOT / "kd").glob("*/__init__.py")}
    assert packages == set(ALLOWED)


def test_nothing_in_the_package_knows_of_snakemake():
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {
            (node.module or "").split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
        }
        assert "snakemake" not in names, path
