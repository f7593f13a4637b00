"""No TPU is asked for where there is none."""

import importlib.util
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from sharding import topology


@pytest.fixture
def host(tmp_path):
    """`host(*devices)`: a file system with PCI devices of (vendor, device), and with files of `/dev`."""

    def make(*devices):
        for number, device in enumerate(devices):
            if isinstance(device, str):
                (tmp_path / device).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / device).touch()
                continue
            card = tmp_path / "sys" / "bus" / "pci" / "devices" / f"0000:00:0{number}.0"
            card.mkdir(parents=True)
            (card / "vendor").write_text(device[0] + "\n")
            (card / "device").write_text(device[1] + "\n")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ([], False),
        ([("0x10de", "0x2330"), ("0x8086", "0x1237")], False),
        ([("0x1ae0", "0x0042")], False),  # the network card of Google's machines
        ([("0x1ae0", "0x0042"), ("0x1ae0", "0x0063")], True),
        (["dev/accel0"], True),
        (["dev/vfio/vfio"], False),
        (["dev/vfio/0"], True),
    ],
)
def test_a_host_has_tpus_if_its_devices_say_so(host, devices, found):
    assert topology.has_tpu(host(*devices)) is found


@pytest.mark.parametrize(
    ("named", "libtpu", "tpu", "plugins", "asked"),
    [
        (None, True, False, [], "cpu"),
        (None, True, False, ["xla_cuda12"], "cuda,cpu"),
        (None, True, False, ["xla_cuda13"], "cuda,cpu"),
        (None, True, False, ["xla_rocm7"], None),
        (None, True, True, [], None),
        (None, False, False, [], None),
        ("tpu,cpu", True, False, [], "tpu,cpu"),
        ("", True, False, [], "cpu"),
    ],
)
def test_only_platforms_that_are_there_are_asked_for(monkeypatch, named, libtpu, tpu, plugins, asked):
    config = SimpleNamespace(jax_platforms=named)
    config.update = lambda name, value: setattr(config, name, value)
    points = [EntryPoint(name, "somewhere", "jax_plugins") for name in plugins]
    monkeypatch.setattr(topology, "jax", SimpleNamespace(config=config))
    monkeypatch.setattr(topology.metadata, "entry_points", lambda group: points)
    monkeypatch.setattr(topology, "has_tpu", lambda root: tpu)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if libtpu and name == "libtpu" else None)
    topology.skip_absent_tpu()
    assert config.jax_platforms == asked
