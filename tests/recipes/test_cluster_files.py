"""What starts recipes on a cluster: it parses, its flags are known to their readers, and it travels along."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from visionkit import cli
from visionkit.commands.recipes import find_file, list_cluster_files
from visionkit.errors import InputError
from visionkit.run.command_line import flag_names, parse

NAMES = {
    "kubernetes.yaml",
    "skypilot.yaml",
    "slurm-array.sbatch",
    "slurm.sbatch",
    "with_ray.py",
    "with_submitit.py",
}
# Options of sbatch (22.05) that may stand in a batch script.
SBATCH = {
    *("job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "signal", "requeue"),
    *("open-mode", "output", "array", "partition", "account", "parsable", "dependency", "wrap"),
}


@pytest.fixture(scope="module")
def cluster(root):
    return root / "recipes/cluster"


@pytest.fixture(scope="module")
def known(root):
    """The flags of each recipe."""
    sys.path.insert(0, str(root / "recipes"))
    paths = [p for p in sorted((root / "recipes").glob("*.py")) if p.stem not in ("compare", "sweep")]
    return {path.name: set(flag_names(importlib.import_module(path.stem).Config)) for path in paths}


def commands(text: str) -> list[list[str]]:
    """The words of every command line in `text` that names a recipe, from the recipe's file on."""
    joined = re.sub(r"\\\n[# ]*", " ", text)
    found = []
    for line in joined.splitlines():
        match = re.search(r"recipes/(?!cluster)\w+\.py.*", line)
        if match:
            found.append(shlex.split(match.group().rstrip("'").replace("...", ""), comments=True))
    return found


def unknown(words: list[str], known: dict[str, set[str]]) -> list[str]:
    flags = known[Path(words[0]).name]
    return [word for word in words[1:] if word.startswith("--") and word.partition("=")[0] not in flags]


def test_they_are_all_here_and_found_by_name(cluster, tmp_path, capsys):
    assert {path.name for path in cluster.iterdir() if path.is_file()} == NAMES
    assert set(list_cluster_files()) == {f"cluster/{name}" for name in NAMES}
    assert cli.main(["ls", "recipes"]) == 0
    told = capsys.readouterr().out
    for name in NAMES:
        assert f"cluster/{name} " in told
        assert cli.main(["cp", f"cluster/{name}", str(tmp_path)]) == 0
        assert (tmp_path / name).read_text() == (cluster / name).read_text()
    with pytest.raises(InputError, match=r"Did you mean 'cluster/slurm\.sbatch'"):
        find_file("cluster/slurm.sbach")


def test_every_flag_of_a_recipe_is_one_it_knows(cluster, known):
    walked = 0
    for name in sorted(NAMES):
        for words in commands((cluster / name).read_text()):
            assert unknown(words, known) == [], f"{name}: {' '.join(words)}"
            walked += 1
    job = yaml.safe_load((cluster / "kubernetes.yaml").read_text())["spec"]["trainer"]
    place = next(at for at, word in enumerate(job["args"]) if word.endswith(".py"))
    assert unknown(job["args"][place:], known) == []
    assert walked >= 10
    assert unknown(["recipes/detect.py", "--batchsize", "3"], known) == ["--batchsize"]


# What the published runs are started with, one line for each: the script, and words for its arguments.
RUNS = {
    "caption_coco.sh": ("show_and_tell", "."),
    "caption_scenes.sh": (),
    "faster_rcnn_coco.sh": (".",),
    "he2019.sh": (".", "2 6"),
    "segment_camvid.sh": (".",),
}
SHOW = """#!/bin/bash
for word in "$@"; do printf '%s\\0' "$word"; done >> "$RECORD"
printf '\\n\\0' >> "$RECORD"
"""


@pytest.mark.parametrize("name", sorted(RUNS))
def test_the_published_runs_give_values_that_their_recipe_takes(root, tmp_path, name, known):
    """The scripts run with stand-ins for their programs; the recipe's parser reads what those were given."""
    assert {path.name for path in (root / "recipes/runs").glob("*.sh")} == set(RUNS)
    for tool in ("python", "torchrun", "visionkit"):
        (tmp_path / tool).write_text(SHOW)
        (tmp_path / tool).chmod(0o755)
    record = tmp_path / "record"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RECORD": str(record)}
    script = [str(root / "recipes/runs" / name), *RUNS[name], "--lr", "0.125"]
    subprocess.run(["bash", *script], cwd=root, env=environment, check=True)
    calls = [call.split("\0")[:-1] for call in record.read_text().split("\n\0")[:-1]]
    started = 0
    for words in calls:
        at = next((at for at, word in enumerate(words) if word.endswith(".py")), None)
        if at is None:
            assert words[0] == "check"
            continue
        recipe = importlib.import_module(Path(words[at]).stem)
        made = parse(recipe.Config, words[at + 1 :], variants=recipe.VARIANTS)
        assert made.lr == 0.125, "more flags win"
        assert made.out.startswith("runs/")
        started += 1
    assert started == (5 if name == "caption_scenes.sh" else 1)


@pytest.mark.parametrize("name", ["slurm.sbatch", "slurm-array.sbatch"])
def test_batch_scripts_are_bash_and_say_what_slurm_needs(cluster, name, tmp_path):
    path = cluster / name
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    assert text.startswith("#!/bin/bash\n")
    given = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.M))
    assert len(given) == len(re.findall(r"^#SBATCH", text, re.M))
    assert set(given) <= SBATCH
    assert given["signal"] == "SIGUSR1@120"
    assert given["open-mode"] == "append"
    assert "requeue" in given
    # SLURM reads options only above the first command.
    assert text.rindex("#SBATCH") < text.index("if [")
    done = subprocess.run(["bash", str(path)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr


FAKE = """#!/bin/bash
echo "$(basename "$0") $*" >> "$RECORD"
[ "$(basename "$0")" = srun ] && exit "$STATUS"
[ "$(basename "$0")" = squeue ] && echo "$STATE"
exit 0
"""


def start(cluster: Path, tmp_path: Path, name: str, *args: str, **more: str) -> tuple[int, list[str], str]:
    """Run a batch script with SLURM's commands replaced by ones that write down how they were called."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for tool in ("srun", "squeue", "scontrol"):
        (tools / tool).write_text(FAKE)
        (tools / tool).chmod(0o755)
    record = tmp_path / "record"
    record.write_text("")
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "RECORD": str(record), "SLURM_JOB_ID": "77", **more}
    done = subprocess.run(
        ["bash", str(cluster / name), *args], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, record.read_text().splitlines(), done.stderr


def test_a_saved_job_queues_again_and_a_cancelled_or_failed_one_does_not(cluster, tmp_path):
    words = ("recipes/classify.py", "--data", "my photos")
    for status, state, again in (
        ("75", "RUNNING", True),
        ("75", "COMPLETING", False),
        ("1", "RUNNING", False),
    ):
        code, record, _ = start(cluster, tmp_path, "slurm.sbatch", *words, STATUS=status, STATE=state)
        assert code == int(status)
        assert record[0] == "srun --wait=300 python -u recipes/classify.py --data my photos"
        assert ("scontrol requeue 77" in record) is again, (status, state, record)


def test_the_array_walks_inits_seeds_and_schedules(cluster, tmp_path):
    seen = []
    array = {"SLURM_ARRAY_JOB_ID": "70", "STATUS": "75", "STATE": "RUNNING"}
    array |= {"INITS": "pretrained scratch weights/my.pth", "SEEDS": "5 6"}
    for task in range(6):
        more = array | {"SLURM_ARRAY_TASK_ID": str(task)}
        code, record, _ = start(
            cluster, tmp_path, "slurm-array.sbatch", "out", "recipes/classify.py", "--lr", "1", **more
        )
        assert code == 75
        assert record[-1] == f"scontrol requeue 70_{task}"
        seen.append(record[0].split("--lr 1 ")[1])
    assert seen == [
        f"--init {init} --seeds {seed} --out out/{name}-s{seed}"
        for seed in (5, 6)
        for init, name in (("pretrained", "pretrained"), ("scratch", "scratch"), ("weights/my.pth", "my"))
    ]
    _, record, _ = start(
        cluster, tmp_path, "slurm-array.sbatch", "out", "recipes/detect.py",
        **array | {"SCHEDULES": "1 4", "SLURM_ARRAY_TASK_ID": "10"},
    )  # fmt: skip
    assert record[0].endswith("--init scratch --seeds 6 --schedules 4 --out out/scratch-x4-s6")
    for task in ("6", "-1"):
        more = array | {"SLURM_ARRAY_TASK_ID": task}
        code, record, said = start(
            cluster, tmp_path, "slurm-array.sbatch", "out", "recipes/classify.py", **more
        )
        assert (code, record) == (2, [])
        assert "3 inits, 2 seeds and 1 schedules are 6 runs: use sbatch --array=0-5" in said


def test_the_train_job_has_what_its_kind_requires(cluster):
    job = yaml.safe_load((cluster / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    spec = job["spec"]
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert spec["runtimeRef"] == {"name": "torch-distributed"}
    # The names that version 2.2 knows; podTemplateOverrides of 2.1 is gone.
    assert set(spec) == {"runtimeRef", "trainer", "runtimePatches"}
    assert set(spec["trainer"]) == {
        "image",
        "numNodes",
        "numProcPerNode",
        "command",
        "args",
        "resourcesPerNode",
    }
    (patch,) = spec["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert node["name"] == "node"
    mounted = {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    gpus = spec["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"]
    assert int(gpus) == spec["trainer"]["numProcPerNode"]
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_the_sky_task_starts_torchrun_as_it_wants_to_be(cluster, known):
    from torch.distributed.run import get_args_parser

    task = yaml.safe_load((cluster / "skypilot.yaml").read_text())
    assert set(task) == {"name", "resources", "num_nodes", "workdir", "file_mounts", "setup", "run"}
    given = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8", "SKYPILOT_NODE_RANK": "1"}
    given["SKYPILOT_NODE_IPS"] = "10.0.0.1\n10.0.0.2"
    shown = "torchrun() { printf '%s\\n' \"$@\"; }\n" + task["run"]
    done = subprocess.run(
        ["bash", "-eu", "-c", shown], env=given | {"PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    args = get_args_parser().parse_args(done.stdout.decode().splitlines())
    assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)
    assert (args.master_addr, args.master_port) == ("10.0.0.1", 29500)
    assert args.training_script == "recipes/detect.py"
    assert unknown([args.training_script, *args.training_script_args], known) == []
    out = args.training_script_args[args.training_script_args.index("--out") + 1]
    assert any(out.startswith(place) for place in task["file_mounts"])


def test_the_launchers_refuse_before_anything_starts(cluster, capsys):
    sys.path.insert(0, str(cluster))
    for name in ("with_ray", "with_submitit"):
        module = importlib.import_module(name)
        with pytest.raises(SystemExit, match="2"):
            module.main(["no-such-recipe.py", "--lr", "1"])
        assert "there is no recipe at no-such-recipe.py" in capsys.readouterr().err
        with pytest.raises(SystemExit, match="0"):
            module.main(["--help"])
        assert f"recipes/cluster/{name}.py" in capsys.readouterr().out


def test_they_travel_in_the_wheel(root):
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"recipes": "visionkit/_recipes"}
    assert "recipes" in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
