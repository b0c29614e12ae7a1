"""Where the models of a pair go on this machine.

Contract: reads headers, queries llama.cpp, the system and workers for devices and free memory, and leaves the
arithmetic to `wsd_local.placement.plan`. Nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from wsd_local.events import Source
from wsd_local.library.adapters import check_adapter
from wsd_local.library.gguf import read_header, read_model
from wsd_local.library.resolve import catalog_model, local_path, model_path
from wsd_local.llama.devices import cpu_features, machine
from wsd_local.llama.options import default_threads
from wsd_local.placement.footprint import Footprint, estimated, footprint
from wsd_local.placement.plan import Plan, PlanRequest, plan, plan_apart
from wsd_local.settings import LoadSettings
from wsd_local.workers.devices import remote_devices


def fitted(paths: Mapping[Source, Path], loading: LoadSettings) -> Plan:
    """Where the models in these files go on this machine.

    Raises:
        FitError: they do not fit.
        WorkerError: a worker cannot be used.
    """
    return placed(footprints(paths), loading)


def footprints(paths: Mapping[Source, Path]) -> dict[Source, Footprint]:
    """Footprints of the models in these files, on this machine's CPU."""
    features = cpu_features()
    return {role: footprint(read_model(path), features) for role, path in paths.items()}


def expected(name: str) -> tuple[Footprint, bool]:
    """Footprint of a model by name or path, and whether it is estimated because the model is not here yet.

    Raises:
        ModelError: there is no such model, or a file is damaged.
    """
    entry = catalog_model(name)
    if entry is not None and entry.shape is not None and entry.size is not None and local_path(entry) is None:
        return estimated(entry.shape, entry.size, entry.context), True
    return footprint(read_model(model_path(name)), cpu_features()), False


def check_adapters(names: Mapping[Source, str], loading: LoadSettings) -> None:
    """Raise `ModelError` unless each adapter is one for its model; of a model that is not here yet nothing is known."""
    for role, name in names.items():
        lora, entry = loading.lora(role), catalog_model(name)
        if lora is None:
            continue
        adapter = read_header(model_path(lora[0]))
        if entry is None or local_path(entry) is not None:
            check_adapter(adapter, read_model(model_path(name)))


def placed(models: Mapping[Source, Footprint], loading: LoadSettings) -> Plan:
    """Where models with these footprints go on this machine.

    Raises:
        FitError: they do not fit.
        ModelError: there is no adapter of that name.
        WorkerError: a worker cannot be used.
    """
    adapters = [model_path(adapter[0]) for role in models if (adapter := loading.lora(role)) is not None]
    request = PlanRequest(
        ctx=loading.ctx,
        cache_type_k=None if loading.cache_type_k == "auto" else loading.cache_type_k,
        cache_type_v=None if loading.cache_type_v == "auto" else loading.cache_type_v,
        flash=loading.flash_attn,
        mapped=None if loading.load_mode == "auto" else loading.load_mode.startswith("mmap"),
        parallel=loading.parallel,
        ubatch=loading.ubatch,
        extra=sum(path.stat().st_size for path in adapters if path.is_file()),
    )
    here = machine(loading.threads or default_threads())
    if loading.rpc is not None:
        here = replace(here, devices=(*here.devices, *remote_devices(loading.rpc)))
    return plan(models, here, request) if loading.resident == "both" else plan_apart(models, here, request)
