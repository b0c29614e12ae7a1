"""What TRL and LLaMA-Factory read: the pairs in their formats, and a configuration for each.

Contract: pure. Files are texts by their names relative to one folder, which can be moved as a whole: the configurations
name the data relative to it, and the trainers are started in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsd_local.errors import UsageError
from wsd_local.prompts.messages import Message
from wsd_local.training.pairs import PreferencePair
from wsd_local.training.splitting import Split

MODEL = "meta-llama/Llama-3.2-3B-Instruct"
"""The model that the paper's draft was trained from."""
TRL_CONFIG = "draft_dpo_trl.yaml"
LLAMA_FACTORY_CONFIG = "draft_dpo.yaml"
STARTS = {"LLaMA-Factory": f"llamafactory-cli train {LLAMA_FACTORY_CONFIG}", "TRL": f"trl dpo --config {TRL_CONFIG}"}
"""What starts a training, in the folder."""
NOT_PUBLISHED = (
    "The values are those of LLaMA-Factory's published example for DPO of Llama-3.\n"
    "The values with which the authors of Weak-to-Strong Decoding trained their draft are not published."
)

DATA_TRL, _LLAMA_FACTORY = "data_trl", "data_llamafactory"
_NAMES = {"train": "draft_train", "validation": "draft_validation"}
"""Names of the two sides in LLaMA-Factory's `dataset_info.json`."""
_TEMPLATES = (
    (r"llama-?4", "llama4"),
    (r"llama-?3", "llama3"),
    (r"llama-?2", "llama2"),
    (r"qwen-?3", "qwen3_nothink"),
    (r"qwen", "qwen"),
    (r"gemma-?3n", "gemma3n"),
    (r"gemma-?3", "gemma3"),
    (r"gemma-?2", "gemma2"),
    (r"smollm2", "smollm2"),
    (r"mistral", "mistral"),
)
"""LLaMA-Factory's names of chat templates by what a model's name holds; the first that fits counts."""
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the configurations say beside the published values.

    Args:
        model: the checkpoint to train: a name on the Hub, or a folder.
        template: LLaMA-Factory's name of its chat template.
        cutoff: tokens of a conversation and a reply at most.
        seed: of the order of the pairs.
    """

    model: str
    template: str
    cutoff: int
    seed: int


def template_of(model: str) -> str:
    """LLaMA-Factory's name of a model's chat template, by the model's name.

    Raises:
        UsageError: the name is of no family that is known here.
    """
    name = model.rstrip("/").rpartition("/")[2].lower()
    found = next((template for pattern, template in _TEMPLATES if re.search(pattern, name)), None)
    if found is None:
        raise UsageError(
            f"LLaMA-Factory's name of the chat template of {model} is not known here: give it with --template"
        )
    return found


def folder_files(sides: Split, recipe: Recipe) -> dict[str, str]:
    """All files for the trainers, by their names."""
    filled = {name: pairs for name, pairs in (("train", sides.train), ("validation", sides.validation)) if pairs}
    files = {f"{DATA_TRL}/{name}.jsonl": trl_lines(pairs) for name, pairs in filled.items()}
    files |= {f"{_LLAMA_FACTORY}/{name}.json": llama_factory_list(pairs) for name, pairs in filled.items()}
    files[f"{_LLAMA_FACTORY}/dataset_info.json"] = f"{json.dumps(_dataset_info(filled), indent=2)}\n"
    has_validation = "validation" in filled
    files[TRL_CONFIG] = "".join(_trl_config(recipe, has_validation))
    files[LLAMA_FACTORY_CONFIG] = "".join(_llama_factory_config(recipe, has_validation))
    return files


def possible_files() -> list[str]:
    """Names of all files that a folder may have for the trainers."""
    data = [name for side in _NAMES for name in (f"{DATA_TRL}/{side}.jsonl", f"{_LLAMA_FACTORY}/{side}.json")]
    return [*data, f"{_LLAMA_FACTORY}/dataset_info.json", TRL_CONFIG, LLAMA_FACTORY_CONFIG]


# -- data ----------------------------------------------------------------------------------------------------


def trl_lines(pairs: Sequence[PreferencePair]) -> str:
    """Pairs as TRL's conversational preferences: JSON lines with `prompt`, `chosen` and `rejected` as messages."""
    return "".join(f"{_json(_trl_record(pair))}\n" for pair in pairs)


def llama_factory_list(pairs: Sequence[PreferencePair]) -> str:
    """Pairs as LLaMA-Factory's ShareGPT preferences: a JSON list, a record on each line."""
    return "[\n" + ",\n".join(_json(_sharegpt_record(pair)) for pair in pairs) + "\n]\n"


def _trl_record(pair: PreferencePair) -> dict[str, Any]:
    return {
        "prompt": list(pair.prompt),
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }


def _sharegpt_record(pair: PreferencePair) -> dict[str, Any]:
    return {
        "conversations": [_said(message) for message in pair.prompt],
        "chosen": _said({"role": "assistant", "content": pair.chosen}),
        "rejected": _said({"role": "assistant", "content": pair.rejected}),
    }


def _said(message: Message) -> dict[str, str]:
    return {"from": _SPEAKERS[message["role"]], "value": message["content"]}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _dataset_info(filled: Mapping[str, object]) -> dict[str, Any]:
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    return {
        _NAMES[name]: {"file_name": f"{name}.json", "formatting": "sharegpt", "ranking": True, "columns": columns}
        for name in filled
    }


# -- configurations ------------------------------------------------------------------------------------------


def _llama_factory_config(recipe: Recipe, has_validation: bool) -> Iterator[str]:
    yield _heading("LLaMA-Factory")
    yield _section("model", model_name_or_path=recipe.model)
    yield _section(
        "method",
        stage="dpo",
        do_train=True,
        finetuning_type="lora",
        lora_rank=8,
        lora_target="all",
        pref_beta=0.1,
        pref_loss="sigmoid",
    )
    named = {"eval_dataset": _NAMES["validation"]} if has_validation else {}
    yield _section(
        "data",
        dataset_dir=_LLAMA_FACTORY,
        dataset=_NAMES["train"],
        **named,
        template=recipe.template,
        cutoff_len=recipe.cutoff,
    )
    yield _section("output", output_dir="saves/draft_dpo", logging_steps=10, save_steps=500, report_to="none")
    yield _section("training", **_training(recipe, has_validation), warmup_ratio=0.1)


def _trl_config(recipe: Recipe, has_validation: bool) -> Iterator[str]:
    yield _heading("TRL")
    yield _section("model", model_name_or_path=recipe.model, dtype="bfloat16")
    yield _section("method", loss_type=["sigmoid"], beta=0.1)
    yield "# LoRA: LLaMA-Factory's alpha is twice the rank, and it drops nothing out\n"
    yield _section(None, use_peft=True, lora_r=8, lora_alpha=16, lora_dropout=0.0, lora_target_modules=["all-linear"])
    named = {"dataset_test_split": "validation"} if has_validation else {}
    yield _section("data", dataset_name=DATA_TRL, dataset_train_split="train", **named, max_length=recipe.cutoff)
    yield _section("output", output_dir="saves/draft_dpo_trl", logging_steps=10, save_steps=500, report_to="none")
    yield _section("training", **_training(recipe, has_validation))
    yield "# transformers 5: below 1, a share of all steps; transformers 4 wants warmup_ratio\n"
    yield _section(None, warmup_steps=0.1)


def _training(recipe: Recipe, has_validation: bool) -> dict[str, Any]:
    """What both trainers call by the same names."""
    evaluation = {"per_device_eval_batch_size": 1, "eval_strategy": "epoch"} if has_validation else {}
    return {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 5e-6,
        "num_train_epochs": 3.0,
        "lr_scheduler_type": "cosine",
        "bf16": True,
        "seed": recipe.seed,
        **evaluation,
    }


def _heading(trainer: str) -> str:
    lines = (f"DPO of a draft model with {trainer}. In this folder: {STARTS[trainer]}", *NOT_PUBLISHED.split("\n"))
    return "".join(f"# {line}\n" for line in lines) + "\n"


def _section(title: str | None, **values: Any) -> str:
    import yaml

    head = "" if title is None else f"### {title}\n"
    return f"{head}{yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)}\n"
