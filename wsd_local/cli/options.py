"""Options that several commands share, declared once."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

_MODELS, _RULE, _MACHINE = "Models", "Weak-to-Strong Decoding", "Machine"
_SAMPLING, _DRAFTING = "Continuation", "Drafting"
_DATA = "Data sets"


class OnDraftEnd(str, enum.Enum):
    """What happens when the draft has finished and no window passed."""

    CONTINUE = "continue"
    STOP = "stop"


class OnError(str, enum.Enum):
    """What happens when a record cannot be answered."""

    SKIP = "skip"
    STOP = "stop"


class FlashAttn(str, enum.Enum):
    """Flash attention."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"


class LoadKind(str, enum.Enum):
    """Ways of loading, by llama.cpp's names."""

    AUTO = "auto"
    NONE = "none"
    MMAP = "mmap"
    MLOCK = "mlock"
    MMAP_MLOCK = "mmap+mlock"
    DIO = "dio"


class Residency(str, enum.Enum):
    """Models in memory at the same time."""

    BOTH = "both"
    ONE = "one"


class Proposals(str, enum.Enum):
    """Where proposals for the continuation come from."""

    AUTO = "auto"
    DRAFT = "draft"
    LOOKUP = "lookup"
    OFF = "off"


class CacheKind(str, enum.Enum):
    """KV cache types."""

    AUTO = "auto"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q5_1 = "q5_1"
    Q5_0 = "q5_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"
    IQ4_NL = "iq4_nl"


DATA_SET_ONLY = ("output", "form", "column", "limit", "shard", "parallel", "on_error", "export", "quiet")
SPELLED = {"form": "format"}
"""Parameters whose option is spelled otherwise."""

Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="Data set to answer: a file, a public set by name, or - for JSON lines on standard input.",
        rich_help_panel=_DATA,
    ),
]
OutputFile = Annotated[
    Path | None,
    typer.Option(
        "--output", help="File for the replies, a JSON line each; the same command goes on.", rich_help_panel=_DATA
    ),
]
InputFormat = Annotated[
    str | None, typer.Option("--format", help="The input's format, if it is not seen.", rich_help_panel=_DATA)
]
Column = Annotated[str | None, typer.Option(help="Column of a table that holds the prompts.", rich_help_panel=_DATA)]
Limit = Annotated[int | None, typer.Option(help="Answer only the first records.", rich_help_panel=_DATA)]
Shard = Annotated[str | None, typer.Option(help="i/n: only every n-th record, from the i-th.", rich_help_panel=_DATA)]
Parallel = Annotated[
    str, typer.Option(help="Replies at once: a number, or auto: what memory and speed allow.", rich_help_panel=_DATA)
]
OnErrorOption = Annotated[
    OnError, typer.Option("--on-error", help="When a record cannot be answered.", rich_help_panel=_DATA)
]
Export = Annotated[
    list[str] | None,
    typer.Option(
        "--export",
        help="Write also what a judge reads: alpaca_eval, arena_hard, mt_bench, truthfulqa, hh, authors.",
        rich_help_panel=_DATA,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.", rich_help_panel=_DATA)]
UrialFile = Annotated[
    Path | None, typer.Option("--urial", help="Text file with the prompt of --mode urial.", rich_help_panel=_RULE)
]
Pair = Annotated[
    str | None,
    typer.Option(help="Pair by name. [default: the configuration's, else demo]", rich_help_panel=_MODELS),
]
Draft = Annotated[
    str | None, typer.Option(help="Draft model by path or name, instead of the pair's.", rich_help_panel=_MODELS)
]
Base = Annotated[
    str | None, typer.Option(help="Base model by path or name, instead of the pair's.", rich_help_panel=_MODELS)
]
DraftLora = Annotated[
    Path | None, typer.Option("--draft-lora", help="LoRA adapter (GGUF) for the draft.", rich_help_panel=_MODELS)
]
DraftLoraScale = Annotated[float, typer.Option("--draft-lora-scale", help="Its strength.", rich_help_panel=_MODELS)]
BaseLora = Annotated[
    Path | None, typer.Option("--base-lora", help="LoRA adapter (GGUF) for the base.", rich_help_panel=_MODELS)
]
BaseLoraScale = Annotated[float, typer.Option("--base-lora-scale", help="Its strength.", rich_help_panel=_MODELS)]
BaseFormatFile = Annotated[
    Path | None,
    typer.Option("--base-format", help="TOML file: how the base is shown a conversation.", rich_help_panel=_MODELS),
]
Window = Annotated[int, typer.Option(help="Base tokens in the window.", rich_help_panel=_RULE)]
Threshold = Annotated[
    float, typer.Option(help="Confidence at which the base takes over; above 1 it never does.", rich_help_panel=_RULE)
]
DraftMaxTokens = Annotated[int, typer.Option(help="Longest draft, in draft tokens.", rich_help_panel=_RULE)]
OnEnd = Annotated[
    OnDraftEnd,
    typer.Option("--on-draft-end", help="When the draft ends without a switch.", rich_help_panel=_RULE),
]
CheckChunk = Annotated[
    int,
    typer.Option(help="Base tokens of the draft checked together; changes time, not the reply.", rich_help_panel=_RULE),
]
Speculation = Annotated[
    Proposals,
    typer.Option(
        help="What proposes tokens that the base verifies together, where that pays: the draft, the text itself "
        "(lookup), both (auto); changes time, not the reply.",
        rich_help_panel=_SAMPLING,
    ),
]
Mode = Annotated[
    str,
    typer.Option(help="wsd, base or draft (alone), fixed:K (keep K tokens), or urial.", rich_help_panel=_RULE),
]
MaxTokens = Annotated[int, typer.Option(help="Longest reply, in base tokens.", rich_help_panel=_SAMPLING)]
Temperature = Annotated[float, typer.Option(help="0 is greedy.", rich_help_panel=_SAMPLING)]
TopK = Annotated[int, typer.Option(help="0 is off.", rich_help_panel=_SAMPLING)]
TopP = Annotated[float, typer.Option(help="1 is off.", rich_help_panel=_SAMPLING)]
MinP = Annotated[float, typer.Option(help="0 is off.", rich_help_panel=_SAMPLING)]
RepeatPenalty = Annotated[float, typer.Option(help="1 is off.", rich_help_panel=_SAMPLING)]
FrequencyPenalty = Annotated[float, typer.Option(help="0 is off.", rich_help_panel=_SAMPLING)]
PresencePenalty = Annotated[float, typer.Option(help="0 is off.", rich_help_panel=_SAMPLING)]
RepeatLastN = Annotated[
    int, typer.Option(help="Tokens that penalties look at, the prompt's included.", rich_help_panel=_SAMPLING)
]
DraftTemperature = Annotated[float, typer.Option(help="For the draft: 0 is greedy.", rich_help_panel=_DRAFTING)]
DraftTopK = Annotated[int, typer.Option(help="For the draft: 0 is off.", rich_help_panel=_DRAFTING)]
DraftTopP = Annotated[float, typer.Option(help="For the draft: 1 is off.", rich_help_panel=_DRAFTING)]
DraftMinP = Annotated[float, typer.Option(help="For the draft: 0 is off.", rich_help_panel=_DRAFTING)]
DraftRepeatPenalty = Annotated[float, typer.Option(help="For the draft: 1 is off.", rich_help_panel=_DRAFTING)]
DraftFrequencyPenalty = Annotated[float, typer.Option(help="For the draft: 0 is off.", rich_help_panel=_DRAFTING)]
DraftPresencePenalty = Annotated[float, typer.Option(help="For the draft: 0 is off.", rich_help_panel=_DRAFTING)]
DraftRepeatLastN = Annotated[
    int, typer.Option(help="For the draft: tokens that penalties look at.", rich_help_panel=_DRAFTING)
]
DraftSeed = Annotated[
    int | None, typer.Option(help="For the draft: the same as --seed if not given.", rich_help_panel=_DRAFTING)
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", help="End the reply before this text; may be given again.", rich_help_panel=_SAMPLING),
]
GrammarFile = Annotated[
    Path | None,
    typer.Option("--grammar", help="GBNF file that the reply must follow.", rich_help_panel=_SAMPLING),
]
SchemaFile = Annotated[
    Path | None,
    typer.Option("--json-schema", help="JSON schema file that the reply must follow.", rich_help_panel=_SAMPLING),
]
Regex = Annotated[
    str | None, typer.Option(help="Regular expression that the whole reply must match.", rich_help_panel=_SAMPLING)
]
LarkFile = Annotated[
    Path | None,
    typer.Option("--lark", help="Lark grammar file that the reply must follow.", rich_help_panel=_SAMPLING),
]
Seed = Annotated[int | None, typer.Option(help="Drawn if not given; --json reports it.", rich_help_panel=_SAMPLING)]
IgnoreEos = Annotated[
    bool,
    typer.Option(
        "--ignore-eos",
        help="Continue to --max-tokens, or a --stop: no end token or heading ends a reply.",
        rich_help_panel=_SAMPLING,
    ),
]
Ctx = Annotated[
    int | None,
    typer.Option(help="Context in tokens. [default: 4096, or the model's own if less]", rich_help_panel=_MACHINE),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads.", rich_help_panel=_MACHINE)]
GpuLayers = Annotated[
    str,
    typer.Option(
        "--n-gpu-layers",
        help="Layers of each model on GPUs: a number, -1 all, or auto: as wsd-local fit shows.",
        rich_help_panel=_MACHINE,
    ),
]
Load = Annotated[
    LoadKind,
    typer.Option("--load-mode", help="How files come into memory.", rich_help_panel=_MACHINE),
]
DraftGpuLayers = Annotated[
    int | None, typer.Option("--draft-n-gpu-layers", help="The same for the draft alone.", rich_help_panel=_MACHINE)
]
BaseGpuLayers = Annotated[
    int | None, typer.Option("--base-n-gpu-layers", help="The same for the base alone.", rich_help_panel=_MACHINE)
]
Resident = Annotated[
    Residency,
    typer.Option("--resident", help="Models in memory: one of them at a time is slower.", rich_help_panel=_MACHINE),
]
CacheK = Annotated[CacheKind, typer.Option("--cache-type-k", help="Type of cached keys.", rich_help_panel=_MACHINE)]
CacheV = Annotated[CacheKind, typer.Option("--cache-type-v", help="Type of cached values.", rich_help_panel=_MACHINE)]
Flash = Annotated[
    FlashAttn,
    typer.Option("--flash-attn", help="Flash attention; auto: not for one reply on a CPU.", rich_help_panel=_MACHINE),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show llama.cpp's log on standard error.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
