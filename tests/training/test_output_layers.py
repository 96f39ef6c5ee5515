"""Whether logits are the output layer's own, seen in the number format of the model."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BloomConfig,
    CohereConfig,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    T5Config,
)

from kd.training.setup import _side

WIDTH = 512
SHARED = {"vocab_size": 300, "hidden_size": WIDTH, "initializer_range": 0.1}
SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
STACK = {"num_hidden_layers": 3, "num_attention_heads": 4, **SPECIAL}
CONFIGS = {
    "llama": LlamaConfig(**SHARED, **STACK, intermediate_size=WIDTH),
    "opt": OPTConfig(**SHARED, **STACK, ffn_dim=WIDTH, word_embed_proj_dim=WIDTH),
    "gpt_neox": GPTNeoXConfig(**SHARED, **STACK, intermediate_size=WIDTH),
    "bloom": BloomConfig(**SHARED, **SPECIAL, n_layer=3, n_head=4),
    "cohere": CohereConfig(**SHARED, **STACK, intermediate_size=WIDTH, logit_scale=0.0625),
    "t5": T5Config(vocab_size=300, d_model=WIDTH, d_ff=WIDTH, d_kv=64, num_layers=2, num_heads=4),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_rounding_hides_no_output_layer_and_a_scale_is_seen(name, dtype):
    torch.manual_seed(0)
    config = CONFIGS[name]
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if config.is_encoder_decoder:
        config.decoder_start_token_id = 0
    model = kind.from_config(config).to(dtype)
    # Another kernel sums in another order, and rounds to a neighbouring number.
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda *call: call[-1] * (1 + torch.finfo(dtype).eps))
    assert _side(model).plain == (name != "cohere")
