"""The direction of imports that docs/decisions.md draws, held by walking the syntax trees."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = (
    {"", "errors", "records", "paths", "yamlfile", "extras", "cluster", "lazy", "storedrows"},
    {"frames", "parsers", "metrics", "stats", "targets", "costs"},
    {"task", "prompts", "datasets", "store", "scoring", "sampling", "provenance", "scores", "remote"},
    {
        "runner",
        "importing",
        "exporting",
        "validate",
        "leaderboard",
        "compare",
        "report",
        "probes",
        "serving",
        "sharing",
        "suites",
    },
    {"cli", "__main__"},
)
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
ADAPTERS_MAY_IMPORT = {"", "errors", "records", "paths", "yamlfile", "frames", "cluster"}
# Hundreds of milliseconds each: only where they are used, inside functions.
HEAVY = {
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "pandas",
    "openai",
    "google",
    "vllm",
    "ray",
    "pyarrow",
    "aiohttp",
    "huggingface_hub",
    "inspect_ai",
    "fsspec",
    "s3fs",
}
NEVER_IN_EVALKIT = {"torch", "transformers", "vllm", "openai", "google"}


def modules(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, path


def imports(path, module, top_level_only=False):
    """Absolute names of all that a file imports (TYPE_CHECKING blocks count as not top level)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import hides its layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


ALL = [
    (name, path) for package in ("evalkit", "model_adapters", "trainers") for name, path in modules(package)
]
EVALKIT = [(name, path) for name, path in ALL if name.split(".")[0] == "evalkit"]


def part(name):
    """`evalkit.report.tables` -> `report`."""
    return [*name.split("."), ""][1]


@pytest.mark.parametrize(("name", "path"), EVALKIT, ids=[name for name, _ in EVALKIT])
def test_imports_go_down_only(name, path):
    assert part(name) in LAYER, f"{name}: say in LAYERS where it belongs"
    for imported in imports(path, name):
        top = imported.split(".")[0]
        if top == "evalkit":
            target = part(imported)
            target = target if target in LAYER else ""  # `from evalkit import __version__`
            assert LAYER[target] <= LAYER[part(name)], f"{name} imports {imported}, which lies above it"
        if top in ("model_adapters", "trainers"):
            assert part(name) == "cli", f"{name} imports {imported}; only the cli may"


def test_no_cycles():
    names = {name for name, _ in ALL}
    graph = {}
    for name, path in ALL:
        targets = set()
        for imported in imports(path, name):
            hit = imported if imported in names else imported.rpartition(".")[0]
            if hit in names and hit != name:
                targets.add(hit)
        graph[name] = targets
    done, open_ = set(), []

    def visit(node):
        assert node not in open_, " -> ".join([*open_[open_.index(node) :], node])
        if node in done:
            return
        open_.append(node)
        for target in graph[node]:
            visit(target)
        open_.pop()
        done.add(node)

    for node in graph:
        visit(node)


@pytest.mark.parametrize(("name", "path"), [m for m in ALL if m[0].startswith("model_adapters")])
def test_adapters_know_little_of_evalkit(name, path):
    for imported in imports(path, name):
        if imported.split(".")[0] == "evalkit":
            assert part(imported) in ADAPTERS_MAY_IMPORT, f"{name} imports {imported}"


@pytest.mark.parametrize(("name", "path"), EVALKIT)
def test_evalkit_never_imports_an_engine(name, path):
    assert not {i.split(".")[0] for i in imports(path, name)} & NEVER_IN_EVALKIT


# What the command line may import before it knows that anything is trained; the rest of trainers is torch code.
LIGHT_TRAINERS = {"trainers", "trainers.spec", "trainers.scale"}


@pytest.mark.parametrize(("name", "path"), ALL)
def test_heavy_packages_are_imported_late(name, path):
    if name.startswith("trainers") and name not in LIGHT_TRAINERS:
        return
    found = {i.split(".")[0] for i in imports(path, name, top_level_only=True)} & HEAVY
    assert not found, f"{name} imports {found} at import time"


def test_the_environment_of_vllm_has_the_core(tmp_path):
    """It is installed from pins alone, without resolving: what the core needs must stand among them."""
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}
    pins = (ROOT / "tests/vllm_cpu/requirements.txt").read_text().splitlines()
    assert core <= {line.partition("==")[0].lower() for line in pins if not line.startswith("#")}
