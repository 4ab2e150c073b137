"""The house stands: floors use only what is below them, and the rules that hold for every file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("core", "nodes", "training", "headless")
FLOORS = {
    "core.runtime": 0, "core.errors": 0, "core.folders": 0, "core.randomness": 0, "core.file_names": 0,
    "core.module_tensors": 0, "core.picture_files": 0,
    "core.diffusion": 1, "core.imaging": 1, "core.degradation": 1, "core.quality": 1, "core.protocols": 1, "core.selection": 1,
    "core.pair_shards": 1,
    "core.models": 2, "core.graph": 2,
    "core.methods": 3, "core.weights": 3,
    "nodes": 4, "training": 4,
    "headless": 5,
}  # fmt: skip
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "nodes", "server"}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60

FILES = [*sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")), ROOT / "__init__.py", ROOT / "__main__.py"]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> tuple[str, ...]:
    """`core/graph/cache.py` -> ("core", "graph", "cache"); a package's __init__ is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports_of(path: Path) -> Iterator[tuple[tuple[str, ...], bool]]:
    """(module, whether it is ours) for every import anywhere in the file; ours without the package's own name."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((tuple(alias.name.split(".")), False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ()))
            # `from ..core import quality` imports a module as well as `from ..core.quality import measure` does.
            yield from (((*base, alias.name), True) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield tuple((node.module or "").split(".")), False


def outside_imports(path: Path) -> set[str]:
    """Top names of what the file imports from outside the package."""
    return {module[0] for module, ours in imports_of(path) if not ours}


def floor_of(module: tuple[str, ...]) -> int | None:
    """None for the root and for the empty package `core`."""
    return FLOORS.get(".".join(module[:2]), FLOORS.get(".".join(module[:1])))


def test_each_floor_uses_only_floors_below_it() -> None:
    faults = []
    for path in FILES:
        module = module_of(path)
        at_root = len(path.relative_to(ROOT).parts) == 1
        floor = 5 if at_root else 0 if module == ("core",) else floor_of(module)
        assert floor is not None, f"{name_of(path)} lies on no floor"
        for imported, ours in imports_of(path):
            other = floor_of(imported) if ours else None
            beside = other == floor == 4 and imported[0] != module[0]
            if other is not None and (other > floor or beside):
                faults.append(f"{name_of(path)} imports {'.'.join(imported)}")
    assert faults == []


def test_imports_inside_the_package_are_relative() -> None:
    assert [name_of(path) for path in FILES if "kintsugi" in outside_imports(path)] == []


def test_comfyui_is_imported_in_one_file_alone() -> None:
    assert [name_of(path) for path in FILES if asks_for_comfyui(path)] == ["nodes/comfy_host.py"]


def asks_for_comfyui(path: Path) -> bool:
    """By an import, or by a module's name for sys.modules or importlib."""
    texts = {node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    named = (text for text in texts if not text.endswith(".json"))
    return bool(COMFYUI & outside_imports(path)) or any(re.fullmatch(r"folder_paths|comfy(\.\w+)*", text) for text in named)


def test_pickles_are_read_in_the_converter_alone() -> None:
    assert [name_of(path) for path in FILES if reads_pickles(path)] == ["core/weights/convert.py"]


def reads_pickles(path: Path) -> bool:
    names = {ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    return "torch.load" in names or bool({"pickle", "dill", "joblib"} & outside_imports(path))


def test_files_and_functions_stay_short() -> None:
    long_files = [name_of(path) for path in FILES + TOOLS if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_FILE]
    functions = [
        f"{node.name} in {name_of(path)}"
        for path in FILES + TOOLS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert long_files + functions == []


def test_the_face_of_the_pack_is_small() -> None:
    assert len((ROOT / "__init__.py").read_text(encoding="utf-8").splitlines()) <= 40
