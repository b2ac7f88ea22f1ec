"""What is true of the repository as a whole: layers, public names, docstrings, links, and what must not be in it."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import dxos

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src" / "dxos"
TESTS = ROOT / "tests"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND_S_MAX = 50
BINARY_SUFFIXES = frozenset({".png", ".bin", ".sqlite", ".automerge"})

# Folders of the machines on which this is built, and the hosts from which they take packages.
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:work|root|tmp|builds|home/\w+)/\w")
REGISTRY_HOST = re.compile(r"https?://[\w.-]*(?:artifactory|nexus|jfrog|verdaccio|devpi|pypi-proxy|registry\.[\w-]+\.)")
PUBLIC_REGISTRY = "https://registry.npmjs.org/"

REAL_TIME = ("process", "interop")  # Folders whose tests wait for real processes.
REAL_SLEEP = re.compile(r"(?<!anyio\.)\bsleep\(")
PROGRAM = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)
IMPORTED = re.compile(r"^\s*(?:from|import) (\w+)(?= import|$)", re.MULTILINE)
MOCK = re.compile(r"\bpatch\(|\bpatch\.|\bimport mock\b|unittest\.mock|\bMagicMock\b|\bmocker\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def modules() -> list[Path]:
    return [one for one in sorted(SOURCES.rglob("*.py")) if not one.stem.endswith("_pb2")]


def own_files() -> list[Path]:
    """Every text file that belongs to the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("no git here to say which files belong to the repository")
    found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [one for one in found if one.is_file() and one.suffix not in BINARY_SUFFIXES]


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The names that links into a page may end with."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in HEADING.findall(text)}


def public_definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Classes, functions and methods whose names do not begin with an underscore."""
    for one in body:
        if isinstance(one, ast.ClassDef) and not one.name.startswith("_"):
            yield f"{prefix}{one.name}", one
            # What the methods of a protocol mean is said of it as a whole, and not again by what implements it.
            implements = (ast.get_docstring(one) or "").startswith("Implements ")
            if not implements and not any("Protocol" in ast.unparse(base) for base in one.bases):
                yield from public_definitions(one.body, f"{prefix}{one.name}.")
        elif isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and not one.name.startswith("_"):
            yield f"{prefix}{one.name}", one


def inherits(node: ast.ClassDef) -> bool:
    return bool([base for base in node.bases if ast.unparse(base).split("[")[0] not in ("Generic", "object")])


@pytest.mark.slow
def test_imports_only_go_down_the_layers() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    if command is None:
        pytest.skip("import-linter is not installed")
    found = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False
    )
    assert found.returncode == 0, found.stdout[-3_000:] + found.stderr[-1_000:]


def test_the_public_names_are_all_listed_and_in_order() -> None:
    # They are loaded when asked for; what type checkers are told must be what a program gets.
    tree = ast.parse((SOURCES / "__init__.py").read_text(encoding="utf-8"))
    told = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dxos.")
        for alias in node.names
    }
    assert set(dxos.__all__) == told.keys() | {"__version__"}
    assert dxos.__all__ == sorted(dxos.__all__)
    for name, (module, original) in told.items():
        assert getattr(dxos, name) is getattr(importlib.import_module(module), original)
    with pytest.raises(AttributeError):
        getattr(dxos, "Nothing")  # noqa: B009 - Type checkers would find it.


@pytest.mark.parametrize("name", [one for one in dxos.__all__ if one != "__version__"])
def test_a_public_name_has_a_docstring_and_is_in_the_reference(name: str) -> None:
    assert getattr(dxos, name).__doc__, f"dxos.{name} has no docstring"
    reference = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert re.search(rf"`[^`\n]*\b{name}\b", reference), f"docs/python.md does not mention {name}"


def test_the_reference_lists_every_error_with_its_code() -> None:
    reference = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    kinds = [dxos.DxosError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    package = [one for one in kinds if one.__module__ == "dxos.errors"]
    assert len(package) > 30, "the tree of errors is there"
    missing = [
        one.__name__ for one in package if f"`{one.__name__}`" not in reference or f"`{one.code}`" not in reference
    ]
    assert not missing, f"docs/python.md lacks {missing}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_what_is_public_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not tree.body:
        return  # An empty package file.
    lacking = [] if ast.get_docstring(tree) else ["the module itself"]
    classes = {one.name: one for one in ast.walk(tree) if isinstance(one, ast.ClassDef)}
    for name, node in public_definitions(tree.body):
        owner = classes.get(name.rpartition(".")[0].rpartition(".")[2])
        if owner is not None and inherits(owner):
            continue  # It may override, and then its parent says it.
        assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if any("overload" in ast.unparse(one) or ".setter" in ast.unparse(one) for one in node.decorator_list):
            continue
        if not ast.get_docstring(node):
            lacking.append(name)
    assert not lacking, f"{path.relative_to(SOURCES)}: no docstring: {', '.join(lacking)}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_messages_of_errors_are_sentences(path: Path) -> None:
    faults = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            kind = getattr(importlib.import_module("dxos.errors"), node.func.id, None)
            text = node.args[0]
            if isinstance(text, ast.JoinedStr) and text.values:
                text = text.values[0]
            if not (isinstance(kind, type) and isinstance(text, ast.Constant) and isinstance(text.value, str)):
                continue
            # A message may begin with the place that it speaks of, or with a command.
            if re.match(r"[a-z](?![\w.\[\]/-]*(: |$))(?!x )", text.value):
                faults.append(f"line {node.lineno}: {text.value}")
    assert not faults, "\n".join(faults)


def lives_in_real_time(path: Path, importers: dict[str, set[Path]]) -> bool:
    """Whether a file is for real processes: their tests, a program that is one, or what only such files import."""
    if path.relative_to(TESTS).parts[0] in REAL_TIME:
        return True
    used_by = importers.get(path.stem, set())
    is_program = PROGRAM.search(path.read_text(encoding="utf-8")) is not None
    return (is_program or bool(used_by)) and all(lives_in_real_time(one, importers) for one in used_by)


def test_tests_neither_sleep_nor_patch() -> None:
    paths = [
        one
        for one in sorted(TESTS.rglob("*.py"))
        if one != Path(__file__).resolve() and "node_modules" not in one.parts
    ]
    importers: dict[str, set[Path]] = {}
    for path in paths:
        for name in IMPORTED.findall(path.read_text(encoding="utf-8")):
            importers.setdefault(name, set()).add(path)
    faults = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if REAL_SLEEP.search(text) and not lives_in_real_time(path, importers):
            faults.append(f"{path.relative_to(ROOT)} sleeps in real time")
        if MOCK.search(text):
            faults.append(f"{path.relative_to(ROOT)} replaces our own code by a mock")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
            broken.append(target)
    assert not broken, f"{page.name}: {broken}"


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {f"docs/{one.name}" for one in PAGES[1:]}
    reachable = set(LINK.findall(readme))
    for one in PAGES[1:]:
        text = one.read_text(encoding="utf-8")
        reachable |= {f"docs/{target.partition('#')[0]}" for target in LINK.findall(text)}
        reachable |= set(re.findall(r"`(docs/[\w-]+\.md)`", text))
    assert pages <= reachable, pages - reachable


def test_no_file_names_a_build_machine_or_its_registry() -> None:
    faults = []
    for path in own_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line) or REGISTRY_HOST.search(line.replace(PUBLIC_REGISTRY, "")):
                faults.append(f"{path.relative_to(ROOT)}:{number}: {line.strip():.100}")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_the_generated_modules_are_those_of_the_proto_files(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed; it generates the protobuf modules")
    copy = tmp_path / "dxos" / "wire"
    shutil.copytree(SOURCES / "wire", copy, ignore=shutil.ignore_patterns("*_pb2.py", "*_pb2.pyi", "__pycache__"))
    generated = subprocess.run(
        ["sh", str(copy / "generate.sh")],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
        check=False,
    )
    assert generated.returncode == 0, generated.stderr
    for suffix in ("*_pb2.py", "*_pb2.pyi"):
        ours = {one.name: one for one in (SOURCES / "wire" / "proto").glob(suffix)}
        theirs = {one.name: one for one in (copy / "proto").glob(suffix)}
        assert ours.keys() == theirs.keys()
        for name, one in ours.items():
            assert body(one) == body(theirs[name]), f"{name} is not what generate.sh makes: run make proto"


def body(path: Path) -> str:
    """A generated module without the version of the tool that made it."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"^# Protobuf Python Version: .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"ValidateProtobufRuntimeVersion\([^)]*\)", "", text)


def test_the_changelog_knows_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?(?:Unreleased|{re.escape(dxos.__version__)})\b", changelog, re.MULTILINE)


def test_the_readme_names_every_command_of_continuous_integration() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z]+)", script))
    assert targets, "continuous integration runs something"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the Makefile has no target {target}"
        assert f"make {target}" in readme, f"the README does not say what make {target} does"


def test_the_package_needs_what_it_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=!\[; ]", one)[0].lower() for one in project["dependencies"]}
    imported: set[str] = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"dxos"}
    names = {"google": "protobuf"}
    assert {names.get(one, one) for one in foreign} <= needed
