"""`wsd-local run merge`: the files of several shards joined into one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.options import Debug, flag, number, option
from wsd_local.cli.task import SOME_FAILED
from wsd_local.errors import UsageError
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.datasets import DataSet
    from wsd_local.datasets.merging import Shards


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOptions:
    """Where the joined file goes, and what is checked."""

    output: Annotated[Path, option("File for all replies, as one run would have written it.", metavar="FILE")]
    input: Annotated[
        str | None,
        option(
            "The data set that was answered: what is missing at its end is found too.",
            metavar="NAME|PATH",
            completer=names.data_sets,
        ),
    ] = None
    limit: Annotated[int | None, number("The shards answered only the first records of the input.")] = None
    partial: Annotated[bool, flag("Join what is there, and name what is missing (exit code 5).")] = False


def merge(
    shards: Annotated[list[Path], Parameter(name="SHARD.jsonl", help="Files of one run, each of another shard.")],
    /,
    *,
    how: MergeOptions,
    debug: Debug = False,
) -> int:
    """Join the files of shards (run --input --shard) into one, in the order of the input.

    Shards must have the same input, models and settings, and each record once; what is missing is named.
    """
    from wsd_local.datasets.merging import join, opened, require_whole

    _check_output(how.output, shards)
    if how.limit is not None and how.input is None:
        raise UsageError("--limit is given without --input: it says how much of the input was answered")
    found = opened(shards)
    data = None if how.input is None else _input(how.input, how.limit, found)
    if not how.partial:
        require_whole(found, data)
    join(found, how.output)
    return _report(how, found, data, len(shards))


def _check_output(output: Path, shards: list[Path]) -> None:
    from wsd_local.files import check_regular

    if output.exists() and any(path.exists() and output.samefile(path) for path in shards):
        raise UsageError(f"{output}: is one of the shards; choose another --output")
    check_regular(output)
    if output.exists() and output.stat().st_size:
        raise UsageError(f"{output}: is there already; choose another --output, or remove it")


def _input(source: str, limit: int | None, shards: Shards) -> DataSet:
    """The records that were to be answered, read as the shards read them."""
    from wsd_local.datasets import dataset_path, read
    from wsd_local.datasets.merging import require_input

    path, _ = dataset_path(source, lambda _done, _total, _phase: None)
    made_by = shards.made_by
    data = read(
        path, format=made_by.get("format"), column=made_by.get("column"), limit=limit, system=made_by.get("system")
    )
    require_input(shards, data)
    return data


def _report(how: MergeOptions, shards: Shards, data: DataSet | None, files: int) -> int:
    """Say what was joined; the exit code."""
    from wsd_local.datasets.merging import named

    missing = shards.missing(data)
    terminal.message(f"{how.output}: {plural(len(shards.records), 'record')} of {plural(files, 'file')}")
    if len(shards.shapes) > 1:
        terminal.message(
            "the shards were worked on in different shapes (see `eval report`): with quantised weights, replies may "
            "differ from those of one run near ties"
        )
    if data is None:
        terminal.message("records that are missing at the end of the input are not known: --input DATA finds them")
    if missing:
        terminal.message(f"{plural(len(missing), 'record')} missing: {named(missing)}")
    return SOME_FAILED if missing or shards.torn else 0
