"""Models of transformers with random weights: real classes and processors, a few pixels wide."""

import copy
from pathlib import Path

WIDE = 128  # hidden size below which the library's pointers do not split
PART = dict(hidden_size=WIDE, num_attention_heads=2)
NARROW = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
MEMORY = dict.fromkeys(
    [
        "memory_attention_hidden_size",
        "memory_encoder_hidden_size",
        "mask_downsampler_embed_dim",
        "memory_fuser_embed_dim",
    ],
    WIDE,
) | dict(memory_attention_num_layers=1, memory_fuser_num_layers=1, memory_fuser_intermediate_dim=32)
MASK = dict(hidden_size=WIDE, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32)


def save(model, processor, folder) -> Path:
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)


def rf_detr(folder) -> Path:
    import torch
    from transformers import RfDetrConfig, RfDetrForObjectDetection, RfDetrImageProcessor

    names = {0: "Person", 1: "dog"}
    body = dict(model_type="rf_detr_dinov2", image_size=56, patch_size=14, num_windows=1)
    body |= dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    body |= dict(out_features=["stage2"])
    torch.manual_seed(3)
    config = RfDetrConfig(
        backbone_config=body,
        d_model=32,
        num_queries=4,
        group_detr=1,
        decoder_layers=1,
        id2label=names,
        label2id={v: k for k, v in names.items()},
    )
    processor = RfDetrImageProcessor(size=dict(height=56, width=56))
    return save(RfDetrForObjectDetection(config), processor, folder)


def d_fine(folder) -> Path:
    import torch
    from transformers import DFineConfig, DFineForObjectDetection, RTDetrImageProcessor

    names, stages = {0: "Person", 1: "dog"}, ("in_channels", "mid_channels", "out_channels")
    body = dict(model_type="hgnet_v2", stem_channels=[3, 8, 8], embedding_size=8)
    body |= {f"stage_{part}": [8] * 4 for part in stages} | dict(hidden_sizes=[8] * 4)
    body |= dict(stage_num_blocks=[1] * 4, stage_numb_of_layers=[1] * 4, depths=[1] * 4)
    body |= dict(out_features=["stage2", "stage3", "stage4"])
    encoder = dict(in_channels=[8] * 3, hidden_dim=16, ffn_dim=16, attention_heads=2)
    decoder = dict(in_channels=[16] * 3, ffn_dim=16, attention_heads=2, layers=2, n_points=2)
    parts = {f"encoder_{k}": v for k, v in encoder.items()}
    parts |= {f"decoder_{k}": v for k, v in decoder.items()}
    torch.manual_seed(0)
    config = DFineConfig(
        backbone_config=body,
        d_model=16,
        num_queries=4,
        lqe_hidden_dim=8,
        num_denoising=0,
        id2label=names,
        label2id={v: k for k, v in names.items()},
        **parts,
    )
    processor = RTDetrImageProcessor(size=dict(height=64, width=64))
    return save(DFineForObjectDetection(config), processor, folder)


def letters():
    "A tokenizer of single letters."
    from transformers import CLIPTokenizer

    single = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["!", "<|endoftext|>", "<|startoftext|>", *single, *(f"{c}</w>" for c in single)]
    return CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[]), len(words)


def owlv2(folder) -> Path:
    import torch
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor
    from transformers import Owlv2Processor

    tokenizer, count = letters()
    text = NARROW | dict(vocab_size=count, max_position_embeddings=16, eos_token_id=1)
    eye = NARROW | dict(image_size=32, patch_size=16)
    torch.manual_seed(0)
    config = Owlv2Config(text_config=text, vision_config=eye, projection_dim=16)
    processor = Owlv2Processor(Owlv2ImageProcessor(size=dict(height=32, width=32)), tokenizer)
    model = Owlv2ForObjectDetection(config)
    model.box_head.dense2.weight.data *= 0.01  # boxes of some size
    return save(model, processor, folder)


def edgetam(folder) -> Path:
    import torch
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, Sam2HieraDetConfig
    from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor
    from transformers import Sam2VisionConfig

    side = 64
    hiera = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[side, side],
        blocks_per_stage=[1, 1, 1, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = Sam2VisionConfig(
        backbone_config=hiera,
        fpn_hidden_size=WIDE,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )
    prompt = dict(hidden_size=WIDE, image_size=side, mask_input_channels=8)
    parts = EdgeTamVideoConfig.sub_configs
    torch.manual_seed(0)
    model = EdgeTamVideoModel(
        EdgeTamVideoConfig(
            vision_config=vision,
            prompt_encoder_config=parts["prompt_encoder_config"](**prompt),
            mask_decoder_config=parts["mask_decoder_config"](**MASK),
            image_size=side,
            memory_attention_rope_feat_sizes=[4, 4],
            memory_attention_rope_k_sizes=[2, 2],
            memory_attention_mlp_hidden_size=32,
            perceiver_resampler_num_latents=4,
            perceiver_resampler_num_latents_2d=4,
            perceiver_resampler_mlp_intermediate_size=16,
            perceiver_resampler_num_layers=1,
            **MEMORY,
        )
    )
    model.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(3)  # something always shows
    size = dict(height=side, width=side)
    images = Sam2ImageProcessor(size=size, mask_size=dict(height=16, width=16))
    return save(model, Sam2VideoProcessor(images, Sam2VideoVideoProcessor(size=size)), folder)


def sam3(folder) -> Path:
    import torch
    from transformers import Sam2VideoVideoProcessor, Sam3Config
    from transformers import Sam3ImageProcessor, Sam3TrackerVideoConfig, Sam3VideoConfig
    from transformers import Sam3VideoModel, Sam3VideoProcessor

    side = 56
    eye = NARROW | dict(model_type="sam3_vit_model", image_size=side, patch_size=14)
    eye |= dict(window_size=2, global_attn_indexes=[0], pretrain_image_size=28)
    sizes = [[16, 16], [8, 8], [4, 4]]
    vision = dict(backbone_config=eye, fpn_hidden_size=WIDE, backbone_feature_sizes=sizes)
    tokenizer, count = letters()
    text = NARROW | dict(model_type="clip_text_model", vocab_size=count, eos_token_id=1)
    layer = PART | dict(num_layers=1, intermediate_size=16)
    finder = Sam3Config(
        vision_config=copy.deepcopy(vision),
        text_config=text | dict(max_position_embeddings=32, projection_dim=16),
        geometry_encoder_config=layer,
        detr_encoder_config=layer,
        detr_decoder_config=layer | dict(num_queries=5),
        mask_decoder_config=PART,
    )
    prompt = dict(hidden_size=WIDE, image_size=side, mask_input_channels=8, patch_size=14)
    follower = Sam3TrackerVideoConfig(
        vision_config=copy.deepcopy(vision),
        image_size=side,
        prompt_encoder_config=prompt,
        mask_decoder_config=MASK,
        memory_attention_feed_forward_hidden_size=32,
        **MEMORY,
    )
    torch.manual_seed(0)
    model = Sam3VideoModel(
        Sam3VideoConfig(
            detector_config=finder,
            tracker_config=follower,
            score_threshold_detection=0.2,
            new_det_thresh=0.2,
            low_res_mask_size=16,
        )
    )
    size = dict(height=side, width=side)
    parts = Sam3ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size), tokenizer
    return save(model, Sam3VideoProcessor(*parts), folder)
