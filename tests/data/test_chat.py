"""Chat templates: rendered as transformers renders them, but for dates and the leading BOS."""

import json

import pytest
from transformers import PreTrainedTokenizerFast

from kd.data.chat import ChatTemplate
from kd.data.prompts import build_prompt, chat_messages, prompt_writer
from kd.data.rows import Row
from kd.errors import DataError
from kd.experiment.models import PromptForm, Prompting, TokenizerSpec
from kd.models.encoding import encode_prompt
from kd.models.tokenizers import train_tokenizer

LLAMA_LIKE = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system = false %}{% endif %}{% for message in loop_messages %}"
    "{% if loop.index0 == 0 and system %}{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' "
    "+ message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
CHATML_LIKE = (
    "{%- for message in messages %}\n{{- '<|im_start|>' + message.role + '\n' + message.content + "
    "'<|im_end|>\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
STRICT = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}({{ message['content'] | tojson }})"
    "{% if loop.first %}{% continue %}{% endif %}.{% endfor %}"
)
DATED = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}2024{% endif %}"


def row(name: str, title: str = "") -> Row:
    return Row(
        id=name, task="qa", title=title, context=f"on {name}", question="?", answers=["Ü\nx"]
    )


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TokenizerSpec(algorithm="metaspace_bpe", vocabulary=300), ["on a cat"])


def folder_with(tokenizer, template, path):
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("template", [LLAMA_LIKE, CHATML_LIKE])
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_rendered_as_the_library_does(tokenizer, tmp_path, template, system):
    read = ChatTemplate.read(folder_with(tokenizer, template, tmp_path))
    messages = chat_messages(row("b"), [row("a")], PromptForm(style="chat", system=system))
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert read.render(messages) == expected.removeprefix(tokenizer.bos_token)


def test_one_bos_in_front_however_the_template_begins(tokenizer, tmp_path):
    write = prompt_writer(PromptForm(style="chat"), folder_with(tokenizer, LLAMA_LIKE, tmp_path))
    ids = encode_prompt(tokenizer, write(row("a"), []), False)
    assert ids[0] == tokenizer.bos_token_id and ids[1] != tokenizer.bos_token_id


def test_without_a_system_role_the_instruction_heads_the_first_turn(tokenizer, tmp_path):
    write = prompt_writer(
        PromptForm(style="chat", system="Brief."), folder_with(tokenizer, STRICT, tmp_path)
    )
    assert write(row("a"), []) == '("Brief.\\n\\nContext: on a\\nQuestion: ?\\nAnswer:")'
    assert '("Ü x")' in write(row("a"), [row("b")])  # no HTML, one line


def test_no_prompt_depends_on_the_day(tokenizer, tmp_path):
    read = ChatTemplate.read(folder_with(tokenizer, DATED, tmp_path))
    assert read.render([{"role": "user", "content": ""}]) == "2024"


def test_a_model_without_a_template_is_refused(tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"no chat template.*style: plain"):
        prompt_writer(PromptForm(style="chat"), folder_with(tokenizer, None, tmp_path))


@pytest.mark.parametrize("template", ["{{ raise_exception('odd') }}", "{% if %}"])
def test_a_template_that_refuses_is_named(tokenizer, tmp_path, template):
    write = prompt_writer(PromptForm(style="chat"), folder_with(tokenizer, template, tmp_path))
    with pytest.raises(DataError, match="its chat template refuses the prompt"):
        write(row("a"), [])


def test_templates_of_older_repositories(tmp_path):
    """Several by name, special tokens as added tokens, and a file of its own."""
    config = {
        "bos_token": {"content": "<s>", "lstrip": False},
        "chat_template": [
            {"name": "tool_use", "template": "no"},
            {"name": "default", "template": "{{ bos_token }}yes{{ eos_token }}"},
        ],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>"}))
    assert ChatTemplate.read(tmp_path).render([]) == "yes</s>"


def test_titles_and_instruction_in_plain_prompts():
    form = PromptForm(system="Answer.", title=True)
    prompt = build_prompt(row("a", "Oslo"), [row("b")], form)
    assert prompt == (
        "Answer.\n\nContext: on b\nQuestion: ?\nAnswer: Ü x\n\n"
        "Title: Oslo\nContext: on a\nQuestion: ?\nAnswer:"
    )
    assert build_prompt(row("a", "Oslo"), []).startswith("Context")


def test_the_form_of_a_dataset():
    asked = Prompting(style="chat", system={"a": "A."}, titles=["b"])
    assert asked.on("a") == PromptForm(style="chat", system="A.", title=False)
    assert asked.on("b") == PromptForm(style="chat", title=True)
