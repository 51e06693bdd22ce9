"""Files that follow from others, written again: `python scripts/derived.py [--check]`.

settings.ini -> the marked part of pyproject.toml (packaging, and `[tool.nbdev]` for nbdev 3),
version and addresses of CITATION.cff, nbs/nbdev.yml, the version in the package;
the CSV files of papers/ -> their copies inside the package, so that the wheel holds what the code
reads; these and figures/tiny -> the pages papers/results.md and papers/landscape.md;
figures/tiny -> the last part of each shipped policy's card (`cards.py`).
"""

import configparser
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cards import cards
from notebooks import at_root

EXTRAS = ("train", "yolo", "book", "dev", "ray", "gpu", "vllm")
BEGIN = "# written by scripts/derived.py out of settings.ini"
END = "# what follows is written by hand"
LICENSE_FILES = ["LICENSE", "LICENSES/*.txt", "NOTICE"]
STATUS = {"2": "2 - Pre-Alpha", "3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}


def settings() -> dict:
    "settings.ini, with its references resolved."
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read("settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])


def _list(values, indent: str = "  ") -> str:
    "A TOML array, one value a line where there are several; JSON strings are TOML strings."
    quoted = [json.dumps(v) for v in values]
    if len(quoted) < 2:
        return f"[{', '.join(quoted)}]"
    return "[\n" + "".join(f"{indent}{q},\n" for q in quoted) + "]"


def _table(name: str, values: dict) -> str:
    def value(v):
        return _list(v) if isinstance(v, list) else json.dumps(v)

    return f"[{name}]\n" + "".join(f"{k} = {value(v)}\n" for k, v in values.items())


def project(ini: dict) -> str:
    "The packaging part of pyproject.toml."
    module, _, function = ini["console_scripts"].partition("=")
    people = (
        f"[{{ name = {json.dumps(ini['author'])}, email = {json.dumps(ini['author_email'])} }}]"
    )
    head = _table(
        "project",
        {
            "name": ini["lib_name"],
            "dynamic": ["version"],
            "description": ini["description"],
            "readme": "README.md",
            "requires-python": f">={ini['min_python']}",
            "license": ini["license_expression"],
            "license-files": LICENSE_FILES,
            "keywords": ini["keywords"].split(),
            "classifiers": [
                f"Development Status :: {STATUS[ini['status']]}",
                f"Intended Audience :: {ini['audience']}",
                "Programming Language :: Python :: 3",
                "Typing :: Typed",
            ],
            "dependencies": ini["requirements"].split(),
        },
    )
    extras = {e: ini[f"{e}_requirements"].split() for e in EXTRAS}
    # not `Documentation`: nbdev 3 would write that address into every module, nbdev 2 does not
    urls = {
        "Homepage": ini["doc_host"] + ini["doc_baseurl"],
        "Repository": ini["git_url"],
        "Changelog": f"{ini['git_url']}/blob/{ini['branch']}/CHANGELOG.md",
    }
    nbdev = {
        k: ini[k]
        for k in ("lib_path", "nbs_path", "doc_path", "branch", "title", "readme_nb", "tst_flags")
    }
    switches = "recursive custom_sidebar put_version_in_init jupyter_hooks clean_ids clear_all"
    nbdev |= {k: ini[k] == "True" for k in switches.split()}
    nbdev |= {k: ini[k].split() for k in ("allowed_metadata_keys", "allowed_cell_metadata_keys")}
    return "\n".join(
        [
            head + f"authors = {people}\n",
            _table("project.optional-dependencies", extras),
            _table("project.urls", urls),
            _table("project.scripts", {module: function}),
            "# the same for nbdev 3, which does not read settings.ini\n"
            + _table("tool.nbdev", nbdev),
        ]
    )


def pyproject(ini: dict) -> str:
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{project(ini)}\n{END}{rest.split(END, 1)[1]}"


def citation(ini: dict) -> str:
    "CITATION.cff with this version and these addresses."
    text = Path("CITATION.cff").read_text(encoding="utf-8")
    for key, value in {
        "version": ini["version"],
        "repository-code": json.dumps(ini["git_url"]),
        "url": json.dumps(ini["doc_host"] + ini["doc_baseurl"]),
    }.items():
        text, n = re.subn(rf"^{key}: .*$", f"{key}: {value}", text, count=1, flags=re.M)
        if n != 1:
            raise SystemExit(f"derived: CITATION.cff has no line `{key}:`")
    return text


def package(ini: dict) -> str:
    "stvg_nb/__init__.py with the version in its line; what it offers is written by hand."
    text = Path("stvg_nb/__init__.py").read_text("utf-8")
    return re.sub(r"^__version__ = .*$", f'__version__ = "{ini["version"]}"', text, flags=re.M)


def site(ini: dict) -> str:
    "nbs/nbdev.yml, as nbdev itself writes it."
    return f"""project:
  output-dir: {ini["doc_path"]}

website:
  title: "{ini["title"]}"
  site-url: "{ini["doc_host"]}{ini["doc_baseurl"]}"
  description: "{ini["description"]}"
  repo-branch: {ini["branch"]}
  repo-url: "{ini["git_url"]}"
"""


def derived() -> dict:
    "Path -> the bytes that belong there."
    ini = settings()
    texts = {
        "pyproject.toml": pyproject(ini),
        "CITATION.cff": citation(ini),
        "nbs/nbdev.yml": site(ini),
        "stvg_nb/__init__.py": package(ini),
    }
    files = sorted(Path("papers").glob("*.csv"))
    copies = {f"stvg_nb/data/{p.name}": p.read_bytes() for p in files}
    texts |= pages(ini) | cards()
    return {k: v.encode() for k, v in texts.items()} | copies


def pages(ini: dict) -> dict:
    "The pages that are made from papers/ and figures/tiny."
    from stvg_nb.results import landscape_page, results_page

    link = f"{ini['git_url']}/blob/{ini['branch']}/figures/tiny/"
    return {
        "papers/results.md": results_page("tiny", link),
        "papers/landscape.md": landscape_page(),
    }


def stale() -> list[str]:
    "Files that are not what they follow from."
    return [
        f"{name}: does not follow from its source, run python scripts/derived.py"
        for name, content in derived().items()
        if not Path(name).is_file() or Path(name).read_bytes() != content
    ]


if __name__ == "__main__":
    at_root()
    if "--check" in sys.argv[1:]:
        found = stale()
        print(*found, sep="\n")
        sys.exit(bool(found))
    for name, content in derived().items():
        Path(name).write_bytes(content)
