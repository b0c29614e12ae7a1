"""The only place that imports llama_cpp: models, contexts and samplers over llama.cpp's low-level API.

Contract: nothing here knows Weak-to-Strong Decoding. A `Model` holds weights, vocabulary and metadata; a `Context`
holds sequences, scores tokens and lets a sampler choose the next, as `core.contexts.TokenContext` describes; a
`Sampler` is a native chain. Objects are closed by `close()` or `with`, contexts before their model.
"""

from wsd_local.llama.abort import Cancellation
from wsd_local.llama.context import Context
from wsd_local.llama.model import Model
from wsd_local.llama.options import ContextOptions
from wsd_local.llama.sampler import Sampler
from wsd_local.llama.sequences import Sequences

__all__ = [
    "Cancellation",
    "Context",
    "ContextOptions",
    "Model",
    "Sampler",
    "Sequences",
]
