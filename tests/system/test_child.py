"""Child processes: nothing of the working folder is run, no secret is seen, and none is left."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from makers import random_llama
from makers_more import random_lora

from wsd_local.errors import CancelledError, ModelError
from wsd_local.library import convert as making
from wsd_local.library.checkpoint import local_checkpoint
from wsd_local.library.vetting import amx_works, vet
from wsd_local.reports.doctor import gpu_here
from wsd_local.system import child

pytestmark = pytest.mark.skipif(os.name == "nt", reason="expected: scripts and signals of POSIX")

PACKAGES = {"wsd_local", "wsd_chat", "torch", "transformers", "sentencepiece", "sitecustomize", "usercustomize"}


@pytest.fixture
def poisoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, full of modules by the names of all that a program could import, and of programs."""
    folder = tmp_path / "poisoned"
    folder.mkdir()
    code = f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__ + '\\n')\n"
    names = PACKAGES | set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    for name in names:
        if name.isidentifier():
            (folder / f"{name}.py").write_text(code)
    for name in ("wsd_local", "wsd_chat", "pip", "jinja2", "numpy", "llama_cpp"):
        (folder / f"{name}.py").unlink()
        (folder / name).mkdir()
        for file in ("__init__.py", "__main__.py"):
            (folder / name / file).write_text(code)
    for name in ("nvidia-smi", "xclip", "python", "python3"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path / 'ran'}\necho GPU 0\n")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    return folder


@pytest.fixture
def ran(poisoned: Path) -> Callable[[], str]:
    """What was run of the working folder."""
    marker = poisoned.parent / "ran"
    return lambda: marker.read_text() if marker.exists() else ""


MODEL, LORA = "model.gguf", "lora.gguf"
COMMANDS = [
    ["--help"],
    ["--version"],
    ["run", "hi", "--max-tokens", "4"],
    ["run", "hi", "--mode", "base", "--base", MODEL, "--max-tokens", "4"],
    ["run", "hi", "--mode", "base", "--base", MODEL, "--base-lora", LORA, "--max-tokens", "4"],
    ["run", "--input", "data.jsonl", "--output", "out.jsonl", "--max-tokens", "4"],
    ["run", "hi", "--json-schema", "schema.json", "--max-tokens", "4"],
    ["chat", "--help"],
    ["chats", "list"],
    ["models", "list"],
    ["models", "list", "--elsewhere"],
    ["models", "show", MODEL],
    ["models", "import", MODEL, "--as", "mine"],
    ["models", "quantize", "f32.gguf", "Q4_0", "--output", "small.gguf"],
    ["models", "convert", "checkpoint"],
    ["models", "rm", "nothing"],
    ["fit", "--base", MODEL],
    ["bench", "--help"],
    ["config", "show"],
    ["eval", "--help"],
    ["doctor"],
]
OUTCOMES = {"convert": (1, 3), "rm": (2, 3)}
"""Exit codes of those that do not end well, by a word of theirs."""


def taken_by_python(folder: Path) -> list[str]:
    """Modules that `python -m` imports, from the working folder if they are there, before the program begins."""
    (folder / "empty.py").write_text("import sys; print(*sys.modules)")
    done = subprocess.run([sys.executable, "-m", "empty"], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("how", ["command", pytest.param("module", marks=pytest.mark.slow)])
def test_no_command_runs_what_lies_in_the_working_folder(
    how: str, poisoned: Path, ran: Callable[[], str], demo_q8: tuple[Path, Path]
) -> None:
    """As a command, and with `python -m`, which takes the package itself from there, but must take nothing else."""
    shutil.copy(demo_q8[1], MODEL)
    random_llama(Path("f32.gguf"))
    random_lora(Path(LORA), Path(MODEL))
    Path("data.jsonl").write_text('{"prompt": "hi"}\n')
    Path("schema.json").write_text('{"type": "boolean"}')
    Path("checkpoint").mkdir()
    Path("checkpoint/config.json").write_text("{}")
    if how == "module":
        shutil.rmtree("wsd_local")
        for name in taken_by_python(poisoned.parent):
            Path(f"{name}.py").unlink(missing_ok=True)
    program = [str(Path(sys.executable).with_name("wsd-local"))]
    for arguments in COMMANDS:
        command = [*(program if how == "command" else [sys.executable, "-m", "wsd_local"]), *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert ran() == "", arguments
        wanted = next((codes for word, codes in OUTCOMES.items() if word in arguments), (0,))
        assert done.returncode in wanted, (arguments, done.stderr)


def test_no_child_runs_what_lies_in_the_working_folder(
    poisoned: Path, ran: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a command starts only on some machines."""
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "verdicts"))
    monkeypatch.setenv("PATH", os.pathsep.join(["", ".", str(poisoned), os.environ["PATH"]]))
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(poisoned))
    monkeypatch.setenv("PYTHONSTARTUP", str(poisoned / "json.py"))
    monkeypatch.setattr("wsd_local.llama.devices.cpu_features", lambda: {"AMX_INT8"})
    assert amx_works()
    assert making._package_index().startswith("http")
    assert gpu_here() != "cuda" or child.program("nvidia-smi") is not None
    assert child.program("xclip") != str(poisoned / "xclip")
    vet(random_llama(tmp_path / "m.gguf"))
    source = tmp_path / "llama.cpp"
    for name in ("conversion", "gguf-py"):
        (source / name).mkdir(parents=True)
    (source / "convert_hf_to_gguf.py").write_text("import json\nraise ValueError('nothing was planted')\n")
    monkeypatch.setenv("WSD_LOCAL_LLAMA_CPP", str(source))
    monkeypatch.setattr(making, "EXTRA", ())
    Path("checkpoint").mkdir()
    Path("checkpoint/config.json").write_text("{}")
    Path("checkpoint/pytorch_model.bin").write_bytes(bytes(64))
    with pytest.raises(ModelError, match=r"nothing was planted|No module named 'transformers'"):
        making.convert(local_checkpoint("checkpoint"), tmp_path / "made.gguf")
    assert ran() == ""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module that children can find, out of its code; its name."""
    folder = tmp_path / "own-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def made(code: str) -> str:
        (folder / "child_of_a_test.py").write_text(code)
        return "child_of_a_test"

    return made


def test_a_child_sees_what_it_needs_and_no_secret(
    module: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "PASSWORD", "LLAMA_API_KEY", "CUDA_TOKEN"}
    secrets |= {"PIP_INDEX_URL", "HTTPS_PROXY", "PYTHONPATH", "PYTHONSTARTUP", "ANYTHING", "NO_LOCAL_GGUF"}
    monkeypatch.chdir(tmp_path)
    here = module("import os; print(sorted(os.environ.items()))")
    for name in secrets:
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("HF_HOME", "relative/hub")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{os.pathsep}lib{os.pathsep}")
    found = dict(eval(child.output([here])))
    assert "canary" not in found.values() and not found.keys() & secrets
    assert found["CUDA_VISIBLE_DEVICES"] == "0" and found["PATH"] == os.environ["PATH"]
    assert found["HF_HOME"] == str(tmp_path / "relative" / "hub"), "the child works in another folder"
    assert found["LD_LIBRARY_PATH"] == str(tmp_path / "lib"), "an empty entry would be the working folder"
    assert dict(eval(child.output([here], needs=["OPENAI_API_KEY"])))["OPENAI_API_KEY"] == "canary"


def test_a_child_inherits_nothing(
    module: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "import os, sys, wsd_local\n"
        "opened = [n for n in range(3, 64) if os.path.exists(f'/dev/fd/{n}') and os.get_inheritable(n)]\n"
        "print([sys.stdin.read(), opened, os.getcwd(), sys.flags.isolated, wsd_local.__file__, '' in sys.path])"
    )
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        stdin, opened, folder, isolated, package, _ = eval(child.output([module(code)]))
    here = Path(child.__file__).parents[1]
    assert (stdin, opened, isolated) == ("", [], 1)
    assert (Path(folder), Path(package)) == (here, here / "__init__.py")


def test_a_child_finds_what_this_process_finds(
    module: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages may be in a folder by any name; in the working folder they are not looked for."""
    here = module("import sys; print(sys.path)")
    for name in ("elsewhere", "here"):
        (tmp_path / name / "jinja2").mkdir(parents=True)
        (tmp_path / name / "jinja2" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    for folder, wanted in (("elsewhere", True), ("here", False)):
        with monkeypatch.context() as patch:
            for loaded in [name for name in sys.modules if name.partition(".")[0] == "jinja2"]:
                patch.delitem(sys.modules, loaded)
            patch.syspath_prepend(str(tmp_path / folder))
            assert (str(tmp_path / folder) in eval(child.output([here]))) is wanted


FAMILY = """
import subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(other.pid, flush=True)
time.sleep(1000)
"""


def test_a_stopped_child_is_ended_with_what_it_started(module: Callable[[str], str]) -> None:
    stops: list[Callable[[], None]] = []
    started: list[psutil.Process] = []

    def heard(line: str) -> None:
        started.append(psutil.Process(int(line)))
        stops[0]()

    with pytest.raises(CancelledError):
        child.run([module(FAMILY)], heard, stops.append)
    assert psutil.wait_procs(started, 60)[1] == []


def test_a_child_ends_with_its_parent(module: Callable[[str], str]) -> None:
    name = module(FAMILY)
    code = f"""
import sys; sys.path.insert(0, {sys.path[0]!r})
from wsd_local.system import child
one = child.start([{name!r}])
print(one.pid, one.stdout.readline().decode(), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        family = [psutil.Process(int(word)) for word in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(family, 60)[1] == []


_NAMES = re.compile(r'^ +"[\w.]+",$', re.MULTILINE)
"""Names of audit events in a list, one to a line: they start nothing."""
STARTS = re.compile(
    r"subprocess\.(?!PIPE|DEVNULL|STDOUT|Popen\[|TimeoutExpired)\w+|multiprocessing|os\.(system|popen|exec|spawn|fork)"
)


def test_processes_are_started_in_one_place() -> None:
    root = Path(child.__file__).parents[2]
    files = [*(root / "wsd_local").rglob("*.py"), *(root / "tui").rglob("*.py")]
    assert len(files) > 50
    found = {file.name: STARTS.findall(_NAMES.sub("", file.read_text(encoding="utf-8"))) for file in files}
    assert sorted(name for name, places in found.items() if places) == [
        "child.py",
        "installing.py",  # runs before anything is installed
    ]


def test_a_child_that_takes_too_long_or_fails_says_nothing(module: Callable[[str], str]) -> None:
    assert child.output([module("import time; print('x', flush=True); time.sleep(1000)")], patience=0.2) == ""
    assert child.output([module("print('x'); raise SystemExit(3)")]) == ""
    assert child.output([module("print('x')")]) == "x\n"


def test_a_program_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\ncat\necho "$HF_TOKEN$TMUX" "$@"\nexit 3\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HF_TOKEN", "canary")
    monkeypatch.setenv("TMUX", "tmux")
    assert child.use(["tool", "a"], given=b"text ", needs=["TMUX"], patience=60) == (3, b"text tmux a\n")
    assert child.use(["no-such-tool"], patience=60) is None
    tool.write_text("#!/bin/sh\nsleep 1000\n")
    assert child.use(["tool"], patience=0.2) is None
