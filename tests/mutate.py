#!/usr/bin/env python3
"""mutate.py - does the test grid see a broken kernel? Makes seeded single-line mutants of kernels/,
shaders/ and backends/cpu/isa/ on a copy of the tree, builds each, and runs tests/test_grid.c on the
backend concerned: a mutant that passes the whole grid has survived.

    tests/mutate.py [--seed 1] [--n 50] [--least 48] [--only FILE-PART] [--out bench/results/mutants.tsv]

Mutants: operators swapped, bounds off by one, constants changed, barriers dropped, strides swapped,
signs flipped. Only lines of code; a third of the mutants for each of the three folders, files
weighted by their lines. A mutant that does not build is drawn again. Left out: comments,
declarations and preprocessor lines; lines that only make things faster (prefetch, shares of threads);
shaders/prodc.comp and prodi.comp, which no software driver can run. Exit 1 if fewer than --least are killed. Needs
Python 3 and nothing else; not needed by make test."""
import argparse, os, random, re, shutil, signal, subprocess, sys, tempfile, time

GROUPS = (
    ("opencl", "kernels", (".cl.h",)),
    ("vulkan", "shaders", (".comp", ".glsl")),
    ("cpu", "backends/cpu/isa", (".c", ".h")),
)
LEFT_OUT = {"prodc.comp", "prodi.comp", "digits.comp"}
# Which ops to run first, by the start of a file's name; the rest of the grid follows.
UNARY = "neg,abs,exp,log,sin,cos,tanh,erf,gelu,sigmoid,softplus,clamp,add,div,pow,where,map"
NORMS = "layernorm,rmsnorm,l2norm,groupnorm,add_norm,norm_grad"
SEQ = "conv1d,delta_rule,scan,cscan,rope,rope_kv"
MOVE = "copy,permute,slice,reshape,concat,pad,gather,scatter,assign,embed_sum,broadcast"
REDUCE = "sum,mean,amax,amin,argmax,cumsum,topk"
PROD = "matmul,linear"
FIRST = {
    "opencl": {"attn": "attention,paged_attention", "elem": UNARY + "," + MOVE, "gen": "random,iota,cross_entropy,mse,poisson_nll,adamw",
        "map": UNARY, "matmul": PROD, "move": MOVE, "quant": "cast,gather,matmul,linear", "reduce": REDUCE,
        "row": "softmax,log_softmax," + NORMS, "seq": SEQ, "grad": "norm_grad,attention_grad,conv1d_grad,delta_grad"},
    "vulkan": {"adamw": "adamw", "attn": "attention,paged_attention", "cast": "cast", "common": UNARY + "," + MOVE,
        "conv1d": "conv1d", "cumsum": "cumsum", "delta": "delta_rule", "embed": "embed_sum", "fill": "pad,scatter,embed_sum,linear",
        "gather": "gather,cast", "int64": "sum,cast,add", "loss": "mse,poisson_nll", "map": UNARY, "math": UNARY,
        "move": MOVE, "norm": NORMS, "pad": "pad", "prod": PROD, "quant": "cast,gather,matmul,linear", "random": "random",
        "reduce": REDUCE, "rope": "rope,rope_kv", "row": "sum,mean,softmax," + NORMS, "scan": "scan,cscan",
        "scatter": "scatter", "seq": SEQ, "softmax": "softmax,log_softmax", "topk": "topk,argmax", "xent": "cross_entropy"},
    "cpu": {},  # the whole grid takes seconds there
}
DECLARATIONS = ("/*", "*", "#", "layout(", "static const", "const ", "case ", "enum", "CX_OUT", "CX_IN", "CX_VIEWS", "CX_KERNEL")
SWAPS = ((" + ", " - "), (" - ", " + "), (" * ", " + "), (" / ", " * "), (" += ", " -= "), (" -= ", " += "),
    (" << ", " >> "), (" >> ", " << "), (" && ", " || "), (" || ", " && "), (" & ", " | "), (" | ", " & "), (" % ", " / "),
    ("_add(", "_sub("), ("_sub(", "_add("), ("_mul(", "_add("), ("_max(", "_min("), ("_min(", "_max("), ("_fma(", "_fnma("))
BOUNDS = ((" < ", " <= "), (" <= ", " < "), (" > ", " >= "), (" >= ", " > "), (" == ", " != "), (" != ", " == "))
# What a case that went wrong prints; that a backend lacks a kernel is no news.
FAILS = re.compile(r"^FAIL (?![^\n]*no kernel for)([^\n]*)", re.M)
# a < b ? a : b is the same function with <=.
SMALLER = re.compile(r"([\w\[\].>+ -]*\w\]?) [<>]=? ([\w\[\].>]+) *\? *(\1 : \2|\2 : \1)")


def mutations(line):
    """[(kind, new line)] of a line of code."""
    out = []
    for kind, table in (("operator", SWAPS), ("bound", BOUNDS)):
        for a, b in table:
            for m in re.finditer(re.escape(a), line):
                if kind == "bound" and SMALLER.search(line):
                    continue
                out.append((kind, line[:m.start()] + b + line[m.end():]))
    for m in re.finditer(r"(?<![\w.\"\[])(\d+)(?![\w.\"])", line):
        out.append(("constant", line[:m.start()] + str(int(m.group(1)) + 1) + line[m.end():]))
    for m in re.finditer(r"(?<![\w.])(\d+\.\d+)(?=f?\b)", line):
        out.append(("constant", line[:m.start()] + str(float(m.group(1)) * 1.5 + 0.5) + line[m.end():]))
    if re.match(r"\s*(barrier\(\)|CX_BARRIER\(\)|cx__pool_barrier\(.*\));", line):
        out.append(("barrier", re.sub(r"\S.*", ";", line)))
    for m in re.finditer(r"stride\[(\d)\]", line):
        out.append(("stride", line[:m.start(1)] + str(int(m.group(1)) ^ 1) + line[m.end(1):]))
    for m in re.finditer(r"T_STRIDE\((\d), (\d)\)", line):
        out.append(("stride", line[:m.start(2)] + str((int(m.group(2)) + 5) % 6) + line[m.end(2):]))
    for m in re.finditer(r"(?<=[=(,?:] )-(?=[\w(])|(?<=return )-(?=[\w(])", line):
        out.append(("sign", line[:m.start()] + line[m.end():]))
    for m in re.finditer(r"(?<=return )(?=[a-z_]+(\(|;|\[| [*/]))", line):
        out.append(("sign", line[:m.start()] + "-" + line[m.start():]))
    return out


def candidates(path):
    """[(line index, kind, new line)]; comments and what is no code stay out."""
    with open(path) as f:
        lines = f.read().split("\n")
    out, comment, macro = [], False, False
    for i, line in enumerate(lines):
        text = line.strip()
        was_comment, was_macro = comment, macro
        if "/*" in line:
            comment = "*/" not in line[line.index("/*"):]
        elif comment:
            comment = "*/" not in line
        macro = text.startswith("#") and text.endswith("\\") or was_macro and text.endswith("\\")
        if was_comment or text.startswith(DECLARATIONS):
            continue
        if not text or not re.search(r"[;{(]", text) or re.search(r"prefetch|CX_ASSERT|CX_UNROLL|_keep\(|cx_cpu_share", text):
            continue
        code, _, tail = line.partition("/*")
        for kind, new in mutations(code):
            if new != code:
                out.append((i, kind, new + (_ + tail if _ else "")))
    return lines, out


def draw(rng, root, chosen, only):
    """Endless mutants, the folders in turn."""
    groups = []
    for backend, folder, ends in GROUPS:
        files = []
        if backend not in chosen.split(","):
            continue
        for name in sorted(os.listdir(os.path.join(root, folder))):
            if not name.endswith(ends) or name in LEFT_OUT or only not in name:
                continue
            lines, cand = candidates(os.path.join(root, folder, name))
            if cand:
                files.append((folder + "/" + name, lines, cand, len({c[0] for c in cand})))
        if files:
            groups.append((backend, files))
    seen = set()
    turn = 0
    while True:
        backend, files = groups[turn % len(groups)]
        turn += 1
        name, lines, cand, _ = rng.choices(files, weights=[f[3] for f in files])[0]
        at = rng.choice(sorted({c[0] for c in cand}))
        kinds = sorted({c[1] for c in cand if c[0] == at})
        kind = rng.choice(kinds)
        new = rng.choice([c[2] for c in cand if c[0] == at and c[1] == kind])
        if (name, at) in seen:
            continue
        seen.add((name, at))
        yield backend, name, at, kind, lines[at], new


def run(cmd, cwd, env, limit):
    """(exit status or None after the time limit, output)."""
    p = subprocess.Popen(cmd, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, text=True, errors="replace")
    try:
        out, _ = p.communicate(timeout=limit)
        return p.returncode, out
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        out, _ = p.communicate()
        return None, out


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--n", type=int, default=50)
    ap.add_argument("--least", type=int, default=48)
    ap.add_argument("--only", default="")
    ap.add_argument("--rows", default="", help="of the mutants of this seed, only those of these numbers: 3,14")
    ap.add_argument("--out", default="bench/results/mutants.tsv")
    ap.add_argument("--limit", type=float, default=400, help="seconds per run of the grid")
    ap.add_argument("--tree", help="a copy of the tree to use, and to leave as it was; with --build")
    ap.add_argument("--no-check", action="store_true", help="do not run the unchanged grid first: it has just passed")
    ap.add_argument("--build", help="its build folder")
    ap.add_argument("--groups", default="opencl,vulkan,cpu", help="which backends' sources")
    ap.add_argument("--list", action="store_true", help="print the mutants and do nothing")
    a = ap.parse_args()
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    rng = random.Random(a.seed)
    if a.list:
        for i, m in zip(range(a.n), draw(rng, home, a.groups, a.only)):
            print("%s:%d %s\n\t%s\n\t%s" % (m[1], m[2] + 1, m[3], m[4].strip(), m[5].strip()))
        return 0
    tmp = tempfile.mkdtemp(prefix="cortex-mutants-")
    tree, build = a.tree or os.path.join(tmp, "tree"), a.build or os.path.join(tmp, "build")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=home, capture_output=True,
        text=True, check=True).stdout.split("\n")
    for f in files if not a.tree else []:
        if f and os.path.isfile(os.path.join(home, f)):
            os.makedirs(os.path.dirname(os.path.join(tree, f)), exist_ok=True)
            shutil.copy2(os.path.join(home, f), os.path.join(tree, f))
    cc = "ccache gcc" if shutil.which("ccache") else "gcc"
    make = ["make", "-j2", "BUILD=" + build, "CC=" + cc, build + "/tests/test_grid"]
    env = dict(os.environ, CX_GRID_STOP="1", CCACHE_NOHASHDIR="1")
    for k in ("CX_GRID_BACKENDS", "CX_GRID_OPS", "CX_GRID_CASES", "CX_GRID_SEED", "CX_GRID_SECONDS"):
        env.pop(k, None)
    grid = [build + "/tests/test_grid"]
    status = 1
    rows, killed, survived, unbuilt, number = [], 0, 0, 0, 0
    try:
        rc, out = run(make, tree, env, 1800)
        if rc != 0:
            print(out[-3000:])
            raise SystemExit("the tree does not build")
        for backend, _, _ in GROUPS:
            if backend not in a.groups.split(",") or a.no_check:
                continue
            t = time.time()
            rc, out = run(grid, tree, dict(env, CX_GRID_BACKENDS=backend), 900)
            ok = rc is not None and not FAILS.search(out)
            print("unchanged, %s: %s in %.0f s" % (backend, "passes" if ok else "FAILS", time.time() - t), flush=True)
            if not ok:
                print(out[-3000:])
                raise SystemExit("the grid must pass before mutants mean anything")
        for backend, name, at, kind, old, new in draw(rng, tree, a.groups, a.only):
            if killed + survived == a.n:
                break
            number += 1
            if a.rows and str(number) not in a.rows.split(","):
                if number > a.n * 3:
                    break
                continue
            path = os.path.join(tree, name)
            stem = os.path.basename(name).split(".")[0]
            first = [v for k, v in FIRST[backend].items() if stem.startswith(k)]
            with open(path) as f:
                text = f.read()
            lines = text.split("\n")
            lines[at] = new
            t = time.time()
            with open(path, "w") as f:
                f.write("\n".join(lines))
            rc, out = run(make, tree, env, 900)
            what = "-"
            if rc != 0:
                result = "did not build"
                unbuilt += 1
            else:
                rc, out = run(grid, tree, dict(env, CX_GRID_BACKENDS=backend, CX_GRID_FIRST=",".join(first)), a.limit)
                fail = FAILS.search(out)
                what = fail.group(1) if fail else "time limit" if rc is None else "-"
                result = "survived" if what == "-" else "killed"
                killed += what != "-"
                survived += what == "-"
            with open(path, "w") as f:
                f.write(text)
            row = [str(number), result, name, str(at + 1), kind, old.strip(), new.strip(), what, "%.0f" % (time.time() - t)]
            rows.append([c.replace("\t", " ") for c in row])
            print("\t".join(row), flush=True)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    print("# seed %d: %d killed, %d survived, %d did not build" % (a.seed, killed, survived, unbuilt))
    if a.out:
        with open(a.out, "w") as f:
            f.write("# mutate.py --seed %d: %d killed, %d survived, %d did not build\n" % (a.seed, killed, survived, unbuilt))
            f.write("n\tresult\tfile\tline\tkind\tbefore\tafter\tseen by\tseconds\n")
            f.writelines("\t".join(r) + "\n" for r in rows)
    return 0 if killed >= a.least else 1


if __name__ == "__main__":
    sys.exit(main())
