"""`--mesh` texts."""

import jax
import pytest
from jax.sharding import AxisType

from sharding.mesh import make_mesh, parse_mesh


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("8x1", (1, 8, 1)),
        ("1x1", (1, 1, 1)),
        ("4x2", (1, 4, 2)),
        ("2x2x2", (2, 2, 2)),
        ("16x4x1", (16, 4, 1)),
        ("fsdp=4,tensor=2", (1, 4, 2)),
        ("tensor=2,fsdp=4", (1, 4, 2)),
        ("data=2,fsdp=4", (2, 4, 1)),
        ("tensor=8", (1, 1, 8)),
    ],
)
def test_parse_mesh(text, sizes):
    assert parse_mesh(text) == dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "--mesh '8' is not a mesh; write fsdp x tensor like 8x1"),
        ("", "is not a mesh"),
        ("8x", "is not a mesh"),
        ("8X1", "is not a mesh"),
        ("2x2x2x2", "is not a mesh"),
        ("-1x8", "is not a mesh"),
        ("8x1\n", "is not a mesh"),
        ("fsdp=8;tensor=1", "is not a mesh"),
        ("fsdp=", "is not a mesh"),
        ("0x8", "has an axis of size 0"),
        ("fsdp=0", "has an axis of size 0"),
        ("fspd=8", "mesh axis 'fspd' is unknown; the axes are data, fsdp, tensor"),
    ],
)
def test_parse_mesh_errors(text, message):
    with pytest.raises(ValueError, match=message):
        parse_mesh(text)


def test_an_axis_given_twice_is_an_error():
    with pytest.raises(ValueError, match="fsdp"):
        parse_mesh("fsdp=2,fsdp=4")


def test_make_mesh_takes_all_devices_and_leaves_layouts_to_the_compiler():
    mesh = make_mesh("4x2")
    assert dict(mesh.shape) == {"data": 1, "fsdp": 4, "tensor": 2}
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert {d.id for d in mesh.devices.flat} == {d.id for d in jax.devices()}


@pytest.mark.parametrize(("text", "places"), [("4x1", 4), ("16x1", 16), ("2x2x4", 16)])
def test_a_mesh_that_does_not_match_names_meshes_that_do(text, places):
    message = f"--mesh {text} needs {places} devices and there are 8 .*; use --mesh 8x1 or 4x2 or 2x4 or 1x8, or"
    with pytest.raises(ValueError, match=message):
        make_mesh(text)


class Place:
    """A TPU device as far as meshes look at it."""

    platform, device_kind, process_index = "tpu", "TPU v5p", 0

    def __init__(self, index, slice_index):
        self.id, self.slice_index, self.coords, self.core_on_chip = index, slice_index, (index % 4, 0, 0), 0


def test_a_mesh_over_slices_keeps_weights_inside_one():
    places = [Place(index, index // 4) for index in range(8)]
    mesh = make_mesh("2x4x1", places)
    assert [[place.slice_index for place in row] for row in mesh.devices[:, :, 0]] == [[0] * 4, [1] * 4]
    with pytest.raises(ValueError, match=r"--mesh 8x1 on 2 slices would send weights .* use --mesh 2x4x1"):
        make_mesh("8x1", places)


def test_devices_that_are_only_planned_have_no_slice():
    places = [Place(index, 0) for index in range(8)]
    for place in places:
        del place.slice_index
        place.coords = (place.id % 2, place.id // 2 % 2, place.id // 4)
    assert dict(make_mesh("4x2", places).shape) == {"data": 1, "fsdp": 4, "tensor": 2}


def test_a_mesh_may_split_an_axis_of_the_torus():
    places = [Place(index, 0) for index in range(16)]
    for place in places:
        place.coords, place.device_kind = (place.id % 4, place.id // 4, 0), "TPU v6 lite"
    mesh = make_mesh("8x2", places)
    assert sorted(place.id for place in mesh.devices.flat) == list(range(16))
