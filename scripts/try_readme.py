"""README.md as a new user tries it, every command in a fresh clone: `python scripts/try_readme.py`.

The repository is cloned and its own README read. `pip install` goes into an environment of its own,
which sees the packages of the one that runs this script and fetches nothing; from there on the
installed package is used, in an empty folder. A command runs as it stands, but for what is listed
below: files that a reader has to obtain, the scale of the paper, and what takes longer than a few
minutes, which other steps of `.ci/run` run in full.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {"make test": "tests", "make reproduce": "reproduce"}  # command -> step of .ci/run
ROAD = (
    "tests/data/road/hcstvg"  # made-up files in the lay-out of the benchmark of the README's road
)
SMALL = {
    "train": ["train.base=random", "train.num_generations=2", "train.prompts_per_step=1"]
    + ["train.prompts_per_pass=1", "train.max_steps=1"],
    "predict": [],
}
TINY = ["sampling.longer_side=56", "sampling.max_frames=4", "train.max_completion_length=8"]
# the made-up clips have another frame rate than is annotated; doctor says so
CODES = {"doctor": 3}
PYTHON = re.compile(r"^```python\n(.+?)^```\n\n((?:    [^\n]+\n)+)", re.M | re.S)


def sections(text: str) -> dict[str, str]:
    "Heading -> text below it."
    parts = re.split(r"^## (.+)\n", text, flags=re.M)
    return dict(zip(["", *parts[1::2]], [parts[0], *parts[2::2]]))


def commands(text: str) -> list[tuple[str, str]]:  # (heading, command without its comment)
    "Every line of every block of shell."
    return [
        (heading, line.split("#")[0].strip())
        for heading, below in sections(text).items()
        for block in re.findall(r"^```sh\n(.+?)^```", below, re.M | re.S)
        for line in block.splitlines()
        if line.split("#")[0].strip()
    ]


def at_small_scale(command: str) -> list[str]:
    "A command of the road as words, at profile smoke with a model of random weights."
    words = shlex.split(os.path.expandvars(command.replace("a100", "smoke")))
    small = TINY + SMALL[words[1]] if words[1] in SMALL else []
    return words + [word for s in small for word in ("--set", s)]


def lines_of(text: str) -> tuple[str, str]:  # (code, what it prints)
    "The ten lines, and what is shown below them."
    ((code, shown),) = PYTHON.findall(text)
    return code, re.sub(r"^    ", "", shown, flags=re.M)


class Trial:
    "A folder with a clone, an environment and a place to work in."

    def __init__(self, folder: Path):
        self.clone, self.here, self.venv = (folder / n for n in ("clone", "here", "venv"))
        self.here.mkdir()
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("STVG_", "PYTHON"))}
        keep |= dict(PATH=f"{self.venv / 'bin'}:{os.environ['PATH']}", VIRTUAL_ENV=str(self.venv))
        offline = dict(PIP_NO_INDEX="1", PIP_NO_BUILD_ISOLATION="0", HF_HUB_OFFLINE="1")
        self.env = keep | offline | dict(YOLO_AUTOINSTALL="false")

    def make(self) -> None:
        "Clone, and an environment that sees the packages of this one."
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.clone)], check=True)
        subprocess.run([sys.executable, "-m", "venv", str(self.venv)], check=True)
        # an old Python brings an old setuptools, which would stand before the pinned one
        old = [str(self.venv / "bin/pip"), "uninstall", "--quiet", "--yes", "setuptools"]
        subprocess.run(old, check=True, env=self.env)
        paths = dict(base=str(self.venv), platbase=str(self.venv))
        site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, words, where, code=0, **env) -> str:  # what it printed
        "One command; another exit code ends the trial."
        print("+", shlex.join(words), flush=True)
        told = dict(cwd=where, env=self.env | env, capture_output=True, text=True)
        done = subprocess.run(words, **told)
        if done.returncode != code:
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
            sys.exit(f"try_readme: exit code {done.returncode}, not {code}: {shlex.join(words)}")
        return done.stdout


def try_road(trial: Trial, command: str) -> None:
    "A command of the road, among the files that it names."
    place = trial.here / "hcstvg"
    if not place.is_dir():
        subprocess.run(["cp", "-r", str(trial.clone / ROAD), str(place)], check=True)
    os.environ["PWD"] = str(place)
    words = at_small_scale(command)
    trial.run(words, place, CODES.get(words[1], 0), PWD=str(place))


def try_command(trial: Trial, heading: str, command: str) -> None:
    "A command where a reader runs it."
    if command in ELSEWHERE:
        print(f"+ make -n ...: `{command}` is the step {ELSEWHERE[command]} of .ci/run", flush=True)
        trial.run(["make", "-n", *command.split()[1:]], trial.clone)
    elif heading == "The road":
        try_road(trial, command)
    else:
        in_clone = shlex.split(command)[0] in ("make", "pip")
        trial.run(["bash", "-c", command], trial.clone if in_clone else trial.here)


def try_lines(trial: Trial, text: str) -> None:
    "The ten lines print what is shown."
    code, shown = lines_of(text)
    said = trial.run([str(trial.venv / "bin/python"), "-c", code], trial.here)
    if said != shown:
        sys.exit(f"try_readme: the ten lines print\n{said}\nand the README shows\n{shown}")


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        trial.make()
        text = (trial.clone / "README.md").read_text(encoding="utf-8")
        asked = commands(text)
        first = next(i for i, (_, c) in enumerate(asked) if c.startswith("stvg"))
        for heading, command in asked[:first]:
            try_command(trial, heading, command)
        try_lines(trial, text)
        for heading, command in asked[first:]:
            try_command(trial, heading, command)
        changed = trial.run(["git", "status", "--porcelain"], trial.clone)
    if changed:
        sys.exit(f"try_readme: the clone is changed:\n{changed}")
    minutes = (time.monotonic() - began) / 60
    print(f"try_readme: {len(asked)} commands and the ten lines in {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
