"""Command lines that once destroyed an input, ended in an internal error, or went on silently."""

import copy
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from stvg_nb.cli import main
from stvg_nb.foundations.artefacts import Artefact, write_table
from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.predictions import MaskTree
from stvg_nb.foundations.video import write_video

DATA = Path(__file__).resolve().parent / "data"
SMALL = ["--profile", "smoke", "--quiet"]
ASK = ["ground", "v.mp4", "words", "--model", "embedded:base", *SMALL]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    shutil.copyfile(DATA / "road/hcstvg/videos/0_clip.mp4", "v.mp4")
    os.link("v.mp4", "same.mp4")
    Path("list.txt").write_text("v.mp4\n")
    Path("foreign").mkdir()
    Path("foreign/v.mp4").write_text("precious")
    return tmp_path


def refused(capsys, *argv):
    "What the one line of a refusal says."
    code = main([*map(str, argv)])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and err.startswith("stvg: error: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "argv",
    [
        ["prompt", "v.mp4", "--output", "v.mp4", "--overwrite"],
        ["prompt", "v.mp4", "--output", "same.mp4", "--overwrite"],
        ["prompt", "v.mp4", "--output", "o.mp4", "--database", "v.mp4", "--overwrite"],
        ["prompt", "v.mp4", "--output", "o.mp4", "--database", "o.mp4"],
        [*ASK, "--output", "v.mp4", "--overwrite"],
        [*ASK, "--render", "v.mp4", "--overwrite"],
        [*ASK, "--output", "x.json", "--render", "x.json"],
    ],
)
def test_no_input_is_written_over_and_no_output_twice(argv, shop, capsys):
    before = Path("v.mp4").read_bytes()
    assert "choose another" in refused(capsys, *argv, *SMALL)
    assert Path("v.mp4").read_bytes() == before and not Path("x.json").exists()


def test_a_foreign_file_in_the_folder_of_a_list_stays(shop, capsys):
    assert main(["prompt", "list.txt", "--output", "foreign", *SMALL]) == 3
    assert "was not made by stvg prompt" in capsys.readouterr().out
    assert Path("foreign/v.mp4").read_text() == "precious"


def test_a_folder_can_be_numbered_twice(shop, capsys):
    Path("clips").mkdir()
    shutil.move("v.mp4", "clips/v.mp4")
    Path("clips/.v.tmp.mp4").write_bytes(b"left by a kill")
    for _ in range(2):
        assert main(["prompt", "clips", "--output", "clips/numbered", *SMALL]) == 0
        assert capsys.readouterr().out.startswith("1 numbered, 0 set aside")


@pytest.mark.parametrize("task", ["stvg", "svg", "rvos"])
def test_a_video_without_objects_has_an_answer(task, shop, capsys):
    write_video("still.mp4", (np.full((48, 64, 3), 90, np.uint8) for _ in range(10)), 10)
    argv = ["ground", "still.mp4", "the man who waves", "--model", "embedded:base"]
    assert main([*argv, "--task", task, *SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["results"]) == 1 and not found["results"][0].get("boxes")


@pytest.mark.parametrize(
    "text, says",
    [
        ("inherits: smoke\nname: ../../evil\n", "may only hold a-z, 0-9 and hyphens"),
        ("false\n", "needs settings as key: value"),
        ("inherits: smoke\nseed: 1\nseed: 2\n", "line 3: key 'seed' occurs twice"),
        ("x: " + "[" * 2000 + "]" * 2000, "nested too deeply"),
    ],
)
def test_profiles_of_others(text, says, shop, capsys):
    Path("e.yaml").write_text(text)
    assert says in refused(capsys, "reproduce", "--plan", "--profile", "e.yaml", "--quiet")
    assert not (shop.parent / "evil").exists()


@pytest.mark.parametrize(
    "query, says",
    [
        ("the man \udcff", "no UTF-8 text"),
        ("word " * 20_000, "needs 0 to 20,000 (characters)"),
        ("<|image_pad|>", "reserved text"),
    ],
)
def test_sentences_of_others(query, says, shop, capsys):
    argv = ["ground", "v.mp4", query, "--model", "embedded:base", *SMALL]
    assert says in refused(capsys, *argv)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    "A sound folder of a small model."
    from stvg_nb.qwen import toy_model, toy_processor

    folder = tmp_path_factory.mktemp("model")
    for part in (toy_model(), toy_processor()):
        part.save_pretrained(folder)
    return folder


LOOPS = 3 * "{% for i in range(99999) %}" + "a" + 3 * "{% endfor %}"


@pytest.mark.parametrize(
    "template, says",
    [
        (LOOPS, "takes more than 5 s or 1,024 MiB for one question"),
        ("{{ raise_exception('no user') }}", "fails (no user)"),
        ("{% for %}", "fails ("),
    ],
)
def test_a_chat_template_of_others_is_tried_before_it_is_used(template, says, model, shop, capsys):
    shutil.copytree(model, "m")
    Path("m/chat_template.jinja").write_text(template)
    assert says in refused(capsys, "ground", "v.mp4", "words", "--model", "m", *SMALL)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "mine"])
def test_code_in_a_model_folder_is_not_run(kind, model, shop, monkeypatch):
    "Even if somebody says yes on standard input."
    from stvg_nb.models import load_policy

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    shutil.copytree(model, "m")
    Path("m/code.py").write_text(f"open({str(shop / 'ran')!r}, 'w').close()")
    config = json.loads(Path("m/config.json").read_text()) | dict(model_type=kind)
    classes = dict(AutoConfig="code.Config", AutoModelForImageTextToText="code.Model")
    Path("m/config.json").write_text(json.dumps(config | dict(auto_map=classes)))
    if kind == "mine":
        with pytest.raises(InputError, match="m: cannot be loaded"):
            load_policy("m")
    else:
        assert load_policy("m").model.config.model_type == kind
    assert not Path("ran").exists()


def test_a_gpu_that_is_not_there_is_one_line(shop, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "choose device cpu" in refused(capsys, *ASK, "--device", "cuda")


@pytest.mark.parametrize("argv", [ASK, ["prompt", "v.mp4", "--output", "o.mp4", *SMALL]])
def test_the_device_is_that_of_the_profile(argv, shop, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "choose device cpu" in refused(capsys, *argv, "--set", "device=cuda")


def _annotations(change):
    records = json.loads((DATA / "hcstvg/v1_test.json").read_text())
    change(next(iter(records.values())))
    Path("a.json").write_text(json.dumps(records))
    Path("p.jsonl").write_text('{"schema": "stvg.predictions/1"}\n')
    files = ["--annotations", "a.json", "--predictions", "p.jsonl"]
    return ["evaluate", "--benchmark", "hcstvg", *files, "--quiet"]


def test_numbers_that_no_video_has(shop, capsys):
    def long(record):
        record["img_num"] = 10**9

    def wide(record):
        record["bbox"] = copy.deepcopy(record["bbox"])
        record["bbox"][0][0] = 10**400

    said = refused(capsys, *_annotations(long), "--protocol", "tubedetr")
    assert "999,999,999 frames" in said
    assert "field bbox: box 0 is [inf, " in refused(capsys, *_annotations(wide))


def test_a_line_break_in_a_name_stays_one_line(shop, capsys):
    argv = ["ground", "a\nb.mp4", "words", "--model", "embedded:base", *SMALL]
    assert r"a\nb.mp4" in refused(capsys, *argv)


def png(width=8, height=8):
    "A grey picture; its header may promise more than there is."
    _, data = cv2.imencode(".png", np.zeros((8, 8), np.uint8))
    data = bytearray(data.tobytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def changed_zip(change):
    "The zip of a tree of one picture; `change` gets its bytes and where the last header lies."
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as z:
        z.writestr("v/0/00000.png", png())
    data = bytearray(made.getvalue())
    change(data, data.rfind(b"PK\x01\x02"))
    return data


def wrong_sum(data, central):
    data[data.find(b"IDAT") + 6] ^= 255


def locked_with_a_word(data, central):
    data[6] |= 1
    data[central + 8] |= 1


def packed_in_an_unknown_way(data, central):
    data[8] = data[central + 10] = 99


@pytest.mark.parametrize("change", [wrong_sum, locked_with_a_word, packed_in_an_unknown_way])
def test_a_zip_that_cannot_be_unpacked_is_one_line(change, tmp_path):
    path = tmp_path / "masks.zip"
    path.write_bytes(changed_zip(change))
    with pytest.raises(InputError, match="cannot be unpacked .*; zip the tree again"):
        MaskTree(path).mask("v#0", "00000", (8, 8))


@pytest.mark.parametrize("size", [(65_000, 65_000), (2**31 - 1, 1), (0, 8)])
def test_a_picture_that_promises_too_much_is_one_line(size, tmp_path):
    (tmp_path / "v/0").mkdir(parents=True)
    (tmp_path / "v/0/00000.png").write_bytes(png(*size))
    with pytest.raises(InputError, match="is no picture that decodes"):
        MaskTree(tmp_path).mask("v#0", "00000", (8, 8))


def test_a_folder_in_the_place_of_a_picture_is_one_line(tmp_path):
    (tmp_path / "v/0/00000.png").mkdir(parents=True)
    with pytest.raises(InputError, match="00000.png: "):
        MaskTree(tmp_path).mask("v#0", "00000", (8, 8))


def test_a_bar_in_a_label_is_no_new_column(tmp_path, monkeypatch):
    row = dict(label="a | b", kind="measured", n=1, metrics={"m|x": 0.5})
    monkeypatch.setattr(Artefact, "folder", tmp_path)
    write_table(Artefact("x-bars", "tiny", "Bars | and more.", rows=[row]))
    lines = (tmp_path / "x-bars.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


@pytest.mark.parametrize("result", [[], {}, None, "text", 3, dict(schema="stvg.prompt/1")])
def test_a_kept_result_of_another_shape_is_made_anew(result, shop, capsys):
    "As another version, or a hand, may have left it."
    argv, told = ["prompt", "list.txt", "--output", "out", "--json", *SMALL], []
    for _ in range(2):
        assert main(argv) == 0
        told.append(json.loads(capsys.readouterr().out)["videos"][0] | dict(seconds=0))
        kept = json.loads(Path("out/v.prompt.json").read_text())
        Path("out/v.prompt.json").write_text(json.dumps(kept | dict(result=result)))
    assert told[0] == told[1] and told[0]["n_frames"] == 40


FULL = """import resource, sys
from stvg_nb.cli import main
most = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
sys.exit(main(sys.argv[2:]))"""


@pytest.mark.parametrize(
    "most, file, left",
    [
        (2_000, "o.identity.json", []),
        (100_000, "o.mp4", ["o.identity.json", "o.masks.json.gz"]),
    ],
)
def test_a_disk_that_is_full_after_the_numbering_loses_no_finished_part(most, file, left, shop):
    "Either both files of the numbers are there or none is, and the line says how to go on."
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (20, 96, 128, 3)).astype(np.uint8)  # noise makes a large video
    for t, frame in enumerate(frames):
        frame[20:60, 5 * t : 5 * t + 20] = (250, 10, 10)
    write_video("noise.mp4", frames, 10)
    own = ["--set", "prompting.detector=motion", "--set", "prompting.tracker=flow"]
    words = ["prompt", "noise.mp4", "--output", "o.mp4", *SMALL, *own]
    command = [sys.executable, "-c", FULL, str(most), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"stvg: error: {file}: cannot be written")
    assert sorted(p.name for p in shop.glob("o.*")) == left
    assert ("--reuse goes on" in done.stderr) == bool(left)
    if left:
        assert main([*words, "--reuse"]) == 0 and Path("o.mp4").is_file()
