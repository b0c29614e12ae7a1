"""`wsd-local models list|show|import|rm`: what is on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.options import Debug, Json, flag, number, option
from wsd_local.cli.tables import plain_table, print_json, print_tables
from wsd_local.errors import CancelledError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from wsd_local.library.catalog import ModelEntry
    from wsd_local.library.description import Description
    from wsd_local.placement.usage import Usage


def list_models(
    *,
    as_json: Json = False,
    elsewhere: Annotated[bool, flag("Also files that Ollama, LM Studio and llama.cpp keep.")] = False,
    debug: Debug = False,
) -> None:
    """List the models on this machine, and what the catalog offers."""
    from wsd_local.config import read_config
    from wsd_local.library.listing import inventory
    from wsd_local.library.local import found_elsewhere, places_elsewhere

    found = inventory(read_config().pairs)
    others = found_elsewhere() if elsewhere or as_json else []
    if as_json:
        rows = [{"program": other.program, "name": other.name, "path": str(other.path)} for other in others]
        print_json(found.as_dict() | {"elsewhere": rows})
        return
    columns = ("name", "role", "here", "quant.", "size", "licence", "params", "ctx", "bytes")
    table = plain_table("Models", columns, {4, 6, 7})
    for model in found.models:
        size, context = _gb(model.size), "" if model.context is None else f"{model.context // 1024}k"
        here = {None: "", True: "yes", False: "damaged"}[model.usable]
        cells = (model.name, model.role, here, model.quantization, size, model.licence, model.parameters, context)
        table.add_row(*cells, _PINNED[model.pinned], style="" if model.usable else "dim")
    pairs = plain_table("Pairs", ("name", "draft", "base", "here", "size", "for"), {4})
    for pair in found.pairs:
        ready = "yes" if pair.ready else ""
        row = (pair.name, pair.draft, pair.base, ready, _gb(pair.size), pair.description)
        pairs.add_row(*row, style="" if pair.ready else "dim")
    print_tables(table, pairs)
    if others:
        kept = plain_table("Kept by other programs", ("program", "name", "file"), set())
        for other in others:
            kept.add_row(other.program, other.name, str(other.path))
        print_tables(kept)
    elif elsewhere:
        looked = ", ".join(f"{program} ({folder})" for program, folder in places_elsewhere())
        terminal.note(f"no model files of other programs were found; looked for: {looked}")
    hint = "fetch one: wsd-local models pull NAME · have a file: wsd-local models import FILE --as NAME"
    terminal.note(hint)


def show(
    model: Annotated[str, Parameter(help="Name of a model, or path of a GGUF file.", completer=names.models)],
    /,
    *,
    ctx: Annotated[int | None, number("Tokens of context to count memory for.")] = None,
    template: Annotated[bool, flag("Print the chat template alone.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a model file is: architecture, quantisation, vocabulary, memory, and whether its bytes are known."""
    if ctx is not None and ctx < 1:
        raise UsageError(f"ctx is {ctx}: it counts tokens and must be at least 1")
    from wsd_local.cli.output import hashing_bar
    from wsd_local.files import known_sha256
    from wsd_local.library.description import describe
    from wsd_local.library.gguf import read_model
    from wsd_local.library.known_bytes import recognised
    from wsd_local.library.resolve import catalog_model, model_path
    from wsd_local.llama.devices import cpu_features
    from wsd_local.placement.kernels import slow_type
    from wsd_local.placement.usage import usage

    headers, entry = read_model(model_path(model)), catalog_model(model)
    shown = describe(headers)
    memory = None if shown.is_adapter else usage(headers, ctx, cpu_features())
    if template:
        if shown.template is None:
            raise UsageError(f"{shown.path}: has no chat template")
        terminal.write(shown.template + "\n")
        return
    with hashing_bar() as progress:
        found = recognised([header.path for header in headers], entry, progress)
    hashes = {header.path.name: known_sha256(header.path) for header in headers}
    slow = slow_type(headers)
    if as_json:
        print_json(
            shown.as_dict()
            | ({} if memory is None else {"memory_ctx": memory.ctx, "memory": memory.parts})
            | {"sha256": hashes, "pinned": None if entry is None else entry.pinned}
            | {"recognised": None if found is None else found.as_dict()}
            | {"slow_type": None if slow is None else slow.as_dict()}
        )
    else:
        about = () if entry is None or not entry.description else (("what it does", entry.description),)
        bytes_are = () if found is None else (("bytes", str(found)),)
        pinned = () if entry is None and found is not None else (("catalog", _pin(entry)),)
        speed = () if slow is None else (("speed", slow.sentence()),)
        print_tables(*_shown(shown, memory, hashes, (*speed, *pinned, *about, *bytes_are)))


def import_(
    path: Annotated[Path, Parameter(help="GGUF file; of a split model the first part.")],
    /,
    *,
    name: Annotated[str, option("Name of the model on this machine.", "--as")],
    debug: Debug = False,
) -> None:
    """Give a model file that is here already a name, without copying it."""
    from wsd_local.cli.output import hashing_bar
    from wsd_local.library.known_bytes import recognised
    from wsd_local.library.local import import_model

    with hashing_bar() as progress:
        entry = import_model(path, name, progress)
        found = recognised(entry.paths, None, progress)
    terminal.line(f"{entry.name}\t{entry.path}")
    if found is not None and not found.same:
        terminal.message(str(found))


def rm(
    name: Annotated[
        str, Parameter(help="Name of a model that was pulled, imported or made here.", completer=names.own_models)
    ],
    /,
    *,
    yes: Annotated[bool, flag("Do not ask.", "--yes", "-y")] = False,
    dry_run: Annotated[bool, flag("Only show what would happen.")] = False,
    debug: Debug = False,
) -> None:
    """Forget a model; delete its files only if this program fetched or made them."""
    from wsd_local.library.local import removal, remove
    from wsd_local.units import gb

    planned = removal(name)
    for path in planned.deleted:
        terminal.note(f"deletes {path}")
    for path, why in zip(planned.kept, planned.reasons, strict=True):
        terminal.note(f"keeps {path}: {why}")
    if dry_run:
        terminal.line(f"{name}: would free {gb(planned.freed)}")
        return
    if planned.deleted and not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{name}: {gb(planned.freed)} would be deleted; confirm with --yes")
        if not terminal.confirmed(f"Free {gb(planned.freed)}?"):
            raise CancelledError("not confirmed")
    done = remove(name)
    terminal.line(f"{name}: forgotten, {gb(done.freed)} freed")


_PINNED = {None: "", True: "pinned", False: "not pinned"}


# -- printing -------------------------------------------------------------------------------------------------


def _gb(size: int | None) -> str:
    from wsd_local.units import gb

    return "" if size is None else gb(size)


def _shown(
    shown: Description,
    memory: Usage | None,
    hashes: dict[str, str | None],
    more: tuple[tuple[str, str], ...],
) -> tuple[Table, ...]:
    from wsd_local.units import amount, gb, gib

    facts = plain_table(shown.name, ("", ""), set())
    facts.show_header = False
    parts = "" if shown.parts == 1 else f", {shown.parts} parts"
    mix = ", ".join(f"{kind} {size / max(sum(shown.types.values()), 1):.0%}" for kind, size in shown.types.items())
    template = "none" if shown.template is None else f"{len(shown.template)} characters (--template prints it)"
    text_facts = (
        ("vocabulary", f"{shown.n_vocab:,} tokens, {shown.vocabulary}, fingerprint {shown.fingerprint}"),
        ("chat template", template),
        ("context", f"{shown.n_ctx_train:,} tokens"),
    )
    for label, text in (
        ("file", f"{shown.path} ({gb(shown.size)}{parts})"),
        ("architecture", _architecture(shown)),
        ("parameters", amount(shown.parameters)),
        ("quantisation", f"{shown.quantization}, {shown.bits:.2f} bits per parameter ({mix})"),
        *(() if memory is None else text_facts),
        ("licence", shown.licence or "not stated"),
        *(
            ("SHA-256", found or "not known yet; the first --json reply, or models import, makes it")
            for found in hashes.values()
        ),
        *more,
    ):
        facts.add_row(label, text)
    if memory is None:
        return (facts,)
    sizes = plain_table(f"Memory on the CPU at {memory.ctx:,} tokens", ("part", "size"), {1})
    for part, size in memory.parts.items():
        sizes.add_row(part, gib(size))
    layers = plain_table("Tensors per layer", ("layer", "tensors", "size"), {1, 2})
    for label, count, size in _grouped(shown):
        layers.add_row(label, str(count), gib(size))
    return facts, sizes, layers


def _architecture(shown: Description) -> str:
    if shown.is_adapter:
        alpha = shown.metadata.get("adapter.lora.alpha", "none")
        return f"LoRA adapter for {shown.architecture}, {shown.n_layers} layers, alpha {alpha}"
    return f"{shown.architecture}, {shown.n_layers} layers of width {shown.n_embd}"


def _pin(entry: ModelEntry | None) -> str:
    if entry is None:
        return "not in it: the SHA-256 that this file should have is not known"
    if entry.sha256 is None:
        return "a part of the program" if entry.path is not None else "not pinned: no SHA-256 is known in advance"
    return f"pinned: SHA-256 {entry.sha256}, revision {entry.revision or 'not named'}"


def _grouped(shown: Description) -> list[tuple[str, int, int]]:
    """Neighbouring layers of the same size as one row."""
    rows: list[tuple[str, int, int]] = []
    first = 0
    items = list(shown.per_layer.items())
    for index, (layer, content) in enumerate(items):
        if index + 1 < len(items) and layer is not None and items[index + 1][1] == content:
            continue
        begin, end = items[first][0], layer
        label = "outside" if layer is None else f"{begin}" if begin == end else f"{begin}-{end}"
        rows.append((label, *content))
        first = index + 1
    return rows
