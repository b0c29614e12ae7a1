"""Where two models go: one memory budget for both.

Contract: pure arithmetic over footprints and devices. The draft comes first, on the fastest device; then as many layers
of the base as fit; the rest stays in the machine's own memory. Workers' devices come after this machine's, and the
draft goes there only where it has no room here: each of its tokens would cross the network. Where memory is not enough,
what the user did not set is given up in this order: f16 caches, then context. `FitError` states how much is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from wsd_local.core.resources import ROWS, UBATCH, Device, FlashAttention, Machine, cpu_flash, cpu_ubatch
from wsd_local.errors import FitError
from wsd_local.events import Source
from wsd_local.placement.footprint import Footprint, Layer
from wsd_local.units import MIB, gib

HOST = "memory"
MARGIN = 512 * MIB
"""Bytes left free on each device and in memory: other programs need more at times, and estimates are not exact."""
DEFAULT_CTX, SMALLEST_CTX = 4096, 512
CELLS_PER_REPLY = 1024
"""Cached tokens reserved for each of several replies, the prompt included. Where all need more, some wait."""


def cells(ctx: int, parallel: int, *, sliding: bool = False) -> int:
    """Cached tokens for `parallel` replies of at most `ctx` tokens at once.

    Replies share them, but with `sliding` windows, where each has its own.
    """
    return ctx * parallel if sliding else max(ctx, parallel * min(ctx, CELLS_PER_REPLY))


def rows(parallel: int) -> int:
    """Rows of logits of one evaluation."""
    return ROWS + 2 * (parallel - 1)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the user set; None leaves the choice to the plan.

    `extra` bytes of memory are needed besides (adapters), `parallel` replies are in progress at once, and `ubatch`
    tokens of a prompt are evaluated together.
    """

    ctx: int | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash: FlashAttention = "auto"
    mapped: bool | None = None
    extra: int = 0
    parallel: int = 1
    ubatch: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one model goes.

    `gpu_layers` counts as llama.cpp does: the last layers, and the head as one more; `devices` and `split` name the
    devices and how many of these each gets. `use` is bytes by device name, `HOST` being the machine's own memory.
    """

    gpu_layers: int
    n_layers: int
    ctx: int
    devices: tuple[str, ...] = ()
    split: tuple[int, ...] = ()
    mapped: bool = False
    use: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def bytes_on(self, device: str) -> int:
        """Bytes on one device, or in memory."""
        return sum(self.use.get(device, {}).values())


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement for each model, the caches' types, and what was given up, one line each.

    `speed_given_up` changes time only, `given_up` replies too. `together`: both models are in memory at once.
    """

    placements: Mapping[Source, Placement]
    machine: Machine
    cache_type_k: str
    cache_type_v: str
    speed_given_up: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    together: bool = True

    def used(self, device: str) -> int:
        """Bytes that the models take on one device, or in memory. What shared devices take is in memory."""
        taken = [placement.bytes_on(device) for placement in self.placements.values()]
        total = sum(taken) if self.together else max(taken, default=0)
        if device == HOST:
            total += sum(self.used(other.name) for other in self.machine.devices if other.shared)
        return total

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        places = [(HOST, self.machine.free, self.machine.total)]
        places += [(device.name, device.free, device.total) for device in self.machine.devices]
        return {
            "models": {
                role: {
                    "gpu_layers": placement.gpu_layers,
                    "layers": placement.n_layers + 1,
                    "split": dict(zip(placement.devices, placement.split, strict=True)),
                    "ctx": placement.ctx,
                    "load_mode": load_mode(placement),
                    "bytes": {name: dict(parts) for name, parts in placement.use.items()},
                }
                for role, placement in self.placements.items()
            },
            "cache_type_k": self.cache_type_k,
            "cache_type_v": self.cache_type_v,
            "memory": [
                {"name": name, "used": self.used(name), "free": free, "total": total} for name, free, total in places
            ],
            "given_up": [*self.speed_given_up, *self.given_up],
        }


def load_mode(placement: Placement) -> Literal["mmap", "none"]:
    """How the file is loaded: mapped, or read."""
    return "mmap" if placement.mapped else "none"


def plan(models: Mapping[Source, Footprint], machine: Machine, request: PlanRequest | None = None) -> Plan:
    """Place the models, the draft first.

    Raises:
        FitError: they do not fit, whatever may be given up; the message says how much is missing.
    """
    request = request or PlanRequest()
    smallest: tuple[int, str] | None = None
    choices = list(_choices(models, request))
    for ctx, type_k, type_v in choices:
        found = _placed(models, machine, request, (ctx, type_k, type_v))
        missing = found.used(HOST) + request.extra + MARGIN - machine.free
        if missing <= 0:
            lost = tuple(_given_up(models, found, choices[0], ctx, cells(ctx, request.parallel)))
            return Plan(found.placements, machine, type_k, type_v, tuple(_on_cpu(found)), lost)
        if smallest is None or missing < smallest[0]:
            smallest = missing, f"{type_k} caches of {ctx} tokens"
    assert smallest is not None
    raise FitError(
        f"not enough memory: {gib(smallest[0])} are missing with {smallest[1]} ({gib(machine.free)} are free, "
        f"{gib(MARGIN)} of it kept as a margin); close other programs, or choose smaller models or quantisations; "
        "--n-gpu-layers 0 tries all the same"
    )


def plan_apart(models: Mapping[Source, Footprint], machine: Machine, request: PlanRequest | None = None) -> Plan:
    """Place models of which only one is in memory at a time; the cached types are those that the larger one needs.

    Raises:
        FitError: one of them does not fit.
    """
    request = request or PlanRequest()
    if not all(model.head % 32 == 0 for model in models.values()):
        request = replace(
            request, cache_type_k=request.cache_type_k or "f16", cache_type_v=request.cache_type_v or "f16"
        )
    order = sorted(models, key=lambda role: -models[role].weights)
    first = plan({order[0]: models[order[0]]}, machine, request)
    same = replace(request, cache_type_k=first.cache_type_k, cache_type_v=first.cache_type_v)
    plans = [first, *(plan({role: models[role]}, machine, same) for role in order[1:])]
    return Plan(
        {role: one.placements[role] for role, one in zip(order, plans, strict=True)},
        machine,
        first.cache_type_k,
        first.cache_type_v,
        tuple(line for one in plans for line in one.speed_given_up),
        tuple(line for one in plans for line in one.given_up),
        together=False,
    )


def _choices(models: Mapping[Source, Footprint], request: PlanRequest) -> Iterator[tuple[int, str, str]]:
    """Context and cache types, the best first."""
    best = request.ctx or DEFAULT_CTX
    type_k, type_v = request.cache_type_k or "f16", request.cache_type_v or "f16"
    yield best, type_k, type_v
    may_quantise = request.flash != "off" and all(model.head % 32 == 0 for model in models.values())
    if may_quantise and None in (request.cache_type_k, request.cache_type_v):
        type_k, type_v = request.cache_type_k or "q8_0", request.cache_type_v or "q8_0"
        yield best, type_k, type_v
    ctx = best // 2
    while request.ctx is None and ctx >= SMALLEST_CTX:
        yield ctx, type_k, type_v
        ctx //= 2


def _on_cpu(found: Plan) -> Iterator[str]:
    for role, placement in found.placements.items():
        left = placement.n_layers + 1 - placement.gpu_layers
        devices = [one for one in found.machine.devices if not (one.remote and role == "draft")]
        if left and devices:
            free = ", ".join(f"{device.name} has {gib(device.free)} free" for device in devices)
            yield f"{left} of {placement.n_layers + 1} layers of the {role} stay on the CPU: {free}"


def _given_up(
    models: Mapping[Source, Footprint], found: Plan, best: tuple[int, str, str], ctx: int, size: int
) -> Iterator[str]:
    wanted_ctx, wanted_k, wanted_v = best
    changed = [
        f"cached {kind} are {got} instead of {wanted}"
        for kind, wanted, got in (("keys", wanted_k, found.cache_type_k), ("values", wanted_v, found.cache_type_v))
        if wanted != got
    ]
    if changed:
        saved = sum(
            model.caches(size, wanted_k, wanted_v) - model.caches(size, found.cache_type_k, found.cache_type_v)
            for model in models.values()
        )
        yield f"{' and '.join(changed)}: saves {gib(saved)}"
    if ctx != wanted_ctx:
        yield f"the context is {ctx} instead of {wanted_ctx} tokens: memory is short"


# -- placing -----------------------------------------------------------------------------------------------------

_Choice = tuple[int, str, str]


def _placed(models: Mapping[Source, Footprint], machine: Machine, request: PlanRequest, choice: _Choice) -> Plan:
    """All models; the draft on a worker only where this machine has too little memory otherwise."""
    found = _place_all(models, machine, request, choice, keeps_draft=True)
    is_short = found.used(HOST) + request.extra + MARGIN > machine.free
    if is_short and "draft" in models and any(device.remote for device in machine.devices):
        return _place_all(models, machine, request, choice, keeps_draft=False)
    return found


def _place_all(
    models: Mapping[Source, Footprint], machine: Machine, request: PlanRequest, choice: _Choice, *, keeps_draft: bool
) -> Plan:
    ctx, type_k, type_v = choice
    placements: dict[Source, Placement] = {}
    room = {device.name: device.free - MARGIN for device in machine.devices}
    shared = {device.name for device in machine.devices if device.shared}
    fastest = sorted(machine.devices, key=lambda device: (device.remote, device.shared, -device.total))
    for role in sorted(models, key=("draft", "base").index):
        own = ctx if request.ctx is not None else min(ctx, models[role].n_ctx_train or ctx)
        case = _Case(models[role], own, type_k, type_v, request, machine.threads)
        usable = [device for device in fastest if not (device.remote and role == "draft" and keeps_draft)]
        tries = [case.place(group, room) for group in _groups(usable)] or [case.place([], room)]
        best = max(tries, key=lambda placement: placement.gpu_layers)
        placements[role] = best
        for name in best.devices:
            room[name] -= best.bytes_on(name)
        for name in shared:
            room[name] -= best.bytes_on(HOST)
    return Plan(placements, machine, type_k, type_v)


def _groups(devices: Sequence[Device]) -> Iterator[list[str]]:
    """Devices to share one model, the best groups first: one, all of this machine, these with one worker, all."""
    here = [device.name for device in devices if not device.remote]
    workers = [device.name for device in devices if device.remote]
    yield from ([name] for name in here)
    if len(here) > 1:
        yield here
    yield from ([*here, name] for name in workers)
    if len(workers) > 1:
        yield [*here, *workers]


@dataclass(frozen=True, slots=True)
class _Case:
    """One model under one choice of context and caches."""

    model: Footprint
    ctx: int
    type_k: str
    type_v: str
    request: PlanRequest
    threads: int

    def place(self, devices: Sequence[str], room: Mapping[str, int]) -> Placement:
        """As many of the last layers as these devices have room for, in their order."""
        units = len(self.model.layers) + 1
        for count in range(units, 0, -1):
            split = self._split(count, devices, room) if devices else None
            if split is not None:
                return self._placement(count, devices, split)
        return self._placement(0, (), ())

    def _unit(self, index: int) -> tuple[int, int]:
        """Bytes of weights and cache of one layer; after the last one comes the head."""
        if index == len(self.model.layers):
            return self.model.output, 0
        layer = self.model.layers[index]
        return layer.weights, self._cache(layer)

    def _cache(self, layer: Layer) -> int:
        """Bytes of one layer's cache; each sequence has a recurrent state of its own."""
        states = layer.state * (self.request.parallel - 1)
        return self.model.cache(layer, self._cells, self.type_k, self.type_v) + states

    def _split(self, count: int, devices: Sequence[str], room: Mapping[str, int]) -> list[int] | None:
        """How many of the last `count` layers each device gets, None if there is no room."""
        units = len(self.model.layers) + 1
        at, split = units - count, []
        for device in devices:
            left, taken = room[device] - self._compute(offloaded=True), 0
            while at < units and sum(self._unit(at)) <= left:
                left -= sum(self._unit(at))
                at, taken = at + 1, taken + 1
            split.append(taken)
        return split if at == units else None

    def _compute(self, *, offloaded: bool) -> int:
        """Bytes of buffers where layers are, `offloaded` if some of the model are not on the CPU."""
        parallel, wanted = self.request.parallel, self.request.flash
        flash = wanted != "off" if offloaded else cpu_flash(wanted, (self.type_k, self.type_v), self.ctx, parallel)
        n_ubatch = self.request.ubatch or (UBATCH if offloaded else cpu_ubatch(self.model.n_embd, self.threads))
        return self.model.compute(self._cells, n_ubatch, rows(parallel), flash=flash)

    @property
    def _cells(self) -> int:
        return cells(self.ctx, self.request.parallel, sliding=self.model.sliding)

    def _placement(self, count: int, devices: Sequence[str], split: Sequence[int]) -> Placement:
        n_layers = len(self.model.layers)
        first = n_layers + 1 - count
        use: dict[str, dict[str, int]] = {}
        at = first
        for device, taken in zip(devices, split, strict=True):
            units = [self._unit(index) for index in range(at, at + taken)]
            if units:
                weights, caches = (sum(unit[part] for unit in units) for part in (0, 1))
                use[device] = {"weights": weights, "cache": caches, "compute": self._compute(offloaded=True)}
            at += taken
        mapped = self._mapped(first)
        use[HOST] = self._host(first, mapped, all_offloaded=count > n_layers)
        kept = [(device, taken) for device, taken in zip(devices, split, strict=True) if taken]
        return Placement(
            gpu_layers=count,
            n_layers=n_layers,
            ctx=self.ctx,
            devices=tuple(device for device, _ in kept),
            split=tuple(taken for _, taken in kept),
            mapped=mapped,
            use=use,
        )

    def _repacked(self, first: int) -> int:
        head = self.model.output_repacked if first > len(self.model.layers) else 0
        return head + sum(layer.repacked for layer in self.model.layers[:first])

    def _mapped(self, first: int) -> bool:
        """Mapped files cost nothing more, unless the CPU back end keeps a second copy of them."""
        wanted = self._repacked(first) == 0 if self.request.mapped is None else self.request.mapped
        return wanted and self.model.mappable

    def _host(self, first: int, mapped: bool, *, all_offloaded: bool) -> dict[str, int]:
        """What stays in the machine's own memory: layers before `first`, the embeddings, and what llama.cpp keeps."""
        model, on_cpu = self.model, self.model.layers[:first]
        head_on_cpu = first > len(model.layers)
        weights = model.embeddings + sum(layer.weights for layer in on_cpu)
        copies = self._repacked(first) if mapped else 0
        if head_on_cpu:
            weights += model.output - model.tied
            if model.tied and not mapped:
                copies += model.output_repacked
        offloaded = first <= len(model.layers)
        compute = UBATCH * model.n_embd * 8 if all_offloaded else self._compute(offloaded=offloaded)
        return {
            "weights": weights,
            "repacked": copies,
            "cache": sum(self._cache(layer) for layer in on_cpu),
            "compute": compute,
            "logits": model.logits(rows(self.request.parallel)),
            "vocabulary": model.vocabulary,
        }
