"""What is damaged, how, and what reads it: success or one clear line."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import mutate

TESTS = Path(__file__).resolve().parent.parent
DATA = TESTS / "data"


@dataclass(frozen=True)
class Target:
    "A file that is damaged, and the call that reads it."

    name: str
    file: Path  # sound, in the workshop
    damage: Callable  # (rng, bytes) -> bytes
    call: Callable  # (folder of the case, path of the damaged file) -> arguments of `stvg`, or None
    weight: float = 1.0  # share of the mutations
    in_place: bool = False  # the damaged copy takes the sound file's place while it is read


def _copied(shop, *parts):
    source = DATA.joinpath(*parts)
    target = shop.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
    return target


def _tube_predictions(shop):
    "Predictions of HC-STVG as JSON lines."
    given = json.loads((DATA / "hcstvg/predictions_all_frames_0based_xyxy.json").read_text())
    records = [dict(schema="stvg.predictions/1", benchmark="hcstvg")]
    for key, p in list(given.items())[:3]:
        boxes = {str(i): b for i, b in enumerate(p["boxes"]) if i % 10 == 0}
        ends = dict(start_frame=p["sted"][0], end_frame=p["sted"][1])
        records.append(dict(key=key, **ends, boxes=boxes))
    path = shop / "tubes.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def _evaluated(shop, benchmark, annotations, predictions, **more):
    "Targets for each file of one evaluation."
    files = dict(annotations=annotations, predictions=predictions, **more)
    for role, file in files.items():

        def call(folder, damaged, role=role):
            argv = ["evaluate", "--benchmark", benchmark]
            for other, path in files.items():
                argv += [f"--{other}", damaged if other == role else path]
            return argv

        kinds = {".json": mutate.json_file, ".jsonl": mutate.jsonl_file, ".txt": mutate.text}
        yield Target(f"evaluate {benchmark} {role}", file, kinds[file.suffix], call)


def evaluations(shop):
    vidstg = _copied(shop, "road", "vidstg")
    keyed = [dict(schema="stvg.predictions/1", benchmark="vidstg")]
    from stvg_nb.foundations.benchmarks import load

    split = load("vidstg", vidstg / "val_annotations.json", boxes=vidstg / "vidor.json")
    keyed += [dict(key=s.key, text="From 0.50 to 2.50") for s in split]
    said = shop / "vidstg.jsonl"
    said.write_text("\n".join(map(json.dumps, keyed)))
    text, rle = _copied(shop, "text"), _copied(shop, "cases", "18_uncompressed_rle")
    answers, align = _copied(shop, "cases", "17_answers"), _copied(shop, "st_align")
    hcstvg = _copied(shop, "hcstvg")
    yield from _evaluated(shop, "hcstvg", hcstvg / "v1_test.json", _tube_predictions(shop))
    yield from _evaluated(shop, "hcstvg", hcstvg / "val_v2.json", _tube_predictions(shop))
    yield from _evaluated(
        shop, "vidstg", vidstg / "val_annotations.json", said, boxes=vidstg / "vidor.json"
    )
    yield from _evaluated(
        shop, "mevis", rle / "mv.json", rle / "m_ok.jsonl", masks=rle / "mv_masks.json"
    )
    yield from _evaluated(
        shop,
        "charades-sta",
        text / "charades_annotations.json",
        text / "charades_predictions.json",
    )
    yield from _evaluated(
        shop, "charades-sta", answers / "charades_sta_test.txt", answers / "c_text.jsonl"
    )
    yield from _evaluated(
        shop, "tvgbench", text / "tvgbench_annotations.json", text / "tvgbench_predictions.json"
    )
    yield from _evaluated(
        shop, "st-align", align / "annotations.json", align / "predictions_text.json"
    )


def doctored(shop):
    "`stvg doctor` on annotation files, and on profiles."
    for benchmark, file in (
        ("hcstvg", "hcstvg/v1_test.json"),
        ("vidstg", "road/vidstg/val_annotations.json"),
        ("mevis", "mevis/meta_expressions.json"),
        ("tvgbench", "text/tvgbench_annotations.json"),
    ):

        def call(folder, damaged, benchmark=benchmark):
            given = ["--benchmark", benchmark, "--annotations", damaged, "--videos", shop]
            return ["doctor", *given, "--no-decode", "--skip-bad"]

        yield Target(f"doctor {benchmark}", _copied(shop, file), mutate.json_file, call, 0.5)
    from stvg_nb.foundations.files import package_dir

    for name in ("smoke", "a100", "o1"):
        path = shop / f"my-{name}.yaml"
        text = (package_dir() / f"profiles/{name}.yaml").read_text()
        path.write_text(text.replace(f"name: {name}", f"name: my-{name}"))
        yield Target(f"profile {name}", path, mutate.text, _plan, 0.5)


def _plan(folder, damaged):
    return ["reproduce", "--plan", "--profile", damaged]


def _opened(shop):
    "A mask database and samples, read by the functions that every command reads them with."
    from stvg_nb.foundations.masks import MaskDatabase
    from stvg_nb.foundations.samples import read_samples

    _database(shop / "v.masks.json")

    def open_all(folder, damaged):
        found = MaskDatabase.open(damaged)
        for number in found.ids:
            found.tube(number)
            found.frames_of(number)
        return None

    yield Target("mask database", shop / "v.masks.json", mutate.json_file, open_all, 3)

    shutil.copyfile(DATA / "road/hcstvg/videos/0_clip.mp4", shop / "v.mp4")
    sample = dict(video="v.mp4", query="the red square", start=1.0, end=3.0, frames=[0, 40])
    sample["boxes"] = {str(f): [4, 8, 24, 28] for f in range(10, 14)}
    path = shop / "samples.jsonl"
    path.write_text("".join(json.dumps(s) + "\n" for s in (sample, sample | dict(query="blue"))))

    def read(folder, damaged):
        read_samples(damaged)
        return None

    yield Target("samples", path, mutate.jsonl_file, read, 3)


def _database(path):
    "Two objects in twelve frames."
    import numpy as np

    from stvg_nb.foundations.masks import MaskDatabase

    made = MaskDatabase(64, 48, 10.0, 12, "v.mp4", "sha256:" + "0" * 64)
    for number in (1, 2):
        made.add_object(number, "person", 0.5)
        for frame in range(0, 12, 2):
            mask = np.zeros((48, 64), bool)
            mask[5 : 5 + 4 * number, 3 + frame : 9 + frame] = True
            made.add(number, frame, mask)
    made.save(path)


def videos(shop):
    "A video, and a list of videos."
    from stvg_nb.foundations.video import Clip

    video = _copied(shop, "road", "hcstvg", "videos", "0_clip.mp4")

    def decode(folder, damaged):
        Clip.read(damaged)
        return None

    yield Target("video", video, mutate.raw, decode, 1)

    from stvg_nb.prompting import list_videos

    listed = shop / "list.txt"
    listed.write_text(f"{video}\n# a comment\n\n{video}\n")

    def read(folder, damaged):
        list_videos(damaged)
        return None

    yield Target("list of videos", listed, mutate.text, read, 1)


def settings(shop):
    "All single settings of a profile, and the text behind `--set`."
    from dataclasses import asdict

    from stvg_nb.foundations.files import read_text
    from stvg_nb.foundations.prompting_config import check_config
    from stvg_nb.foundations.settings import load_profile, parse_setting
    from stvg_nb.train_settings import check_train

    profile = load_profile("tiny")
    whole = asdict(profile)
    values = {k: v for k, v in (whole | whole.pop("sections")).items() if k != "name"}
    path = shop / "overrides.json"
    path.write_text(json.dumps(values))

    def load(folder, damaged):
        loaded = load_profile("tiny", read_text(damaged))
        check_config(loaded.prompting)
        check_train(loaded.train)

    yield Target("overrides", path, mutate.json_file, load, 3)

    line = shop / "set.txt"
    line.write_text("prompting.mark_size=20")

    def single(folder, damaged):
        text = damaged.read_bytes().decode("utf-8", "surrogateescape")
        load_profile("tiny", parse_setting(text))

    yield Target("one setting", line, mutate.text, single)


def _pictures(folder, damaged):
    "A folder of frames whose first picture, or whose stated rate, is damaged."
    from stvg_nb.foundations.video import iter_frames

    list(iter_frames(damaged.parent))


def folders(shop):
    "Files that are read as parts of a folder: frames, and the files of a model."
    frames = _copied(shop, "road", "mevis", "valid_u", "JPEGImages", "vid0000")
    yield Target("picture", frames / "00000.jpg", mutate.raw, _pictures, 0.5, True)
    yield Target("rate of frames", frames / "fps.txt", mutate.text, _pictures, 0.5, True)

    from stvg_nb.foundations.files import package_dir
    from stvg_nb.models import load_model

    model = shop / "model"
    shutil.copytree(package_dir() / "weights/policy-base", model)

    def load(folder, damaged):
        load_model(str(model))

    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        yield Target(f"model {name}", model / name, mutate.json_file, load, 0.1, True)
    for name in ("model.safetensors", "tokenizer.json"):
        yield Target(f"model {name}", model / name, mutate.raw, load, 0.1, True)


def all_targets(shop: Path) -> list:
    "Every target, its sound file written below the workshop."
    makers = (evaluations, doctored, _opened, videos, settings, folders)
    found = [target for make in makers for target in make(shop)]
    names = [t.name for t in found]
    doubled = {n for n in names if names.count(n) > 1}
    return [replace(t, name=f"{t.name} ({t.file.name})") if t.name in doubled else t for t in found]
