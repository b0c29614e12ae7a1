"""A small Llama in plain torch, tensor for tensor what llama.cpp computes for `general.architecture = llama`.

Rotary pairs are interleaved (llama.cpp's order for this architecture), so export needs no permutation. The
embedding is tied to the output. Attention stays inside a document: `document` numbers the tokens' documents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ROPE_BASE = 10000.0
NORM_EPS = 1e-5


@dataclass(frozen=True)
class Shape:
    """The size of a model. Rows are multiples of 32, as Q8_0 needs."""

    vocab: int
    width: int
    layers: int
    heads: int
    hidden: int


class RMSNorm(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, NORM_EPS)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (batch, heads, time, size) with pairs of neighbours."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.attn_norm = RMSNorm(width)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, width, bias=False)
        self.attn_v = nn.Linear(width, width, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = RMSNorm(width)
        self.ffn_gate = nn.Linear(width, shape.hidden, bias=False)
        self.ffn_up = nn.Linear(width, shape.hidden, bias=False)
        self.ffn_down = nn.Linear(shape.hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        batch, time, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, time, self.heads, width // self.heads).transpose(1, 2)

        y = self.attn_norm(x)
        q, k, v = split(self.attn_q(y)), split(self.attn_k(y)), split(self.attn_v(y))
        y = functional.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, attn_mask=mask)
        x = x + self.attn_output(y.transpose(1, 2).reshape(batch, time, width))
        y = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(y)) * self.ffn_up(y))


class Llama(nn.Module):  # type: ignore[misc]
    """Module names are the GGUF names without `blk.`, so that export is a loop."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = RMSNorm(shape.width)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                shrink = (2 * shape.layers) ** -0.5 if name.endswith(("output.weight", "down.weight")) else 1.0
                nn.init.normal_(parameter, std=0.02 * shrink if "embd" not in name else 0.04)

    def forward(self, tokens: Tensor, document: Tensor) -> Tensor:
        """Logits for every position of (batch, time) tokens."""
        time = tokens.shape[1]
        size = self.shape.width // self.shape.heads
        frequency = ROPE_BASE ** (-torch.arange(0, size, 2, dtype=torch.float32, device=tokens.device) / size)
        angle = torch.outer(torch.arange(time, dtype=torch.float32, device=tokens.device), frequency)
        cos, sin = angle.cos(), angle.sin()
        causal = torch.ones(time, time, dtype=torch.bool, device=tokens.device).tril()
        mask = causal & (document[:, None, :, None] == document[:, None, None, :])
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, cos, sin, mask)
        return functional.linear(self.output_norm(x), self.token_embd.weight)


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
