"""Tokenizers in the manner of ChatML and of T5."""

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from hir_core.modeling.models import fit_tokenizer

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MAY_THINK = f"{CHAT}{{% if add_generation_prompt and enable_thinking is false %}}<think>\n\n</think>\n\n{{% endif %}}"
"""In the manner of Qwen3: the model may think, unless it is told not to."""
THINKS = f"{CHAT}{{% if add_generation_prompt %}}<think>\n{{% endif %}}"
"""In the manner of models that always think: the template itself starts the thinking."""


def build_chat_tokenizer(template=CHAT, *, marks_are_control_tokens=False):
    """A tokenizer with the control tokens of ChatML, the marks of thinking as tokens, and a template."""
    tokenizer = fit_tokenizer(["user assistant system Obey Hi"], 400)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=marks_are_control_tokens)
    tokenizer.chat_template = template
    return tokenizer


def save_chat_model(folder):
    """Writes a tiny untrained model in the manner of Qwen3, with its chat template and its settings for sampling."""
    tokenizer = build_chat_tokenizer(MAY_THINK)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 512}  # fmt: skip
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(vocab_size=len(tokenizer), **sizes, **ends))
    model.generation_config.update(do_sample=True, temperature=0.6, top_k=20, top_p=0.95)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def unigram_tokenizer():
    """A tokenizer in the manner of T5: `▁` before each word, `</s>` at the end of every text."""
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((letter, -3.0) for letter in "abcdefps</>\n"),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def specials(tokenizer, ids) -> list[str]:
    return [token for token in tokenizer.convert_ids_to_tokens(ids) if token in tokenizer.all_special_tokens]
