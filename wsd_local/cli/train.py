"""`wsd-local train`: a draft model of one's own, from a preference set."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.app import COMMANDS, group
from wsd_local.cli.options import Debug, Json, flag, number, option
from wsd_local.errors import UsageError
from wsd_local.training.trainers import MODEL
from wsd_local.units import plural

if TYPE_CHECKING:
    from rich.table import Table

    from wsd_local.training.columns import Columns
    from wsd_local.training.sifting import Length, Sifted
    from wsd_local.training.sources import Source
    from wsd_local.training.splitting import Split

Found = TypeVar("Found")

app = group("train", COMMANDS["train"][1])

app.command(
    "wsd_local.cli.train_draft:draft", name="draft", help="Train a draft by TRL, convert and quantise it, and name it."
)
app.command(
    "wsd_local.cli.train_check:check",
    name="check",
    help="Check a converted draft against its checkpoint: template, tokens, ends, weights, logits, endings.",
)

_SHOWN_PLACES = 5


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """What is read of a preference set, and what is made of it.

    Raises:
        UsageError: a number is outside its range.
    """

    out: Annotated[Path, option("Folder to make for the pairs and the configurations.", metavar="DIR")]
    model: Annotated[
        str, option("Checkpoint to train, on the Hub or a folder, for the configurations.", metavar="HF-REPO|DIR")
    ] = MODEL
    template: Annotated[
        str | None, option("LLaMA-Factory's name of the model's chat template. [default: by the model's name]")
    ] = None
    cutoff: Annotated[int, number("Tokens of a conversation and its longer reply at most.", metavar="TOKENS")] = 2048
    tokenizer: Annotated[
        str | None,
        option(
            "A model (GGUF) whose tokenizer counts. [default: a token for every 4 bytes]",
            metavar="NAME|PATH",
            completer=names.models,
        ),
    ] = None
    validation: Annotated[float, number("Share of the pairs that is set aside; 0: none.", metavar="SHARE")] = 0.1
    seed: Annotated[int, number("Which pairs are set aside, and the seed of the training.")] = 42
    prompt: Annotated[str | None, option("Column of the prompts.", metavar="COLUMN")] = None
    chosen: Annotated[str | None, option("Column of the better replies.", metavar="COLUMN")] = None
    rejected: Annotated[str | None, option("Column of the worse replies.", metavar="COLUMN")] = None
    system: Annotated[str | None, option("Column of the system messages.", metavar="COLUMN")] = None
    force: Annotated[bool, flag("Replace what was prepared in the folder before.")] = False

    def __post_init__(self) -> None:
        if self.cutoff < 1:
            raise UsageError(f"cutoff is {self.cutoff}: it counts tokens and must be at least 1")
        if not 0 <= self.validation <= 0.5:
            raise UsageError(f"validation is {self.validation}: it is a share and must lie between 0 and 0.5")
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"seed is {self.seed}: it must lie between 0 and {(1 << 32) - 1}")

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are named, by what they hold."""
        given = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected, "system": self.system}
        return {role: name for role, name in given.items() if name is not None}


@app.command
def prepare(
    data: Annotated[
        str,
        Parameter(
            name="DATA",
            help="Preference set: a file (JSONL, JSON, Parquet), a set by name, or OWNER/NAME[:FILE] of the Hub.",
            completer=names.data_sets,
        ),
    ],
    /,
    *,
    how: PrepareOptions,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a preference set, split it, and write it for TRL and for LLaMA-Factory, with a configuration for each.

    Columns are recognised: texts (prompt, chosen, rejected), messages as in TRL, ShareGPT's conversations, HH's two
    transcripts. Pairs that cannot be trained on are left out, and counted by the reason.
    """
    from wsd_local.cli.tables import print_json
    from wsd_local.paths import expanded
    from wsd_local.training.folder import RECORD, check_folder, write_folder
    from wsd_local.training.record import record_of_preparation
    from wsd_local.training.trainers import Recipe, folder_files, possible_files, template_of

    folder = expanded(how.out)
    check_folder(folder, force=how.force)
    recipe = Recipe(how.model, how.template or template_of(how.model), how.cutoff, how.seed)
    source, columns, sifted, sides = divided(
        data, how.columns, cutoff=how.cutoff, tokenizer=how.tokenizer, validation=how.validation, seed=how.seed
    )
    found = record_of_preparation(source, columns, sifted, sides, recipe, how.tokenizer)
    files = {**folder_files(sides, recipe), RECORD: f"{json.dumps(found, indent=2)}\n"}
    write_folder(folder, files, possible_files())
    if as_json:
        print_json({"out": str(folder), **found, "files": sorted(files)})
    else:
        _show(folder, source, found)


def divided(
    data: str, given: Mapping[str, str], *, cutoff: int, tokenizer: str | None, validation: float, seed: int
) -> tuple[Source, Columns, Sifted, Split]:
    """A preference set, what its columns hold, its pairs, and the two sides of them.

    Args:
        data: a file, a public set by name, or one of the Hub.
        given: columns that are named, by what they hold.
        cutoff: tokens of a conversation and its longer reply at most.
        tokenizer: the model whose tokenizer counts; None: tokens are estimated.
        validation: share of the pairs that is set aside.
        seed: which ones.

    Raises:
        UsageError: the set cannot be read, or there is nothing in it to train on.
    """
    from wsd_local.cli.progress import Reporter
    from wsd_local.datasets import dataset_path
    from wsd_local.datasets.hub_sets import hub_set_path, names_hub_set
    from wsd_local.training.columns import detected_columns
    from wsd_local.training.sifting import sift
    from wsd_local.training.sources import read_source
    from wsd_local.training.splitting import split

    with ExitStack() as stack:
        reporter = Reporter(quiet=False)
        stack.callback(reporter.close)
        length = _length(tokenizer, stack)
        fetched = hub_set_path(data, reporter.transfer) if names_hub_set(data) else None
        path = fetched or dataset_path(data, reporter.transfer)[0]
        source = read_source(path)
        columns = _located(source, lambda: detected_columns((one.value for one in source.records), given))
        reporter.wait(f"checking {plural(len(source.records), 'record')}")
        sifted = sift(source.records, columns, cutoff, length)
        _require_pairs(source, sifted)
        return source, columns, sifted, _located(source, lambda: split(sifted.pairs, validation, seed))


def _length(tokenizer: str | None, stack: ExitStack) -> Length:
    """What counts tokens."""
    from wsd_local.training.sifting import estimated

    if tokenizer is None:
        return estimated
    from wsd_local.library.resolve import model_path
    from wsd_local.runtime.llama_file import LlamaFile
    from wsd_local.settings import LoadSettings

    file = LlamaFile("draft", model_path(tokenizer), LoadSettings(), vets=True)
    file.vet()
    model = stack.enter_context(file.vocabulary())
    return lambda text: len(model.tokenize_text(text))


def _located(source: Source, work: Callable[[], Found]) -> Found:
    """What `work` returns; its errors name the file."""
    try:
        return work()
    except UsageError as error:
        raise UsageError(f"{source.path}: {error}") from error


def _require_pairs(source: Source, sifted: Sifted) -> None:
    """Raise `UsageError` if no record is left."""
    from wsd_local.training.record import left_out

    if sifted.pairs:
        return
    reasons = "; ".join(f"{one['text']} ({one['count']})" for one in left_out(source, sifted))
    raise UsageError(f"{source.path}: no record is a pair that can be trained on: {reasons}")


# -- what is shown -------------------------------------------------------------------------------------------


def _show(folder: Path, source: Source, found: dict[str, Any]) -> None:
    from wsd_local.cli.tables import print_tables
    from wsd_local.training.trainers import NOT_PUBLISHED, STARTS

    print_tables(*_tables(source, found))
    terminal.line("")
    for trainer, command in STARTS.items():
        terminal.line(f"{trainer}: cd {shlex.quote(str(folder))} && {command}")
    for sentence in NOT_PUBLISHED.split("\n"):
        terminal.line(sentence)


def _tables(source: Source, found: dict[str, Any]) -> list[Table]:
    from wsd_local.cli.tables import plain_table

    records, kept = found["source"]["records"], found["kept"]
    title = f"{source.path.name}: {kept} of {plural(records, 'record')} kept ({found['share_kept']:.1%})"
    left = plain_table(title, ("left out", "records", "share", f"first {source.unit}s"), {1, 2})
    for one in found["left_out"]:
        places = one[f"first_{source.unit}s"]
        more = ", …" if one["count"] > _SHOWN_PLACES else ""
        shown = ", ".join(map(str, places[:_SHOWN_PLACES])) + more
        left.add_row(one["text"], str(one["count"]), f"{one['count'] / records:.1%}", shown)
    if not found["left_out"]:
        left.add_row("nothing", "0", "0.0%", "")
    about = dict(found["columns"])
    del about["shape"]
    columns = plain_table(f"columns: {about.pop('text')}", ("holds", "column"))
    for role, name in about.items():
        columns.add_row(role, name)
    if unused := found["unused_columns"]:
        columns.add_row("not used", ", ".join(unused))
    tokens = found["tokens"]
    counted = "estimated" if tokens["counted_by"] is None else f"counted by {tokens['counted_by']}"
    sides = plain_table(
        f"tokens ({counted}): median {tokens['median']:.0f}, longest {tokens['longest']}, at most {tokens['cutoff']}",
        ("for", "pairs", "conversations"),
        {1, 2},
    )
    for side in ("train", "validation"):
        sides.add_row(side, str(found[side]["pairs"]), str(found[side]["conversations"]))
    return [columns, left, sides]
