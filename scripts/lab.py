"""The first steps in JupyterLab, as somebody clicks through them: `python scripts/lab.py`.

A server is started on copies of the two notebooks, a headless Chromium opens them and runs all
cells. In the explorer a sentence is typed and the slider is moved. Waits end when what is waited
for is there; nothing depends on how fast the machine is, up to a limit after which it is stuck.
"""

import argparse
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
STUCK = 900  # seconds after which a wait is given up
NOTEBOOKS = ("00_start", "00a_explore")
SENTENCE = "The puppet in a red shirt jumps."  # of the first made clip, answered with number 4
QUIET = ("--disable-quic", "--no-first-run", "--disable-background-networking")
QUIET += ("--disable-component-update", "--disable-sync", "--no-sandbox", "--disable-gpu")

MAIN = "[...window.jupyterapp.shell.widgets('main')]"
NOTEBOOK = MAIN + ".find(w => w.context?.path === '{name}.ipynb')"
IDLE = "{notebook}?.sessionContext?.session?.kernel?.status === 'idle'"
READY = IDLE + " && {notebook}.content.widgets.length"
RAN = (
    READY
    + """ && {notebook}.content.widgets.every(
  c => c.model.type !== 'code' || c.model.executionCount > 0)"""
)
RUN = "window.jupyterapp.commands.execute('notebook:run-all-cells'), 'sent'"
ERRORS = """[...document.querySelectorAll('[data-mime-type="application/vnd.jupyter.error"]')]
  .map(e => e.innerText.slice(-300))"""
SHOWN = "document.querySelectorAll('.jp-OutputArea-output img').length"
LINE = "document.querySelector('input[placeholder^=\"a sentence\"]')"
TEXTS = """[...document.querySelectorAll('.widget-html-content, .widget-html')]
  .map(e => e.innerText).join('\\n')"""
PICTURE = "(document.querySelector('.widget-image')?.src ?? '')"
SLIDER = "document.querySelector('.widget-slider .noUi-handle')"


class Browser:
    "A page of a headless Chromium, spoken to over its debugging protocol."

    def __init__(self, program: str, folder: Path):
        options = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
        options += [*QUIET, "--remote-allow-origins=*", "--window-size=1280,1500", "about:blank"]
        self.process = subprocess.Popen(
            [program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = wait(lambda: read(folder / "DevToolsActivePort"), "the browser").split()[0]
        pages = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json").read())
        address = next(p["webSocketDebuggerUrl"] for p in pages if p["type"] == "page")
        import websocket

        self.socket, self.sent = websocket.create_connection(address, timeout=STUCK), 0
        self.call("Page.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method: str, **params) -> dict:
        "One request and its answer; events between are left aside."
        self.sent += 1
        self.socket.send(json.dumps(dict(id=self.sent, method=method, params=params)))
        while True:
            said = json.loads(self.socket.recv())
            if said.get("id") == self.sent:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']['message']}")
                return said["result"]

    def value(self, expression: str):
        "What an expression is on the page; None where it fails."
        told = dict(expression=expression, returnByValue=True, awaitPromise=True)
        return self.call("Runtime.evaluate", **told)["result"].get("value")

    def press(self, key: str, code: int) -> None:
        "A key, down and up."
        facts = dict(key=key, code=key, windowsVirtualKeyCode=code, nativeVirtualKeyCode=code)
        facts |= dict(text="\r") if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **facts)

    def shoot(self, path: Path | None) -> None:
        "A picture of the page."
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()


def read(path: Path) -> str:
    "The text of a file; empty where there is none yet."
    return path.read_text() if path.is_file() else ""


def wait(found, what: str):
    "The first value of `found()` that is true."
    until = time.monotonic() + STUCK
    while not (value := found()):
        if time.monotonic() > until:
            raise RuntimeError(f"{what} did not come within {STUCK} s")
        time.sleep(0.3)
    return value


@contextlib.contextmanager
def lab(folder: Path):
    "JupyterLab on a folder; gives its address with the token."
    runtime, token = folder / "runtime", "first-steps"
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    told = dict(JUPYTER_RUNTIME_DIR=str(runtime), PYTHONPATH=os.pathsep.join(filter(None, paths)))
    told |= dict(STVG_RUNS=str(folder / "runs"), JUPYTER_CONFIG_DIR=str(folder / "config"))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--expose-app-in-browser", "--ServerApp.port=0", "--ServerApp.ip=127.0.0.1"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'nbs'}"]
    never = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
    command += [f"--LabApp.check_for_updates_class={never}"]
    log = (folder / "lab.log").open("w")
    process = subprocess.Popen(command, env=os.environ | told, stdout=log, stderr=log)
    try:
        info = wait(lambda: process.poll() or list(runtime.glob("jpserver-*.json")), "JupyterLab")
        if not isinstance(info, list):
            raise RuntimeError(f"JupyterLab ended: {read(folder / 'lab.log')[-2000:]}")
        address = wait(lambda: read(info[0]), "its address")
        yield json.loads(address)["url"], token
    finally:
        process.terminate()
        process.wait()
        log.close()


def run_all(page: Browser, name: str) -> None:
    "All cells of the notebook that is shown; an error in any of them is raised."
    notebook = NOTEBOOK.format(name=name)
    wait(lambda: page.value(READY.format(notebook=notebook)), f"a kernel for {name}")
    page.value(RUN)
    ran = RAN.format(notebook=notebook)
    wait(lambda: page.value(ERRORS) or page.value(ran), f"the end of {name}")
    if errors := page.value(ERRORS):
        raise RuntimeError(f"{name}: {errors[0]}")


def start(page: Browser, shots: Path | None) -> str:
    "The first notebook shows its four pictures."
    run_all(page, "00_start")
    wait(lambda: (page.value(SHOWN) or 0) >= 4, "four pictures")
    page.value("document.querySelectorAll('.jp-OutputArea-output img')[2].scrollIntoView()")
    page.shoot(shots and shots / "start.png")
    return f"start: {page.value(SHOWN)} pictures"


def explore(page: Browser, shots: Path | None) -> str:
    "A sentence is typed and answered; the slider moves picture and words."
    run_all(page, "00a_explore")
    wait(lambda: page.value(f"!!{LINE} && !!{SLIDER} && !!{PICTURE}"), "the explorer")
    page.value(f"{LINE}.scrollIntoView(), {LINE}.focus(), {LINE}.select()")
    page.call("Input.insertText", text=SENTENCE)
    page.press("Enter", 13)
    wait(lambda: "answers: number 4" in (page.value(TEXTS) or ""), "the answer to what was typed")
    page.shoot(shots and shots / "explore-typed.png")
    before, words = page.value(PICTURE), page.value(TEXTS)
    page.value(f"{SLIDER}.focus()")
    for _ in range(3):
        page.press("ArrowRight", 39)
    wait(lambda: page.value(PICTURE) != before, "another picture")
    wait(lambda: page.value(TEXTS) != words, "other words")
    page.shoot(shots and shots / "explore-moved.png")
    return f"explore: “{SENTENCE}” typed, answered with number 4; the slider moved"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shots", type=Path, metavar="FOLDER", help="save pictures here")
    args = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit("lab: there is no Chromium here; install the package chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        folder = Path(made)
        (folder / "nbs").mkdir()
        for name in NOTEBOOKS:
            shutil.copy(ROOT / f"nbs/{name}.ipynb", folder / "nbs")
        with lab(folder) as (address, token):
            page = Browser(program, folder / "browser")
            try:
                for name, steps in zip(NOTEBOOKS, (start, explore), strict=True):
                    at = f"{address}lab/tree/{name}.ipynb?token={token}&reset"
                    page.call("Page.navigate", url=at)
                    print(f"lab: {steps(page, args.shots)}", flush=True)
            except RuntimeError:
                page.shoot(args.shots and args.shots / "stuck.png")
                raise
            finally:
                page.close()


if __name__ == "__main__":
    main()
