"""Train the demo pair from nothing: `python models/training/train.py [--quick] [--out DIR] [--seed N]`.

Writes `draft-q8_0.gguf`, `base-q8_0.gguf` and the held-out questions, `questions.jsonl`, into the folder.
`--quick` makes a pair of the same kind in seconds; what it says is nonsense.
"""

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from corpus import Document, base_documents, draft_documents
from export import quantise, write_gguf
from net import Llama, Shape, parameter_count
from questions import write_questions
from torch import Tensor
from torch.nn import functional
from vocab import Vocab, train_vocab

ROW = 256
# Line breaks stand in expressions: readers that trim blocks drop a break after a block tag.
DRAFT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}"
    "{% if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """How one of the two models is made."""

    name: str
    description: str
    documents: Callable[[random.Random], Iterator[Document]]
    shape: Shape
    pre: str
    bos: str
    eos: str
    controls: tuple[str, ...]
    template: str | None
    tokens: int
    batch: int = 4
    peak: float = 3e-3


BASE = Recipe(
    "WSD demo base",
    "A pretrained-style model of a small world, for trying weak-to-strong decoding.",
    base_documents,
    Shape(1536, 256, 4, 8, 704),
    "llama-bpe",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    ("<|begin_of_text|>", "<|end_of_text|>"),
    None,
    2_700_000,
)
DRAFT = Recipe(
    "WSD demo draft",
    "A small friendly model of a small world, for trying weak-to-strong decoding.",
    draft_documents,
    Shape(1280, 128, 4, 4, 352),
    "gpt-2",
    "<|begin_of_chat|>",
    "<|im_end|>",
    ("<|begin_of_chat|>", "<|im_start|>", "<|im_end|>"),
    DRAFT_TEMPLATE,
    2_700_000,
)


def quick(recipe: Recipe) -> Recipe:
    """The same recipe for a test: a tenth of the width and a handful of steps."""
    small = Shape(512, 64, 2, 2, 96) if recipe.template is None else Shape(448, 32, 2, 2, 64)
    return replace(recipe, shape=small, tokens=30 * ROW * recipe.batch)


def encode(document: Document, vocab: Vocab, recipe: Recipe) -> tuple[list[int], list[float]]:
    """Ids and the loss weight of each: BOS, the text as llama.cpp would tokenise it, and the base's EOS."""
    ids, weights = [vocab.control(recipe.bos)], [0.0]
    for control, group in itertools.groupby(document, key=lambda part: part.control):
        parts = list(group)
        if control:
            ids += [vocab.control(part.text) for part in parts]
            weights += [part.weight for part in parts]
            continue
        by_character = [weight for part in parts for weight in [part.weight] * len(part.text)]
        pieces, starts = vocab.encode("".join(part.text for part in parts))
        ids += pieces
        weights += [by_character[start] for start in starts]
    if recipe.template is None:
        ids.append(vocab.control(recipe.eos))
        weights.append(1.0)
    return ids, weights


def pack(documents: Iterator[tuple[list[int], list[float]]], rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fill rows with whole documents: ids, weights and the number of the document at each place."""
    ids = torch.zeros(rows, ROW, dtype=torch.long)
    weights = torch.zeros(rows, ROW)
    numbers = torch.full((rows, ROW), -1, dtype=torch.long)
    waiting: list[tuple[list[int], list[float]]] = []
    for row in range(rows):
        used, number = 0, 0
        while len(waiting) < 12:
            waiting.append(next(documents))
        while fitting := [item for item in waiting if len(item[0]) <= ROW - used]:
            best = fitting[0]
            waiting.remove(best)
            end = used + len(best[0])
            ids[row, used:end] = torch.tensor(best[0])
            weights[row, used:end] = torch.tensor(best[1])
            numbers[row, used:end] = number
            used, number = end, number + 1
            waiting.append(next(documents))
        waiting = [item for item in waiting if len(item[0]) <= ROW]
    return ids, weights, numbers


def loss_of(model: Callable[[Tensor, Tensor], Tensor], ids: Tensor, weights: Tensor, numbers: Tensor) -> Tensor:
    """Weighted cross-entropy of the next token; never across the border of two documents."""
    logits = model(ids, numbers)[:, :-1]
    counted = weights[:, 1:] * (numbers[:, 1:] == numbers[:, :-1])
    losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * counted.flatten()).sum() / counted.sum()


def train(recipe: Recipe, vocab: Vocab, seed: int, compiled: bool) -> Llama:
    """AdamW with a short warm-up and a cosine to zero; progress goes to standard error."""
    torch.manual_seed(seed)
    rng = random.Random(f"{seed} {recipe.name} documents")
    documents = (encode(document, vocab, recipe) for document in recipe.documents(rng))
    model = Llama(recipe.shape)
    steps = max(1, recipe.tokens // (ROW * recipe.batch))
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.peak, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimiser,
        [
            torch.optim.lr_scheduler.LinearLR(optimiser, 0.02, total_iters=min(60, steps)),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps - 60), recipe.peak * 0.01),
        ],
        [min(60, steps)],
    )
    forward = torch.compile(model) if compiled else model
    print(f"{recipe.name}: {parameter_count(model):,} parameters, {steps} steps", file=sys.stderr)
    start = time.monotonic()
    for step in range(1, steps + 1):
        loss = loss_of(forward, *pack(documents, recipe.batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == steps:
            spent = time.monotonic() - start
            print(
                f"{recipe.name}: step {step}/{steps}, loss {loss.item():.3f}, {spent:.0f} s, "
                f"{spent / step * (steps - step):.0f} s to go",
                file=sys.stderr,
                flush=True,
            )
    return model


def recipe_vocab(recipe: Recipe, seed: int) -> Vocab:
    """The vocabulary that this seed's model gets, learnt from documents of its own."""
    rng = random.Random(f"{seed} {recipe.name} vocabulary")
    sample = itertools.islice(recipe.documents(rng), 800 if recipe.tokens < 1_000_000 else 12_000)
    texts = ["".join(part.text for part in document if not part.control) for document in sample]
    return train_vocab(texts, recipe.shape.vocab, recipe.pre, recipe.controls)


def make(recipe: Recipe, target: Path, seed: int, compiled: bool) -> None:
    """Vocabulary, training, GGUF, Q8_0."""
    vocab = recipe_vocab(recipe, seed)
    shape = replace(recipe.shape, vocab=len(vocab.tokens))
    recipe = replace(recipe, shape=shape)
    model = train(recipe, vocab, seed, compiled)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        full = Path(folder) / "f32.gguf"
        write_gguf(full, model, vocab, recipe.name, recipe.description, recipe.bos, recipe.eos, recipe.template)
        quantise(full, target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    parser.add_argument("--quick", action="store_true", help="a pair in seconds, for tests")
    parser.add_argument("--out", type=Path, default=here.parent / "demo", help="the folder to write into")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("base", "draft"), help="make one of the two")
    parser.add_argument("--compile", action="store_true", help="use torch.compile (needs a C++ compiler)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    recipes = {"draft": DRAFT, "base": BASE}
    for name, recipe in recipes.items():
        if args.only in (None, name):
            make(quick(recipe) if args.quick else recipe, args.out / f"{name}-q8_0.gguf", args.seed, args.compile)
    write_questions(args.out / "questions.jsonl", args.seed)


if __name__ == "__main__":
    main()
