"""Writing a trained model as GGUF (F32) and quantising it with llama.cpp's own function."""

import ctypes
from pathlib import Path

import gguf
import numpy as np
from net import NORM_EPS, ROPE_BASE, Llama
from vocab import Vocab

CONTEXT_LENGTH = 2048


def write_gguf(
    path: Path, model: Llama, vocab: Vocab, name: str, description: str, bos: str, eos: str, template: str | None
) -> None:
    """Write weights, vocabulary and what a reader should know into one F32 file."""
    shape = model.shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_description(description)
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_tags(["demo", "weak-to-strong-decoding"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(vocab.tokens)
    kinds = [gguf.TokenType.CONTROL if token in vocab.controls else gguf.TokenType.NORMAL for token in vocab.tokens]
    writer.add_token_types(kinds)
    writer.add_token_merges(vocab.merges)
    writer.add_bos_token_id(vocab.control(bos))
    writer.add_eos_token_id(vocab.control(eos))
    writer.add_eot_token_id(vocab.control(eos))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    for key, value in model.state_dict().items():
        writer.add_tensor(key.removeprefix("_orig_mod."), value.detach().float().numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source: Path, target: Path) -> None:
    """Write the Q8_0 copy; it appears under its name only when it is whole."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    params.nthread = 2
    part = target.with_suffix(".part")
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(part).encode(), ctypes.byref(params))
    if status != 0:
        raise RuntimeError(f"llama_model_quantize failed with {status} on {source}")
    part.replace(target)
