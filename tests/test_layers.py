"""Proves that every module imports from its own folder or a lower floor, in no circles, and without torch.

Imports for type checkers alone count like all others.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import segmenter

PACKAGE = Path(segmenter.__file__).parent

# From the ground up. A module imports from its own folder or from a floor below, so that folders on one floor
# do not know of each other.
FLOORS = [
    ["errors", "progress", "torchvision_guard"],
    ["ranges", "streams"],
    ["atomic", "config_decoders", "documents", "download", "upsample"],
    ["first_hashes"],
    ["config"],
    ["recipes"],
    ["checkpoints"],
    ["data"],
    ["model"],
    ["published"],
    ["inference"],
    ["inspection"],
    ["evaluation"],
    ["training"],
    ["cost"],
    ["views"],
    ["studies"],
    ["deploy"],
    ["demo"],
    ["cli"],
    ["__init__", "__main__"],
]
FLOOR = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}
PROGRAMS = {"__init__", "cli", "demo"}  # these import on use


def name_of(path: Path) -> str:
    """Dotted name below the package; the package itself is `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(node: ast.AST) -> list[str]:
    """Full dotted names that are imported below a node, in functions and for type checkers too."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found += [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "write imports from the top: from segmenter.x import y"
            # What is imported may be a module or a name in one: `own` tells them apart.
            found += [f"{child.module}.{alias.name}" for alias in child.names]
        else:
            found += imports(child)
    return found


def own(full: str) -> str | None:
    """The module of this package that an imported name is or lies in."""
    first, _, rest = full.partition(".")
    if first != "segmenter":
        return None
    while rest and rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


@cache
def edges() -> dict[str, set[str]]:
    """Modules of this package that each one imports."""
    return {
        name: {module for full in imports(tree) if (module := own(full)) and module != name}
        for name, tree in TREES.items()
    }


def folder(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_has_a_floor():
    assert {folder(module) for module in MODULES} <= FLOOR.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_come_from_the_same_folder_or_a_lower_floor(module):
    if module == "__init__":  # names where the public things live, and imports them on use
        return
    here = folder(module)
    for imported in edges()[module]:
        there = folder(imported)
        assert there == here or FLOOR[there] < FLOOR[here], f"{module} imports {imported}"


def test_no_imports_go_round():
    graph = {name: found for name, found in edges().items() if name not in PROGRAMS}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module in done:
            return
        for imported in sorted(graph.get(module, ())):
            visit(imported, (*way, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_files_of_one_name_are_the_same_thing_on_several_floors():
    files = [path.stem for path in MODULES.values() if path.stem != "__init__"]
    assert {name for name in files if files.count(name) > 1} <= {"depth", "labels", "tasks"}


def test_only_one_module_imports_timm():
    importers = {name for name, tree in TREES.items() for full in imports(tree) if full.partition(".")[0] == "timm"}
    assert importers == {"model.timm_models"}


def test_only_the_guard_imports_torchvision():
    importers = {
        name for name, tree in TREES.items() for full in imports(tree) if full.partition(".")[0] == "torchvision"
    }
    assert importers == {"torchvision_guard"}


def test_every_module_says_what_it_is():
    silent = [
        name
        for name, tree in TREES.items()
        if tree.body and not ast.get_docstring(tree)  # an empty __init__.py says nothing
    ]
    assert not silent


def loaded_after(statement: str) -> set[str]:
    """First parts of the modules that are loaded in a new interpreter after a statement."""
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in ended.stdout.split()}


@pytest.mark.parametrize("statement", ["import segmenter", "import segmenter.cli", "import segmenter.recipes"])
def test_importing_does_not_load_torch(statement):
    heavy = {"torch", "torchvision", "timm", "matplotlib", "accelerate", "scipy"}
    assert not loaded_after(statement) & heavy


def test_public_names_are_all_there():
    assert sorted(segmenter.__all__) == segmenter.__all__
    for name in segmenter.__all__:
        assert getattr(segmenter, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'segmenter' has no attribute 'nothing'"):
        _ = segmenter.nothing
