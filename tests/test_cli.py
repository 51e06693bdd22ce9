"""The command line as a user meets it: whole processes, exit codes, stdout and stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HCSTVG = ROOT / "tests/data/hcstvg"


def stvg(*argv, cwd=None, **env):
    command = [str(Path(sys.executable).with_name("stvg")), *map(str, argv)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    given = json.loads((HCSTVG / "predictions_all_frames_0based_xyxy.json").read_text())
    path = tmp_path_factory.mktemp("p") / "predictions.jsonl"
    lines = [{"schema": "stvg.predictions/1", "benchmark": "hcstvg"}] + [
        dict(
            key=k,
            start_frame=p["sted"][0],
            end_frame=p["sted"][1],
            boxes={str(i): b for i, b in enumerate(p["boxes"])},
        )
        for k, p in given.items()
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def evaluate(predictions, *more, annotations=HCSTVG / "v1_test.json", **env):
    return stvg(
        "evaluate",
        "--benchmark",
        "hcstvg",
        "--annotations",
        annotations,
        "--predictions",
        predictions,
        *more,
        **env,
    )


def test_help_and_version():
    for argv in (
        ["--help"],
        ["evaluate", "--help"],
        ["doctor", "--help"],
        ["reproduce", "--help"],
        ["--version"],
        ["evaluate", "--version"],
    ):
        r = stvg(*argv)
        assert r.returncode == 0 and r.stdout and not r.stderr


def test_json_is_one_object_and_stderr_is_silent(predictions):
    r = evaluate(predictions, "--json")
    result = json.loads(r.stdout)
    assert r.returncode == 0 and r.stderr == "" and r.stdout.count("\n") == 1
    assert (
        result["schema"] == "stvg.evaluation/1"
        and result["protocol"] == "clean"
        and result["n_scored"] == 6
    )
    expected = json.loads((HCSTVG / "expected_clean.json").read_text())
    assert result["metrics"]["m_viou"] == pytest.approx(expected["metrics"]["m_viou"], abs=1e-9)


def test_text_names_the_protocol(predictions):
    r = evaluate(predictions, "--protocol", "stcat")
    assert (
        r.returncode == 0 and "stcat" in r.stdout and "m_viou" in r.stdout and "sha256:" in r.stdout
    )


USAGE = {
    "no command": ([], "COMMAND"),
    "unknown command": (["evaluat"], "evaluat"),
    "unknown option": (["doctor", "--bogus"], "--bogus"),
    "nothing given": (["evaluate"], "--benchmark"),
    "bad choice": (["evaluate", "--missing", "ignore"], "ignore"),
    "seed": (["--seed", "x", "doctor"], "--seed"),
    "device": (["--device", "tpu", "doctor"], "tpu"),
    "profile": (["reproduce", "--profile", "huge"], "huge"),
    "artefact": (["reproduce", "--only", "r1-table99"], "r1-table99"),
    "jobs": (["reproduce", "--profile", "smoke", "--jobs", "0"], "--jobs"),
    "set": (["doctor", "--profile", "tiny", "--set", "seed"], "seed"),
    "set unknown": (["doctor", "--profile", "tiny", "--set", "sed=1"], "sed"),
    "doctor of no benchmark": (
        ["doctor", "--benchmark", "hcstvgg", "--annotations", "x.json"],
        "hcstvgg",
    ),
}


@pytest.mark.parametrize("name", USAGE)
def test_bad_usage_is_one_line(name):
    argv, names = USAGE[name]
    r = stvg(*argv)
    assert (
        r.returncode == 2
        and r.stdout == ""
        and r.stderr.count("\n") == 1
        and r.stderr.startswith("stvg: error: ")
        and names in r.stderr
    )


@pytest.mark.parametrize(
    "option, value, names",
    [
        ("--benchmark", "hcstvgg", "hcstvgg"),
        ("--protocol", "vidstg", "vidstg"),
        ("--annotations", "gone.json", "gone.json"),
        ("--predictions", "gone.json", "gone.json"),
    ],
)
def test_bad_values_are_repeated(predictions, option, value, names):
    given = {
        "--benchmark": "hcstvg",
        "--annotations": str(HCSTVG / "v1_test.json"),
        "--predictions": str(predictions),
    } | {option: value}
    r = stvg("evaluate", *[x for pair in given.items() for x in pair])
    assert r.returncode == 2 and r.stdout == "" and r.stderr.count("\n") == 1 and names in r.stderr


def test_an_error_stands_alone_even_after_warnings(predictions, tmp_path):
    lines = predictions.read_text().splitlines()
    first = json.loads(lines[1])
    first["boxes"] = {
        k: [b[2], b[1], b[0], b[3]] for k, b in first["boxes"].items()
    }  # reversed: a warning
    last = json.loads(lines[-1])
    last["end_frame"] = last["start_frame"]  # an error
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join([lines[0], json.dumps(first), *lines[2:-1], json.dumps(last)]))
    r = evaluate(path)
    assert (
        r.returncode == 2
        and r.stdout == ""
        and r.stderr.count("\n") == 1
        and "end_frame" in r.stderr
    )


def test_missing_predictions(predictions, tmp_path):
    lines = predictions.read_text().splitlines()
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(lines[:-2]))
    zero, drop, error = (
        evaluate(path, "--missing", m, "--json") for m in ("zero", "drop", "error")
    )
    zero, drop = json.loads(zero.stdout), json.loads(drop.stdout)
    assert (zero["n_scored"], zero["n_missing"], drop["n_scored"], drop["n_missing"]) == (
        6,
        2,
        4,
        2,
    )
    assert zero["metrics"]["m_tiou"] == pytest.approx(drop["metrics"]["m_tiou"] * 4 / 6)
    assert (
        error.returncode == 2
        and error.stdout == ""
        and "2" in error.stderr
        and error.stderr.count("\n") == 1
    )


def test_nothing_is_written_where_it_runs(predictions, tmp_path):
    bad = tmp_path / "cut.json"
    bad.write_text('{"predictions": [')
    before = sorted(p.name for p in tmp_path.iterdir())
    r = stvg(
        "evaluate",
        "--benchmark",
        "hcstvg",
        "--annotations",
        HCSTVG / "v1_test.json",
        "--predictions",
        bad,
        cwd=tmp_path,
    )
    assert r.returncode == 2 and sorted(p.name for p in tmp_path.iterdir()) == before


def test_internal_errors_are_exit_1_with_a_traceback_on_request(monkeypatch, capsys):
    from stvg_nb import cli, commands

    def broken(options):
        "Breaks."
        raise ZeroDivisionError("by hand")

    monkeypatch.setitem(cli.COMMANDS, "doctor", (broken, commands._doctor_options))
    assert cli.main(["doctor"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "ZeroDivisionError" in err
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor", "--verbose"])


def test_a_closed_pipe_is_no_error(predictions):
    stvg_path = Path(sys.executable).with_name("stvg")
    r = subprocess.run(
        f"{stvg_path} evaluate --benchmark hcstvg --annotations {HCSTVG / 'v1_test.json'} --predictions {predictions} --per-sample --json | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert r.returncode in (0, 141) and "Traceback" not in r.stderr


def test_reproduce_list_runs_nothing(tmp_path):
    r = stvg(
        "reproduce", "--list", "--profile", "smoke", "--json", STVG_RUNS=str(tmp_path / "runs")
    )
    assert (
        r.returncode == 0
        and json.loads(r.stdout)["schema"] == "stvg.reproduce/1"
        and not (tmp_path / "runs").exists()
    )


def test_prompt_writes_video_database_and_report(tmp_path):
    import numpy as np

    from stvg_nb.foundations.masks import MaskDatabase
    from stvg_nb.foundations.video import write_video

    def frames():
        for t in range(40):
            frame = np.full((96, 128, 3), 60, np.uint8)
            frame[30:70, 2 * t : 2 * t + 24] = (220, 180, 40)
            yield frame

    write_video(tmp_path / "a.mp4", frames(), 10)
    argv = ("prompt", tmp_path / "a.mp4", "--output", tmp_path / "b.mp4", "--json", "--quiet")
    r = stvg(*argv)
    result = json.loads(r.stdout)
    assert (
        r.returncode == 0
        and r.stderr == ""
        and result["schema"] == "stvg.prompt/1"
        and result["n_frames"] == 40
        and result["n_objects"] >= 1
    )
    assert (
        len(MaskDatabase.open(result["database"])) == result["n_objects"]
        and (tmp_path / "b.identity.json").is_file()
    )
    again = stvg(*argv)
    assert again.returncode == 2 and "--overwrite" in again.stderr and again.stderr.count("\n") == 1


def test_odd_surroundings(tmp_path, predictions):
    "An ASCII terminal, no docstrings, a closed stdout: one outcome, nothing lost without a word."
    data = json.loads((HCSTVG / "v1_test.json").read_text())
    named = tmp_path / "Ünïcødé\u2028.json"
    named.write_text(json.dumps(data))
    r = evaluate(predictions, "--json", annotations=named, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert r.returncode == 0 and json.loads(r.stdout)["n_scored"] == 6, r.stderr
    r = evaluate(tmp_path / "gøne.json", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert r.returncode == 2 and r.stderr.count("\n") == 1 and "no such file" in r.stderr
    bare = [sys.executable, "-OO", "-m", "stvg_nb.cli"]
    for words, code in (["--version"], 0), (["evaluate"], 2):
        r = subprocess.run([*bare, *words], capture_output=True, text=True)
        assert r.returncode == code, r.stderr
    shell = f"{sys.executable} -m stvg_nb.cli --version >&-"
    r = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert r.returncode == 2 and "stdout: is closed" in r.stderr


def test_nothing_asks_the_network_unless_the_user_says_so():
    ask = "import os; from stvg_nb.cli import main; main(['doctor'])"
    ask += "; print(os.environ['HF_HUB_OFFLINE'])"
    rest = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "YOLO_OFFLINE")}
    command = [sys.executable, "-c", ask]
    for given, wanted in ({}, "1"), ({"HF_HUB_OFFLINE": "0"}, "0"):
        r = subprocess.run(command, capture_output=True, text=True, env=rest | given)
        assert r.stdout.split()[-1] == wanted
