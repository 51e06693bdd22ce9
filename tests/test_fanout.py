"""Several workers on one list: killed, broken, on a simulated Ray cluster; Slurm scripts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stvg_nb import prompting
from stvg_nb.cli import build_parser
from stvg_nb.fanout import PromptWork, who_did_what
from stvg_nb.foundations.leases import Worker, launch_log
from stvg_nb.foundations.video import write_video
from stvg_nb.prompting import list_videos

ROOT = Path(__file__).resolve().parent.parent
# processes that are started here see this checkout, and Ray's own ones too
SEEN = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
HERE = dict(PYTHONPATH=SEEN, OMP_NUM_THREADS="1", STVG_PROFILE="smoke", HF_HUB_OFFLINE="1")


def start(*argv, **env):
    words = [sys.executable, "-m", "stvg_nb.cli", *map(str, argv)]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    return subprocess.Popen(words, text=True, env=os.environ | HERE | env, **streams)


def finished(process):
    said, complaint = process.communicate(timeout=1800)
    return process.returncode, said, complaint


def square(path, frames):
    "A light square that crosses a noisy scene."
    rng = np.random.default_rng(0)
    scene = rng.integers(20, 60, (72, 128, 3)).astype(np.uint8)

    def each():
        for f in range(frames):
            frame = scene + rng.integers(0, 4, scene.shape).astype(np.uint8)
            frame[20:50, 5 + 2 * f : 25 + 2 * f] = (220, 180, 60)
            yield frame

    write_video(path, each(), 10)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    "Five good videos, a broken one, and what one process makes of them."
    folder = tmp_path_factory.mktemp("fanout")
    (folder / "in").mkdir()
    for k in range(5):
        square(folder / "in" / f"good{k}.mp4", 40 + k)
    (folder / "in" / "broken.mp4").write_bytes(b"this is no video")
    code, said, complaint = finished(start("prompt", folder / "in", "--output", folder / "one"))
    assert code == 3 and "broken.mp4" in said, complaint
    return folder


def databases(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.masks.json.gz"))}


def same_as_one(clips, out):
    one = databases(clips / "one")
    assert len(one) == 5 and databases(out) == one


def meeting(clips, out):
    config = prompting.load_config(profile="smoke")
    return PromptWork(list_videos(clips / "in"), out, config).meeting


def made_once(folder):
    "Each video was numbered by one worker, and no worker numbered it again."
    made = Counter(e["item"] for e in launch_log(folder) if e.get("made"))
    assert made == {f"good{k}": 1 for k in range(5)}


def holding(folder):
    "Process -> the item that it is in the middle of."
    lines = launch_log(folder)
    process = {e["worker"]: e["process"] for e in lines if "process" in e}
    held = {}
    for e in (e for e in lines if "item" in e):
        held[process[e["worker"]]] = e["item"] if e["what"] == "begin" else None
    return {p: item for p, item in held.items() if item}


def state(pid):
    "One letter of the system: R runs, S sleeps, T is stopped; Z where it has ended."
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def caught(folders, ours, wanted=None):
    "A worker that is stopped in the middle of an item: (process, item)."
    while ours.poll() is None:
        for folder in folders():
            for pid in holding(folder):
                if pid != wanted and wanted is not None or state(pid) == "Z":
                    continue
                os.kill(pid, signal.SIGSTOP)
                while state(pid) not in "TZ":
                    time.sleep(0.001)
                if item := holding(folder).get(pid):  # still, now that it cannot go on
                    return pid, item
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError(f"nobody was caught: {finished(ours)}")


def lost_and_done_again(folder, item):
    "One worker was lost with this item, and another has made it."
    bars = [b["what"] for b in who_did_what(folder) if b["item"] == item]
    assert sorted(bars) == ["done", "lost"]


# shares -----------------------------------------------------------------------------------------


def test_a_killed_workers_video_is_numbered_by_the_other(clips, tmp_path):
    out = tmp_path / "two"
    watch = Worker(meeting(clips, out))  # keeps the logs
    common = ("prompt", clips / "in", "--output", out)
    lost = start(*common, "--shard", "2/2")
    pid, item = caught(lambda: [watch.folder], lost, lost.pid)
    other = start(*common, "--shard", "1/2")  # not before: alone it might do the whole list
    lost.kill()
    finished(lost)
    code, said, complaint = finished(other)
    assert code == 3 and "5 numbered, 1 set aside" in said and "broken.mp4" in said, complaint
    same_as_one(clips, out)
    made_once(watch.folder)
    lost_and_done_again(watch.folder, item)
    watch.close()


def asked(clips, path):
    "Forty questions, the last one about the broken video."
    lines = [dict(schema="stvg.samples/1")]
    for k in range(40):
        name = "broken" if k == 39 else f"good{k % 5}"
        facts = dict(key=f"q{k}", task="stvg", query="Who moves?", benchmark="mine")
        lines.append(facts | dict(video=str(clips / "in" / f"{name}.mp4")))
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")


@pytest.fixture(scope="module")
def answered(clips):
    "The command, and the bytes that one process writes."
    asked(clips, clips / "samples.jsonl")
    command = ("predict", "--data", clips / "samples.jsonl", "--model", "embedded:base")
    whole = clips / "answers.jsonl"
    one = start(*command, "--output", whole, STVG_RUNS=str(clips / "runs"))
    code, said, complaint = finished(one)
    assert code == 3 and "39 answered" in said and "q39 (broken.mp4)" in said, complaint
    return command, whole.read_bytes()


def asking(runs):
    "Where the workers that answer meet."
    return lambda: [p for p in (runs / "answers").glob("*") if p.is_dir() and p.name[0] != "."]


def asked_once(folder):
    "Each batch was asked by one worker."
    made = Counter(e["item"] for e in launch_log(folder) if e.get("made"))
    assert len(made) == 5 and set(made.values()) == {1}


def test_a_killed_workers_batch_is_asked_by_the_other(answered, tmp_path):
    (command, one), runs = answered, tmp_path / "runs"
    parts = [tmp_path / f"{i}.jsonl" for i in (1, 2)]
    env = dict(STVG_RUNS=str(runs))
    lost = start(*command, "--output", parts[1], "--shard", "2/2", **env)
    pid, item = caught(asking(runs), lost, lost.pid)
    (folder,) = asking(runs)()
    watch = Worker(folder)  # keeps the logs until the other one is there
    other = start(*command, "--output", parts[0], "--shard", "1/2", **env)
    lost.kill()
    finished(lost)
    assert finished(other)[0] in (0, 3)  # 3: the broken video is in its own share
    whole = start(*command, "--output", tmp_path / "whole.jsonl", **env)
    code, said, complaint = finished(whole)
    assert code == 3 and "q39 (broken.mp4)" in said, complaint
    assert (tmp_path / "whole.jsonl").read_bytes() == one
    asked_once(folder)
    lost_and_done_again(folder, item)
    watch.close()


def test_what_cannot_be_shared_is_said(clips, tmp_path):
    for argv, says in (
        (("prompt", clips / "in/good0.mp4", "--shard", "1/2"), "share a list"),
        (("prompt", clips / "in", "--shard", "3/2"), "1 <= i <= n"),
        (("prompt", clips / "in", "--shard", "1/2", "--ray"), "leave out --shard"),
        (("predict", "--output", tmp_path / "p.jsonl", "--ray", "--task", "boxes"), "--shard"),
    ):
        code, _, complaint = finished(start(*argv))
        assert code == 2 and says in complaint and complaint.count("\n") == 1


# Ray --------------------------------------------------------------------------------------------


# Ray gives each part of a node some seconds to come up; on a busy machine it takes minutes
PATIENCE = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": 600,
    "RAY_raylet_start_wait_time_s": 600,
    "RAY_agent_register_timeout_ms": 600_000,
    "RAY_worker_register_timeout_seconds": 600,
    "RAY_gcs_rpc_server_connect_timeout_s": 600,
    "RAY_py_gcs_connect_timeout_s": 600,
    "RAY_gcs_server_request_timeout_seconds": 600,
}


def node_of(cpus):
    "Settings of a small node. A port that is left open is waited for, 15 seconds and not longer."
    agents = ("metrics_agent", "metrics_export", "runtime_env_agent")
    ports = {f"{name}_port": free_port() for name in agents}
    return dict(num_cpus=cpus, object_store_memory=80 << 20) | ports


def free_port():
    from ray._common.network_utils import find_free_port

    return find_free_port()


def with_agents_port(begin):
    "The port of a node's other agent, which Ray waits for as well but does not hand on."

    def start(command, kind, *args, **given):
        if kind == "raylet":
            command = [*command, f"--dashboard_agent_listen_port={free_port()}"]
        return begin(command, kind, *args, **given)

    return start


@pytest.fixture(scope="module")
def cluster():
    "A head without slots; nodes are added by the tests."
    set_here = HERE | {k: str(v) for k, v in PATIENCE.items()} | dict(RAY_USAGE_STATS_ENABLED="0")
    before = {k: os.environ.get(k) for k in set_here}
    os.environ.update(set_here)  # Ray's processes inherit them
    utils = pytest.importorskip("ray.cluster_utils")
    quick = dict(health_check_initial_delay_ms=0, health_check_period_ms=500)
    quick |= dict(health_check_failure_threshold=4)
    quick |= dict(worker_niceness=0)  # of 15, a busy machine gives an actor a hundredth of a core
    head = node_of(0) | dict(include_dashboard=False, _system_config=quick)
    services = pytest.importorskip("ray._private.services")
    begin = services.start_ray_process
    services.start_ray_process = with_agents_port(begin)
    made = utils.Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()
    services.start_ray_process = begin
    for k, v in before.items():
        os.environ.pop(k) if v is None else os.environ.update({k: v})


def two_nodes(cluster, connected, ours):
    "Added when our process has connected to the head, which stays."
    while not connected() and ours.poll() is None:
        time.sleep(0.01)
    return [cluster.add_node(wait=False, **node_of(1)) for _ in range(2)]


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def lose(cluster, nodes, folders, ours):
    "End a node with all its processes in the middle of an item; what is left in `nodes` lives."
    pid, item = caught(folders, ours)
    (its,) = [n for n in nodes if n.all_processes["raylet"][0].process.pid == parent(pid)]
    cluster.remove_node(its, allow_graceful=False)
    os.kill(pid, signal.SIGKILL)
    nodes.remove(its)
    return item


@pytest.mark.ray
def test_a_lost_nodes_video_is_numbered_by_another(clips, cluster, tmp_path):
    out = tmp_path / "ray"
    watch = Worker(meeting(clips, out))
    ours = start("prompt", clips / "in", "--output", out, "--ray", cluster.address)
    nodes = two_nodes(cluster, lambda: len(list(watch.folder.glob("*.log"))) == 2, ours)
    item = lose(cluster, nodes, lambda: [watch.folder], ours)
    code, said, complaint = finished(ours)
    assert code == 3 and "5 numbered, 1 set aside" in said and "broken.mp4" in said, complaint
    same_as_one(clips, out)
    made_once(watch.folder)
    lost_and_done_again(watch.folder, item)
    watch.close()
    cluster.remove_node(nodes[0], allow_graceful=False)


@pytest.mark.ray
def test_a_lost_nodes_batch_is_asked_by_another(answered, cluster, tmp_path):
    (command, one), runs = answered, tmp_path / "runs"
    env = dict(STVG_RUNS=str(runs))
    ours = start(*command, "--output", tmp_path / "p.jsonl", "--ray", cluster.address, **env)
    numbering = runs / "numbered/.leases"
    nodes = two_nodes(cluster, lambda: any(numbering.glob("*/*.log")), ours)
    item = lose(cluster, nodes, asking(runs), ours)
    code, said, complaint = finished(ours)
    assert code == 3 and "q39 (broken.mp4)" in said, complaint
    assert (tmp_path / "p.jsonl").read_bytes() == one
    (folder,) = asking(runs)()
    asked_once(folder)
    lost_and_done_again(folder, item)
    cluster.remove_node(nodes[0], allow_graceful=False)


# Slurm ------------------------------------------------------------------------------------------

SBATCH = sorted((ROOT / "slurm").glob("*.sbatch"))
GIVEN = dict(VIDEOS="my videos", DATA="samples.jsonl", MODEL="m", OUTPUT="out", SLURM_JOB_ID="7")
ARRAY = dict(SLURM_ARRAY_TASK_ID="3", SLURM_ARRAY_TASK_MIN="1", SLURM_ARRAY_TASK_COUNT="8")
NODES = dict(SLURM_JOB_NODELIST="n[1-2]", SLURM_NNODES="2")
STAND_INS = dict(
    stvg='printf "%s\\0" "$@" >>"$SAID"; printf "\\n" >>"$SAID"',
    srun='while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    scontrol="printf 'n1\\nn2\\n'",
    make='printf "make\\0%s\\0%s\\n" "$@" >>"$SAID"',
)


def lines_of(script, tmp_path, **env):
    "What a script would run, with stand-ins for the programs that it calls."
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    said = tmp_path / "said"
    said.unlink(missing_ok=True)
    path = f"{tmp_path}:{os.environ['PATH']}"
    env = dict(PATH=path, SAID=str(said)) | GIVEN | ARRAY | NODES | env
    subprocess.run(["bash", str(script)], env=env, check=True, cwd=tmp_path)
    return [line.rstrip("\0").split("\0") for line in said.read_text().splitlines()]


@pytest.mark.parametrize("script", SBATCH, ids=lambda p: p.stem)
def test_the_batch_scripts_call_commands_that_exist(script, tmp_path):
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert script.read_text().startswith("#!/bin/bash\n") and "#SBATCH --" in script.read_text()
    lines = lines_of(script, tmp_path)
    assert lines
    for words in lines:
        if words[0] == "make":
            assert words == ["make", "reproduce", "PROFILE=a100"]
        else:
            assert build_parser().parse_args(words).command == words[0]


def test_an_array_job_shares_and_an_array_of_one_puts_together(tmp_path):
    (numbering,) = lines_of(ROOT / "slurm/prompt.sbatch", tmp_path)
    assert numbering[1] == "my videos" and numbering[-2:] == ["--shard", "3/8"]
    (answering,) = lines_of(ROOT / "slurm/predict.sbatch", tmp_path)
    assert answering[-2:] == ["--shard", "3/8"] and "out.3-of-8.jsonl" in answering
    alone = dict(SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_TASK_COUNT="1")
    (whole,) = lines_of(ROOT / "slurm/predict.sbatch", tmp_path, **alone)
    assert "--shard" not in whole and whole[-2:] == ["--output", "out"]
    (training,) = lines_of(ROOT / "slurm/train.sbatch", tmp_path)
    assert training[-1] == "train.processes=16"
