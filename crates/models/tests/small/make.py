"""Writes the small cases beside this file: folders of timm and transformers with what f64 computes.

Needs torch, timm and transformers. Each folder has config.json, model.safetensors, and case.safetensors with inputs,
ref.out, ref.loss, ref.grad.NAME (f64, rounded to f32), and PyTorch's own relative errors by precision as metadata.
"""

import copy
import json
import pathlib

import timm
import torch
import transformers as hf
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, mse_loss

HERE = pathlib.Path(__file__).parent


def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    for name, p in list(model.named_parameters()) + list(model.named_buffers()):
        if not p.is_floating_point():
            continue
        noise = torch.randn(p.shape, generator=g)
        if name.endswith("running_var"):
            p.data = 1 + 0.2 * noise.abs()
        elif p.dim() == 1 and name.endswith("weight") or name.endswith("gamma"):
            p.data = 1 + 0.2 * noise
        elif p.dim() >= 2:
            p.data = noise * (0.7 if p.dim() == 2 else 0.4)
        else:
            p.data = 0.2 * noise


def run(model, forward, loss, train):
    model.train(train)
    model.zero_grad()
    out = forward(model)
    total = loss(out)
    total.backward()
    grads = {n: p.grad.detach().clone() for n, p in model.named_parameters()}
    return out.detach(), total.detach(), grads


def error(ours, ref):
    return float((ours.double() - ref.double()).norm() / ref.double().norm().clamp_min(1e-300))


def write(name, model, config, inputs, forward, loss, loss_name, train=False, drop=()):
    buffers = [b.clone() for b in model.buffers()]
    double = copy.deepcopy(model).double()
    ref_out, ref_loss, ref_grads = run(double, lambda m: forward(m, torch.float64), lambda o: loss(o, torch.float64), train)
    errors = {}
    for region, dtype in [("f32", None), ("bf16", torch.bfloat16), ("f16", torch.float16)]:
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            out, _, grads = run(model, lambda m: forward(m, torch.float32), lambda o: loss(o.float(), torch.float32), train)
        errors[region] = {"out": error(out, ref_out), "grads": {n: error(g, ref_grads[n]) for n, g in grads.items()}}
    # A case that PyTorch's own f32 hardly passes tells more of chance than of who fails it.
    largest = max(float(g.norm()) for g in ref_grads.values())
    for n, g in ref_grads.items():
        assert errors["f32"]["grads"][n] <= (1e-5 + 1e-7 * largest / float(g.norm().clamp_min(1e-300))) / 2, (name, n)
    for b, before in zip(model.buffers(), buffers):
        b.copy_(before)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k not in drop}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    tensors = {f"in.{k}": v for k, v in inputs.items()}
    tensors |= {"ref.out": ref_out.double(), "ref.loss": ref_loss.double()}
    tensors |= {f"ref.grad.{n}": g.float().contiguous() for n, g in ref_grads.items()}
    meta = {"model": name, "loss": loss_name, "mode": "train" if train else "eval", "autocast": json.dumps(errors)}
    save_file(tensors, folder / "case.safetensors", meta)


def image_case(name, model, config, size, seed, train=False, logits=lambda m, x: m(x), channels=3):
    randomise(model, seed)
    g = torch.Generator().manual_seed(seed + 1)
    x, y = torch.randn(2, channels, *size, generator=g), torch.randint(3, (2,), generator=g)
    write(name, model, config, {"x": x, "y": y}, lambda m, d: logits(m, x.to(d)), lambda o, d: cross_entropy(o, y),
          "cross_entropy", train)


def timm_case(name, architecture, args, size, seed, train=False):
    model = timm.create_model(architecture, **args)
    config = {"architecture": architecture, "num_classes": 3, "model_args": args}
    image_case(name, model, config, size, seed, train, channels=args.get("in_chans", 3))


def config_of(model):
    return json.loads(model.config.to_json_string(use_diff=False))


def hf_image_case(name, model, size, seed):
    image_case(name, model, config_of(model), size, seed, logits=lambda m, x: m(pixel_values=x).logits)


def gpt_case(name, seed, **more):
    config = hf.GPT2Config(vocab_size=11, n_positions=6, n_embd=8, n_layer=2, n_head=2, resid_pdrop=0, embd_pdrop=0,
                           attn_pdrop=0, **more)
    model = hf.GPT2LMHeadModel(config)
    randomise(model, seed)
    ids = torch.randint(11, (2, 6), generator=torch.Generator().manual_seed(seed + 1))
    drop = ["lm_head.weight"] if config.tie_word_embeddings else []
    write(name, model, config_of(model), {"input_ids": ids}, lambda m, d: m(ids).logits,
          lambda o, d: cross_entropy(o[:, :-1].flatten(0, 1), ids[:, 1:].flatten()), "next_token_cross_entropy",
          drop=drop)


def clip_case(name, seed, **more):
    config = hf.CLIPTextConfig(vocab_size=11, max_position_embeddings=6, hidden_size=8, intermediate_size=16,
                               num_hidden_layers=1, num_attention_heads=2, **more)
    model = hf.CLIPTextModel(config)
    randomise(model, seed)
    g = torch.Generator().manual_seed(seed + 1)
    ids, target = torch.randint(11, (2, 6), generator=g), torch.randn(2, 6, 8, generator=g)
    write(name, model, config_of(model), {"input_ids": ids, "target": target}, lambda m, d: m(ids).last_hidden_state,
          lambda o, d: mse_loss(o, target.to(d)), "mse")


VIT = dict(img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=3)
gpt_case("gpt2", 1)
gpt_case("gpt2_untied_by_depth", 2, tie_word_embeddings=False, scale_attn_by_inverse_layer_idx=True,
         scale_attn_weights=False, activation_function="gelu")
clip_case("clip_text", 3)
timm_case("vit", "vit_tiny_patch16_224", VIT, (8, 8), 4)
timm_case("vit_resampled", "vit_small_patch14_dinov2", VIT | dict(dynamic_img_size=True, img_size=20), (12, 8), 5)
timm_case("vit_registers", "vit_tiny_patch16_224",
          VIT | dict(reg_tokens=2, no_embed_class=True, pre_norm=True, global_pool="avg", init_values=0.5,
                     class_token=False, qkv_bias=False), (8, 8), 6)
timm_case("vit_larger", "vit_tiny_patch16_224",
          VIT | dict(dynamic_img_size=True, global_pool="avg", fc_norm=False, mlp_ratio=2.5), (12, 20), 7)
hf_image_case("vit_transformers", hf.ViTForImageClassification(hf.ViTConfig(
    image_size=8, patch_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
    num_labels=3)), (8, 8), 8)
timm_case("resnet_basic", "resnet18", dict(channels=[4, 4, 6, 6], layers=[1, 1, 1, 1], num_classes=3, in_chans=1), (32, 32), 9)
timm_case("resnet_bottleneck", "resnet50", dict(channels=[2, 2, 3, 3], layers=[1, 1, 1, 1], num_classes=3, in_chans=1), (96, 96),
          39, train=True)
for kind, seed in [("basic", 11), ("bottleneck", 12)]:
    hf_image_case(f"resnet_transformers_{kind}", hf.ResNetForImageClassification(hf.ResNetConfig(
        embedding_size=4, hidden_sizes=[8, 12], depths=[1, 2], layer_type=kind, downsample_in_first_stage=True,
        downsample_in_bottleneck=True, num_labels=3)), (32, 32), seed)
