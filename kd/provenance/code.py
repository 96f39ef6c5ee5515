"""Which code made this: a digest over the syntax trees that a stage can reach.

Snakemake does not see edits of an imported package. Every stage therefore carries the
digest of its module and of all modules of `kd` that it imports, directly or not. Comments,
docstrings and formatting do not count; any change of meaning does.
"""

import ast
import hashlib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parents[2]

# What these decide is recorded elsewhere (the specification itself) or never reaches an
# output (messages, progress, manifests), so editing them must not re-run a training.
NOT_HASHED = ("kd.experiment", "kd.errors", "kd.interruption", "kd.progress", "kd.provenance")


def module_file(module: str) -> Path | None:
    """Path of a module of `kd`, or None where `module` is no module (a name in one, say)."""
    base = PACKAGE_ROOT.joinpath(*module.split("."))
    for candidate in (base / "__init__.py", base.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


class _OnlyWhatRuns(ast.NodeTransformer):
    """Drops `if TYPE_CHECKING:` blocks: they import for the type checker alone."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Called by `ast` for every `if`."""
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _parse(path: Path) -> ast.Module:
    tree = _OnlyWhatRuns().visit(ast.parse(path.read_text(encoding="utf-8")))
    return _without_docstrings(tree)


def _imports(module: str) -> set[str]:
    """Names of modules of `kd` that `module` imports anywhere, functions included."""
    path = module_file(module)
    assert path is not None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return {name for name in found if name.startswith("kd.") and module_file(name)}


def _ancestors(module: str) -> list[str]:
    """The packages whose `__init__` runs when `module` is imported, `kd` itself aside."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(2, len(parts))]


def reachable_modules(*roots: str) -> list[str]:
    """All hashed modules of `kd` that the modules `roots` import, themselves included, sorted."""
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in seen or any(f"{module}.".startswith(f"{name}.") for name in NOT_HASHED):
            continue
        seen.add(module)
        waiting += [*_imports(module), *_ancestors(module)]
    return sorted(seen)


@cache
def code_digest(*roots: str) -> str:
    """SHA-256 over the syntax trees of all modules that `roots` reach.

    Modules that are looked up at run time (a loss by its name) must be given as roots.
    """
    hasher = hashlib.sha256()
    for module in reachable_modules(*roots):
        path = module_file(module)
        assert path is not None
        hasher.update(f"{module}\n{ast.dump(_parse(path))}\n".encode())
    return hasher.hexdigest()
