"""Inflated models answer what the embedded pair answers: logits, tokens, replies.

Other width, depth, head size, head counts, feed-forward width and vocabulary, with F32 weights and caches, so that what
differs would be a fault of the inflating. Quantised ones are held to less, and told.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bench.inflate import LLAMA_8B, LLAMA_160M, Layout, Small, inflate, planned, rounded, spread
from bench.three_passes import load, three_passes
from exactness import EXACT
from oracle import Model, log_softmax
from shapes import LLAMA_1B, LLAMA_3B, Shape
from summary import Tell

from wsd_local.library.gguf import read_header
from wsd_local.library.quantize import quantize
from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings

SHAPES = {"draft": Shape(512, 6, 16, 8, 64, 1024), "base": Shape(768, 5, 24, 8, 64, 1536)}
VOCAB = 2048
TEXT = (
    "\n\n[User]\nWhat is the capital of France, please?\n\n[Assistant]\nThanks for asking! I am glad to help you out. "
    "The capital of France is Paris. I hope that helps! <|pad_1600|> <|pad_2047|> über 42\n\n"
)
QUESTIONS = 20
Both = tuple[Path, Path]


@pytest.fixture(scope="module")
def inflated(tmp_path_factory: pytest.TempPathFactory, demo_f32: Both) -> Both:
    folder = tmp_path_factory.mktemp("inflated")
    draft, base = (
        inflate(path, folder / path.name, SHAPES[role], "F32", VOCAB)
        for role, path in zip(("draft", "base"), demo_f32, strict=True)
    )
    return draft, base


def rows(path: Path, repeats: int = 3) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Tokens of a text, and the logits after each."""
    model = Model(path, 512, 1)
    tokens = model.bos + model.plain(TEXT * repeats)
    logits = model.rows(tokens)
    model.llama.close()
    return tokens, logits


@pytest.mark.parametrize("role", [0, 1], ids=["draft", "base"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_logits(demo_f32: Both, inflated: Both, tmp_path: Path, role: int, tied: bool) -> None:
    """Over some 200 tokens, so that a wrong rotary frequency would show; the texts of padding tokens are plain text."""
    path = inflated[role]
    if not tied:
        path = inflate(demo_f32[role], tmp_path / "untied.gguf", list(SHAPES.values())[role], "F32", VOCAB, tied=False)
    tokens, small = rows(demo_f32[role])
    large_tokens, large = rows(path)
    assert large_tokens == tokens
    n_vocab = small.shape[1]
    assert large.shape[1] == VOCAB
    shift = (large[:, :n_vocab] - small).mean(axis=1, keepdims=True)
    assert np.abs(large[:, :n_vocab] - small - shift).max() < 1e-3
    for ours, theirs in zip(large, small, strict=True):
        probabilities = np.exp(log_softmax(ours))
        assert np.abs(probabilities[:n_vocab] - np.exp(log_softmax(theirs))).max() < 1e-3
        assert probabilities[n_vocab:].sum() < 1e-12


@pytest.fixture(scope="module")
def pairs(demo_f32: Both, inflated: Both) -> Iterator[tuple[Pair, Pair]]:
    with (
        Pair(draft=demo_f32[0], base=demo_f32[1], loading=EXACT) as small,
        Pair(draft=inflated[0], base=inflated[1], loading=EXACT) as large,
    ):
        yield small, large


@pytest.mark.slow
def test_replies(pairs: tuple[Pair, Pair]) -> None:
    small, large = pairs
    questions = load_questions(demo_dir() / "questions.jsonl")
    some = questions[:: len(questions) // QUESTIONS][:QUESTIONS]
    assert len(some) == QUESTIONS
    for question in some:
        theirs, ours = (pair.reply(question.messages, max_tokens=72, probabilities=True) for pair in (small, large))
        assert ours.text == theirs.text
        assert ours.switch.index == theirs.switch.index
        assert [token.id for token in ours.tokens] == [token.id for token in theirs.tokens]
        for mine, other in zip(ours.tokens, theirs.tokens, strict=True):
            assert mine.prob is not None and other.prob is not None
            assert abs(mine.prob - other.prob) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "close"), [("F16", 0.001), ("Q4_0", 0.03), ("Q4_K_M", 0.03)])
def test_quantised(demo_f32: Both, tmp_path: Path, tell: Tell, kind: str, close: float) -> None:
    """How far probabilities are off; a real shape leaves more room than this one."""
    path = inflate(demo_f32[1], tmp_path / "base.gguf", SHAPES["base"], kind, VOCAB)
    (_, small), (_, large) = rows(demo_f32[1], 1), rows(path, 1)
    apart = [
        np.abs(np.exp(log_softmax(ours))[: len(theirs)] - np.exp(log_softmax(theirs))).max()
        for ours, theirs in zip(large, small, strict=True)
    ]
    tell(f"inflated, {kind}: probabilities off by {np.mean(apart):.1e} (mean), {np.max(apart):.1e} (most)")
    assert np.mean(apart) < close
    assert not list(tmp_path.glob(".*")), "the intermediate file is left"


@pytest.mark.slow
def test_llama_cpp_rounds_as_was_foreseen(demo_f32: Both, tmp_path: Path) -> None:
    """Each tensor has the planned type, and holds what `rounded` says."""
    path = quantize(demo_f32[1], tmp_path / "base.gguf", "Q4_K_M").path
    foreseen, whole, made = planned(demo_f32[1], "Q4_K_M"), Small.read(demo_f32[1]).tensors, Small.read(path).tensors
    types = {tensor.name: tensor.type for tensor in read_header(path).tensors}
    assert {name: types[name] for name in foreseen} == {name: kind.name for name, kind in foreseen.items()}
    assert {"Q4_K", "Q6_K"} <= {kind.name for kind in foreseen.values()}
    for name, kind in foreseen.items():
        assert np.array_equal(rounded(whole[name], kind), made[name])


@pytest.mark.parametrize("shape", [LLAMA_1B, LLAMA_3B, LLAMA_8B, LLAMA_160M])
def test_no_two_dimensions_in_one_place(demo_q8: Both, shape: Shape) -> None:
    for path in demo_q8 if shape is not LLAMA_160M else demo_q8[:1]:
        small = Small.read(path).shape
        layout = Layout.of(small, shape)
        for first, second in (layout.width, layout.units):
            places = [*first, *second]
            assert len(set(places)) == len(places)
        assert layout.constant not in {*layout.width[0], *layout.width[1]}
        group = shape.n_head // shape.n_head_kv
        assert len({head for both in layout.heads for head in both}) == 2 * small.n_head
        keys = [{head // group for head in both} for both in layout.heads]
        assert len(set.union(*keys)) == sum(map(len, keys))


def test_what_does_not_fit() -> None:
    with pytest.raises(AssertionError, match="do not fit"):
        spread(3, 0, 2)
    with pytest.raises(AssertionError, match="KV heads do not fit"):
        Layout.of(Shape(256, 4, 8, 8, 32, 704), Shape(1024, 4, 8, 4, 64, 2048))


@pytest.mark.slow
def test_three_passes_agree(demo_q8: Both) -> None:
    """The plain passes over the high-level API give the engine's replies; near a tie one may differ."""
    draft, base = load(demo_q8[0], n_ctx=1024, threads=1), load(demo_q8[1], n_ctx=1024, threads=1, logits_all=True)
    questions = load_questions(demo_dir() / "questions.jsonl")
    asked = [question.messages for question in questions[:: len(questions) // 10][:10]]
    theirs = [three_passes(draft, base, messages, draft_max_tokens=64, max_tokens=72) for messages in asked]
    scripted = three_passes(draft, base, asked[0], keep=theirs[0].kept_tokens - 2, draft_max_tokens=64, max_tokens=72)
    assert scripted.kept_tokens == theirs[0].kept_tokens - 2
    assert theirs[0].draft_text.startswith(scripted.text[:16])
    draft.close()
    base.close()
    with Pair(draft=demo_q8[0], base=demo_q8[1], loading=LoadSettings(threads=1)) as pair:
        ours = [pair.reply(list(messages), draft_max_tokens=64, max_tokens=72) for messages in asked]
    assert all(each.total_s > each.continue_s > 0 for each in theirs)
    assert sum(mine.text == other.text for mine, other in zip(ours, theirs, strict=True)) >= 9
    assert sum(mine.switch.index == other.index for mine, other in zip(ours, theirs, strict=True)) >= 9
