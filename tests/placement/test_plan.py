"""The planner on simulated machines, and its invariants."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsd_local.core.resources import Device, Machine
from wsd_local.errors import FitError
from wsd_local.events import Source
from wsd_local.library.catalog import catalog_models
from wsd_local.placement.footprint import Footprint, estimated
from wsd_local.placement.plan import HOST, MARGIN, SMALLEST_CTX, Plan, PlanRequest, plan
from wsd_local.units import GIB


def model(name: str) -> Footprint:
    """A model of the catalog."""
    entry = catalog_models()[name]
    assert entry.shape is not None and entry.size is not None
    return estimated(entry.shape, entry.size, entry.context)


LAPTOP: dict[Source, Footprint] = {"draft": model("llama-3.2-3b-instruct"), "base": model("llama-3.1-8b")}
PAPER: dict[Source, Footprint] = {"draft": model("llama-3.2-3b-instruct"), "base": model("llama-3-70b")}


def machine(*gpus: float, ram: float = 64, shared: bool = False) -> Machine:
    """A machine with GPUs of these sizes in GiB, all free."""
    devices = [Device(f"GPU{i}", "simulated", int(g * GIB), int(g * GIB), shared) for i, g in enumerate(gpus)]
    return Machine(tuple(devices), int(ram * GIB), int(ram * GIB), threads=8)


def layers(found: Plan) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {role: (placement.gpu_layers, placement.split) for role, placement in found.placements.items()}


def holds(found: Plan, models: dict[Source, Footprint], wanted: PlanRequest | None = None) -> None:
    """What must be true of every plan."""
    wanted = wanted or PlanRequest()
    for device in found.machine.devices:
        assert found.used(device.name) + (MARGIN if found.used(device.name) else 0) <= device.free
    assert found.used(HOST) + wanted.extra + MARGIN <= found.machine.free
    for role, placement in found.placements.items():
        assert sum(placement.split) == placement.gpu_layers <= len(models[role].layers) + 1
        assert set(placement.use) == {HOST, *placement.devices}
        assert all(size >= 0 for parts in placement.use.values() for size in parts.values())
        on_devices = sum(parts.get("weights", 0) for name, parts in placement.use.items() if name != HOST)
        in_memory = placement.use[HOST]["weights"]
        copies = models[role].tied if placement.gpu_layers else 0
        assert on_devices + in_memory == models[role].weights + copies
        if wanted.ctx is not None:
            assert placement.ctx == wanted.ctx


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (machine(), {"draft": (0, ()), "base": (0, ())}),
        (machine(8), {"draft": (29, (29,)), "base": (33, (33,))}),
        (machine(12), {"draft": (29, (29,)), "base": (33, (33,))}),
        (machine(24), {"draft": (29, (29,)), "base": (33, (33,))}),
        (machine(16, ram=16, shared=True), {"draft": (29, (29,)), "base": (33, (33,))}),
    ],
    ids=["none", "8", "12", "24", "16 unified"],
)
def test_a_laptop_pair(machine: Machine, expected: dict[str, tuple[int, tuple[int, ...]]]) -> None:
    found = plan(LAPTOP, machine)
    holds(found, LAPTOP)
    if machine.devices and machine.devices[0].total == 8 * GIB:
        assert found.placements["draft"].gpu_layers == 29
        assert 10 < found.placements["base"].gpu_layers <= 33
    else:
        assert layers(found) == expected
    assert found.given_up == ()


def test_the_draft_comes_first_and_the_base_gets_what_is_left() -> None:
    for size in (3, 4, 6, 8):
        found = plan(LAPTOP, machine(size))
        holds(found, LAPTOP)
        assert found.placements["draft"].gpu_layers == 29
    counts = [plan(PAPER, machine(size)).placements["base"].gpu_layers for size in (8, 12, 24)]
    assert 0 < counts[0] < counts[1] < counts[2] < 81
    said = plan(PAPER, machine(24)).speed_given_up
    assert len(said) == 1 and f"{81 - counts[2]} of 81 layers of the base stay on the CPU" in said[0]


def test_two_unequal_gpus() -> None:
    found = plan(PAPER, machine(24, 8))
    holds(found, PAPER)
    assert found.placements["draft"].devices == ("GPU0",), "the draft whole, on the larger one"
    base = found.placements["base"]
    assert base.devices == ("GPU0", "GPU1")
    assert base.split[0] > 2 * base.split[1] > 0
    assert base.gpu_layers > plan(PAPER, machine(24)).placements["base"].gpu_layers


def test_a_pair_that_fits_on_one_gpu_is_not_split() -> None:
    found = plan(LAPTOP, machine(12, 24))
    assert found.placements["draft"].devices == found.placements["base"].devices == ("GPU1",)


def test_unified_memory_is_counted_once_and_against_memory() -> None:
    found = plan(LAPTOP, machine(16, ram=16, shared=True))
    weights = sum(footprint.weights for footprint in LAPTOP.values())
    assert weights < found.used(HOST) < weights + 4 * GIB
    with pytest.raises(FitError):
        plan(LAPTOP, machine(16, ram=6, shared=True))


def test_what_is_given_up_in_which_order() -> None:
    """Less memory: first nothing, then f16 caches, then context, then an error with what is missing."""
    stages = []
    for ram in (64, 9.0, 8.0, 7.8, 7.7, 7.6, 7.4, 7.2):
        try:
            found = plan(LAPTOP, machine(ram=ram))
        except FitError as error:
            assert (error.exit_code == 4 and "GiB are missing" in str(error)) or "MiB are missing" in str(error)
            stages.append((3, 0))
            continue
        holds(found, LAPTOP)
        ctx = found.placements["base"].ctx
        stage = 0 if found.cache_type_k == "f16" else 1 if ctx == 4096 else 2
        assert (stage > 0) == bool(found.given_up)
        assert stage < 2 or found.cache_type_k == "q8_0"
        stages.append((stage, -ctx))
    assert stages == sorted(stages)
    assert {stage for stage, _ in stages} == {0, 1, 2, 3}


def test_what_was_asked_for_is_not_given_up() -> None:
    small = machine(ram=7.8)
    with pytest.raises(FitError):
        plan(LAPTOP, small, PlanRequest(ctx=8192, cache_type_k="f16", cache_type_v="f16"))
    with pytest.raises(FitError):
        plan(LAPTOP, small, PlanRequest(ctx=8192))
    kept = plan(LAPTOP, small, PlanRequest(cache_type_k="f16", cache_type_v="f16"))
    assert kept.cache_type_k == kept.cache_type_v == "f16"
    assert kept.placements["base"].ctx < 4096
    half = plan(LAPTOP, small, PlanRequest(cache_type_k="f16"))
    assert (half.cache_type_k, half.cache_type_v) == ("f16", "q8_0")
    assert plan(LAPTOP, small, PlanRequest(flash="off")).cache_type_v == "f16", "quantised values need flash attention"


@pytest.mark.parametrize(
    ("wanted", "same"),
    [
        (PlanRequest(), PlanRequest(flash="off")),
        (PlanRequest(cache_type_v="q8_0"), PlanRequest(cache_type_v="q8_0", flash="on")),
        (PlanRequest(parallel=4), PlanRequest(parallel=4, flash="on")),
        (PlanRequest(ctx=16384), PlanRequest(ctx=16384, flash="on")),
    ],
)
def test_what_a_cpu_does_about_flash_attention_is_counted(wanted: PlanRequest, same: PlanRequest) -> None:
    found, expected = (plan(LAPTOP, machine(ram=64), each) for each in (wanted, same))
    assert found.placements == expected.placements
    other = plan(LAPTOP, machine(ram=64), replace(wanted, flash="off" if same.flash == "on" else "on"))
    assert other.placements != expected.placements


def test_the_shortfall_is_true() -> None:
    """With as much memory more as the error names, it fits."""
    with pytest.raises(FitError) as error:
        plan(PAPER, machine(ram=20))
    missing = float(str(error.value).split(" GiB are missing")[0].split()[-1])
    assert plan(PAPER, machine(ram=20 + missing + 0.02)).placements["base"].ctx == SMALLEST_CTX
    with pytest.raises(FitError):
        plan(PAPER, machine(ram=20 + missing - 0.02))


def test_mapped_files_are_read_where_a_second_copy_would_be_made() -> None:
    repacked = plan(LAPTOP, machine())
    assert not repacked.placements["base"].mapped
    assert plan(LAPTOP, machine(24)).placements["base"].mapped
    mapped = plan(LAPTOP, machine(), PlanRequest(mapped=True))
    assert mapped.used(HOST) > 1.4 * repacked.used(HOST)
    unmappable: dict[Source, Footprint] = {role: replace(m, mappable=False) for role, m in LAPTOP.items()}
    assert not plan(unmappable, machine(24), PlanRequest(mapped=True)).placements["base"].mapped


def test_one_model_alone() -> None:
    found = plan({"base": LAPTOP["base"]}, machine(8))
    holds(found, LAPTOP)
    assert set(found.placements) == {"base"}


def test_json_says_all() -> None:
    told = plan(PAPER, machine(24, 8)).as_dict()
    assert told["models"]["base"]["layers"] == 81
    assert [row["name"] for row in told["memory"]] == [HOST, "GPU0", "GPU1"]
    assert told["given_up"]


sizes = st.floats(0.5, 90)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    gpus=st.lists(sizes, max_size=3),
    ram=st.floats(1, 128),
    shared=st.booleans(),
    ctx=st.none() | st.integers(1, 200_000),
)
def test_a_plan_never_takes_more_than_there_is(gpus: list[float], ram: float, shared: bool, ctx: int | None) -> None:
    wanted = PlanRequest(ctx=ctx)
    for models in (LAPTOP, PAPER):
        try:
            found = plan(models, machine(*gpus, ram=ram, shared=shared), wanted)
        except FitError:
            continue
        holds(found, models, wanted)


@settings(deadline=None, max_examples=60)
@given(gpu=sizes, more=st.floats(0, 40))
def test_a_larger_gpu_never_gets_fewer_layers(gpu: float, more: float) -> None:
    counts = [plan(PAPER, machine(size)).placements["base"].gpu_layers for size in (gpu, gpu + more)]
    assert all(fewer <= greater for fewer, greater in pairwise(counts))
