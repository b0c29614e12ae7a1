"""Models made on this machine: the file and the name of a new one."""

from __future__ import annotations

import re
from pathlib import Path

from wsd_local.errors import UsageError
from wsd_local.files import check_file, check_free
from wsd_local.library.fetched import mark
from wsd_local.library.registry import Known, known, remember
from wsd_local.library.resolve import catalog_model, checked_name
from wsd_local.paths import expanded, made_models_dir


def free_target(name: str | None, output: Path | None, repo: str | None, *, force: bool) -> Path:
    """The file to make: `output`, or one in the data folder with the model's name.

    Args:
        name: name of the new model.
        output: the file, if it was named.
        repo: repository that the model comes from.
        force: accept a file and a name that exist already.

    Raises:
        UsageError: the file cannot be written, or the file or the name is taken.
    """
    if name is not None:
        checked_name(name, repo, replace=True)
    path = (expanded(output) if output is not None else made_models_dir() / f"{name}.gguf").absolute()
    if output is not None:
        check_file(path)
    check_free(path, force)
    if name in known() and known()[name].path != path and not force:
        raise UsageError(f"there is a model {name} already ({known()[name].path}); choose another --as, or add --force")
    return path


def remember_made(name: str, path: Path, repo: str | None, revision: str | None) -> None:
    """Give a file that was made here its name."""
    remember(Known(name, (path,), "made", repo, revision, mark(path.stat())))


def quantised_name(source: str, path: Path, kind: str) -> str:
    """The name of a model that is quantised to the type `kind`: the source's name with its type replaced."""
    from wsd_local.llama.quantize import file_types

    stem = source if source in known() or catalog_model(source) is not None else path.stem
    types = "|".join(file_types())
    shorter = re.sub(rf"(-\d{{5}}-of-\d{{5}})?([-.](?:{types}))?$", "", stem, flags=re.IGNORECASE)
    return f"{shorter or stem}-{kind}"
