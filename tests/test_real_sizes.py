"""Real configurations on the meta device are accepted; adapters and shards find their layers."""

import re

import pytest
import torch

from stvg_nb.families import FAMILIES
from stvg_nb.grpo import share_prefix
from stvg_nb.launch import launch_file
from stvg_nb.qwen import correct_positions
from stvg_nb.sam2_tracker import check_sam2, load_sam2
from stvg_nb.train_setup import EVERY_LINEAR

QWEN_TOWER = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, patch_size=14)
QWEN_TOWER |= dict(fullatt_block_indexes=[7, 15, 23, 31], window_size=112)
SIZES = {  # name -> (model type, language model, tower, billions of weights)
    "Qwen2.5-VL-7B": (
        "qwen2_5_vl",
        dict(hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, vocab_size=152064)
        | dict(num_key_value_heads=4, intermediate_size=18944, tie_word_embeddings=False),
        QWEN_TOWER | dict(out_hidden_size=3584),
        8.29,
    ),
    "Qwen2.5-VL-3B": (
        "qwen2_5_vl",
        dict(hidden_size=2048, num_hidden_layers=36, num_attention_heads=16, vocab_size=151936)
        | dict(num_key_value_heads=2, intermediate_size=11008, tie_word_embeddings=True),
        QWEN_TOWER | dict(out_hidden_size=2048),
        3.75,
    ),
    "Qwen3-VL-8B": (
        "qwen3_vl",
        dict(hidden_size=4096, num_hidden_layers=36, num_attention_heads=32, vocab_size=151936)
        | dict(num_key_value_heads=8, head_dim=128, intermediate_size=12288),
        dict(depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, patch_size=16)
        | dict(out_hidden_size=4096, deepstack_visual_indexes=[8, 16, 24]),
        8.77,
    ),
    "InternVL3-8B": (
        "internvl",
        dict(model_type="qwen2", hidden_size=3584, num_hidden_layers=28, vocab_size=151674)
        | dict(num_attention_heads=28, num_key_value_heads=4, intermediate_size=18944),
        dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16)
        | dict(intermediate_size=4096, attention_bias=True),
        7.94,
    ),
}


def on_meta(name):
    from transformers import AutoConfig, AutoModelForImageTextToText

    kind, text, tower, _ = SIZES[name]
    tied = text.get("tie_word_embeddings", False)
    config = AutoConfig.for_model(
        kind, text_config=text, vision_config=tower, tie_word_embeddings=tied
    )
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)


def millions(model):
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values()) / 1e6


@pytest.mark.parametrize("name", SIZES)
def test_a_real_configuration_is_accepted(name):
    model, billions = on_meta(name), SIZES[name][3]
    assert model.config.model_type in FAMILIES
    assert abs(millions(model) / 1000 - billions) < 0.01 * billions, millions(model)
    adapted = [n for n, _ in model.named_modules() if re.fullmatch(EVERY_LINEAR, n)]
    layers = SIZES[name][1]["num_hidden_layers"]
    assert len(adapted) == 7 * layers, len(adapted)


@pytest.mark.parametrize("name", ["Qwen2.5-VL-7B", "Qwen2.5-VL-3B"])
def test_layers_of_the_trained_model_are_cut_as_the_file_says(name):
    import yaml

    model = share_prefix(correct_positions(on_meta(name)))
    config = yaml.safe_load(launch_file("fsdp2").read_text())["fsdp_config"]
    assert config["fsdp_cpu_ram_efficient_loading"] is False  # True: a reference of zeros
    names = config["fsdp_transformer_layer_cls_to_wrap"].split(",")
    count = {n: sum(type(m).__name__ == n for m in model.modules()) for n in names}
    assert sorted(count.values()) == sorted([SIZES[name][1]["num_hidden_layers"], 32])


def test_sam2_large_is_accepted(monkeypatch):
    spread = torch.linspace  # hiera reads its values while it is built
    monkeypatch.setattr(torch, "linspace", lambda *a, **k: spread(*a, **k | dict(device="cpu")))
    with torch.device("meta"):
        model = load_sam2("sam2.1_hiera_l", device="meta")
    check_sam2(model)
    assert abs(millions(model) - 224.4) < 1, millions(model)
