"""The house keeps its shape: import direction, file sizes, declared dependencies, and what a wheel holds."""

import ast
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import igrpo_jax

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "igrpo_jax": ("igrpo_jax",),
    "models": ("models",),
    "sharding": ("sharding", "models.axes"),
    "jobs": ("jobs", "igrpo_jax", "models", "sharding"),
    "configs": ("configs", "igrpo_jax.config", "igrpo_jax.study.config", "models.presets"),
}
ROOMS = (
    "types", "protocols", "config", "edges", "prompts", "advantages", "losses", "rewards", "data", "sampling", "drive",
    "replay", "rollout", "learning", "records", "evaluate", "study", "report", "train", "planning",
)  # fmt: skip
"""The files and folders of `igrpo_jax`; each imports only what stands before it."""

EXTRAS = ("judge", "trackio", "wandb", "mlflow")
"""Optional dependencies of the parts that run without them; what imports one does so inside a function."""

PLACES = (*MAY_IMPORT, "tests", "benchmarks")
OURS = (*PLACES, "launch")
EVERY_FILE = sorted([*ROOT.glob("*.py"), *(path for place in PLACES for path in (ROOT / place).rglob("*.py"))])


def imports(path: Path) -> Iterator[str]:
    """Full dotted names of everything a file imports, at its top or inside functions."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            home = ".".join((*above, *filter(None, (node.module,))))
            yield from (f"{home}.{alias.name}" for alias in node.names)


def within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def files_of(place: str) -> list[Path]:
    return [path for path in EVERY_FILE if path.relative_to(ROOT).parts[0] == place]


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_imports_point_inward(place):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of(place)
        for name in imports(path)
        if within(name, OURS) and not within(name, MAY_IMPORT[place])
    ]
    assert files_of(place) and not wrong


def test_rooms_import_only_what_stands_before_them():
    rooms = {path.relative_to(ROOT / "igrpo_jax").parts[0].removesuffix(".py") for path in files_of("igrpo_jax")}
    assert rooms - {"__init__"} == set(ROOMS)
    wrong = []
    for path in files_of("igrpo_jax"):
        room = path.relative_to(ROOT / "igrpo_jax").parts[0].removesuffix(".py")
        allowed = ROOMS[: ROOMS.index(room) + 1] if room in ROOMS else ()
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "igrpo_jax" and parts[1] not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_what_computes_does_not_know_file_formats():
    computing = [path for path in files_of("models") if path.parent == ROOT / "models"]
    assert computing and not [path for path in computing for name in imports(path) if within(name, ("models.formats",))]


def test_files_of_a_folder_do_not_import_in_circles():
    """Arrows between files go one way; `__init__` of a folder stands for the whole of it only from outside."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in EVERY_FILE}
    arrows = {
        module: {other for name in imports(path) for other in modules if within(name, (other,)) and other != module}
        for module, path in modules.items()
        if path.name != "__init__.py"
    }
    while free := [module for module, others in arrows.items() if not others & arrows.keys()]:
        for module in free:
            del arrows[module]
    assert not arrows


def test_torch_stays_in_references():
    users = {str(path.relative_to(ROOT)) for path in EVERY_FILE if any(within(n, ("torch",)) for n in imports(path))}
    assert not [user for user in users if not user.startswith(("tests/golden/", "benchmarks/"))]


def test_files_stay_small_and_folders_few():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in EVERY_FILE}
    assert not [path.name for path in EVERY_FILE if lengths[path] > 300 and path.parent == ROOT / "igrpo_jax"]
    sources = [path for path in EVERY_FILE if path.relative_to(ROOT).parts[0] in MAY_IMPORT]
    folders = Counter(path.parent for path in sources if path.name != "__init__.py")
    assert not [folder for folder, count in folders.items() if count > 14]
    assert not [
        path.name for path in EVERY_FILE if lengths[path] > 400 and path.relative_to(ROOT).parts[0] in MAY_IMPORT
    ]
    assert not [path for path in EVERY_FILE if path.name in ("utils.py", "util.py", "helpers.py", "common.py")]


def test_every_import_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    homes = importlib.metadata.packages_distributions()
    used = {
        name.split(".")[0] for place in (*MAY_IMPORT, "launch.py") for path in files_of(place) for name in imports(path)
    }
    foreign = used - set(OURS) - sys.stdlib_module_names
    undeclared = {name for name in foreign if declared.isdisjoint(map(canonicalize_name, homes.get(name, [name])))}
    assert not undeclared


def test_lock_has_hashes_and_no_addresses():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|^-|\s@\s|index|find-links", text, re.MULTILINE)
    pins = re.split(r"\n(?=\w)", re.sub(r"(?m)^#.*\n", "", text).strip())
    assert len(pins) > 100 and all(re.match(r"[\w.-]+==\S+.*\\\n +--hash=sha256:\w{64}", pin) for pin in pins)
    assert not [pin for pin in pins if re.match(r"(torch|tensorflow|nvidia\S*)==", pin)]


def run(*command, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The package unpacked from a wheel that is built from a copy of the repository."""
    copy, out = tmp_path_factory.mktemp("build") / "repository", tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "*.gguf", "*.safetensors")
    shutil.copytree(ROOT, copy, ignore=skip)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, copy, cwd=out)
    (archive,) = out.glob("*.whl")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(out / "site")
    return out / "site"


def test_wheel_holds_the_algorithm_only(wheel):
    metadata = [path.name for path in wheel.iterdir() if path.name.endswith(".dist-info")]
    assert sorted(path.name for path in wheel.iterdir()) == ["igrpo_jax", *metadata] and len(metadata) == 1
    packed = {path.relative_to(wheel) for path in (wheel / "igrpo_jax").rglob("*") if path.is_file()}
    sources = {path.relative_to(ROOT) for path in (ROOT / "igrpo_jax").rglob("*") if path.is_file()}
    assert packed == {path for path in sources if "__pycache__" not in path.parts}


ALONE = """
import importlib.util, sys
sys.path.insert(0, sys.argv[1])
import igrpo_jax
assert igrpo_jax.__file__.startswith(sys.argv[1]), igrpo_jax.__file__
assert "jax" not in sys.modules
for name in ("models", "sharding", "configs", "jobs", "launch"):
    assert importlib.util.find_spec(name) is None, name
import jax.numpy as jnp
batch = igrpo_jax.Batch(lengths=jnp.array([2, 1]), advantages=jnp.array([1.0, -3.0]))
loss, _ = igrpo_jax.igrpo_loss(jnp.full((2, 2), -1.0), batch, igrpo_jax.AlgorithmConfig())
for name in igrpo_jax.__all__:
    getattr(igrpo_jax, name)
slow = {"transformers", "datasets", "tensorflow_datasets", "reasoning_gym", "sympy", "math_verify", "torch"}
slow |= {"openai", "trackio", "wandb", "mlflow"}
assert slow.isdisjoint(sys.modules), slow & set(sys.modules)
print(float(loss))
"""


def test_wheel_works_alone(wheel):
    loss = float(run(sys.executable, "-I", "-c", ALONE, wheel, cwd=wheel.parent))
    assert loss == pytest.approx(1.0)  # minus the mean advantage: each completion counts once


@pytest.mark.parametrize("name", ["rollout", "train"])
def test_functions_named_like_their_files_stay_functions(name):
    importlib.import_module(f"igrpo_jax.{name}")
    assert all(getattr(igrpo_jax, name).__qualname__ == name for _ in range(2))
