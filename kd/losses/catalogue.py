"""Which losses there are, read from their source text: nothing here imports torch.

Every module of this package is parsed; each function or class under `@loss(...)` becomes a
`LossInfo`. The module of one loss is imported only when that loss is used, so the code
that a training stage depends on is the code of its own loss and no other.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kd.errors import LossError, nearest
from kd.losses.needs import BATCH, SETUP
from kd.losses.values import Interval, Values

Definition = ast.FunctionDef | ast.ClassDef

TRUNCATIONS = ("unaffected", "certified", "lower_bound", "unbounded", "dense")


@dataclass(frozen=True)
class LossInfo:
    """What is known of a loss without running it (see `kd.losses.declaration.loss`)."""

    name: str
    module: str  # dotted, as in 'kd.losses.kl'
    function: str  # the decorated function or class
    family: str
    same_vocabulary: bool
    truncation: str
    formula: str
    source: str
    needs: tuple[str, ...]  # of each batch: names in `kd.losses.needs.BATCH`
    setup: tuple[str, ...]  # once, before training: names in `kd.losses.needs.SETUP`
    options: dict[str, Any]  # keyword-only parameters and their defaults
    description: str  # the docstring
    aliases: tuple[str, ...] = ()
    alignments: tuple[str, ...] = ("truncate",)  # those under which it is defined
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of options
    ranges: Mapping[str, str] = field(default_factory=dict)  # of options, as '[0, 1]'
    dense_when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    rows: str = "independent"  # or 'batch': values depend on other rows too
    kernel: str | None = None  # dotted module with a faster implementation
    bound: str | None = None  # dotted module with a bound of the error on stored logits
    unbounded_when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    reads_ids: bool = True  # of the teacher's tokens
    unbiased_on_draws: bool = False

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that are looked up by name when the loss is used."""
        return tuple(name for name in (self.module, self.kernel, self.bound) if name)

    def certified_under(self, options: Mapping[str, Any], temperature: float = 1.0) -> bool:
        """Whether the error on stored logits has a bound, with the given options.

        Args:
            options: of the loss.
            temperature: the teacher's. Its own tokens are stored as they are at 1; at others
                they are normalised by what was stored of the distributions.
        """
        if not {"teacher", "answers", "following"} & set(self.needs):
            return temperature == 1.0 or "spans" not in self.needs  # no distribution is read
        chosen = {**self.options, **options}
        unbounded = any(chosen[name] in values for name, values in self.unbounded_when.items())
        return self.bound is not None and not unbounded

    def truncation_under(self, options: Mapping[str, Any]) -> str:
        """What becomes of the value under a top-k teacher, with the given options."""
        chosen = {**self.options, **options}
        dense = any(chosen[name] in values for name, values in self.dense_when.items())
        return "dense" if dense else self.truncation

    @property
    def summary(self) -> str:
        """First line of the description."""
        return self.description.partition("\n")[0]

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss compares with the teacher at all, beyond the text it wrote."""
        return any(BATCH[need].of_teacher for need in self.needs)

    @property
    def needs_distributions(self) -> bool:
        """Whether the loss reads the teacher's next-token distributions, which can be stored."""
        return any(BATCH[need].stored for need in self.needs)

    @property
    def needs_live_teacher(self) -> bool:
        """Whether the teacher itself has to run at every step."""
        return any(BATCH[need].live for need in self.needs)

    def check_alignment(self, alignment: str | None) -> None:
        """Refuse an alignment under which the loss is not defined; None is its own.

        Raises:
            LossError: naming those under which it is.
        """
        if alignment is not None and alignment not in self.alignments:
            raise LossError(
                f"loss '{self.name}' is not defined under alignment '{alignment}', "
                f"but under: {', '.join(self.alignments)}."
            )

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that the loss does not have, and values that they cannot take.

        Raises:
            LossError: naming the option.
        """
        for key, value in options.items():
            if key not in self.options:
                raise LossError(
                    f"loss '{self.name}' has no option '{key}'. {nearest(key, self.options)}"
                )
            interval = self.ranges.get(key)
            values = Values(
                self.options[key],
                self.choices.get(key, ()),
                None if interval is None else Interval(interval),
            )
            values.check(f"loss '{self.name}': option '{key}'", value)


def available_losses() -> dict[str, LossInfo]:
    """All losses by name, sorted.

    Raises:
        LossError: two modules declare the same name.
    """
    return dict(sorted((info.name, info) for info in _catalogue().values()))


def loss_info(name: str) -> LossInfo:
    """The declaration of the loss called `name`, which may be an alias.

    Raises:
        LossError: there is no such loss; the nearest name is suggested.
    """
    losses = _catalogue()
    if name not in losses:
        raise LossError(f"'{name}' is no loss. {nearest(name, losses)}")
    return losses[name]


@cache
def _catalogue() -> dict[str, LossInfo]:
    """All losses by name and by alias."""
    losses: dict[str, LossInfo] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for info in declared_losses(path.read_text(encoding="utf-8"), f"kd.losses.{path.stem}"):
            for name in (info.name, *info.aliases):
                if name in losses:
                    raise LossError(
                        f"{losses[name].module} and {info.module} both declare a loss "
                        f"'{name}': rename one."
                    )
                losses[name] = info
    return losses


def declared_losses(source: str, module: str) -> list[LossInfo]:
    """The losses that the text of a module declares, in its order."""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise LossError(
            f"{module}, line {error.lineno}: not valid Python ({error.msg}). Mend it."
        ) from None
    definitions = [node for node in body if isinstance(node, Definition)]
    return [
        _read_declaration(definition, decorator, module)
        for definition in definitions
        for decorator in definition.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "loss"
    ]


def _read_declaration(definition: Definition, decorator: ast.Call, module: str) -> LossInfo:
    try:
        name = ast.literal_eval(decorator.args[0])
        stated = {str(key.arg): ast.literal_eval(key.value) for key in decorator.keywords}
        call, construction = _signatures(definition)
        needs, setup = _positional(call), _positional(construction) if construction else ()
        _require_known(needs, BATCH)
        _require_known(setup, SETUP)
        info = LossInfo(
            name=name,
            module=module,
            function=definition.name,
            needs=needs,
            setup=setup,
            options=_options(construction or call),
            description=ast.get_docstring(definition) or "",
            **stated,
        )
        _check(info)
        return info
    except (IndexError, LossError, TypeError, ValueError) as error:
        raise LossError(
            f"{module}, line {definition.lineno}: the declaration of loss '{definition.name}' "
            f"cannot be read ({error}). Give @loss a name and all its keywords, as literals."
        ) from None


def _check(info: LossInfo) -> None:
    """Refuse a declaration that contradicts itself."""
    if info.truncation not in TRUNCATIONS:
        raise ValueError(f"truncation '{info.truncation}'. {nearest(info.truncation, TRUNCATIONS)}")
    if not isinstance(info.alignments, tuple) or not isinstance(info.aliases, tuple):
        raise ValueError("alignments and aliases are tuples of names")
    if info.name == "none" or not info.description:
        raise ValueError("a loss has a docstring, and another name than 'none'")
    for option in (*info.choices, *info.ranges, *info.dense_when, *info.unbounded_when):
        if option not in info.options:
            raise ValueError(f"there is no option '{option}'. {nearest(option, info.options)}")
    info.check_options(info.options)  # defaults are values too


def _signatures(definition: Definition) -> tuple[ast.arguments, ast.arguments | None]:
    """What a loss takes at each batch, and, if it is a class, at its construction."""
    if isinstance(definition, ast.FunctionDef):
        return definition.args, None
    methods = {node.name: node for node in definition.body if isinstance(node, ast.FunctionDef)}
    if not {"__init__", "forward"} <= set(methods):
        raise ValueError("a class needs the methods __init__ and forward")
    return methods["forward"].args, methods["__init__"].args


def _positional(arguments: ast.arguments) -> tuple[str, ...]:
    if arguments.posonlyargs or arguments.vararg or arguments.kwarg:
        raise ValueError("parameters are named: no '/', no *args, no **kwargs")
    return tuple(parameter.arg for parameter in arguments.args if parameter.arg != "self")


def _options(arguments: ast.arguments) -> dict[str, Any]:
    return {
        parameter.arg: ast.literal_eval(default) if default else _no_default(parameter.arg)
        for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }


def _require_known(needs: tuple[str, ...], known: Mapping[str, object]) -> None:
    for need in needs:
        if need not in known:
            raise ValueError(f"nothing is called '{need}'. {nearest(need, known)}")


def _no_default(option: str) -> Any:
    raise ValueError(f"option '{option}' has no default")
