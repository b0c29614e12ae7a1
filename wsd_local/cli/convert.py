"""`wsd-local models convert` and `quantize`: models made on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.options import NOTHING, Debug, Given, flag, option, strictly, takes
from wsd_local.errors import ModelError, UsageError
from wsd_local.fields import declared
from wsd_local.system.interrupt import interruptible
from wsd_local.system.visible import visible

if TYPE_CHECKING:
    from wsd_local.library.checkpoint import Checkpoint
    from wsd_local.library.peft import PeftAdapter
    from wsd_local.system.child import StepProgress


Kind = Literal["f32", "f16", "bf16", "q8_0", "auto"]
"""Types that the converter writes."""

As = Annotated[str | None, option("Name of the new model.", "--as")]
Output = Annotated[Path | None, option("File to make; by default one in the data folder.")]
Force = Annotated[bool, flag("Replace a file or a name that exists already.")]


def convert(
    source: Annotated[
        str,
        Parameter(
            name="HF-REPO|DIR", help="Folder of a checkpoint or of a LoRA adapter (PEFT), or its repository on the Hub."
        ),
    ],
    /,
    *,
    name: As = None,
    output: Output = None,
    kind: Annotated[
        Kind,
        option(
            "Type of the weights; auto: the 16-bit type that is nearest to the source, f32 for an adapter.",
            "--type",
            converter=strictly,
        ),
    ] = "auto",
    base: Annotated[
        str | None,
        option(
            "Checkpoint of the model that an adapter changes, of which config.json is read. "
            "[default: the one that the adapter names]",
            metavar="HF-REPO|DIR",
        ),
    ] = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Convert a checkpoint (safetensors) or a LoRA adapter to a GGUF file, with llama.cpp's own converter."""
    from wsd_local.library import convert as making
    from wsd_local.library.made import free_target
    from wsd_local.library.peft import is_adapter

    checkpoint = _source(source)
    repo = checkpoint if isinstance(checkpoint, str) else None
    making.require_extra()
    if name is not None or output is not None:
        free_target(name, output, repo, force=force)
    with steps_shown("converting") as progress:
        making.converter(progress)
    found = fetched_checkpoint(checkpoint, adapters=True) if isinstance(checkpoint, str) else checkpoint
    if is_adapter(found.folder, fetched=repo is not None):
        _convert_adapter(found, base, name, output, kind, force=force)
        return
    if base is not None:
        raise UsageError(f"--base is for LoRA adapters, and {source} is a whole model: leave it out")
    _convert_checkpoint(found, name, output, kind, force=force)


def _source(source: str) -> Checkpoint | str:
    """What is to be converted: a folder, or a repository of the Hub."""
    from wsd_local.library.checkpoint import Checkpoint, local_checkpoint
    from wsd_local.library.peft import is_adapter
    from wsd_local.library.repo_files import names_repository
    from wsd_local.library.resolve import catalog_model
    from wsd_local.paths import expanded

    entry = catalog_model(source)
    repo = entry.repo if entry is not None and entry.file is None else None
    if repo is None and not Path(source).exists() and names_repository(source):
        repo = source
    if repo is not None:
        return repo
    return Checkpoint(expanded(source)) if is_adapter(expanded(source)) else local_checkpoint(source)


def _convert_checkpoint(
    checkpoint: Checkpoint, name: str | None, output: Path | None, kind: Kind, *, force: bool
) -> None:
    from wsd_local.library import convert as making
    from wsd_local.library.checkpoint import chosen_kind, weights
    from wsd_local.library.made import free_target
    from wsd_local.system.child import Observer

    chosen = chosen_kind(kind, weights(checkpoint.folder))
    name = name or (output.stem if output is not None else f"{checkpoint.name.lower()}-{chosen}")
    path = free_target(name, output, checkpoint.repo, force=force)
    with interruptible() as stop, steps_shown("converting") as progress:
        making.convert(checkpoint, path, chosen, force=force, observer=Observer(progress, stop.on_request))
    _remember(name, path, checkpoint.repo, checkpoint.revision)
    if chosen != "q8_0":
        terminal.note(f"quantise it with: wsd-local models quantize {name} Q4_K_M")


def _convert_adapter(
    source: Checkpoint, base: str | None, name: str | None, output: Path | None, kind: Kind, *, force: bool
) -> None:
    from wsd_local.library.convert_adapter import convert_adapter
    from wsd_local.library.made import free_target
    from wsd_local.library.peft import read_adapter
    from wsd_local.system.child import Observer

    adapter = read_adapter(source.folder)
    name = name or (output.stem if output is not None else f"{source.name.lower()}-{'f32' if kind == 'auto' else kind}")
    path = free_target(name, output, source.repo, force=force)
    folder = _base_folder(adapter, base)
    with interruptible() as stop, steps_shown("converting") as progress:
        observer = Observer(progress, stop.on_request)
        convert_adapter(adapter, folder, path, kind, name=name, force=force, observer=observer)
    _remember(name, path, source.repo, source.revision)
    terminal.note(f"use it with: wsd-local run PROMPT --draft MODEL --draft-lora {name}")


def _base_folder(adapter: PeftAdapter, base: str | None) -> Path:
    """A folder with the configuration of the model that an adapter changes."""
    from wsd_local.cli.pull import say_note, transfer_bar
    from wsd_local.library.hub import Hub
    from wsd_local.library.peft import base_of

    if base is None:
        found = base_of(adapter)
    else:
        source = _source(base)
        found = source if isinstance(source, str) else source.folder
    if isinstance(found, Path):
        if not (found / "config.json").is_file():
            raise ModelError(f"{found}: holds no config.json; name the checkpoint that the adapter changes with --base")
        return found
    hub = Hub()
    say_note(hub)
    download = hub.configuration(found)
    with transfer_bar(download) as progress:
        return hub.obtain(download, progress)[0].parent


@dataclass(frozen=True)
class Quantizing:
    """How a model is quantised."""

    threads: int | None = None
    """CPU threads."""
    allow_requantize: bool = False
    """Quantise a quantised model again, which loses more."""
    imatrix: Path | None = None
    """Importance matrix, a GGUF file; types below 3 bits need one."""


@takes(how=declared(Quantizing).values())
def quantize(
    source: Annotated[
        str, Parameter(name="NAME|PATH", help="A model, best one of 16 or 32 bits.", completer=names.models)
    ],
    kind: Annotated[str, Parameter(name="TYPE", help="Q4_K_M, Q8_0, IQ4_XS, BF16, ...; any case.")],
    /,
    *,
    name: As = None,
    output: Output = None,
    force: Force = False,
    how: Given = NOTHING,
    debug: Debug = False,
) -> None:
    """Make a model smaller: a GGUF file of fewer bits per weight."""
    from wsd_local.library import quantize as quantizing
    from wsd_local.library.made import free_target, quantised_name
    from wsd_local.library.registry import known
    from wsd_local.library.resolve import model_path
    from wsd_local.llama.quantize import file_type
    from wsd_local.system.child import Observer
    from wsd_local.units import gb

    path = model_path(source)
    kind = file_type(kind)
    origin = known().get(source)
    name = name or (output.stem if output is not None else quantised_name(source, path, kind))
    repo, revision = (origin.repo, origin.revision) if origin is not None else (None, None)
    target = free_target(name, output, repo, force=force)
    with interruptible() as stop, steps_shown("quantising") as progress:
        made = quantizing.quantize(
            path,
            target,
            kind,
            force=force,
            observer=Observer(progress, stop.on_request),
            **how,
        )
    _remember(name, made.path, repo, revision)
    terminal.note(f"{gb(made.before)} -> {gb(made.after)}, {made.bits:.2f} bits per weight")


def fetched_checkpoint(repo: str, *, adapters: bool = False) -> Checkpoint:
    """A checkpoint of the Hub, in the Hub's own cache; with `adapters` an adapter will do."""
    from wsd_local.cli.pull import say_note, transfer_bar
    from wsd_local.library.checkpoint import Checkpoint
    from wsd_local.library.hub import Hub

    hub = Hub()
    say_note(hub)
    download = hub.checkpoint(repo, adapters=adapters)
    with transfer_bar(download) as progress:
        paths = hub.obtain(download, progress)
    return Checkpoint(paths[0].parent, repo, download.revision)


def _remember(name: str, path: Path, repo: str | None, revision: str | None) -> None:
    from wsd_local.library.made import remember_made
    from wsd_local.units import gb

    remember_made(name, path, repo, revision)
    terminal.line(f"{name}\t{path}\t{gb(path.stat().st_size)}")
    sys.stdout.flush()


@contextmanager
def steps_shown(what: str) -> Iterator[StepProgress]:
    """A bar on standard error while it is a terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

    console = terminal.console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=1.0)

        def progress(now: str, fraction: float) -> None:
            bar.update(task, description=visible(now, keep_newlines=False), completed=fraction)

        yield progress
