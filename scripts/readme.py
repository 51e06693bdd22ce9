"""README.md from nbs/index.ipynb and the outputs stored in it: `python scripts/readme.py`."""

import base64
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _local(text):
    "Links from nbs/ as links from the root of the repository."
    text = re.sub(r"\]\((?:\./)?((?:\w+/)?\w+\.ipynb)", r"](nbs/\1", text)
    return text.replace("](../", "](")


def render() -> tuple:  # (text, {file name: bytes})
    "The README and its pictures."
    parts, pictures = [], {}
    index = json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))
    for cell in index["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_local(source))
            continue
        if cell["cell_type"] != "code" or re.search(r"^#\|\s*hide", source, re.M):
            continue
        if not re.search(r"^#\|\s*echo:\s*false", source, re.M):
            parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"README_files/figure-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![]({name})")
            elif "text" in output:
                parts.append("    " + "".join(output["text"]).rstrip().replace("\n", "\n    "))
    return "\n\n".join(parts).rstrip() + "\n", pictures


if __name__ == "__main__":
    text, pictures = render()
    for name, data in pictures.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_bytes(data)
    (ROOT / "README.md").write_text(text, encoding="utf-8")
