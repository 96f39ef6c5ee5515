"""Which losses there are, read from their source text: nothing here imports torch.

Every module of this package is parsed; each function under `@loss(...)` becomes a
`LossInfo`. The module of one loss is imported only when that loss is used, so the code
that a training stage depends on is the code of its own loss and no other.
"""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kd.errors import LossError, nearest


@dataclass(frozen=True)
class LossInfo:
    """What is known of a loss without running it (see `kd.losses.declaration.loss`)."""

    name: str
    module: str  # dotted, as in 'kd.losses.kl'
    function: str
    family: str
    same_vocabulary: bool
    truncation: str
    source: str
    needs: tuple[str, ...]  # positional parameters: 'student', 'teacher', 'targets'
    options: dict[str, Any]  # keyword-only parameters and their defaults
    summary: str  # first line of the docstring

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss reads the teacher's distributions at all."""
        return "teacher" in self.needs

    def check_options(self, options: dict[str, Any]) -> None:
        """Refuse options that the loss does not have or whose type differs from the default's.

        Raises:
            LossError: an unknown option or a value of another type.
        """
        for key, value in options.items():
            if key not in self.options:
                raise LossError(
                    f"loss '{self.name}' has no option '{key}'. {nearest(key, self.options)}"
                )
            if not _fits(value, self.options[key]):
                raise LossError(
                    f"loss '{self.name}': option '{key}' is {value!r}, "
                    f"but must be of the type of its default, {self.options[key]!r}."
                )


def available_losses() -> dict[str, LossInfo]:
    """All losses by name, sorted.

    Raises:
        LossError: two modules declare the same name.
    """
    return dict(_catalogue())


def loss_info(name: str) -> LossInfo:
    """The declaration of the loss called `name`.

    Raises:
        LossError: there is no such loss; the nearest name is suggested.
    """
    losses = _catalogue()
    if name not in losses:
        raise LossError(f"'{name}' is no loss. {nearest(name, losses)}")
    return losses[name]


@cache
def _catalogue() -> dict[str, LossInfo]:
    losses: dict[str, LossInfo] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for info in declared_losses(path.read_text(encoding="utf-8"), f"kd.losses.{path.stem}"):
            if info.name in losses:
                raise LossError(
                    f"{losses[info.name].module} and {info.module} both declare a loss "
                    f"'{info.name}': rename one."
                )
            losses[info.name] = info
    return dict(sorted(losses.items()))


def declared_losses(source: str, module: str) -> list[LossInfo]:
    """The losses that the text of a module declares, in its order."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return [
        _read_declaration(function, decorator, module)
        for function in functions
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "loss"
    ]


def _read_declaration(function: ast.FunctionDef, decorator: ast.Call, module: str) -> LossInfo:
    arguments = function.args
    summary = (ast.get_docstring(function) or "").partition("\n")[0]
    try:
        name = ast.literal_eval(decorator.args[0])
        stated = {str(key.arg): ast.literal_eval(key.value) for key in decorator.keywords}
        options = {
            parameter.arg: ast.literal_eval(default) if default else _no_default(parameter.arg)
            for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        }
        return LossInfo(
            name=name,
            module=module,
            function=function.name,
            needs=tuple(parameter.arg for parameter in arguments.args),
            options=options,
            summary=summary,
            **stated,
        )
    except (IndexError, TypeError, ValueError) as error:
        raise LossError(
            f"{module}, line {function.lineno}: the declaration of loss '{function.name}' cannot "
            f"be read ({error}). Give @loss a name and all its keywords, as literals."
        ) from None


def _no_default(option: str) -> Any:
    raise ValueError(f"option '{option}' has no default")


def _fits(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)
