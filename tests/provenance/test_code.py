"""The code digest: meaning counts, spelling does not, and imports are followed."""

import textwrap

import pytest

from kd.provenance import code
from kd.training.code import distillation_modules


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `kd` of three modules: a imports b inside a function; c stands alone."""
    root = tmp_path / "kd"
    (root / "experiment").mkdir(parents=True)
    files = {
        "__init__": "",
        "a": "def f():\n    from kd import b\n    return b.g()\n",
        "b": "from kd.experiment import schema\ndef g():\n    return 1\n",
        "c": "x = 1\n",
        "experiment/__init__": "",
        "experiment/schema": "y = 1\n",
    }
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    monkeypatch.setattr(code, "PACKAGE_ROOT", tmp_path)

    def write(name, text):
        (root / f"{name}.py").write_text(textwrap.dedent(text))

    def digest(module="kd.a"):
        code._parse.cache_clear()
        code.code_digest.cache_clear()
        return code.code_digest(module)

    yield write, digest
    code._parse.cache_clear()
    code.code_digest.cache_clear()


def test_comments_docstrings_and_layout_do_not_count(package):
    write, digest = package
    before = digest()
    write(
        "b", '"""New."""\nfrom kd.experiment import schema\n\n# why\ndef g():\n  "doc"\n  return 1'
    )
    assert digest() == before


def test_a_change_of_meaning_counts_through_lazy_imports(package):
    write, digest = package
    before = digest()
    write("b", "def g():\n    return 2\n")
    assert digest() != before


def test_unrelated_modules_and_specification_types_do_not_count(package):
    write, digest = package
    before = digest()
    write("c", "x = 2\n")
    write("experiment/schema", "y = 2\n")
    assert digest() == before


def test_type_checking_imports_are_not_dependencies(package):
    write, digest = package
    write("b", "if TYPE_CHECKING:\n    from kd import c\ndef g():\n    return 1\n")
    before = digest()
    write("c", "x = 3\n")
    assert digest() == before


def test_a_student_depends_on_its_own_loss_alone():
    reached = code.reachable_modules(*distillation_modules("uld"))
    assert {"kd.losses.ot", "kd.losses.distillation", "kd.losses.rows"} <= set(reached)
    assert "kd.losses.kl" not in reached
    assert "kd.training.loop" in reached
    assert "kd.evaluation.scoring" not in reached


def test_scoring_does_not_depend_on_training_or_generation():
    reached = code.reachable_modules("kd.evaluation.score")
    assert not [name for name in reached if name.startswith(("kd.training", "kd.models"))]
    assert "kd.evaluation.generation" not in reached
