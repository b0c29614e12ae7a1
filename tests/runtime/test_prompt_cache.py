"""Prompts that are kept from one process to the next: the same replies, token by token, and less to evaluate."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exactness import EXACT, PLAIN
from makers_more import paths_of_kinds

from wsd_local.events import Source
from wsd_local.files import file_sha256
from wsd_local.runtime import prompt_cache
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.prompt_cache import PromptCache
from wsd_local.runtime.prompt_files import PromptFiles
from wsd_local.runtime.reply import Reply
from wsd_local.settings import LoadSettings

Paths = tuple[Path, Path]
ROLES: tuple[Source, ...] = ("draft", "base")
NOTES = " ".join(
    f"Note {number}: the capital of France is Paris, and eggs boil for eight minutes." for number in range(16)
)
EGG, FRANCE = "How do I boil an egg?", "What is the capital of France?"


def also(value: object) -> Any:
    """A case that runs with the slow tests only."""
    return pytest.param(value, marks=pytest.mark.slow)


def about(notes: str, question: str) -> list[dict[str, str]]:
    """A question after a text."""
    return [{"role": "user", "content": f"{notes}\n\n{question}"}]


def files_in(folder: Path) -> PromptFiles:
    """The cache's files, on a disk with room."""
    return PromptFiles(folder, 10**9, lambda _: 10**12)


def opened(paths: Paths, folder: Path | None, loading: LoadSettings = EXACT) -> Pair:
    """A pair as a new process has it; what it would keep pays always, and not by the clock."""
    models = LoadedModels(*paths, loading)
    models.prompts = None if folder is None else PromptCache(files_in(folder), lambda _: 1e12, lambda: 0.0)
    return Pair.over(models, reply=replace(PLAIN, max_tokens=40))


def asked(paths: Paths, folder: Path | None, messages: Any, loading: LoadSettings = EXACT, **settings: Any) -> Reply:
    """The reply of a new process that keeps its prompts."""
    with opened(paths, folder, loading) as pair:
        reply = pair.reply(messages, **settings)
        assert pair.keep_prompts() is None
    return reply


def made(reply: Reply) -> tuple[Any, ...]:
    """What must be equal of two replies."""
    tokens = [(token.id, token.text, token.source) for token in reply.tokens]
    return tokens, reply.text, reply.switch.index, reply.switch.reason, reply.finish_reason, reply.draft_ids


def reused(reply: Reply) -> dict[Source, int]:
    """Tokens of each prompt that were not evaluated; the evaluated ones are the others and those of the reply."""
    for role in ROLES:
        evaluated = {"draft": reply.timings.draft_evaluated_tokens, "base": reply.timings.base_evaluated_tokens}[role]
        assert evaluated <= len(reply.prompt_ids[role]) - reply.cached[role] + 40 + 64
    return dict(reply.cached)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty cache."""
    return tmp_path / "prompts"


@pytest.mark.parametrize("threshold", [0.8, also(2.0)])
def test_the_same_question_again(demo_f32: Paths, folder: Path, threshold: float) -> None:
    messages = about(NOTES, FRANCE)
    plain = asked(demo_f32, None, messages, threshold=threshold)
    first = asked(demo_f32, folder, messages, threshold=threshold)
    second = asked(demo_f32, folder, messages, threshold=threshold)
    assert made(plain) == made(first) == made(second)
    assert reused(first) == {"draft": 0, "base": 0}
    lengths = {role: len(ids) for role, ids in second.prompt_ids.items()}
    assert min(lengths.values()) > 300
    assert all(lengths[role] - 8 <= reused(second)[role] < lengths[role] for role in ROLES)
    assert len(files_in(folder).all()) == 2


@pytest.mark.parametrize("share", [also(0.1), 0.4, also(0.75), also(1.0)])
def test_another_question_after_a_part_of_the_text(demo_f32: Paths, folder: Path, share: float) -> None:
    asked(demo_f32, folder, about(NOTES, FRANCE))
    other = about(NOTES[: int(len(NOTES) * share)], EGG)
    found = asked(demo_f32, folder, other)
    assert made(found) == made(asked(demo_f32, None, other))
    for role in ROLES:
        length = len(found.prompt_ids[role])
        assert length * 0.6 - 20 < reused(found)[role] < length - 4


def test_a_conversation_goes_on_in_another_process(demo_f32: Paths, folder: Path) -> None:
    messages = about(NOTES, FRANCE)
    first = asked(demo_f32, folder, messages)
    longer = [*messages, {"role": "assistant", "content": first.text}, {"role": "user", "content": EGG}]
    second = asked(demo_f32, folder, longer)
    assert made(second) == made(asked(demo_f32, None, longer))
    assert all(reused(second)[role] >= len(first.prompt_ids[role]) - 8 for role in ROLES)


@pytest.mark.parametrize("ctx", [1500, also(8192)])
def test_a_context_of_another_size(demo_f32: Paths, folder: Path, ctx: int) -> None:
    messages = about(NOTES, FRANCE)
    asked(demo_f32, folder, messages)
    other = replace(EXACT, ctx=ctx)
    found = asked(demo_f32, folder, messages, other)
    assert made(found) == made(asked(demo_f32, None, messages, other))
    assert min(reused(found).values()) > 300


@pytest.mark.slow
def test_a_context_that_is_too_small_for_what_is_kept(demo_f32: Paths, folder: Path) -> None:
    asked(demo_f32, folder, about(NOTES * 3, FRANCE))
    few, small = about(NOTES, EGG), replace(EXACT, ctx=600)
    found = asked(demo_f32, folder, few, small)
    assert made(found) == made(asked(demo_f32, None, few, small))
    assert reused(found) == {"draft": 0, "base": 0}
    assert len(files_in(folder).all()) == 4


def test_short_prompts_are_not_kept(demo_f32: Paths, folder: Path) -> None:
    asked(demo_f32, folder, FRANCE)
    assert not folder.exists()


def test_what_is_read_back_too_slowly_is_not_kept(demo_f32: Paths, folder: Path) -> None:
    models = LoadedModels(*demo_f32, EXACT)
    models.prompts = PromptCache(files_in(folder), lambda _: 1.0)
    with Pair.over(models, reply=PLAIN) as pair:
        pair.reply(about(NOTES, FRANCE))
        assert pair.keep_prompts() is None
    assert files_in(folder).all() == []


@pytest.mark.slow
def test_what_is_known_is_not_written_again_and_a_longer_text_replaces_a_shorter(demo_f32: Paths, folder: Path) -> None:
    half = about(NOTES[: len(NOTES) // 2], "")
    asked(demo_f32, folder, half)
    before = {state.path for state in files_in(folder).all()}
    asked(demo_f32, folder, half)
    assert {state.path for state in files_in(folder).all()} == before
    reply = asked(demo_f32, None, half)
    longer = [*half, {"role": "assistant", "content": reply.text}, *about(NOTES, FRANCE)]
    asked(demo_f32, folder, longer)
    after = files_in(folder).all()
    for key in {state.facts.key for state in after}:
        kept = sorted((list(state.tokens) for state in files_in(folder).find(key)), key=len)
        assert not any(other[: len(one)] == one for one in kept for other in kept if other is not one)


def copies(paths: Paths, tmp_path: Path) -> Paths:
    """Copies of a pair's files."""
    draft, base = tmp_path / "draft.gguf", tmp_path / "base.gguf"
    shutil.copy(paths[0], draft)
    shutil.copy(paths[1], base)
    return draft, base


@pytest.mark.parametrize("known", [False, also(True)], ids=["by place", "by hash"])
def test_another_model_of_the_same_size_in_the_same_place(
    kin: Paths, tmp_path: Path, folder: Path, known: bool
) -> None:
    here, messages = copies(kin, tmp_path), about(NOTES, FRANCE)
    for path in here if known else ():
        file_sha256(path)
    asked(here, folder, messages)
    assert min(reused(asked(here, folder, messages)).values()) > 256
    before, other = here[1].stat(), kin[0].read_bytes()
    assert len(other) >= before.st_size > len(other) * 0.9
    data = bytearray(here[1].read_bytes())
    data[-4096:] = bytes(4096)  # another last tensor
    here[1].write_bytes(data)
    os.utime(here[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert here[1].stat().st_size == before.st_size
    found = asked(here, folder, messages)
    assert found.cached["base"] == 0 and found.cached["draft"] > 256
    assert made(found) == made(asked(here, None, messages))


@pytest.mark.slow
def test_a_copy_elsewhere_is_the_same_model_where_its_hash_is_known(kin: Paths, tmp_path: Path, folder: Path) -> None:
    messages = about(NOTES, FRANCE)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = (copies(kin, tmp_path / name) for name in ("one", "two"))
    for path in (*one, *two):
        file_sha256(path)
    asked(one, folder, messages)
    assert min(reused(asked(two, folder, messages)).values()) > 256


@pytest.mark.parametrize(
    "loading",
    [
        replace(EXACT, cache_type_k="f16"),
        also(replace(EXACT, cache_type_v="f16")),
        also(replace(EXACT, cache_type_k="f16", cache_type_v="f16", flash_attn="on")),
    ],
    ids=["keys", "values", "attention"],
)
def test_contexts_of_another_kind_do_not_share(demo_f32: Paths, folder: Path, loading: LoadSettings) -> None:
    messages = about(NOTES, FRANCE)
    asked(demo_f32, folder, messages)
    found = asked(demo_f32, folder, messages, loading)
    assert reused(found) == {"draft": 0, "base": 0}
    assert min(reused(asked(demo_f32, folder, messages, loading)).values()) > 300


@pytest.mark.slow
def test_another_llama_cpp_does_not_share(demo_f32: Paths, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = about(NOTES, FRANCE)
    asked(demo_f32, folder, messages)
    monkeypatch.setattr(prompt_cache, "library_version", lambda: "llama-cpp-python 9.9, ggml 9")
    assert reused(asked(demo_f32, folder, messages)) == {"draft": 0, "base": 0}


def cut(data: bytes) -> bytes:
    """The end is missing."""
    return data[:-100]


def turned(data: bytes) -> bytes:
    """A bit of the state is another one."""
    return data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:]


def emptied(data: bytes) -> bytes:
    """Nothing is left."""
    return b""


@pytest.mark.parametrize("damage", [also(cut), turned, also(emptied)])
def test_a_damaged_file_is_ignored_and_removed(demo_f32: Paths, folder: Path, damage: Callable[[bytes], bytes]) -> None:
    messages = about(NOTES, FRANCE)
    first = asked(demo_f32, folder, messages)
    for state in files_in(folder).all():
        state.path.write_bytes(damage(state.path.read_bytes()))
    with opened(demo_f32, folder) as pair:
        found = pair.reply(messages)
    assert made(found) == made(first) and reused(found) == {"draft": 0, "base": 0}
    assert files_in(folder).all() == []


def test_a_state_that_llama_cpp_refuses_is_removed(demo_f32: Paths, folder: Path) -> None:
    messages = about(NOTES, FRANCE)
    first = asked(demo_f32, folder, messages)
    for state in files_in(folder).all():
        data = files_in(folder).payload(state)
        assert data is not None
        files_in(folder).remove(state)
        wrong = memoryview(data[:-8])
        facts = replace(state.facts, size=len(wrong), sha256=hashlib.sha256(wrong).hexdigest())
        files_in(folder).write(facts, state.tokens, wrong)
    with opened(demo_f32, folder) as pair:
        found = pair.reply(messages)
    assert made(found) == made(first) and reused(found) == {"draft": 0, "base": 0}
    assert files_in(folder).all() == []


@pytest.mark.parametrize("share", [also(0.3), 0.7, also(1.0)])
def test_a_sliding_window_loses_nothing(tmp_path: Path, folder: Path, share: float) -> None:
    paths = paths_of_kinds(tmp_path, ("sliding", "sliding"))
    notes = NOTES[:900]
    asked(paths, folder, about(notes, FRANCE), threshold=0.0)
    other = about(notes[: int(len(notes) * share)], EGG)
    found = asked(paths, folder, other, threshold=2.0)
    assert made(found) == made(asked(paths, None, other, threshold=2.0))
    assert min(reused(found).values()) > 150


@pytest.mark.parametrize(("kinds", "parallel"), [(("mamba", "lfm2"), 1), (("sliding", "sliding"), 2)], ids=str)
def test_memories_whose_states_cannot_be_continued_are_left_out(
    tmp_path: Path, folder: Path, kinds: tuple[str, str], parallel: int
) -> None:
    paths, loading = paths_of_kinds(tmp_path, kinds), replace(EXACT, parallel=parallel)
    messages = about(NOTES[:900], FRANCE)
    first, second = (asked(paths, folder, messages, loading) for _ in range(2))
    assert made(first) == made(second) and reused(second) == {"draft": 0, "base": 0}
    assert files_in(folder).all() == []


def test_replies_at_once_begin_with_what_one_has_left(demo_f32: Paths, folder: Path) -> None:
    asked(demo_f32, folder, about(NOTES, FRANCE), replace(EXACT, flash_attn="off", parallel=3))
    questions = [about(NOTES, question)[0]["content"] for question in (EGG, FRANCE, "Who are you?")]
    loading = replace(EXACT, parallel=3)
    with opened(demo_f32, None, loading) as pair:
        plain = dict(pair.replies(questions))
    with opened(demo_f32, folder, loading) as pair:
        found = dict(pair.replies(questions))
        assert pair.keep_prompts() is None
    assert {index: made(reply) for index, reply in found.items()} == {
        index: made(reply) for index, reply in plain.items()
    }
    assert all(min(reused(reply).values()) > 300 for reply in found.values())
    assert len(files_in(folder).all()) == 2


@pytest.fixture
def no_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be made, as its parent is a file."""
    (tmp_path / "file").write_text("here")
    yield tmp_path / "file" / "prompts"


def test_a_folder_that_cannot_be_written_is_reported_once(demo_f32: Paths, no_folder: Path) -> None:
    with opened(demo_f32, no_folder) as pair:
        reply = pair.reply(about(NOTES, FRANCE))
        first, second = pair.keep_prompts(), pair.keep_prompts()
    assert reply.text and second is None
    assert first is not None and "prompts cannot be kept" in first and str(no_folder) in first


def test_a_full_disk_is_reported_and_leaves_nothing(
    demo_f32: Paths, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with opened(demo_f32, folder) as pair:
        pair.reply(about(NOTES, FRANCE))
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", full)
            trouble = pair.keep_prompts()
    assert trouble is not None and "disk" in trouble.lower()
    assert [path.name for path in folder.iterdir()] == [".lock"]
