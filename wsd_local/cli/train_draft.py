"""`wsd-local train draft`: a model trained on a preference set, converted, quantised, and named."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.options import Debug, Json, flag, number, option
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.training.job import RATES, Job, Method, read_job
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.library.checkpoint import Checkpoint
    from wsd_local.reports.draft_check.judging import Judgement
    from wsd_local.system.child import StepProgress

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
_WHOLE = "f16.gguf"
_UNQUANTISED = ("F32", "F16", "BF16")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class DraftOptions:
    """How a draft is trained, and what it is called.

    Raises:
        UsageError: a number is outside its range, or options contradict each other.
    """

    out: Annotated[str, option("Name of the new draft.", metavar="NAME")]
    method: Annotated[Method, option("Prefer the better reply (dpo), or learn to write it (sft).")] = "dpo"
    full: Annotated[bool, flag("Train all weights, and no LoRA adapter: several times the memory.")] = False
    epochs: Annotated[float, number("How often each pair is seen.")] = 3.0
    max_steps: Annotated[int | None, number("End after so many steps.")] = None
    learning_rate: Annotated[float | None, number("Largest learning rate. [default: 5e-6 for dpo, 1e-4 for sft]")] = (
        None
    )
    beta: Annotated[float, number("dpo: what departing from the model as it was costs.")] = 0.1
    rank: Annotated[int, number("Rank of the LoRA adapter.")] = 8
    cutoff: Annotated[int, number("Tokens of a conversation and its longer reply at most.", metavar="TOKENS")] = 2048
    batch: Annotated[int, number("Pairs that are evaluated together.")] = 1
    accumulation: Annotated[int, number("Batches of one step.")] = 8
    validation: Annotated[float, number("Share of the pairs that is set aside; 0: none.", metavar="SHARE")] = 0.1
    seed: Annotated[int, number("Of the split, the order and the adapter.")] = 42
    save_every: Annotated[int, number("Steps between two checkpoints.")] = 50
    kind: Annotated[
        str | None,
        option("Type of the draft's weights: Q8_0, Q4_K_M, F16, ... [default: Q8_0]", "--type", metavar="TYPE"),
    ] = None
    adapter_only: Annotated[bool, flag("Make a LoRA adapter for --draft-lora, and no model.")] = False
    threads: Annotated[int | None, number("CPU threads.")] = None
    html: Annotated[Path | None, option("Also write a page with the charts of the training.", metavar="FILE")] = None
    resume: Annotated[bool, flag("Go on with a training that was stopped, from its last checkpoint.")] = False
    force: Annotated[bool, flag("Begin again, and replace a draft of this name.")] = False

    def __post_init__(self) -> None:
        if self.resume and self.force:
            raise UsageError("--resume and --force are given: the one goes on, the other begins again; leave one out")
        if self.adapter_only and self.full:
            raise UsageError("--adapter-only and --full are given: without an adapter there is none to make")
        if self.adapter_only and self.kind is not None:
            raise UsageError("--adapter-only and --type are given: an adapter is F32, and no model is made")
        counts = ("rank", "cutoff", "batch", "accumulation", "save_every", "max_steps", "threads")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name.replace('_', '-')} is {value}: it must be at least 1")
        for name in ("epochs", "learning_rate", "beta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name.replace('_', '-')} is {value}: it must be a number above 0")
        if not 0 <= self.validation <= 0.5:
            raise UsageError(f"validation is {self.validation}: it is a share and must lie between 0 and 0.5")
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"seed is {self.seed}: it must lie between 0 and {(1 << 32) - 1}")


def draft(
    model: Annotated[
        str,
        Parameter(
            name="MODEL",
            help="Instruct model to train: a checkpoint's folder, its repository on the Hub, or a GGUF file.",
            completer=names.models,
        ),
    ],
    data: Annotated[
        str,
        Parameter(
            name="DATA",
            help="Preference set: a file, a set by name, OWNER/NAME[:FILE] of the Hub, or a folder of train prepare.",
            completer=names.data_sets,
        ),
    ],
    /,
    *,
    how: DraftOptions,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Train a draft by TRL, convert, quantise and check it, and give it a name; 1 if the check found a fault."""
    from wsd_local.cli.convert import steps_shown
    from wsd_local.cli.evaluate import page_writer
    from wsd_local.cli.train_adapter import make_adapter, say_use
    from wsd_local.library import convert as making
    from wsd_local.library.made import free_target
    from wsd_local.library.resolve import checked_name
    from wsd_local.llama.quantize import file_type
    from wsd_local.paths import data_dir
    from wsd_local.reports.training_page import training_page
    from wsd_local.training.running import read_log, require_extra

    write_page = page_writer(how.html)
    kind = file_type(how.kind or "Q8_0")
    with _named_by_out():
        folder = data_dir() / "training" / checked_name(how.out, replace=True)
    _check_folder(folder, how)
    replaces = read_job(folder).replaces if how.resume else how.force
    with _named_by_out():
        target = free_target(how.out, None, None, force=replaces)
    require_extra()
    making.require_extra()
    with steps_shown("training") as progress:
        making.converter(progress, making.ADAPTER_SCRIPT if how.adapter_only else making.SCRIPT)
    checkpoint, gguf = _model(model)
    texts = _texts(data, how)
    job = replace(_job(checkpoint, gguf, texts, how), replaces=replaces)
    _begin(folder, job, texts, how)
    _train(folder, how)
    if how.adapter_only:
        make_adapter(folder, target, how.out)
    judged = None if how.adapter_only else _made(folder, target, kind, how)
    _finish(folder, target, checkpoint, judged, how, as_json=as_json)
    write_page(lambda: training_page(how.out, [job.summary], read_log(folder)))
    if how.adapter_only:
        say_use(model, how.out, converted=gguf is not None)
    return 0 if how.adapter_only or (judged is not None and judged.is_sound) else 1


@contextmanager
def _named_by_out() -> Iterator[None]:
    """Let errors about a model's name name the option of this command."""
    try:
        yield
    except UsageError as error:
        text = str(error).replace("--as and --output choose", "--out chooses").replace("--as", "--out")
        raise UsageError(text) from error


def _check_folder(folder: Path, how: DraftOptions) -> None:
    from wsd_local.training.running import steps_done

    finished = not (folder / "data").is_dir()
    if how.resume:
        read_job(folder)
        if finished:
            raise UsageError(f"{folder}: the training of this name is finished: leave --resume out")
    elif folder.exists() and not finished and not how.force:
        done = steps_done(folder)
        raise UsageError(
            f"{folder}: a training of this name was stopped after {done} saved steps: --resume goes on with it, and "
            "--force begins again"
        )


def _model(source: str) -> tuple[Checkpoint, str | None]:
    """The checkpoint to train, and the name of the GGUF file in its folder if it is one."""
    from wsd_local.cli.convert import fetched_checkpoint
    from wsd_local.library.checkpoint import Checkpoint, local_checkpoint, weights
    from wsd_local.library.registry import known
    from wsd_local.library.repo_files import names_repository
    from wsd_local.library.resolve import catalog_model, model_path
    from wsd_local.paths import expanded

    entry = catalog_model(source)
    repo = entry.repo if entry is not None and entry.file is None else None
    path = expanded(source)
    if entry is None and not path.exists() and source not in known() and names_repository(source):
        repo = source
    if repo is None and not path.is_dir():
        file = model_path(source).absolute()
        return Checkpoint(file.parent), file.name
    checkpoint = fetched_checkpoint(repo) if repo is not None else local_checkpoint(source)
    weights(checkpoint.folder)
    return checkpoint, None


def _texts(data: str, how: DraftOptions) -> dict[str, str]:
    """The pairs of both sides, as TRL reads them."""
    from wsd_local.cli.train import divided
    from wsd_local.paths import expanded
    from wsd_local.system.inputs import read_text
    from wsd_local.training.folder import check_complete
    from wsd_local.training.trainers import DATA_TRL, trl_lines

    folder = expanded(data)
    if folder.is_dir():
        check_complete(folder)
        paths = {name: folder / DATA_TRL / f"{name}.jsonl" for name in ("train", "validation")}
        return {name: read_text(path) for name, path in paths.items() if path.is_file()}
    _, _, sifted, sides = divided(data, {}, cutoff=how.cutoff, tokenizer=None, validation=how.validation, seed=how.seed)
    left = sum(len(found.indices) for found in sifted.left_out.values())
    if left:
        terminal.message(f"{data}: {plural(left, 'record')} left out; wsd-local train prepare shows which and why")
    return {name: trl_lines(side) for name, side in (("train", sides.train), ("validation", sides.validation)) if side}


def _job(checkpoint: Checkpoint, gguf: str | None, texts: dict[str, str], how: DraftOptions) -> Job:
    from wsd_local.files import file_sha256

    files = [checkpoint.folder / gguf] if gguf is not None else sorted(checkpoint.folder.glob("*.safetensors"))
    weights = hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()
    pairs = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    return Job(
        model=str(checkpoint.folder.absolute()),
        gguf=gguf,
        source={"weights": weights, "pairs": pairs},
        method=how.method,
        full=how.full,
        epochs=how.epochs,
        max_steps=how.max_steps,
        learning_rate=how.learning_rate or RATES[how.method],
        beta=how.beta,
        rank=how.rank,
        cutoff=how.cutoff,
        batch=how.batch,
        accumulation=how.accumulation,
        save_every=how.save_every,
        seed=how.seed,
        threads=how.threads,
        adapter_only=how.adapter_only,
    )


def _begin(folder: Path, job: Job, texts: dict[str, str], how: DraftOptions) -> None:
    """Make the folder of a training, or check that it holds this one."""
    from wsd_local.files import write_text
    from wsd_local.paths import make_folder

    if how.resume:
        job.check_same(read_job(folder))
    else:
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        for name, text in texts.items():
            write_text(folder / "data" / f"{name}.jsonl", text)
    job.save(folder)


def _train(folder: Path, how: DraftOptions) -> None:
    from wsd_local.cli.convert import steps_shown
    from wsd_local.system.interrupt import interruptible
    from wsd_local.training.running import steps_done, train
    from wsd_local.training.worker import ADAPTER, MERGED

    if how.resume and (folder / (ADAPTER if how.adapter_only else MERGED)).is_dir():
        return
    try:
        with interruptible() as stop, steps_shown("loading") as progress:
            train(folder, _shown_by(progress), stop.on_request)
    except CancelledError:
        done = steps_done(folder)
        again = f"--resume goes on after step {done}" if done else "--resume begins at the first step"
        terminal.message(f"interrupted: the same command with {again}")
        raise


def _shown_by(progress: StepProgress) -> Any:
    """What shows the reports of a training: a bar on a terminal, lines where the trainer writes into its log."""
    last: dict[str, Any] = {}

    def show(event: dict[str, Any]) -> None:
        from wsd_local.units import gib

        if event["kind"] == "begin":
            terminal.message(f"training on: {event['device']}")
        elif event["kind"] == "memory":
            parameters = event["parameters"]
            terminal.message(
                f"{parameters:,} weights; training needs about {gib(event['needed'])} of memory, "
                f"{gib(event['free'])} are free"
            )
        elif event["kind"] == "step":
            last.update(event)
            done = event["step"] / event["total"] if event.get("total") else 0.0
            progress(f"{event['what']} {_place(event)}", done)
        elif event["kind"] == "log" and event["values"]:
            values = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in event["values"].items())
            terminal.message(f"step {event['step']}/{last.get('total', '?')}: {values}")

    return show


def _place(event: dict[str, Any]) -> str:
    return f"{event['step']}/{event['total']}" if "step" in event else ""


def _made(folder: Path, target: Path, kind: str, how: DraftOptions) -> Judgement | None:
    """Make the draft's GGUF file, and check it; the findings."""
    whole = _convert(folder, target, kind, how)
    return _checked(folder, target, None if kind in _UNQUANTISED else whole, how)


def _convert(folder: Path, target: Path, kind: str, how: DraftOptions) -> Path:
    """Make the draft's GGUF file of the merged checkpoint; the file before it was quantised."""
    from wsd_local.cli.convert import steps_shown
    from wsd_local.library import convert as making
    from wsd_local.library import quantize as quantizing
    from wsd_local.library.checkpoint import Checkpoint
    from wsd_local.system.child import Observer
    from wsd_local.system.interrupt import interruptible
    from wsd_local.training.worker import MERGED

    whole = folder / _WHOLE
    with interruptible() as stop, steps_shown("converting") as progress:
        observer = Observer(progress, stop.on_request)
        making.convert(Checkpoint(folder / MERGED), whole, "f16", force=True, observer=observer)
    with interruptible() as stop, steps_shown("quantising") as progress:
        quantizing.quantize(
            whole, target, kind, threads=how.threads, force=True, observer=Observer(progress, stop.on_request)
        )
    return whole


def _checked(folder: Path, target: Path, whole: Path | None, how: DraftOptions) -> Judgement | None:
    """The findings about the draft; None, and a line that says why, if it cannot be checked."""
    from wsd_local.cli.train_check import checked
    from wsd_local.library.checkpoint import Checkpoint
    from wsd_local.training.worker import MERGED

    try:
        return checked(Checkpoint(folder / MERGED), target, whole, threads=how.threads)
    except CancelledError:
        raise
    except WsdError as error:
        terminal.message(f"the draft is made, and was not checked: {error}")
        terminal.message(f"wsd-local train check {folder / MERGED} {how.out} checks it later")
        return None


def _finish(
    folder: Path,
    target: Path,
    checkpoint: Checkpoint,
    judged: Judgement | None,
    how: DraftOptions,
    *,
    as_json: bool,
) -> None:
    from wsd_local.cli.tables import print_json
    from wsd_local.cli.train_check import show
    from wsd_local.files import file_sha256
    from wsd_local.library.made import remember_made
    from wsd_local.training.running import read_log
    from wsd_local.units import gb

    remember_made(how.out, target, checkpoint.repo, checkpoint.revision)
    log = read_log(folder)
    (folder / _WHOLE).unlink(missing_ok=True)
    for name in ("checkpoints", "data", *(["merged"] if judged is not None else [])):  # job, log and adapter stay
        shutil.rmtree(folder / name, ignore_errors=True)
    if as_json:
        found = {"name": how.out, "path": str(target), "sha256": file_sha256(target), "log": log}
        print_json({**found, "check": None if judged is None else judged.as_dict()})
        return
    for name in ("loss", "margin", "accuracy", "validation_loss", "validation_accuracy"):
        values = [line[name] for line in log if name in line]
        if values:
            terminal.line(f"{name.replace('_', ' '):20} {values[0]:8.4f} {chart(values)} {values[-1]:.4f}")
    if judged is not None:
        show(judged)
    terminal.line(f"{how.out}\t{target}\t{gb(target.stat().st_size)}")


def chart(values: list[float]) -> str:
    """Values as a row of bars, from the least to the largest of them; means where there are many."""
    size = max(1, -(-len(values) // _WIDTH))
    means = [sum(part) / len(part) for part in (values[at : at + size] for at in range(0, len(values), size))]
    low, span = min(means), max(means) - min(means)
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1) + 0.5) if span else 0] for value in means)
