#!/usr/bin/env python3
"""make_cortex.py - expected outputs of the Cortex decoder, from an implementation of its own.

	make_cortex.py [--torch DIR] > tests/golden/cortex.tsv

The forward pass is written from spec/decoder.md 1.3 to 1.8 with NumPy in float64, padded batches and
masks where the C side has ragged ones. Weights and events are not stored: both sides make them from
the same hash of integers. With --torch the same is computed by PyTorch in float64 as a third opinion
(printed to stderr), and DIR gets the nano model in each container of 1.11, for a test by hand:
`cortex decoder info --model DIR/...`.

Hash: h = FNV-1a (32 bits) of the tensor's name. Element i: u = (h + i * 0x9e3779b9) mod 2^32, then
Murmur3's finaliser on u; r = (u >> 8) / 2^23 - 1 in [-1, 1), exact in a double.
	table, latents, query  r;   matrix of a linear [n,k]  r * sqrt(3/k);   norm weight  1 + r / 4
	norm bias, other bias  r / 4;   all rounded to float32
Events of a case: for i in 0.. with name "events": neuron u % V, time u' % T, value 1 + u'' % (K-1),
where u, u', u'' are elements 3i, 3i+1, 3i+2; window b of a case has the next counts[b] of them.
Queries likewise from "queries": elements 2i and 2i+1 are neuron and time.

Rows: case, tensor, index, value (17 digits).
"""
import sys

import numpy as np

SIZES = {  # D, N, H, L, V, T
    "xs": (256, 5, 4, 128, 512, 1024),
    "s": (512, 7, 8, 256, 512, 1024),
    "m": (768, 11, 12, 384, 512, 1024),
    "nano": (64, 3, 4, 32, 256, 128),
}
K, BD = 8, 2
CASES = [  # name, size, norm, events per window, queries per window
    ("nano", "nano", "layernorm", [5, 0, 40, 1, 0], [3, 2, 0, 1, 4]),
    ("nano_rms", "nano", "rmsnorm", [0, 17], [0, 5]),
    ("nano_none", "nano", "layernorm", [0], [2]),
    ("xs", "xs", "layernorm", [512, 0, 37], [4, 1, 2]),
    ("xs_one", "xs", "layernorm", [24], [2]),
    ("s", "s", "layernorm", [0, 300, 1], [1, 3, 0]),
    ("m", "m", "layernorm", [64], [2]),
]


def words(name, i):
    h = 2166136261
    for c in name.encode():
        h = (h ^ c) * 16777619 & 0xFFFFFFFF
    u = (np.uint64(h) + np.asarray(i, np.uint64) * np.uint64(0x9E3779B9)) & np.uint64(0xFFFFFFFF)
    u ^= u >> np.uint64(16)
    u = u * np.uint64(0x85EBCA6B) & np.uint64(0xFFFFFFFF)
    u ^= u >> np.uint64(13)
    u = u * np.uint64(0xC2B2AE35) & np.uint64(0xFFFFFFFF)
    return u ^ (u >> np.uint64(16))


def unit(name, shape):
    u = words(name, np.arange(int(np.prod(shape))))
    return ((u >> np.uint64(8)).astype(np.float64) / 2.0**23 - 1.0).reshape(shape)


def make_weights(size, norm):
    d, n, h, l, v, t = SIZES[size]
    w = {}

    def plain(name, *shape):
        w[name] = unit(name, shape)

    def linear(name, out, fan_in):
        w[name + ".weight"] = unit(name + ".weight", (out, fan_in)) * np.sqrt(3.0 / fan_in)

    def norms(name):
        w[name + ".weight"] = 1.0 + unit(name + ".weight", (d,)) / 4.0
        if norm == "layernorm":
            w[name + ".bias"] = unit(name + ".bias", (d,)) / 4.0

    plain("tokenizer.neuron_emb.weight", v, d)
    plain("tokenizer.time_emb.weight", t, d)
    plain("tokenizer.value_emb.weight", K, d)
    plain("encoder.latents", l, d)
    linear("encoder.cross_attn.q_proj", d, d)
    linear("encoder.cross_attn.kv_proj", 2 * d, d)
    linear("encoder.cross_attn.out_proj", d, d)
    norms("encoder.cross_attn.norm_q")
    norms("encoder.cross_attn.norm_kv")
    for i in range(n):
        b = f"encoder.self_attn_blocks.{i}."
        linear(b + "qkv_proj", 3 * d, d)
        linear(b + "out_proj", d, d)
        norms(b + "norm_attn")
        norms(b + "norm_mlp")
        linear(b + "mlp.0", 4 * d, d)
        linear(b + "mlp.2", d, 4 * d)
    norms("encoder.final_norm")
    plain("behavior_head.query", BD, d)
    linear("behavior_head.q_proj", d, d)
    linear("behavior_head.kv_proj", 2 * d, d)
    linear("behavior_head.out_proj", 1, d)
    norms("behavior_head.norm")
    linear("masked_spike_head.proj", K, d)
    w["masked_spike_head.proj.bias"] = unit("masked_spike_head.proj.bias", (K,)) / 4.0
    return {k: x.astype(np.float32) for k, x in w.items()}


def make_inputs(size, counts, queries):
    v, t = SIZES[size][4:]
    e, q = sum(counts), sum(queries)
    u = words("events", np.arange(3 * e)).reshape(e, 3)
    uq = words("queries", np.arange(2 * q)).reshape(q, 2)
    batch = np.repeat(np.arange(len(counts)), counts)
    qbatch = np.repeat(np.arange(len(queries)), queries)
    return {
        "neuron": (u[:, 0] % v).astype(int), "time": (u[:, 1] % t).astype(int),
        "value": (1 + u[:, 2] % (K - 1)).astype(int), "batch": batch,
        "qneuron": (uq[:, 0] % v).astype(int), "qtime": (uq[:, 1] % t).astype(int),
        "qbatch": qbatch, "B": len(counts),
    }


def erf(x):
    """erf to double precision, by its series and continued fraction (no SciPy)."""
    a = np.abs(x)
    small = np.minimum(a, 3.0)
    term = small * 2 / np.sqrt(np.pi)
    total = term.copy()
    for k in range(1, 120):
        term = term * (-small * small) / k
        total = total + term / (2 * k + 1)
    big = np.maximum(a, 3.0)
    f = np.zeros_like(big)
    for k in range(120, 0, -1):
        f = k / 2.0 / (big + f)
    tail = 1 - np.exp(-big * big) / np.sqrt(np.pi) / (big + f)
    return np.sign(x) * np.where(a < 3.0, total, tail)


def forward(w, size, norm, x):
    d, n, h, l, _, _ = SIZES[size]
    w = {k: v.astype(np.float64) for k, v in w.items()}
    b = x["B"]

    def ln(z, at):
        g = w[at + ".weight"]
        if norm == "rmsnorm":
            return z / np.sqrt((z * z).mean(-1, keepdims=True) + 1e-5) * g
        c = z - z.mean(-1, keepdims=True)
        return c / np.sqrt((c * c).mean(-1, keepdims=True) + 1e-5) * g + w[at + ".bias"]

    def split(z):  # (B, rows, D) -> (B, H, rows, dh)
        return z.reshape(z.shape[0], z.shape[1], h, d // h).transpose(0, 2, 1, 3)

    def attend(q, k, v, mask=None):
        s = split(q) @ split(k).transpose(0, 1, 3, 2) / np.sqrt(d // h)
        if mask is not None:
            s = np.where(mask[:, None, None, :], s, -np.inf)
        top = s.max(-1, keepdims=True, initial=-np.inf)
        p = np.exp(s - np.where(np.isfinite(top), top, 0))
        total = p.sum(-1, keepdims=True)
        p = p / np.where(total > 0, total, 1)  # an empty window: contribution 0
        return (p @ split(v)).transpose(0, 2, 1, 3).reshape(q.shape)

    token = (w["tokenizer.neuron_emb.weight"][x["neuron"]]
             + w["tokenizer.time_emb.weight"][x["time"]]
             + w["tokenizer.value_emb.weight"][x["value"]])
    count = np.bincount(x["batch"], minlength=b)
    emax = max(1, count.max())
    xp, mask = np.zeros((b, emax, d)), np.arange(emax)[None, :] < count[:, None]
    for i in range(b):
        xp[i, : count[i]] = token[x["batch"] == i]
    z = np.broadcast_to(w["encoder.latents"], (b, l, d))
    c = "encoder.cross_attn."
    q = ln(z, c + "norm_q") @ w[c + "q_proj.weight"].T
    kv = ln(xp, c + "norm_kv") @ w[c + "kv_proj.weight"].T
    z = z + attend(q, kv[..., :d], kv[..., d:], mask) @ w[c + "out_proj.weight"].T
    for i in range(n):
        p = f"encoder.self_attn_blocks.{i}."
        u = ln(z, p + "norm_attn") @ w[p + "qkv_proj.weight"].T
        z = z + attend(u[..., :d], u[..., d:2 * d], u[..., 2 * d:]) @ w[p + "out_proj.weight"].T
        g = ln(z, p + "norm_mlp") @ w[p + "mlp.0.weight"].T
        z = z + (0.5 * g * (1 + erf(g / np.sqrt(2)))) @ w[p + "mlp.2.weight"].T
    z = ln(z, "encoder.final_norm")
    kv = ln(z, "behavior_head.norm") @ w["behavior_head.kv_proj.weight"].T
    k, v = kv[..., :d], kv[..., d:]
    wq = w["behavior_head.q_proj.weight"]
    q = np.broadcast_to(w["behavior_head.query"] @ wq.T, (b, BD, d))
    behavior = (attend(q, k, v) @ w["behavior_head.out_proj.weight"].T)[..., 0]
    wm, bm = w["masked_spike_head.proj.weight"], w["masked_spike_head.proj.bias"]
    qx = w["tokenizer.neuron_emb.weight"][x["qneuron"]] + w["tokenizer.time_emb.weight"][x["qtime"]]
    logits = np.zeros((len(qx), K))
    for j in range(len(qx)):
        i = x["qbatch"][j]
        o = attend((qx[j] @ wq.T)[None, None, :], k[i:i + 1], v[i:i + 1])[0, 0]
        logits[j] = (qx[j] + o) @ wm.T + bm
    return {"behavior": behavior, "masked": logits, "mean": z.mean(1) @ wm.T + bm,
            "latents": z[:, ::max(1, l // 4), ::max(1, d // 8)]}


def torch_forward(w, size, x):
    """The same by PyTorch's own layers, LayerNorm models only."""
    import torch
    import torch.nn.functional as F

    d, n, h, l, _, _ = SIZES[size]
    w = {k: torch.from_numpy(v).double() for k, v in w.items()}
    out = []
    for i in range(x["B"]):
        at = np.flatnonzero(x["batch"] == i)
        tok = (w["tokenizer.neuron_emb.weight"][x["neuron"][at]]
               + w["tokenizer.time_emb.weight"][x["time"][at]]
               + w["tokenizer.value_emb.weight"][x["value"][at]])

        def ln(z, p):
            return F.layer_norm(z, (d,), w[p + ".weight"], w[p + ".bias"], 1e-5)

        def attend(q, k, v):
            s = [a.view(-1, h, d // h).transpose(0, 1)[None] for a in (q, k, v)]
            return F.scaled_dot_product_attention(*s)[0].transpose(0, 1).reshape(-1, d)

        z, c = w["encoder.latents"], "encoder.cross_attn."
        if len(at):
            q = ln(z, c + "norm_q") @ w[c + "q_proj.weight"].T
            kv = ln(tok, c + "norm_kv") @ w[c + "kv_proj.weight"].T
            z = z + attend(q, kv[:, :d], kv[:, d:]) @ w[c + "out_proj.weight"].T
        for j in range(n):
            p = f"encoder.self_attn_blocks.{j}."
            u = ln(z, p + "norm_attn") @ w[p + "qkv_proj.weight"].T
            z = z + attend(u[:, :d], u[:, d:2 * d], u[:, 2 * d:]) @ w[p + "out_proj.weight"].T
            z = z + F.gelu(ln(z, p + "norm_mlp") @ w[p + "mlp.0.weight"].T) @ w[p + "mlp.2.weight"].T
        z = ln(z, "encoder.final_norm")
        kv = ln(z, "behavior_head.norm") @ w["behavior_head.kv_proj.weight"].T
        q = w["behavior_head.query"] @ w["behavior_head.q_proj.weight"].T
        o = attend(q, kv[:, :d], kv[:, d:])
        out.append((o @ w["behavior_head.out_proj.weight"].T)[:, 0].numpy())
    return np.stack(out)


def write_torch(folder):
    """The nano model in the containers of 1.11."""
    import os

    import torch
    import torch.distributed.checkpoint as dcp

    class CortexConfig:  # pickled as an object, which an importer must skip
        def __init__(self):
            self.hidden_dim, self.num_heads = 64, 4

    globals()["CortexConfig"] = CortexConfig
    CortexConfig.__qualname__ = "CortexConfig"
    os.makedirs(folder, exist_ok=True)
    sd = {k: torch.from_numpy(v) for k, v in make_weights("nano", "layernorm").items()}
    params = [torch.nn.Parameter(v.clone()) for v in sd.values()]
    opt = torch.optim.AdamW(params)
    sum(p.sum() for p in params).backward()
    opt.step()
    torch.save(sd, f"{folder}/bare.pt")
    torch.save({"model_state_dict": sd, "config": CortexConfig()}, f"{folder}/final.pt")
    torch.save({"model": sd, "optim": opt.state_dict(),
                "state": {"step": 1, "epoch": 0, "best_val_metric": float("inf")}},
               f"{folder}/checkpoint.pt")
    dcp.save({"model": sd, "optim": opt.state_dict()}, checkpoint_id=f"{folder}/dist/shards",
             no_dist=True)
    q = {}
    for k, v in sd.items():
        is_linear = k.endswith("proj.weight") or ".mlp." in k
        if is_linear and not k.startswith("masked"):
            s = v.abs().amax(1).clamp(min=1e-8) / 127
            q[k + "_int8"] = (v / s[:, None]).round().clamp(-127, 127).to(torch.int8)
            q[k + "_scale"] = s
        else:
            q[k] = v
    torch.save({"state_dict": q, "meta": {"model": "cortex_nano",
                "quantization": "int8_per_channel_weight"}}, f"{folder}/int8.pt")


def main():
    for name, size, norm, counts, queries in CASES:
        w, x = make_weights(size, norm), make_inputs(size, counts, queries)
        out = forward(w, size, norm, x)
        if len(sys.argv) > 2 and norm == "layernorm":
            worst = np.abs(torch_forward(w, size, x) - out["behavior"]).max()
            print(f"{name}: NumPy against PyTorch, behavior: {worst:.1e}", file=sys.stderr)
        for key, v in out.items():
            for i, value in enumerate(v.ravel()):
                print(f"{name}\t{key}\t{i}\t{value:.17g}")
    if len(sys.argv) > 2:
        write_torch(sys.argv[2])


main()
