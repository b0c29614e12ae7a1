"""The training script's quick run makes a pair that llama.cpp loads, splits text alike and generates with."""

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = Path(__file__).resolve().parents[2] / "models" / "training"
MISSING = [name for name in ("torch", "tokenizers") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"expected: the train extra is not installed ({MISSING})")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    subprocess.run(
        [sys.executable, str(TRAINING / "train.py"), "--quick", "--out", str(folder)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


@pytest.mark.parametrize("name", ["base", "draft"])
def test_quick_models_load_and_generate(pair: Path, name: str) -> None:
    from llama_cpp import Llama

    model = Llama(str(pair / f"{name}-q8_0.gguf"), n_ctx=128, verbose=False, n_threads=1)
    assert model.metadata["general.architecture"] == "llama"
    assert model.metadata["general.license"] == "apache-2.0"
    assert ("tokenizer.chat_template" in model.metadata) == (name == "draft")
    prompt = model.tokenize(b"Hello", add_bos=True)
    assert prompt[0] == model.token_bos()
    model.eval(prompt)
    assert 0 <= model.sample(temp=0) < model.n_vocab()


@pytest.mark.parametrize(("name", "pre"), [("base", "llama-bpe"), ("draft", "gpt-2")])
def test_training_and_llama_cpp_split_text_alike(
    pair: Path, name: str, pre: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llama_cpp import Llama

    monkeypatch.syspath_prepend(str(TRAINING))
    import train

    recipe = train.quick(train.BASE if name == "base" else train.DRAFT)
    vocab = train.recipe_vocab(recipe, seed=1)
    model = Llama(str(pair / f"{name}-q8_0.gguf"), vocab_only=True, verbose=False)
    documents = recipe.documents(random.Random(5))
    texts = [part.text for _ in range(40) for part in next(documents) if not part.control]
    texts += ["\n\n[User]\nHi!\n\n[Assistant]\n  two  spaces\t\n\n", "12345 l'été, it's 7% off — naïve 日本"]
    assert vocab.pre == pre
    for text in texts:
        assert vocab.encode(text)[0] == model.tokenize(text.encode(), add_bos=False, special=False)


def test_quick_run_writes_the_held_out_questions(pair: Path) -> None:
    from wsd_local.reports.demo import load_questions

    questions = load_questions(pair / "questions.jsonl")
    assert sum(question.group == "facts" for question in questions) >= 300


@pytest.mark.parametrize("trim", [False, True])
def test_the_stored_template_renders_what_the_draft_was_trained_on(
    pair: Path, trim: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from llama_cpp import Llama

    monkeypatch.syspath_prepend(str(TRAINING))
    import corpus

    template = Llama(str(pair / "draft-q8_0.gguf"), vocab_only=True, verbose=False).metadata["tokenizer.chat_template"]
    render = ImmutableSandboxedEnvironment(trim_blocks=trim, lstrip_blocks=trim).from_string(template).render
    for _, document in zip(range(50), corpus.draft_documents(random.Random(3)), strict=False):
        trained = "".join(part.text for part in document)
        messages = []
        for turn in trained.removeprefix("<|im_start|>").removesuffix("<|im_end|>").split("<|im_end|>\n<|im_start|>"):
            role, content = turn.split("\n", 1)
            messages.append({"role": role, "content": content})
        assert render(messages=messages, add_generation_prompt=False) == trained
        prompt = render(messages=messages[:-1], add_generation_prompt=True)
        assert trained == prompt + messages[-1]["content"] + "<|im_end|>"
