"""The process that trains: `python -m wsd_local.training.worker FOLDER`.

Contract: reads the job in the folder, trains by TRL from the last whole checkpoint, and writes the adapter to
`adapter`, with the model's configuration, and unless it alone is wanted the trained model to `merged`, with its
tokenizer and chat template. Reports lines of JSON that begin with `MARK` on standard output. A
checkpoint counts when it is whole: the file `whole` in it is written last. No code of a checkpoint is run.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

from wsd_local.training.job import Job, ModelSize, memory_needed, read_job
from wsd_local.training.tokens import complete, difference

MARK = "@wsd "
WHOLE = "whole"
_COMPARED = 50
"""Conversations whose tokens are compared."""
_INSTEAD = "train its checkpoint (a folder, or its repository on the Hub) instead"
_TOKENIZER_FILES = ("*token*.json", "*.model", "vocab.*", "merges.txt", "chat_template*")
CHECKPOINTS, MERGED, ADAPTER = "checkpoints", "merged", "adapter"


def report(kind: str, **values: Any) -> None:
    """Write one line for the process that waits."""
    print(f"{MARK}{json.dumps({'kind': kind, **values})}", flush=True)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a training."""
    found = [path for path in (folder / CHECKPOINTS).glob("checkpoint-*") if (path / WHOLE).is_file()]
    return max(found, key=_step, default=None)


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def main(folder: Path) -> int:
    """Train; the exit code."""
    torch = import_module("torch")
    job = read_job(folder)
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    accelerated = bool(torch.cuda.is_available())
    report("begin", device=torch.cuda.get_device_name(0) if accelerated else "CPU")
    tokenizer, model = _loaded(job, torch.bfloat16 if accelerated else torch.float32)
    if not tokenizer.chat_template:
        report("fault", text="the model has no chat template: an instruct model is needed")
        return 1
    sides = {name: _pairs(folder, name, job) for name in ("train", "validation")}
    if job.gguf is not None and (text := _cut_differently(job, tokenizer, sides["train"])) is not None:
        report("fault", text=f"transformers and llama.cpp cut texts differently with this file ({text!r}): {_INSTEAD}")
        return 1
    if not _fits(job, model, sides["train"], tokenizer, accelerated):
        return 0
    trainer = _trainer(job, folder, model, tokenizer, sides, accelerated)
    before = last_checkpoint(folder)
    for path in (folder / CHECKPOINTS).glob("checkpoint-*"):
        if not (path / WHOLE).is_file():
            shutil.rmtree(path)
    trainer.train(resume_from_checkpoint=None if before is None else str(before))
    _save(trainer, tokenizer, folder, job)
    report("trained")
    return 0


def _loaded(job: Job, dtype: Any) -> tuple[Any, Any]:
    transformers = import_module("transformers")
    named: dict[str, Any] = {} if job.gguf is None else {"gguf_file": job.gguf}
    report("step", what="loading the model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.model, trust_remote_code=False, **named)
    if job.gguf is not None:
        complete(tokenizer, Path(job.model) / job.gguf)
        named["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype, trust_remote_code=False, **named)
    return tokenizer, model


def _cut_differently(job: Job, tokenizer: Any, pairs: Any) -> str | None:
    """The beginning of a conversation that transformers and llama.cpp cut into different tokens."""
    rendered = [
        tokenizer.apply_chat_template(row["prompt"], tokenize=False)
        for row in pairs.select(range(min(_COMPARED, len(pairs))))
    ]
    found = difference(tokenizer, Path(job.model) / (job.gguf or ""), rendered)
    return None if found is None else found[:80]


def _pairs(folder: Path, name: str, job: Job) -> Any:
    """One side as TRL wants it; for SFT the preferred replies alone."""
    datasets = import_module("datasets")
    path = folder / "data" / f"{name}.jsonl"
    if not path.is_file():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    if job.method == "sft":
        rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    return datasets.Dataset.from_list(rows)


def _fits(job: Job, model: Any, pairs: Any, tokenizer: Any, accelerated: bool) -> bool:
    """Whether the memory suffices, which is reported before anything is trained."""
    import psutil

    torch = import_module("torch")
    config = model.config.get_text_config()
    size = ModelSize(model.num_parameters(), config.num_hidden_layers, config.hidden_size, config.vocab_size)
    side = "chosen" if job.method == "dpo" else "completion"
    longest = max(pairs, key=lambda row: len(json.dumps([row["prompt"], row[side]])))
    tokens = len(tokenizer.apply_chat_template(longest["prompt"] + longest[side], tokenize=False)) // 3 + 16
    needed = memory_needed(job, size, tokens, 2 if accelerated else 4)
    if accelerated:
        free = torch.cuda.mem_get_info()[0] + size.parameters * 2  # the weights are still in the machine's memory
    else:
        free = psutil.virtual_memory().available + size.parameters * 4  # the weights are there already
    report("memory", needed=needed, free=int(free), parameters=size.parameters)
    return bool(needed <= free)


def _trainer(job: Job, folder: Path, model: Any, tokenizer: Any, sides: dict[str, Any], accelerated: bool) -> Any:
    trl, peft = import_module("trl"), import_module("peft")
    steps = -(-len(sides["train"]) * job.epochs // (job.batch * job.accumulation))
    total = int(min(steps, job.max_steps or steps))
    values: dict[str, Any] = {
        "output_dir": str(folder / CHECKPOINTS),
        "per_device_train_batch_size": job.batch,
        "per_device_eval_batch_size": job.batch,
        "gradient_accumulation_steps": job.accumulation,
        "learning_rate": job.learning_rate,
        "num_train_epochs": job.epochs,
        "max_steps": job.max_steps or -1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "max_length": job.cutoff,
        "bf16": accelerated,
        "use_cpu": not accelerated,
        "logging_steps": max(1, min(10, total // 20)),
        "save_strategy": "steps",
        "save_steps": job.save_every,
        "save_total_limit": 2,
        "seed": job.seed,
        "report_to": "none",
        "disable_tqdm": True,
    }
    if sides["validation"] is not None:
        values["eval_strategy"] = "epoch"
    adapter = None
    if not job.full:
        adapter = peft.LoraConfig(
            r=job.rank,
            lora_alpha=2 * job.rank,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    more: dict[str, Any] = {}
    if job.method == "dpo":
        trainer, config = trl.DPOTrainer, trl.DPOConfig(beta=job.beta, **values)
        if job.full:  # TRL would load the model again by its name, by which a GGUF file is not found
            more["ref_model"] = deepcopy(model)
    else:
        trainer, config = trl.SFTTrainer, trl.SFTConfig(**values)
    return trainer(
        model=model,
        args=config,
        processing_class=tokenizer,
        train_dataset=sides["train"],
        eval_dataset=sides["validation"],
        peft_config=adapter,
        callbacks=[_reporter()],
        **more,
    )


def _reporter() -> Any:
    """A callback that reports each step, each line of the log, and each whole checkpoint."""
    base: Any = import_module("transformers").TrainerCallback

    class Reporter(base):  # type: ignore[misc]
        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            report("step", what="training", step=state.global_step, total=state.max_steps)

        def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_: Any) -> None:
            report("log", step=state.global_step, values=logs)

        def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).write_text("")
            report("saved", step=state.global_step)

    return Reporter()


def _save(trainer: Any, tokenizer: Any, folder: Path, job: Job) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not job.full:
        with _whole(folder / ADAPTER) as part:
            model.save_pretrained(part)
            base = model.get_base_model()
            base.config.architectures = [type(base).__name__]  # one of a GGUF file names none
            base.config.save_pretrained(part)  # what a converter must know of the model
        if job.adapter_only:
            return
        report("step", what="merging")
        model = model.merge_and_unload()
    with _whole(folder / MERGED) as part:
        model.save_pretrained(part)
        _save_tokenizer(tokenizer, part, job)


def _save_tokenizer(tokenizer: Any, folder: Path, job: Job) -> None:
    """The checkpoint's own files where it has them: those that transformers writes may cut texts otherwise."""
    if job.gguf is not None:
        tokenizer.save_pretrained(folder)
        return
    for path in sorted({path for kind in _TOKENIZER_FILES for path in Path(job.model).glob(kind)}):
        shutil.copyfile(path, folder / path.name)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder that appears when all is in it."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
