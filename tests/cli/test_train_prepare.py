"""`wsd-local train prepare` as a person runs it: a preference set in, a folder for the trainers out."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from command_line import complains, wsd
from data_sets import shared
from pyarrow import parquet

from wsd_local import files
from wsd_local.training import folder as writing
from wsd_local.training.columns import detected_columns
from wsd_local.training.pairs import pair_of

ROOT = Path(__file__).parents[2]
RECORDS = [{"prompt": f"Question {n}?", "chosen": f"Answer {n}.", "rejected": "Who knows."} for n in range(20)]


def saved(path: Path, records: list[Any] = RECORDS) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def prepare(data: Path | str, out: Path, *more: str) -> subprocess.CompletedProcess[bytes]:
    return wsd("train", "prepare", str(data), "--out", str(out), *more)


def test_a_folder_is_made_for_both_trainers(tmp_path: Path) -> None:
    out = tmp_path / "made" / "out"
    done = prepare(saved(tmp_path / "set.jsonl"), out)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    for words in ("20 of 20 records kept (100.0%)", "llamafactory-cli train draft_dpo.yaml", "are not published"):
        assert words in shown
    assert set(tree(out)) == {
        "data_llamafactory/dataset_info.json",
        "data_llamafactory/train.json",
        "data_llamafactory/validation.json",
        "data_trl/train.jsonl",
        "data_trl/validation.jsonl",
        "draft_dpo.yaml",
        "draft_dpo_trl.yaml",
        "prepared.json",
    }
    lines = (out / "data_trl" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 18 and len(json.loads((out / "data_llamafactory" / "validation.json").read_text())) == 2
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_every_form_of_a_file_gives_the_same_pairs(tmp_path: Path) -> None:
    lines = saved(tmp_path / "set.jsonl")
    listed, packed, rows = tmp_path / "set.json", tmp_path / "set.jsonl.gz", tmp_path / "set.parquet"
    listed.write_text(json.dumps(RECORDS, indent=2))
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    parquet.write_table(pyarrow.Table.from_pylist(RECORDS), rows)
    made = []
    for path in (lines, listed, packed, rows):
        assert prepare(path, tmp_path / f"out-{path.name}").returncode == 0
        made.append({k: v for k, v in tree(tmp_path / f"out-{path.name}").items() if k != "prepared.json"})
    assert made[0] and all(one == made[0] for one in made)


def test_what_is_left_out_is_shown_with_its_lines(tmp_path: Path) -> None:
    data = saved(tmp_path / "set.jsonl", [RECORDS[0], {**RECORDS[0], "rejected": "Answer 0."}, *RECORDS, 5])
    with data.open("a") as file:
        file.write('{"prompt": ')
    done = prepare(data, tmp_path / "out", "--json")
    found = json.loads(done.stdout)
    assert {one["reason"]: one["first_lines"] for one in found["left_out"]} == {
        "record": [23, 24],
        "same": [2],
        "twice": [3],
    }
    assert (found["kept"], found["source"]["records"]) == (20, 24) and found["share_kept"] == pytest.approx(20 / 24)
    assert json.loads((tmp_path / "out" / "prepared.json").read_text()).items() <= found.items()
    shown = prepare(data, tmp_path / "out", "--force").stdout.decode()
    assert [line.split()[-4:] for line in shown.splitlines() if line.startswith("not a JSON")] == [
        ["2", "8.3%", "23,", "24"]
    ]


def test_a_real_set_of_transcripts(tmp_path: Path) -> None:
    data = shared("hh_rlhf/harmless-base.test.jsonl.gz")
    found = json.loads(prepare(data, tmp_path / "out", "--json").stdout)
    assert found["columns"]["shape"] == "transcripts"
    assert {one["reason"]: one["count"] for one in found["left_out"]} == {"empty": 4, "turns": 9}
    assert found["kept"] == found["train"]["pairs"] + found["validation"]["pairs"] == 2299
    assert found["validation"]["pairs"] == 230
    sides = []
    for name in ("train", "validation"):
        lines = (tmp_path / "out" / "data_trl" / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
        records = [json.loads(line) for line in lines if line]
        sides.append({pair_of(record, detected_columns(records)).opening for record in records})
    assert all(sides) and not sides[0] & sides[1]


def test_a_model_s_tokenizer_counts(tmp_path: Path, demo_q8: tuple[Path, Path]) -> None:
    from wsd_local.llama import Model

    data = saved(tmp_path / "set.jsonl", RECORDS[:1])
    options = ("--json", "--validation", "0", "--tokenizer", str(demo_q8[0]))
    found = json.loads(prepare(data, tmp_path / "out", *options).stdout)
    with Model(demo_q8[0], vocab_only=True) as model:
        words = [len(model.tokenize_text(text)) for text in RECORDS[0].values()]
    assert found["tokens"]["longest"] == words[0] + max(words[1:]) + 16
    assert found["tokens"]["counted_by"] == str(demo_q8[0])


# -- an existing folder --------------------------------------------------------------------------------------


def test_a_folder_is_replaced_only_if_that_is_wanted(tmp_path: Path) -> None:
    data, out = saved(tmp_path / "set.jsonl"), tmp_path / "out"
    prepare(data, out)
    (out / "saves").mkdir()
    (out / "saves" / "model").write_text("trained")
    before = tree(out)
    complains(prepare(data, out, "--validation", "0"), 2, str(out), "--force")
    assert tree(out) == before
    assert prepare(data, out, "--validation", "0", "--force").returncode == 0
    after = tree(out)
    gone = {"data_trl/validation.jsonl", "data_llamafactory/validation.json"}
    assert set(before) - set(after) == gone and after["saves/model"] == b"trained"


def test_a_folder_of_other_files_is_never_written_to(tmp_path: Path) -> None:
    data, out = saved(tmp_path / "set.jsonl"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    complains(prepare(data, out, "--force"), 2, str(out), "--out")
    complains(prepare(data, data), 2, "is a file")
    assert tree(out) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("written", range(8))
def test_nothing_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """The disk is full after some files: no folder is left, or one that says so; the same command works later."""
    data, out = saved(tmp_path / "set.jsonl"), tmp_path / "out"
    real, count = files.write_text, iter(range(100))

    def full(path: Path, text: str) -> None:
        if next(count) == written:
            raise OSError(28, "No space left on device", str(path))
        real(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_text", full)
        complains(prepare(data, out), 1, "the disk is full")
    assert [path.name for path in tmp_path.iterdir()] == ["set.jsonl"]
    assert prepare(data, out).returncode == 0
    whole, count = tree(out), iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_text", full)
        complains(prepare(data, out, "--force"), 1, "the disk is full")
    assert json.loads((out / "prepared.json").read_text())["complete"] == (written == 0)
    assert prepare(data, out, "--force").returncode == 0 and tree(out) == whole


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "options", "words"),
    [
        ([{"prompt": "One?", "answer": "Yes."}], (), ("set.jsonl", "--chosen", "'prompt', 'answer'")),
        ([5, 6], (), ("set.jsonl", "no record is a JSON object")),
        (
            [{**RECORDS[0], "chosen": "Who knows."}],
            (),
            ("no record is a pair", "the chosen reply is the rejected one (1)"),
        ),
        (RECORDS, ("--prompt", "ask"), ("'ask'", "--prompt")),
        (RECORDS[:1], (), ("--validation 0",)),
        (RECORDS, ("--validation", "0.9"), ("validation is 0.9",)),
        (RECORDS, ("--cutoff", "0"), ("cutoff is 0",)),
        (RECORDS, ("--cutoff", "5"), ("longer than the cutoff (20)",)),
        (RECORDS, ("--seed", "-1"), ("seed is -1",)),
        (RECORDS, ("--model", "someone/own-model"), ("someone/own-model", "--template")),
    ],
)
def test_what_cannot_be_prepared_is_one_line(
    records: list[Any], options: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    data = saved(tmp_path / "set.jsonl", records)
    complains(prepare(data, tmp_path / "out", *options), 2, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("content", "words"), [(b"", "no record"), (b"hello\n", "is not JSON"), (b"PAR1", "Parquet")])
def test_a_file_that_is_no_preference_set_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_bytes(content)
    complains(prepare(tmp_path / "set.jsonl", tmp_path / "out"), 2, "set.jsonl", words)


def test_a_set_that_is_not_there_is_refused(tmp_path: Path) -> None:
    complains(prepare("hh_rhlf", tmp_path / "out"), 2, "hh_rlhf")
    complains(prepare(tmp_path / "none.jsonl", tmp_path / "out"), 2, "no such file")


# -- the trainers themselves ---------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Path]:
    """A prepared folder, which the test works in."""
    system = {"chosen": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}]}
    system["rejected"] = [*system["chosen"], {"role": "assistant", "content": "No."}]
    system["chosen"] = [*system["chosen"], {"role": "assistant", "content": "Yes."}]
    asked = [
        {
            side: [{"role": "user", "content": one["prompt"]}, {"role": "assistant", "content": one[side]}]
            for side in system
        }
        for one in RECORDS
    ]
    assert prepare(saved(tmp_path / "set.jsonl", [*asked, system]), tmp_path / "out").returncode == 0
    before = Path.cwd()
    os.chdir(tmp_path / "out")
    yield tmp_path / "out"
    os.chdir(before)


@pytest.mark.slow
def test_trl_reads_the_data_and_the_configuration(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trl = pytest.importorskip("trl", reason="expected: TRL is not installed")
    datasets = pytest.importorskip("datasets", reason="expected: datasets is not installed")
    monkeypatch.setattr("sys.argv", ["trl"])
    parser = trl.TrlParser((trl.ScriptArguments, trl.DPOConfig, trl.ModelConfig, trl.DatasetMixtureConfig))
    arguments = ["--config", "draft_dpo_trl.yaml", "--use_cpu"]
    script, training, model, _ = parser.parse_args_and_config(arguments)  # unknown names are an error here
    assert (training.learning_rate, training.beta, training.warmup_steps) == (5e-6, 0.1, 0.1)
    config = trl.get_peft_config(model)
    assert (config.r, config.lora_alpha, config.target_modules) == (8, 16, "all-linear")
    found = datasets.load_dataset(script.dataset_name, cache_dir=str(prepared.parent / "cache"))
    ours = {
        name: (prepared / "data_trl" / f"{name}.jsonl").read_text().splitlines() for name in ("train", "validation")
    }
    assert {name: [dict(row) for row in side] for name, side in found.items()} == {
        name: [json.loads(line) for line in lines] for name, lines in ours.items()
    }
    assert {script.dataset_train_split, script.dataset_test_split} == set(found)


LLAMA_FACTORY = """
import json, sys
from llamafactory.data.loader import _get_merged_dataset
from llamafactory.hparams import get_train_args
arguments = json.loads(sys.argv[1])
model, data, training, finetuning, _ = get_train_args(arguments)
sides = [_get_merged_dataset(names, model, data, training, "rm") for names in (data.dataset, data.eval_dataset)]
print("FOUND" + json.dumps([[dict(row) for row in side] for side in sides]))
"""


@pytest.mark.slow
def test_llama_factory_reads_the_data_and_the_configuration(prepared: Path) -> None:
    import yaml

    python = Path(os.environ.get("WSD_TEST_LLAMA_FACTORY") or ROOT / ".venv" / "llamafactory" / "bin" / "python")
    if not python.exists():
        pytest.skip(f"expected: there is no {python} (set WSD_TEST_LLAMA_FACTORY)")
    values = {**yaml.safe_load((prepared / "draft_dpo.yaml").read_text()), "use_cpu": True}
    done = subprocess.run([python, "-c", LLAMA_FACTORY, json.dumps(values)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]
    train, validation = json.loads(done.stdout.partition("FOUND")[2])
    assert len(train) == 19 and len(validation) == 2
    rows = [*train, *validation]
    assert {row["_system"] for row in rows} == {"", "Be brief."}
    assert all(row["_prompt"][-1]["role"] == "user" and len(row["_response"]) == 2 for row in rows)
    replies = sorted(row["_response"][0]["content"] for row in rows)
    assert replies == sorted(["Yes.", *(record["chosen"] for record in RECORDS)])
