"""One training step of a model at true size by its own library: a JSON line with its time and memory.

usage: torch_step.py MODEL [--threads T] [--secs S] [--channels-last] [--limit BYTES]
"""
import argparse, json, statistics, time
import torch, torch.nn.functional as F

def status(key):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(key): return int(line.split()[1]) / 1024

def gpt(layers, width, heads):
    from transformers import GPT2Config, GPT2LMHeadModel
    none = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    m = GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=width, n_head=heads, use_cache=False, **none))
    x, t = torch.randint(0, 50257, (1, 1024)), torch.randint(0, 50257, (1024,))
    return m, lambda: F.cross_entropy(m(x).logits.reshape(-1, 50257), t)

def vae():
    from diffusers import AutoencoderKL
    return AutoencoderKL(block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
                         up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2)

def build(name, order):
    """A model and its loss; images in an order of memory."""
    image = lambda *dims: torch.randn(*dims).to(memory_format=order)
    if name == "resnet50":
        import torchvision
        m, x, t = torchvision.models.resnet50().to(memory_format=order), image(32, 3, 224, 224), torch.randint(0, 1000, (32,))
        return m, lambda: F.cross_entropy(m(x), t)
    if name == "vit-l16":
        import timm
        m, x, t = timm.create_model("vit_large_patch16_224"), image(4, 3, 224, 224), torch.randint(0, 1000, (4,))
        return m, lambda: F.cross_entropy(m(x), t)
    if name == "sd-vae":
        m, x = vae().to(memory_format=order), image(1, 3, 256, 256)
        def loss():
            found = m.encode(x).latent_dist
            return F.mse_loss(m.decode(found.sample()).sample, x) + 1e-6 * found.kl().mean()
        return m, loss
    if name == "sd-unet":
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel
        frozen, text = vae().requires_grad_(False), CLIPTextModel(CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)).requires_grad_(False)
        with torch.no_grad():
            latent = frozen.encode(image(1, 3, 512, 512)).latent_dist.mean * 0.18215
            words = text(torch.randint(0, 49408, (1, 77)))[0]
        noise, t = image(1, 4, 64, 64), torch.tensor([500])
        x = (0.5 ** 0.5 * latent + 0.5 ** 0.5 * noise).to(memory_format=order)
        m = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).to(memory_format=order)
        m.frozen = [frozen, text]
        return m, lambda: F.mse_loss(m(x, t, words).sample, noise)
    return gpt(*{"gpt2": (12, 768, 12), "gpt2-medium": (24, 1024, 16), "gpt2-xl": (48, 1600, 25)}[name])

def main():
    p = argparse.ArgumentParser(); p.add_argument("model"); p.add_argument("--threads", type=int, default=2)
    p.add_argument("--secs", type=float, default=6.0); p.add_argument("--channels-last", action="store_true")
    p.add_argument("--limit", type=int, default=0)
    a = p.parse_args(); torch.set_num_threads(a.threads); torch.manual_seed(0)
    if a.limit:
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (a.limit, a.limit))
    m, loss = build(a.model, torch.channels_last if a.channels_last else torch.contiguous_format)
    m.train(); own = [p for p in m.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(own, lr=1e-4); base = status("VmRSS")
    def step():
        opt.zero_grad(set_to_none=True)
        l = loss(); l.backward(); torch.nn.utils.clip_grad_norm_(own, 1.0); opt.step()
        return l.item()
    step(); times = []; start = time.perf_counter()
    while not times or time.perf_counter() - start < a.secs and len(times) < 20:
        begin = time.perf_counter(); l = step(); times.append((time.perf_counter() - begin) * 1e3)
    assert l == l and abs(l) != float("inf"), l
    print(json.dumps(dict(ms=statistics.median(times), base_mib=base, peak_mib=status("VmHWM"), loss=l)))

main()
