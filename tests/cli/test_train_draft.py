"""`wsd-local train draft` as a person runs it: a tiny model, a preference set, and a draft that writes a reply."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from checkpoints import WORDS, logprobs, named_converter, needed, tiny_checkpoint
from command_line import complains, started, wsd

from wsd_local.cli import train_draft
from wsd_local.cli.train_draft import DraftOptions, chart
from wsd_local.errors import FitError, UsageError, WsdError
from wsd_local.library.checkpoint import Checkpoint
from wsd_local.library.convert import convert
from wsd_local.library.gguf import read_header
from wsd_local.library.registry import known
from wsd_local.library.vetting import vet_adapter
from wsd_local.paths import data_dir
from wsd_local.reports.draft_check import measuring
from wsd_local.training import running
from wsd_local.training.job import Job, Method, ModelSize, memory_needed, read_job
from wsd_local.training.running import read_log, steps_done, train
from wsd_local.training.worker import MARK, WHOLE, last_checkpoint

QUICK = (
    "--accumulation",
    "1",
    "--validation",
    "0.2",
    "--learning-rate",
    "0.001",
    "--save-every",
    "2",
    "--threads",
    "1",
)
JOB = Job(model="m", gguf=None, source={"weights": "a", "pairs": "b"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in running.EXTRA:
        needed(name)
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Tiny-Llama")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A preference set in words that the tiny model's tokenizer knows."""
    path = tmp_path / "set.jsonl"
    records = [
        {"prompt": f"what is {word}", "chosen": f"{word} is good", "rejected": f"{word} is snow"}
        for word in set(WORDS[:12])
    ]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in sorted(records, key=str)))
    return path


def trained(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return wsd("train", "draft", *arguments, *QUICK)


@pytest.mark.slow
def test_a_tiny_model_is_trained_and_writes_a_reply(
    checkpoint: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, demo_q8: tuple[Path, Path]
) -> None:
    named_converter(monkeypatch)
    done = trained(str(checkpoint), str(pairs), "--out", "mine", "--max-steps", "10", "--json")
    found = json.loads(done.stdout)
    faults = {one["symptom"] for one in found["check"]["findings"] if one["verdict"] == "fault"}
    assert faults <= {"endings"}, found["check"]["findings"]  # what was random writes on and on
    assert done.returncode == (1 if faults else 0), done.stderr.decode()
    assert [one["file"] for one in found["check"]["figures"]["logits"]] == ["f16.gguf", "mine.gguf"]
    assert not list((data_dir() / "training" / "mine").glob("*.gguf"))
    assert known()["mine"].path == Path(found["path"]) and known()["mine"].origin == "made"
    losses = [line["loss"] for line in found["log"] if "loss" in line]
    assert len(losses) == 10 and losses[-1] < losses[0]
    assert any("validation_accuracy" in line for line in found["log"])
    reply = wsd(
        "run", "what is bread", "--draft", "mine", "--base", str(demo_q8[1]), "--mode", "draft", "--max-tokens", "8"
    )
    assert reply.returncode == 0 and reply.stdout.strip(), reply.stderr
    complains(trained(str(checkpoint), str(pairs), "--out", "mine"), 2, "mine", "--force")


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on(checkpoint: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named_converter(monkeypatch)
    asked = (str(checkpoint), str(pairs), "--out", "mine", "--max-steps", "30", *QUICK[:-2])
    folder = data_dir() / "training" / "mine"
    with started("train", "draft", *asked) as process:
        while last_checkpoint(folder) is None and process.poll() is None:
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        psutil.wait_procs(family)
    saved = steps_done(folder)
    assert 0 < saved < 30
    complains(trained(*asked), 2, "--resume")
    complains(trained(*asked, "--resume", "--rank", "4"), 2, "rank is 4", "began with 8")
    done = trained(*asked, "--resume")
    assert b"\nmine.gguf: " in done.stdout, done.stderr.decode()  # the check's verdict
    steps = [line["step"] for line in read_log(folder) if "loss" in line]
    assert steps == list(range(1, 31))
    assert f"step {saved + 1}/30" in done.stderr.decode() and f"step {saved}/30" not in done.stderr.decode()
    assert "mine" in known()
    complains(trained(*asked, "--resume"), 2, "finished")


@pytest.mark.slow
def test_an_adapter_alone_goes_on_top_of_its_model(
    checkpoint: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_converter(monkeypatch)
    asked = (str(checkpoint), str(pairs), "--out", "mine", "--max-steps", "4", "--adapter-only")
    done = trained(*asked, "--html", str(tmp_path / "training.html"))
    assert done.returncode == 0, done.stderr.decode()
    said = done.stderr.decode()
    assert f"wsd-local models convert {checkpoint} --as MODEL" in said
    assert "wsd-local run PROMPT --draft MODEL --draft-lora mine" in said
    assert "Reward margin" in (tmp_path / "training.html").read_text()
    assert not (data_dir() / "training" / "mine" / "merged").exists()
    base = convert(Checkpoint(checkpoint), tmp_path / "base.gguf", "f32")
    vet_adapter(known()["mine"].path, base)
    text = " ".join(WORDS[:20])
    assert logprobs(base, text)[1].tolist() != logprobs(base, text, known()["mine"].path)[1].tolist()
    again = tmp_path / "again.gguf"
    done = wsd("models", "convert", str(data_dir() / "training" / "mine" / "adapter"), "--output", str(again))
    assert done.returncode == 0, done.stderr
    assert read_header(again).tensors == read_header(known()["mine"].path).tensors


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_all_weights_of_a_gguf_file_are_trained(method: Method, demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    for name in running.EXTRA:
        needed(name)
    path = demo_q8[0]
    job = Job(model=str(path.parent), gguf=path.name, source={}, method=method, full=True, max_steps=2, accumulation=1)
    replace(job, threads=1).save(tmp_path)
    asked = [{"role": "user", "content": "What is the capital of Peru?"}]
    sides = {
        name: [{"role": "assistant", "content": text}] for name, text in (("chosen", "Lima."), ("rejected", "No."))
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(f"{json.dumps({'prompt': asked, **sides})}\n" * 2)
    events: list[dict[str, Any]] = []
    train(tmp_path, events.append, lambda _stop: None)
    assert events[-1]["kind"] == "trained" and len([line for line in read_log(tmp_path) if "loss" in line]) == 2
    assert (tmp_path / "merged" / "model.safetensors").is_file() and not (tmp_path / "adapter").exists()


# -- without a trainer ---------------------------------------------------------------------------------------


def test_what_is_missing_is_named(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trl" else object())
    complains(trained("model", str(pairs), "--out", "mine"), 1, "training needs trl", "pip install", "peft")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rank", "0"), "rank is 0"),
        (("--epochs", "0"), "epochs is 0"),
        (("--max-steps", "0"), "max-steps is 0"),
        (("--resume", "--force"), "--resume and --force"),
        (("--method", "ppo"), "ppo"),
        (("--adapter-only", "--full"), "--adapter-only and --full"),
        (("--adapter-only", "--type", "F16"), "--adapter-only and --type"),
        (("--out", "a/b"), "give --out letters"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: tuple[str, ...], words: str, pairs: Path) -> None:
    complains(wsd("train", "draft", "model", str(pairs), "--out", "mine", *options), 2, words)


def test_memory_grows_with_what_is_trained() -> None:
    size = ModelSize(135_000_000, 30, 576, 49152)
    usual = memory_needed(JOB, size, 2048, 4)
    assert 135_000_000 * 4 < usual < 8 << 30
    for more in ({"full": True}, {"batch": 2}):
        assert memory_needed(Job(model="m", gguf=None, source={}, **more), size, 2048, 4) > usual
    assert memory_needed(JOB, size, 256, 4) < usual
    assert memory_needed(JOB, size, 1 << 20, 4) == usual


def test_a_job_is_kept_and_only_the_same_one_goes_on(tmp_path: Path) -> None:
    JOB.save(tmp_path)
    assert read_job(tmp_path) == JOB
    Job(model="elsewhere", gguf=None, source=JOB.source, threads=3, max_steps=5).check_same(JOB)
    with pytest.raises(UsageError, match=r"beta is 0\.2, and the training began with 0\.1"):
        Job(model="m", gguf=None, source=JOB.source, beta=0.2).check_same(JOB)
    with pytest.raises(UsageError, match="no training began here"):
        read_job(tmp_path / "other")


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    for step, whole in ((2, True), (10, True), (12, False)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if whole:
            (folder / WHOLE).write_text("")
    assert steps_done(tmp_path) == 10
    shutil.rmtree(tmp_path / "checkpoints")
    assert steps_done(tmp_path) == 0


def scripted(monkeypatch: pytest.MonkeyPatch, *reports: dict[str, Any] | str, code: int = 0) -> None:
    """Let the process that trains write these lines."""
    lines = [one if isinstance(one, str) else MARK + json.dumps(one) for one in reports]

    def run(_arguments: object, on_line: Any, _stoppable: object) -> tuple[int, list[str]]:
        for line in lines:
            on_line(line)
        return code, lines

    monkeypatch.setattr(running, "run", run)


def test_a_training_that_goes_on_logs_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / running.LOG
    log.write_text('{"step": 1, "loss": 0.7}\n{"step": 2, "loss": 0.6}\n{"step": 3, "lo')
    whole = tmp_path / "checkpoints" / "checkpoint-1"
    whole.mkdir(parents=True)
    (whole / WHOLE).write_text("")
    values = {"loss": 0.5, "rewards/margins": 0.1, "lr": 5e-6}
    scripted(monkeypatch, {"kind": "log", "step": 2, "values": values}, "noise", {"kind": "trained"})
    seen: list[dict[str, Any]] = []
    train(tmp_path, seen.append, lambda _stop: None)
    assert read_log(tmp_path) == [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.5, "margin": 0.1}]
    assert [event["kind"] for event in seen] == ["log", "trained"]


@pytest.mark.parametrize(
    ("reports", "error", "words"),
    [
        (({"kind": "memory", "needed": 8 << 30, "free": 1 << 30, "parameters": 5},), FitError, "8.00 GiB"),
        (({"kind": "fault", "text": "the model has no chat template"},), WsdError, "no chat template"),
        (("Traceback", "ValueError: no such tensor"), WsdError, "no such tensor"),
        ((), WsdError, "exit code 1"),
    ],
)
def test_why_a_training_failed_is_one_line(
    reports: tuple[Any, ...], error: type[WsdError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, *reports, code=1)
    with pytest.raises(error, match=words):
        train(tmp_path, lambda _event: None, lambda _stop: None)


def test_a_draft_that_cannot_be_checked_is_there_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise FitError("it needs 9.00 GiB")

    monkeypatch.setattr(measuring, "measure", no_room)
    assert train_draft._checked(tmp_path, tmp_path / "mine.gguf", None, DraftOptions(out="mine")) is None
    said = capsys.readouterr().err
    assert "the draft is made, and was not checked: it needs 9.00 GiB" in said
    assert f"wsd-local train check {tmp_path / 'merged'} mine" in said


@pytest.mark.parametrize(
    ("values", "bars"), [([1.0, 2.0, 3.0], "▁▅█"), ([5.0], "▁"), ([1.0] * 61, "▁" * 31), ([0.0, 1.0] * 60, "▁" * 60)]
)
def test_a_chart_goes_from_the_least_to_the_largest(values: list[float], bars: str) -> None:
    assert chart(values) == bars
