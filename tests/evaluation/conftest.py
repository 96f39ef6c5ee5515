"""Small models with random or hand-set weights, and a tokenizer with one token per byte."""

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BloomConfig,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
)

WIDTH, HEADS, LAYERS, CONTEXT = 32, 2, 2, 96


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, without merges: one token per ASCII character."""
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "</s>", "<s>"]
    trainer = BpeTrainer(
        vocab_size=len(alphabet) + len(special),
        initial_alphabet=alphabet,
        special_tokens=special,
        show_progress=False,
    )
    inner.train_from_iterator(["text"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        model_max_length=CONTEXT,
    )


def _decoder_configs(size: int) -> dict[str, object]:
    shared = {"vocab_size": size, "hidden_size": WIDTH, "initializer_range": 0.3}
    stack = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    shared |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    reach = {"max_position_embeddings": CONTEXT}
    return {
        "llama": LlamaConfig(**shared, **stack, **reach, intermediate_size=WIDTH),
        "opt": OPTConfig(**shared, **stack, **reach, ffn_dim=WIDTH, word_embed_proj_dim=WIDTH),
        "gpt_neox": GPTNeoXConfig(**shared, **stack, **reach, intermediate_size=WIDTH),
        "bloom": BloomConfig(**shared, n_layer=LAYERS, n_head=HEADS),
    }


@pytest.fixture(scope="session")
def random_model(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], PreTrainedModel]:
    """Build a model of an architecture with random weights, large enough to vary its output."""

    def build(architecture: str) -> PreTrainedModel:
        torch.manual_seed(1)
        if architecture != "t5":
            config = _decoder_configs(len(tokenizer))[architecture]
            return AutoModelForCausalLM.from_config(config).eval()
        config = T5Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=WIDTH // HEADS,
            d_ff=WIDTH,
            num_layers=LAYERS,
            num_heads=HEADS,
            initializer_factor=3.0,
            tie_word_embeddings=False,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
        )
        return AutoModelForSeq2SeqLM.from_config(config).eval()

    return build


@pytest.fixture(scope="session")
def chain_model(
    tokenizer: PreTrainedTokenizerFast,
) -> Callable[[dict[str, str]], LlamaForCausalLM]:
    """A Llama that always answers the last token with the successor it was given.

    Attention and MLP write nothing; the head's row of a successor is the embedding of the
    token before it, which no other embedding resembles as much.
    """

    def build(successors: dict[str, str]) -> LlamaForCausalLM:
        torch.manual_seed(0)
        model = LlamaForCausalLM(_decoder_configs(len(tokenizer))["llama"])
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            model.lm_head.weight.zero_()
            for token, successor in successors.items():
                (before,), (after,) = (
                    tokenizer.encode(text, add_special_tokens=False) for text in (token, successor)
                )
                model.lm_head.weight[after] += model.model.embed_tokens.weight[before]
        return model.eval()

    return build
