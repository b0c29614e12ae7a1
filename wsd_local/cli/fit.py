"""`wsd-local fit`: where the models of a pair would be placed on this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from wsd_local.cli import terminal
from wsd_local.cli.options import (
    NOTHING,
    Debug,
    Given,
    Json,
    PairName,
    models_named,
    setting_values,
    settings_named,
    takes,
)
from wsd_local.cli.tables import plain_table, print_json, print_tables

if TYPE_CHECKING:
    from rich.table import Table

    from wsd_local.events import Source
    from wsd_local.placement.kernels import SlowType
    from wsd_local.placement.plan import Plan


SETTINGS = (
    "draft_lora",
    "base_lora",
    "ctx",
    "threads",
    "ubatch",
    "cache_type_k",
    "cache_type_v",
    "flash_attn",
    "load_mode",
    "resident",
    "rpc",
)


@takes(models=models_named("draft", "base"), settings=settings_named(*SETTINGS))
def fit(
    pair: PairName = None,
    /,
    *,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show whether a pair fits, and where its layers go."""
    from wsd_local.config import read_config
    from wsd_local.library.resolve import named_pair
    from wsd_local.placement.fit import check_adapters, expected, placed
    from wsd_local.settings import split

    config = read_config()
    _, loading = split({**config.settings_of(pair, models), **setting_values(settings)})
    entry = named_pair(config.pair if pair is None else pair, config.pairs)
    wanted: dict[Source, str] = {"draft": models.get("draft", entry.draft), "base": models.get("base", entry.base)}
    found = {role: expected(name) for role, name in wanted.items()}
    missing = [wanted[role] for role, (_, is_estimated) in found.items() if is_estimated]
    if missing:
        terminal.note(f"not on this machine, estimated from the catalog: {', '.join(missing)}")
    check_adapters(wanted, loading)
    plan = placed({role: model for role, (model, _) in found.items()}, loading)
    slow = _slow_types(plan, wanted, missing)
    if as_json:
        print_json(plan.as_dict() | {"slow_types": {role: one.as_dict() for role, one in slow.items()}})
    else:
        print_tables(*tables(plan))
        terminal.line("")
        terminal.line(verdict(plan))
        for line in (*plan.speed_given_up, *plan.given_up):
            terminal.note(f"given up: {line}")
        for role, one in slow.items():
            terminal.note(f"{role}: {one.sentence()}; wsd-local tune measures what another type would bring")


def _slow_types(plan: Plan, names: Mapping[Source, str], missing: Collection[str]) -> dict[Source, SlowType]:
    """What makes models slow that are here and have layers on the CPU."""
    from wsd_local.library.gguf import read_model
    from wsd_local.library.resolve import model_path
    from wsd_local.placement.kernels import slow_type

    on_cpu = [role for role, one in plan.placements.items() if one.gpu_layers < one.n_layers]
    here = {role: read_model(model_path(names[role])) for role in on_cpu if names[role] not in missing}
    return {role: slow for role, headers in here.items() if (slow := slow_type(headers)) is not None}


def verdict(plan: Plan) -> str:
    """Whether it fits, in one sentence; a plan that does not is never made."""
    from wsd_local.placement.plan import HOST
    from wsd_local.units import gib

    places = [HOST, *(device.name for device in plan.machine.devices)]
    free = {HOST: plan.machine.free, **{device.name: device.free for device in plan.machine.devices}}
    used = [f"{gib(plan.used(place))} of {gib(free[place])} free ({place})" for place in places if plan.used(place)]
    how = ", with less than was wanted (see below)" if plan.given_up else ""
    return f"It fits{how}: {', '.join(used)}."


def tables(plan: Plan) -> tuple[Table, ...]:
    """A plan as people read it."""
    from wsd_local.placement.plan import HOST, load_mode
    from wsd_local.units import GIB, gib

    models = plain_table("Models", ("", "layers on GPU", "context", "cached k/v", "loaded by"), {2})
    names = list(dict.fromkeys(part for one in plan.placements.values() for use in one.use.values() for part in use))
    parts = plain_table("Memory by part, GiB", ("", "where", *names, "sum"), range(2, len(names) + 3))
    for role, placement in plan.placements.items():
        layers = f"{placement.gpu_layers} of {placement.n_layers + 1}"
        caches = f"{plan.cache_type_k}/{plan.cache_type_v}"
        models.add_row(role, layers, f"{placement.ctx:,}", caches, load_mode(placement))
        for place, use in placement.use.items():
            sizes = [f"{use[part] / GIB:.2f}" if use.get(part) else "" for part in names]
            parts.add_row(role, place, *sizes, f"{placement.bytes_on(place) / GIB:.2f}")
    machine = plain_table("Memory", ("", "used", "free now", "total", ""), {1, 2, 3})
    for device in plan.machine.devices:
        cells = (device.name, gib(plan.used(device.name)), gib(device.free), gib(device.total), device.description)
        machine.add_row(*cells)
    machine.add_row(HOST, gib(plan.used(HOST)), gib(plan.machine.free), gib(plan.machine.total), "the machine's own")
    return models, parts, machine
