"""The walk of docs/adding-a-loss.md, performed on a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/adding-a-loss.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the project with the page's file in its place."""
    folder = tmp_path_factory.mktemp("walk")
    for part in ("kd", "tests", "experiments"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (module,) = re.findall(r"Create `(.*?)`", PAGE)
    (folder / module).write_text(block("python"), encoding="utf-8")
    (folder / "experiments/mine.yaml").write_text(block("yaml"), encoding="utf-8")
    return folder


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_listed_with_its_options_and_its_formula(copy):
    assert "gamma=1.0" in run(copy, "-m", "kd.cli", "losses", "brier")
    assert r"\gamma \sum_v" in run(copy, "-m", "kd.cli", "losses", "--markdown")


def test_an_experiment_may_name_it_and_its_options_are_checked(copy):
    assert "mine: valid" in run(copy, "-m", "kd.cli", "check", "mine")
    wrong = block("yaml").replace("gamma", "gama").replace("mine", "wrong")
    (copy / "experiments/wrong.yaml").write_text(wrong, encoding="utf-8")
    with pytest.raises(AssertionError, match=r"no option 'gama'\. Did you mean 'gamma'"):
        run(copy, "-m", "kd.cli", "check", "wrong")


def test_the_common_tests_cover_it(copy):
    tests = ["tests/losses/test_conventions.py", "tests/losses/test_truncation.py"]
    output = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "brier", *tests)
    assert int(re.findall(r"(\d+) passed", output)[0]) >= 20
