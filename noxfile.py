"""Sessions: every check of the project, the same here as in continuous integration."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox
from packaging.specifiers import SpecifierSet

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
CONSTRAINTS = ("-c", "constraints.txt")
SOURCES = ("harness", "tests", "noxfile.py")
REAL_TREES = "../shared/data/oasst/oasst1-en-validation.trees.jsonl.gz"


def group(name: str) -> list[str]:
    """Requirements of one dependency group of pyproject.toml."""
    return list(nox.project.dependency_groups(PROJECT, name))


def project_python(session: nox.Session, *groups: str) -> str:
    """Python of the one environment that holds the project, brought up to date.

    Installing the project takes minutes and gigabytes, so the sessions that need it share one
    environment, ``.nox/project``, instead of having one each.
    """
    wanted = SpecifierSet(PROJECT["project"]["requires-python"])
    running = ".".join(str(part) for part in sys.version_info[:3])
    if running not in wanted:
        session.error(f"Python {wanted} is needed; nox runs on {running}")
    folder = ROOT / ".nox" / "project"
    python = str(folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    if not Path(python).exists():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(folder), external=True)
    session.log("bringing .nox/project up to date; the first time takes minutes")
    needed = [requirement for name in groups for requirement in group(name)]
    command = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", *CONSTRAINTS]
    # Hqq's installer would compile kernels for a CUDA device, which the harness does not use.
    environment = {"DISABLE_CUDA": "1"}
    session.run(python, *command, "-e", ".", *needed, external=True, env=environment)
    return python


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, the direction of imports, and the workflow file."""
    session.install(*CONSTRAINTS, *group("lint"))
    session.run("ruff", "check", *SOURCES)
    session.run("ruff", "format", "--check", *SOURCES)
    session.run("lint-imports", env={"PYTHONPATH": str(ROOT)})
    workflows = [str(path) for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    python = project_python(session, "types")
    session.run(python, "-m", "mypy", external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The fast tests: tiny random models built here, no network."""
    python = project_python(session, "tests")
    # Two workers with a thread each: more would each load torch once more.
    command = [python, "-m", "pytest", "-n", "2", "--dist", "worksteal"]
    session.run(*command, *session.posargs, external=True, env={"OMP_NUM_THREADS": "1"})


@nox.session(venv_backend="none")
def coverage(session: nox.Session) -> None:
    """The tests with the share of lines and branches that they run; about a fifth slower."""
    python = project_python(session, "coverage")
    command = [
        python,
        "-m",
        "pytest",
        "-n",
        "2",
        "--dist",
        "worksteal",
        "--cov",
        "--cov-report=term",
    ]
    session.run(*command, *session.posargs, external=True, env={"OMP_NUM_THREADS": "1"})


@nox.session(venv_backend="none")
def smoke(session: nox.Session) -> None:
    """The main job with a small budget on real trees: download, train, score, report."""
    if not (ROOT / REAL_TREES).is_file():
        session.skip(f"real test data is not at {REAL_TREES}")
    python = project_python(session)
    reports = Path(session.create_tmp()) / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    command = [python, "-m", "harness", "run", "--variant", "qlora_nf4"]
    command += ["--reports", str(reports), "--set", f"corpus.source={REAL_TREES}"]
    command += ["--set", "budget.steps=4", "--set", "corpus.held_out_limit=4"]
    command += ["--set", "score.generations=0"]
    session.run(*command, external=True)
    session.run(python, "-m", "tests.smoke", str(reports), external=True)


@nox.session(venv_backend="none")
def report(session: nox.Session) -> None:
    """Make every published report again from its records; fail on a difference."""
    python = project_python(session)
    session.run(python, "-m", "tests.rebuild", "reports", external=True)


@nox.session(venv_backend="none")
def wheel(session: nox.Session) -> None:
    """A built wheel, away from the checkout, finds its variants, suites, models and texts."""
    python = project_python(session)
    folder = Path(session.create_tmp()).resolve() / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    pip = [python, "-m", "pip", "-qq"]
    session.run(*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), ".", external=True)
    (built,) = folder.glob("*.whl")
    site = folder / "site"
    session.run(*pip, "install", "--no-deps", "--target", str(site), str(built), external=True)
    with session.chdir(folder):
        # -P: the checks stand beside folders named like modules of the standard library
        command = [python, "-P", str(ROOT / "tests" / "installed.py"), str(site)]
        session.run(*command, env={"PYTHONPATH": str(site)}, external=True)


@nox.session(venv_backend="none")
def parity(session: nox.Session) -> None:
    """The fast scoring engine against lm-eval's own, item by item."""
    python = project_python(session, "tests")
    session.run(python, "-m", "tests.score.parity", *session.posargs, external=True)


@nox.session(venv_backend="none")
def methods(session: nox.Session) -> None:
    """Every method on every kind of base, tiny models; writes and prints the plane."""
    python = project_python(session, "tests")
    session.run(python, "-m", "tests.methods.plane", *session.posargs, external=True)


@nox.session(venv_backend="none")
def architectures(session: nox.Session) -> None:
    """What holds on each architecture: makes docs/architectures.md again, in minutes."""
    python = project_python(session, "tests")
    session.run(python, "-m", "tests.architecture_table", "docs/architectures.md", external=True)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """What only a GPU can show: kernels, recorded steps, host memory, decoding."""
    python = project_python(session)
    probe = "import torch; print(torch.cuda.is_available())"
    found = session.run(python, "-c", probe, external=True, silent=True) or ""
    if found.split()[-1:] != ["True"]:
        session.skip("PyTorch finds no CUDA device here")
    session.run(python, "reports/h100/check.py", external=True)


@nox.session(venv_backend="none")
def statistics(session: nox.Session) -> None:
    """How often the report's statements are true, by simulation; prints a table, in minutes."""
    python = project_python(session, "tests")
    session.run(python, "-m", "tests.stats.simulate", *session.posargs, external=True)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """What got slower beside its peer since the committed numbers; fails if anything did."""
    python = project_python(session, "tests")
    session.run(python, "-m", "tests.bench", *session.posargs, external=True)


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Thousands of damaged files, settings, records, caches and checkpoints; prints its seed."""
    python = project_python(session, "tests")
    session.run(python, "-m", "tests.fuzz", *session.posargs, external=True)


@nox.session(venv_backend="none")
def browser(session: nox.Session) -> None:
    """The HTML report in a real browser."""
    python = project_python(session, "tests", "browser")
    session.run(python, "-m", "pytest", "-m", "browser", *session.posargs, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, from docs/, the pages of the top level and docstrings.

    A link to what the site does not have is an error.
    """
    session.install(*group("docs"))
    session.run("python", "-m", "tests.pages", "build/pages")
    # Not with --quiet, which keeps warnings from --strict too: ten broken links went unnoticed.
    session.run("mkdocs", "build", "--strict", "-f", "docs/mkdocs.yml")
    session.log("build/site/index.html")
