#!/usr/bin/env python3
"""cortex_torch.py - the Cortex decoder of ../shared/spec/decoder.md 1.6-1.7 in PyTorch, timed.

The peer of bench_decoder: the same windows (512 events each, ragged packing
as PyTorch users write it: padded keys with a mask), the same processors. Weights are random: times
do not depend on them. Prints TSV: peer, model, dtype, batch, what, best and median milliseconds.

usage: cortex_torch.py [--models xs,s] [--batches 1,8,32] [--dtypes f32,bf16,int8] [--seconds 1]
                       [--train] [--device cpu|cuda]
"""
import argparse
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

SIZES = {"xs": (256, 5, 4, 128), "s": (512, 7, 8, 256), "m": (768, 11, 12, 384)}
EVENTS = 512


def split_heads(x, heads):
    b, t, d = x.shape
    return x.view(b, t, heads, d // heads).transpose(1, 2)


def merge_heads(x):
    b, h, t, d = x.shape
    return x.transpose(1, 2).reshape(b, t, h * d)


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.norm_attn, self.norm_mlp = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.up = nn.Linear(d, 4 * d, bias=False)
        self.down = nn.Linear(4 * d, d, bias=False)

    def forward(self, z):
        q, k, v = self.qkv(self.norm_attn(z)).chunk(3, dim=-1)
        a = F.scaled_dot_product_attention(*(split_heads(t, self.heads) for t in (q, k, v)))
        z = z + self.out(merge_heads(a))
        return z + self.down(F.gelu(self.up(self.norm_mlp(z))))


class Cortex(nn.Module):
    def __init__(self, size):
        super().__init__()
        d, layers, heads, latents = SIZES[size]
        self.d, self.heads = d, heads
        self.neuron, self.time, self.value = (nn.Embedding(n, d) for n in (512, 1024, 8))
        self.latents = nn.Parameter(torch.randn(latents, d) * 0.02)
        self.norm_q, self.norm_kv = nn.LayerNorm(d), nn.LayerNorm(d)
        self.q = nn.Linear(d, d, bias=False)
        self.kv = nn.Linear(d, 2 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(layers))
        self.final = nn.LayerNorm(d)
        self.query = nn.Parameter(torch.randn(2, d) * 0.02)
        self.norm_b = nn.LayerNorm(d)
        self.bq = nn.Linear(d, d, bias=False)
        self.bkv = nn.Linear(d, 2 * d, bias=False)
        self.bout = nn.Linear(d, 1, bias=False)

    def forward(self, neuron, bins, value, mask):
        x = self.neuron(neuron) + self.time(bins) + self.value(value)  # [B, E, D]
        b = x.shape[0]
        z = self.latents.unsqueeze(0).expand(b, -1, -1)
        q = split_heads(self.q(self.norm_q(z)), self.heads)
        k, v = self.kv(self.norm_kv(x)).chunk(2, dim=-1)
        a = F.scaled_dot_product_attention(
            q, split_heads(k, self.heads), split_heads(v, self.heads), attn_mask=mask)
        z = z + self.out(merge_heads(a))
        for block in self.blocks:
            z = block(z)
        zb = self.norm_b(self.final(z))
        q = split_heads(self.bq(self.query).unsqueeze(0).expand(b, -1, -1), self.heads)
        k, v = self.bkv(zb).chunk(2, dim=-1)
        a = F.scaled_dot_product_attention(q, split_heads(k, self.heads), split_heads(v, self.heads))
        return self.bout(merge_heads(a)).squeeze(-1)


def windows(batch, device, equal):
    """equal: every window full, when no mask is needed: what PyTorch is fastest at."""
    g = torch.Generator().manual_seed(42)
    shape = (batch, EVENTS)
    ids = [torch.randint(0, n, shape, generator=g).to(device) for n in (137, 120, 8)]
    return (*ids, None if equal else torch.ones(batch, 1, 1, EVENTS, dtype=torch.bool, device=device))


def timed(step, seconds, device):
    times = []
    for _ in range(2):
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times), statistics.median(times)


def model_of(size, dtype, device):
    torch.manual_seed(1)
    model = Cortex(size).eval().to(device)
    if dtype == "bf16":
        return model.to(torch.bfloat16)
    if dtype == "int8":
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    return model


def row(size, dtype, batch, what, best, median):
    print(f"torch-{torch.__version__}\tcortex-{size}\t{dtype}\t{batch}\t{what}\t{best:.3f}\t{median:.3f}",
          flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--models", default="xs,s")
    ap.add_argument("--batches", default="1,8,32")
    ap.add_argument("--dtypes", default="f32,bf16,int8")
    ap.add_argument("--seconds", type=float, default=1.0)
    ap.add_argument("--train", action="store_true")
    ap.add_argument("--device", default="cpu")
    a = ap.parse_args()
    print("peer\tmodel\tdtype\tbatch\twhat\tms_best\tms_median")
    for size in a.models.split(","):
        for dtype in a.dtypes.split(","):
            try:
                model = model_of(size, dtype, a.device)
            except Exception as e:  # a PyTorch without this quantiser still gives the other rows
                print(f"{size} {dtype}: {e}", file=sys.stderr)
                continue
            for batch in map(int, a.batches.split(",")):
                data = windows(batch, a.device, True)
                with torch.inference_mode():
                    row(size, dtype, batch, "forward", *timed(lambda: model(*data), a.seconds, a.device))
        if a.train:
            model = model_of(size, "f32", a.device).train()
            opt = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.01)
            data, want = windows(32, a.device, True), torch.randn(32, 2, device=a.device)

            def step():
                opt.zero_grad(set_to_none=True)
                F.mse_loss(model(*data), want).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                opt.step()

            row(size, "f32", 32, "train step", *timed(step, a.seconds, a.device))


if __name__ == "__main__":
    main()
