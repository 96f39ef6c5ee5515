"""Chat templates: turns of a conversation as the text that a model was tuned on.

The template is the model's own (Jinja, beside its tokenizer), rendered in a sandbox as
transformers does it, but without what would make a prompt change from day to day: templates
that ask for today's date get none, and fall back on the date that they hold.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypedDict

from jinja2 import Template, TemplateError
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kd.errors import DataError


class Message(TypedDict):
    """One turn; roles are 'system', 'user' and 'assistant'."""

    role: str
    content: str


@dataclass(frozen=True)
class ChatTemplate:
    """A model's template.

    Attributes:
        source: Jinja.
        special: texts of special tokens that it may use, as `bos_token`.
        where: the model's folder, for error messages.
    """

    source: str
    special: dict[str, str]
    where: str

    @classmethod
    def read(cls, folder: Path) -> "ChatTemplate":
        """The template of the model in `folder`.

        Raises:
            DataError: there is none.
        """
        config = _json(folder / "tokenizer_config.json")
        file = folder / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.is_file() else None
        source = source or config.get("chat_template")
        source = source or _json(folder / "chat_template.json").get("chat_template")
        if isinstance(source, list):  # several, by name
            named = {entry["name"]: entry["template"] for entry in source}
            source = named.get("default")
        if not source:
            raise DataError(
                f"{folder}: its tokenizer has no chat template. Set 'prompt: {{style: plain}}' for "
                "this model, or name a model that was tuned on chats."
            )
        special = _json(folder / "special_tokens_map.json") | config
        return cls(
            source=source,
            special={
                name: text
                for name in ("bos_token", "eos_token", "unk_token", "pad_token")
                if (text := _token(special.get(name))) is not None
            },
            where=str(folder),
        )

    def render(self, messages: list[Message]) -> str:
        """The conversation up to where the model is to answer, without the leading BOS.

        Prompts are given their BOS where they become tokens (`kd.models.encoding`). A template
        that knows no instruction of the system gets it at the head of the first user's turn.

        Raises:
            DataError: the template refuses the conversation, or is malformed.
        """
        try:
            text = self._render(messages)
        except TemplateError as error:
            if messages[0]["role"] != "system":
                raise self._refused(error) from None
            text = self._render_merged(messages)
        return text.removeprefix(self.special.get("bos_token", ""))

    def _render_merged(self, messages: list[Message]) -> str:
        system, first, *rest = messages
        content = f"{system['content']}\n\n{first['content']}"
        try:
            return self._render([{"role": first["role"], "content": content}, *rest])
        except TemplateError as error:
            raise self._refused(error) from None

    def _render(self, messages: list[Message]) -> str:
        return self._template.render(
            messages=messages, add_generation_prompt=True, tools=None, **self.special
        )

    def _refused(self, error: TemplateError) -> DataError:
        reason = " ".join(str(error).split())
        return DataError(
            f"{self.where}: its chat template refuses the prompt ({reason}). Set 'prompt: "
            "{style: plain}' for this model."
        )

    @cached_property
    def _template(self) -> Template:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, loopcontrols],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        try:
            return environment.from_string(self.source)
        except TemplateSyntaxError as error:
            raise self._refused(error) from None


class _GenerationTag(Extension):
    """`{% generation %}` marks the model's own turns for training; here it does nothing."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        """The tag's body, as if the tag were not there."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    # Jinja's own filter escapes characters for HTML.
    return json.dumps(value, **{"ensure_ascii": False} | options)


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _token(value: Any) -> str | None:
    """A special token's text: written as such, or as the content of an added token."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
