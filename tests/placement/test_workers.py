"""Workers in the plan: after what is here, and the draft only where it has no room here."""

from __future__ import annotations

from wsd_local.core.resources import Device, Machine
from wsd_local.events import Source
from wsd_local.library.gguf import read_model
from wsd_local.paths import demo_dir
from wsd_local.placement.footprint import Footprint, footprint
from wsd_local.placement.plan import HOST, MARGIN, Plan, plan
from wsd_local.units import GIB

FILES: dict[Source, str] = {"draft": "draft-q8_0.gguf", "base": "base-q8_0.gguf"}


def models() -> dict[Source, Footprint]:
    return {role: footprint(read_model(demo_dir() / name)) for role, name in FILES.items()}


def far(number: int, free: int = 64 * GIB) -> Device:
    return Device(f"RPC{number}", f"RPC worker 10.0.0.{number}:50052", free, 64 * GIB, remote=True)


def here(free: int = 8 * GIB) -> Device:
    return Device("CUDA0", "a GPU", free, 8 * GIB)


def placed(*devices: Device, free: int = 16 * GIB) -> Plan:
    return plan(models(), Machine(devices, free, 16 * GIB))


def test_the_base_goes_to_the_worker_and_the_draft_stays() -> None:
    found = placed(far(0))
    assert found.placements["base"].devices == ("RPC0",) and found.placements["draft"].gpu_layers == 0
    assert not found.speed_given_up and not found.given_up, "the draft is where it should be"


def test_an_accelerator_here_comes_first_although_it_is_smaller() -> None:
    found = placed(far(0), here())
    assert {one.devices for one in found.placements.values()} == {("CUDA0",)}


def test_the_base_is_divided_among_what_is_here_and_one_worker() -> None:
    base = models()["base"]
    room = MARGIN + sum(layer.weights + base.cache(layer, 2048, "f16", "f16") for layer in base.layers[:3])
    compute = base.compute(2048, 512, 32, flash=True)
    machine = Machine((here(room + compute), far(0), far(1)), 16 * GIB, 16 * GIB)
    found = plan({"base": base}, machine).placements["base"]
    assert found.devices == ("CUDA0", "RPC0") and sum(found.split) == len(base.layers) + 1


def test_the_draft_goes_to_a_worker_where_this_machine_has_no_room() -> None:
    alone = placed(far(0))
    without_draft = alone.placements["base"].bytes_on(HOST)
    found = placed(far(0), free=MARGIN + without_draft + alone.placements["draft"].bytes_on(HOST) - 1)
    assert found.placements["draft"].devices == ("RPC0",) and found.used(HOST) < alone.used(HOST)
