"""The process that shows what transformers makes of a checkpoint: `python -m wsd_local.training.reference FOLDER`.

Contract: reads `request.json` in the folder; writes `reference.json` and, in `rows.npy`, log-probabilities of all
tokens at the last positions of each prompt, computed in 32 bits on the CPU. Reports as the process that trains does. No
code of a checkpoint is run.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from wsd_local.training.worker import report

REQUEST, ANSWER, ROWS = "request.json", "reference.json", "rows.npy"
_REPLY = "This is a reply."
_FULL = "full_attention"
"""transformers' name of the layers whose positions count where layers differ."""


def main(folder: Path) -> int:
    """Answer the request in the folder; the exit code."""
    torch, transformers = import_module("torch"), import_module("transformers")
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    checkpoint = request["checkpoint"]
    if request["threads"] is not None:
        torch.set_num_threads(request["threads"])
    report("step", what="reading the checkpoint", done=0.0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    now = datetime.now()
    rendered = [_rendered(tokenizer, one, request["values"]) for one in request["conversations"]]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, trust_remote_code=False
    ).eval()
    answer = {
        "now": now.isoformat(),
        "has_template": bool(tokenizer.chat_template),
        "rendered": rendered,
        "ends": _ends(tokenizer, model, request["values"]),
        "vocabulary": {"tokens": len(tokenizer), "rows": model.get_input_embeddings().weight.shape[0]},
        "tied": _tied(model),
        "positions": _positions(model.config.get_text_config()),
        "prompts": _scored(tokenizer, model, request, folder),
    }
    (folder / ANSWER).write_text(json.dumps(answer), encoding="utf-8")
    report("answered")
    return 0


def _text(tokenizer: Any, conversation: dict[str, Any], values: dict[str, Any]) -> str:
    return str(
        tokenizer.apply_chat_template(
            conversation["messages"], tokenize=False, add_generation_prompt=conversation["generation"], **values
        )
    )


def _tokens(tokenizer: Any, text: str) -> list[int]:
    """As trainers cut a rendered text: BOS is the template's business."""
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _rendered(tokenizer: Any, conversation: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    if not tokenizer.chat_template:
        return {"refused": "there is no chat template"}
    try:
        text = _text(tokenizer, conversation, values)
    except Exception as error:  # a template is a program: it can fail in any way
        return {"refused": str(error) or type(error).__name__}
    return {"text": text, "tokens": _tokens(tokenizer, text)}


# -- what the checkpoint says of itself ----------------------------------------------------------------------


def _ends(tokenizer: Any, model: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The tokens that end a text by the settings, and the one that the template puts after a reply."""
    listed = [
        *_listed(model.generation_config.eos_token_id if model.generation_config is not None else None),
        *_listed(model.config.get_text_config().eos_token_id),
    ]
    turn = _turn_end(tokenizer, values) if tokenizer.chat_template else None
    own = _listed(tokenizer.eos_token_id)
    spelled = {token: str(tokenizer.convert_ids_to_tokens(token)) for token in {*listed, *own, *_listed(turn)}}
    return {"turn": turn, "tokenizer": own, "listed": sorted(set(listed)), "spelled": spelled}


def _listed(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(token) for token in value] if isinstance(value, list | tuple) else [int(value)]


def _turn_end(tokenizer: Any, values: dict[str, Any]) -> int | None:
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _REPLY}]
    try:
        _, found, after = _text(tokenizer, {"messages": messages, "generation": False}, values).rpartition(_REPLY)
    except Exception:  # refused
        return None
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special.update(tokenizer.all_special_ids)
    return next((token for token in _tokens(tokenizer, after if found else "") if token in special), None)


def _tied(model: Any) -> bool:
    torch = import_module("torch")
    outputs = model.get_output_embeddings()
    inputs = model.get_input_embeddings().weight
    return outputs is not None and (outputs.weight is inputs or bool(torch.equal(outputs.weight, inputs)))


def _positions(config: Any) -> dict[str, Any]:
    """How positions are rotated: the kind of scaling, the base of the angles, and Llama 3's factors of them."""
    nested = getattr(config, "rope_parameters", None) or {}
    found = nested.get(_FULL, nested)
    kind, theta = str(found.get("rope_type", "default")), found.get("rope_theta")
    factors: list[float] = []
    if kind == "llama3":
        torch = import_module("torch")
        scale = import_module("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS[kind]
        layers = {"layer_type": _FULL} if found is not nested else {}
        scaled, _ = scale(config, "cpu", **layers)
        exponents = torch.arange(0, 2 * len(scaled), 2, dtype=torch.float64) / (2 * len(scaled))
        factors = (float(theta) ** -exponents / scaled.double()).tolist()
    return {"kind": kind, "theta": None if theta is None else float(theta), "factors": factors}


# -- log-probabilities ---------------------------------------------------------------------------------------


def _scored(tokenizer: Any, model: Any, request: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The tokens of each prompt; their rows go to the file, one prompt after the other."""
    torch, numpy = import_module("torch"), import_module("numpy")
    limit = min(request["longest"], getattr(model.config.get_text_config(), "max_position_embeddings", None) or 512)
    prompts = [_prompt(tokenizer, messages, request["values"])[:limit] for messages in request["prompts"]]
    counts = [min(request["positions"], len(tokens)) for tokens in prompts]
    size = model.get_output_embeddings().weight.shape[0]
    rows = numpy.lib.format.open_memmap(folder / ROWS, mode="w+", dtype=numpy.float32, shape=(sum(counts), size))
    at = 0
    for index, (tokens, count) in enumerate(zip(prompts, counts, strict=True)):
        report("step", what="transformers reads", done=index / len(prompts))
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -count:]
            rows[at : at + count] = torch.log_softmax(logits.float(), dim=-1).numpy()
        at += count
    rows.flush()
    return [{"tokens": tokens, "rows": count} for tokens, count in zip(prompts, counts, strict=True)]


def _prompt(tokenizer: Any, messages: list[dict[str, str]], values: dict[str, Any]) -> list[int]:
    """A conversation as tokens; plain text where the template refuses it."""
    found = _rendered(tokenizer, {"messages": messages, "generation": False}, values)
    plain = "\n\n".join(message["content"] for message in messages)
    tokens: list[int] = found["tokens"] if "tokens" in found else _tokens(tokenizer, plain)
    return tokens


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
