/* diff.c - the three looks at every device, and who is charged; see diff.h. */
#include "graph/diff.h"
#include "graph/plan.h"
#include "graph/quant.h"

#include <math.h>
#include <string.h>

typedef struct differ {
	cx_diff *d;
	const cx_graph *g;
	cx_prober prober;
	cx_probe_cache *cache; /* of the device being looked at */
	uint32_t dev;
	/* what the callbacks of one comparison fill */
	cx_diff_row *row;
	const cx_probe *probe; /* for the slack of sums that cancel; NULL while not comparing */
	const uint32_t *member;
	uint32_t n_member, one; /* one: the member, where there is but one */
	int flags;
	void **got;       /* [n_nodes] WHOLE: what the device gave */
	void **nudged;    /* [n_nodes] copies of operands with last bits changed */
	const void **use; /* operands of a reference run, by source id */
	void **keep;      /* where a reference run leaves its outputs, by source id */
	bool oom;
} differ;

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "diff: out of memory");
}

static cx_device *fallback_of(const differ *f)
{
	return f->d->opts.fallback ? f->d->opts.fallback[f->dev] : NULL;
}

static double row_tol(cx_op op, cx_dtype t)
{
	cx_tol tol = cx__ops[op].tol;
	return t == CX_F16 ? tol.f16 : t == CX_BF16 ? tol.bf16 : tol.f32;
}

/* ---- the reference ---- */

static const void *ref_leaf(void *ctx, const cx_graph *g, uint32_t id)
{
	differ *f = ctx;
	const void *p = f->d->opts.leaf(f->d->opts.ctx, g, id);
	f->d->value[id] = p;
	return p;
}

static void ref_node(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	differ *f = ctx;
	if (g->nodes[id].root != id || f->d->value[id]) return;
	if (!(f->d->value[id] = cx_arena_memdup(&f->d->arena, data, bytes + (bytes == 0))) && bytes)
		f->oom = true;
}

static cx_status run_reference(differ *f, cx_err *err)
{
	cx_ref_io io = {.ctx = f, .leaf = ref_leaf, .node = ref_node};
	cx_status st = cx__ref_eval(f->g, &f->d->opts.alloc, &io, err);
	return st == CX_OK && f->oom ? no_memory(err) : st;
}

/* ---- slack: what last bits of the operands do ---- */

typedef struct sub_run {
	differ *f;
	const cx_probe *p;
} sub_run;

static const void *sub_leaf(void *ctx, const cx_graph *g, uint32_t id)
{
	sub_run *s = ctx;
	(void)g;
	for (uint32_t i = 0; i < s->p->n_leaf; i++)
		if (s->p->leaf[i] == id) return s->f->use[s->p->leaf_src[i]];
	return NULL;
}

static void sub_node(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes)
{
	sub_run *s = ctx;
	for (uint32_t o = 0; o < g->n_outputs; o++) {
		uint32_t src = s->p->out_src[o];
		if (g->outputs[o].id != id) continue;
		if (!(s->f->keep[src] = cx_malloc(&s->f->d->opts.alloc, bytes + 1))) s->f->oom = true;
		else memcpy(s->f->keep[src], data, bytes);
	}
}

/* The members on operands `use`; outputs go to `keep`, to be freed by drop(). */
static cx_status run_members(
	differ *f, const uint32_t *member, uint32_t n_member, cx_probe *p, cx_err *err)
{
	sub_run s = {f, p};
	cx_ref_io io = {.ctx = &s, .leaf = sub_leaf, .node = sub_node};
	cx_status st = cx__probe_build(&f->prober, member, n_member, f->flags, p, err);
	if (st != CX_OK) return st;
	for (uint32_t i = 0; i < p->n_leaf; i++)
		if (!f->use[p->leaf_src[i]]) f->use[p->leaf_src[i]] = f->d->value[p->leaf_src[i]];
	st = cx__ref_eval(p->g, &f->d->opts.alloc, &io, err);
	return st == CX_OK && f->oom ? no_memory(err) : st;
}

static void drop(differ *f, void **slot, uint32_t id)
{
	cx_free(&f->d->opts.alloc, slot[id], cx__desc_bytes(&f->g->nodes[id].desc) + 1);
	slot[id] = NULL;
}

/* A copy with every float moved by a few last bits: f32 by 2^-22 of itself (2^-16 beside a block
 * format, where a kernel may round to 16-bit integers), one 16-bit float in 64 by one bit, or every
 * other one after the first attempt. */
static void *nudge(differ *f, uint32_t id, double rel, uint32_t attempt)
{
	const cx_desc *d = &f->g->nodes[id].desc;
	uint64_t bytes = cx__desc_bytes(d),
			 s = ((uint64_t)attempt << 32 | (id + 1)) * 0x2545f4914f6cdd1du;
	int64_t n = cx__desc_elems(d);
	void *copy = cx_malloc(&f->d->opts.alloc, bytes + 1);
	if (!copy) {
		f->oom = true;
		return NULL;
	}
	memcpy(copy, f->d->value[id], bytes);
	for (int64_t i = 0; i < n; i++) {
		uint64_t z = s += 0x9e3779b97f4a7c15u; /* splitmix64 */
		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
		z = (z ^ z >> 27) * 0x94d049bb133111ebu;
		z ^= z >> 31;
		if (d->dtype == CX_F32)
			((float *)copy)[i] *= (float)(1 + rel * ((double)(z >> 11) * 0x1p-52 - 1));
		else if ((d->dtype == CX_F16 || d->dtype == CX_BF16) && z >> (attempt ? 63 : 58) == 0 &&
				 (((uint16_t *)copy)[i] & 0x7fff) != 0)
			((uint16_t *)copy)[i] ^= 1;
	}
	return copy;
}

static void mean_square(cx_dtype t, int64_t n, const void *a, const void *b, double *out)
{
	cx_metric m;
	double power = 0;
	cx__metric(t, n, a, b, 0, 0, &m);
	for (int64_t i = 0; i < n; i++) {
		double w = t == CX_F16    ? cx_f16_to_f32(((const uint16_t *)a)[i])
				   : t == CX_BF16 ? cx_bf16_to_f32(((const uint16_t *)a)[i])
								  : ((const float *)a)[i];
		if (isfinite(w)) power += w * w;
	}
	*out = isfinite(m.nmse) && n ? m.nmse * power / (double)n : 0;
	if (!isfinite(m.nmse) && n) *out = m.max_abs * m.max_abs;
}

/* Output `src` under nudged operands; NULL: it could not be had. The caller frees it. */
static void *nudged_output(differ *f, uint32_t src, uint32_t attempt)
{
	double rel = 0x1p-22;
	void *out = NULL;
	cx_probe p;
	if (cx__probe_build(&f->prober, f->member, f->n_member, f->flags, &p, NULL) != CX_OK)
		return NULL;
	for (uint32_t i = 0; i < p.n_leaf; i++)
		if (cx_dtype_get(p.g->nodes[p.leaf[i]].desc.dtype)->cls == CX_CLASS_BLOCK) rel = 0x1p-16;
	for (uint32_t i = 0; i < p.n_leaf; i++) {
		uint32_t s = p.leaf_src[i];
		if (cx_dtype_get(f->g->nodes[s].desc.dtype)->cls != CX_CLASS_FLOAT) continue;
		f->use[s] = f->nudged[s] = nudge(f, s, rel, attempt);
	}
	cx_graph_free(p.g);
	if (run_members(f, f->member, f->n_member, &p, NULL) == CX_OK) {
		out = f->keep[src];
		f->keep[src] = NULL;
	}
	for (uint32_t i = 0; i < p.n_leaf; i++) {
		drop(f, f->nudged, p.leaf_src[i]);
		f->use[p.leaf_src[i]] = NULL;
	}
	for (uint32_t o = 0; o < p.n_out; o++) drop(f, f->keep, p.out_src[o]);
	cx_graph_free(p.g);
	return out;
}

/* Mean square change of output `src` under nudged operands, times 64. */
static double slack_of(differ *f, uint32_t src)
{
	const cx_desc *d = &f->g->nodes[src].desc;
	double ms = 0;
	void *out = nudged_output(f, src, 0);
	if (!out) return 0;
	mean_square(d->dtype, cx__desc_elems(d), f->d->value[src], out, &ms);
	cx_free(&f->d->opts.alloc, out, cx__desc_bytes(d) + 1);
	return 64 * ms;
}

/* A discrete output at the end of inexact members (sigmoid(x) == y): whether every element that
 * differs is one that a last bit of an operand decides. */
static bool is_excused(differ *f, uint32_t src, const void *got)
{
	const cx_desc *d = &f->g->nodes[src].desc;
	size_t size = (size_t)cx_dtype_get(d->dtype)->block_bytes;
	int64_t n = cx__desc_elems(d), n_left = 0;
	const unsigned char *want = f->d->value[src];
	unsigned char *left = cx_calloc(&f->d->opts.alloc, (size_t)n + 1, 1);
	if (!left) return false;
	for (int64_t i = 0; i < n; i++) {
		left[i] = memcmp(want + (size_t)i * size, (const char *)got + (size_t)i * size, size) != 0;
		n_left += left[i];
	}
	for (uint32_t attempt = 0; attempt < 16 && n_left > 0; attempt++) {
		unsigned char *out = nudged_output(f, src, attempt);
		for (int64_t i = 0; out && i < n; i++) {
			if (!left[i] || memcmp(want + (size_t)i * size, out + (size_t)i * size, size) == 0)
				continue;
			left[i] = 0;
			n_left--;
		}
		cx_free(&f->d->opts.alloc, out, cx__desc_bytes(d) + 1);
	}
	cx_free(&f->d->opts.alloc, left, (size_t)n + 1);
	return n_left == 0;
}

/* ---- NODE and FUSED ---- */

static bool worse(const cx_metric *a, const cx_metric *b, bool a_bad, bool b_bad)
{
	if (a_bad != b_bad) return a_bad;
	if ((a->n_odd > 0) != (b->n_odd > 0)) return a->n_odd > 0;
	return a->nmse > b->nmse;
}

static const void *ref_value(void *ctx, uint32_t src)
{
	return ((differ *)ctx)->d->value[src];
}

typedef struct result {
	struct result *next;
	uint32_t src;
	void *data;
} result;
typedef struct results {
	differ *f;
	result *head;
	cx_arena arena;
} results;

static void keep_result(void *ctx, uint32_t src, const void *data, uint64_t bytes)
{
	results *r = ctx;
	result *e = cx_arena_alloc(&r->arena, sizeof *e);
	if (!e || !(e->data = cx_arena_memdup(&r->arena, data, bytes + (bytes == 0)))) {
		r->f->oom = true;
		return;
	}
	e->src = src;
	e->next = r->head;
	r->head = e;
}

static const void *results_value(void *ctx, uint32_t src)
{
	return ref_value(((results *)ctx)->f, src);
}

static void judge(differ *f, const result *e, double tol, bool may_slack)
{
	const cx_desc *d = &f->g->nodes[e->src].desc;
	cx_diff_row *row = f->row;
	cx_metric m;
	bool first = row->m.first_bad == -2;
	cx__metric(d->dtype, cx__desc_elems(d), f->d->value[e->src], e->data, tol, 0, &m);
	if (!m.inside && m.n_odd == 0 && may_slack && cx_dtype_get(d->dtype)->cls == CX_CLASS_FLOAT)
		cx__metric(d->dtype, cx__desc_elems(d), f->d->value[e->src], e->data, tol,
			slack_of(f, e->src), &m);
	if (!m.inside && row->kind == CX_DIFF_FUSED && may_slack &&
		cx_dtype_get(d->dtype)->cls != CX_CLASS_FLOAT && is_excused(f, e->src, e->data))
		m.inside = true;
	if (!first && !worse(&m, &row->m, !m.inside, row->bad)) return;
	row->m = m;
	row->bad = !m.inside;
	row->tol = tol;
	row->out = (uint8_t)(e->src - f->member[f->n_member - 1]);
	if (row->kind == CX_DIFF_FUSED) row->out = 0;
}

/* Members round to their own types; a fused kernel may keep f32 in between. */
static double group_tol(const differ *f, cx_dtype t)
{
	double tol = 0;
	for (uint32_t i = 0; i < f->n_member; i++) {
		const cx_node *n = &f->g->nodes[f->member[i]];
		double own = row_tol((cx_op)n->op, t);
		if (f->n_member > 1) {
			if (n->desc.dtype == CX_F16 || n->desc.dtype == CX_BF16)
				own = fmax(own, 4 * row_tol(CX_OP_exp, n->desc.dtype));
			own = fmax(own, row_tol(CX_OP_softmax, t));
		}
		tol = fmax(tol, own);
	}
	return tol;
}

static cx_diff_row *new_row(differ *f, uint32_t node, cx_diff_kind kind)
{
	cx_diff *d = f->d;
	if (d->n_rows == d->cap_rows) {
		uint32_t cap = d->cap_rows ? 2 * d->cap_rows : 256;
		cx_diff_row *grown =
			cx_realloc(&d->opts.alloc, d->rows, d->cap_rows * sizeof *grown, cap * sizeof *grown);
		if (!grown) return NULL;
		d->rows = grown;
		d->cap_rows = cap;
	}
	d->rows[d->n_rows] = (cx_diff_row){
		.node = node, .dev = f->dev, .kind = (uint8_t)kind, .m.first_bad = -2, .grown = -1};
	return &d->rows[d->n_rows++];
}

static cx_status look_at(differ *f, cx_diff_kind kind, cx_fusion fusion, cx_err *err)
{
	results r = {.f = f};
	cx_probe_io io = {&r, results_value, keep_result};
	cx_probe p;
	cx_err why = {0};
	cx_status st;
	f->flags = kind == CX_DIFF_FUSED ? CX_PROBE_KINDS : CX_PROBE_ALL;
	if (!(f->row = new_row(f, f->member[f->n_member - 1], kind))) return no_memory(err);
	f->row->fusion = (uint8_t)fusion;
	if ((st = cx__probe_build(&f->prober, f->member, f->n_member, f->flags, &p, err)) != CX_OK)
		return st;
	cx_arena_init(&r.arena, &f->d->opts.alloc);
	st = cx__probe_run(f->cache, &p, kind == CX_DIFF_FUSED ? CX_RUN_FUSE : 0, &io, &why);
	if (st == CX_OK && f->oom) st = no_memory(&why);
	for (const result *e = r.head; e && st == CX_OK; e = e->next) {
		double tol = f->d->opts.tol_scale * group_tol(f, f->g->nodes[e->src].desc.dtype);
		judge(f, e, tol, tol > 0);
	}
	cx_arena_deinit(&r.arena);
	if (f->row->m.first_bad == -2) f->row->m.first_bad = -1;
	if (st == CX_OK) return CX_OK;
	if (st == CX_ERR_UNSUPPORTED) {
		f->row->refused = true;
		f->d->n_refused++;
		if (!fallback_of(f) && f->d->notes[f->dev].code == CX_OK) f->d->notes[f->dev] = why;
		return CX_OK;
	}
	if (err) *err = why;
	return st;
}

static bool computes(const cx_graph *g, uint32_t id)
{
	const cx_node *n = &g->nodes[id];
	return n->root == id && n->op != CX_OP_proj && cx__ops[n->op].kind != CX_KIND_LEAF;
}

static cx_status look_at_nodes(differ *f, cx_err *err)
{
	cx_status st = CX_OK;
	for (uint32_t i = 0; i < f->g->n_nodes && st == CX_OK; i++) {
		if (!computes(f->g, i)) continue;
		f->one = i;
		f->member = &f->one;
		f->n_member = 1;
		st = look_at(f, CX_DIFF_NODE, CX_FUSION_none, err);
	}
	return st;
}

/* Source nodes that a step covers, ascending, each once, without views and leaves. */
static uint32_t members_of(differ *f, const cx_pnode *n, uint32_t *out)
{
	uint32_t k = 0;
	for (uint32_t i = 0; i < n->n_origin; i++) {
		uint32_t id = n->origin[i], at;
		if (id == CX_NO) continue;
		if (f->g->nodes[id].op == CX_OP_proj) id = f->g->nodes[id].in[0];
		if (!computes(f->g, id)) continue;
		for (at = 0; at < k && out[at] < id; at++) continue;
		if (at < k && out[at] == id) continue;
		memmove(out + at + 1, out + at, (k - at) * sizeof *out);
		out[at] = id;
		k++;
	}
	return k;
}

static void count_bad_members(differ *f, cx_diff_row *row)
{
	for (uint32_t i = 0; i < f->d->n_rows; i++) {
		const cx_diff_row *r = &f->d->rows[i];
		if (r->dev != f->dev || r->kind != CX_DIFF_NODE || !r->bad) continue;
		for (uint32_t m = 0; m < row->n_member; m++) row->n_alone += row->member[m] == r->node;
	}
}

static cx_status look_at_steps(differ *f, cx_err *err)
{
	cx_device *devs[2] = {f->d->opts.devices[f->dev], fallback_of(f)};
	cx_plan_opts opts = {
		.devices = devs, .n_devices = devs[1] ? 2 : 1, .allow_fallback = devs[1] != NULL};
	cx_plan *plan = NULL;
	cx_err why = {0};
	cx_status st = cx_plan_build(f->g, &opts, &plan, &why);
	if (st != CX_OK) {
		if (f->d->notes[f->dev].code == CX_OK) f->d->notes[f->dev] = why;
		return CX_OK;
	}
	for (uint32_t i = 0; i < plan->n_order && st == CX_OK; i++) {
		const cx_pnode *n = &plan->n[plan->order[i]];
		uint32_t *member;
		if (n->n_origin < 2 || n->dev != 0) continue;
		if (!(member = cx_arena_array(&f->d->arena, n->n_origin, sizeof *member))) {
			st = no_memory(err);
			break;
		}
		if ((f->n_member = members_of(f, n, member)) < 2) continue;
		f->member = member;
		st = look_at(f, CX_DIFF_FUSED, (cx_fusion)n->fusion, err);
		if (st != CX_OK) break;
		f->row->member = member;
		f->row->n_member = f->n_member;
		if (f->row->bad) count_bad_members(f, f->row);
	}
	cx_plan_free(plan);
	return st;
}

/* ---- WHOLE ---- */

static void keep_got(void *ctx, uint32_t src, const void *data, uint64_t bytes)
{
	differ *f = ctx;
	if (!(f->got[src] = cx_malloc(&f->d->opts.alloc, bytes + 1))) f->oom = true;
	else memcpy(f->got[src], data, bytes);
}

/* Whether the device's own operands explain what it gave; else a WHOLE row. */
static cx_status check_in_run(differ *f, uint32_t id, uint32_t src, double grown, cx_err *err)
{
	const cx_desc *d = &f->g->nodes[src].desc;
	double tol = f->d->opts.tol_scale * row_tol((cx_op)f->g->nodes[id].op, d->dtype);
	cx_metric m;
	cx_probe p = {0};
	cx_status st;
	f->one = id;
	f->member = &f->one;
	f->n_member = 1;
	f->flags = CX_PROBE_ALL;
	st = cx__probe_build(&f->prober, &id, 1, f->flags, &p, err);
	if (st != CX_OK) return st;
	for (uint32_t i = 0; i < p.n_leaf; i++) f->use[p.leaf_src[i]] = f->got[p.leaf_src[i]];
	cx_graph_free(p.g);
	st = run_members(f, &id, 1, &p, err);
	if (st == CX_OK && f->keep[src]) {
		cx__metric(d->dtype, cx__desc_elems(d), f->keep[src], f->got[src], tol, 0, &m);
		for (uint32_t i = 0; i < p.n_leaf; i++) f->use[p.leaf_src[i]] = NULL;
		for (uint32_t o = 0; o < p.n_out; o++) drop(f, f->keep, p.out_src[o]);
		cx_graph_free(p.g);
		if (!m.inside && m.n_odd == 0 && tol > 0 && cx_dtype_get(d->dtype)->cls == CX_CLASS_FLOAT)
			cx__metric(d->dtype, cx__desc_elems(d), f->d->value[src], f->got[src], tol,
				slack_of(f, src), &m);
		if (m.inside) return CX_OK;
		if (!(f->row = new_row(f, id, CX_DIFF_WHOLE))) return no_memory(err);
		f->row->m = m;
		f->row->bad = true;
		f->row->tol = tol;
		f->row->grown = grown;
		f->row->out = (uint8_t)(src - id);
		return CX_OK;
	}
	cx_graph_free(p.g);
	return st;
}

static cx_status compare_whole(differ *f, cx_err *err)
{
	uint32_t n_rows = f->d->n_rows, r = 0;
	cx_status st = CX_OK;
	while (r < n_rows && f->d->rows[r].dev != f->dev) r++;
	for (; r < n_rows && st == CX_OK && f->d->rows[r].kind == CX_DIFF_NODE; r++) {
		uint32_t id = f->d->rows[r].node;
		bool charged = f->d->rows[r].bad;
		for (uint32_t o = 0; o < f->g->nodes[id].n_out && st == CX_OK; o++) {
			const cx_desc *d = &f->g->nodes[id + o].desc;
			double tol = f->d->opts.tol_scale * row_tol((cx_op)f->g->nodes[id].op, d->dtype);
			uint32_t before = f->d->n_rows;
			cx_metric m;
			if (!f->got[id + o]) continue;
			cx__metric(
				d->dtype, cx__desc_elems(d), f->d->value[id + o], f->got[id + o], tol, 0, &m);
			f->d->rows[r].grown = fmax(f->d->rows[r].grown, m.n_odd ? INFINITY : m.nmse);
			if (m.inside || charged) continue;
			st = check_in_run(f, id, id + o, m.n_odd ? INFINITY : m.nmse, err);
			charged = f->d->n_rows > before;
		}
	}
	return st;
}

static cx_status look_at_whole(differ *f, cx_err *err)
{
	cx_probe_io io = {f, ref_value, keep_got};
	cx_probe p;
	cx_err why = {0};
	cx_status st;
	uint32_t n = 0;
	uint32_t *member = cx_arena_array(&f->d->arena, f->g->n_nodes, sizeof *member);
	if (!member) return no_memory(err);
	for (uint32_t i = 0; i < f->g->n_nodes; i++)
		if (computes(f->g, i)) member[n++] = i;
	if (n == 0) return CX_OK;
	st = cx__probe_build(&f->prober, member, n, CX_PROBE_KINDS | CX_PROBE_ALL, &p, err);
	if (st != CX_OK) return st;
	st = cx__probe_run(f->cache, &p, CX_RUN_FALLBACK, &io, &why);
	if (f->oom) st = no_memory(&why);
	if (st == CX_OK) st = compare_whole(f, err);
	else if (f->d->notes[f->dev].code == CX_OK) f->d->notes[f->dev] = why, st = CX_OK;
	else st = CX_OK;
	for (uint32_t i = 0; i < f->g->n_nodes; i++) drop(f, f->got, i);
	return st;
}

/* ---- all ---- */

static cx_status look_at_device(differ *f, cx_err *err)
{
	cx_diff_opts *o = &f->d->opts;
	cx_status st =
		cx__probe_cache_create(o->devices[f->dev], fallback_of(f), &o->alloc, &f->cache, err);
	if (st == CX_OK) st = look_at_nodes(f, err);
	if (st == CX_OK) f->d->n_plans += cx__probe_cache_plans(f->cache);
	if (st == CX_OK && !o->no_fused) st = look_at_steps(f, err);
	if (st == CX_OK && !o->no_whole) st = look_at_whole(f, err);
	cx__probe_cache_free(f->cache);
	f->cache = NULL;
	return st;
}

static bool before(const cx_diff_row *a, const cx_diff_row *b)
{
	if (a->node != b->node) return a->node < b->node;
	return a->kind != b->kind ? a->kind < b->kind : a->dev < b->dev;
}

static void sum_up(cx_diff *d)
{
	for (uint32_t i = 0; i < d->n_rows; i++) {
		if (!d->rows[i].bad) continue;
		d->n_bad++;
		if (!d->first || before(&d->rows[i], d->first)) d->first = &d->rows[i];
	}
}

cx_status cx__diff_run(const cx_graph *g, const cx_diff_opts *opts, cx_diff **out, cx_err *err)
{
	cx_alloc alloc = opts->alloc.realloc ? opts->alloc : cx_alloc_default();
	cx_diff *d = cx_calloc(&alloc, 1, sizeof *d);
	differ f = {.d = d, .g = g};
	size_t n = (size_t)g->n_nodes + 1;
	cx_status st;
	*out = NULL;
	if (!d) return no_memory(err);
	d->g = g;
	d->opts = *opts;
	d->opts.alloc = alloc;
	if (!(d->opts.tol_scale > 0)) d->opts.tol_scale = 1;
	cx_arena_init(&d->arena, &d->opts.alloc);
	d->value = cx_arena_array(&d->arena, n, sizeof *d->value);
	d->notes = cx_arena_array(&d->arena, opts->n_devices + 1, sizeof *d->notes);
	d->opts.devices = cx_arena_memdup(
		&d->arena, (const void *)opts->devices, opts->n_devices * sizeof *opts->devices);
	f.got = cx_arena_array(&d->arena, n, sizeof *f.got);
	f.nudged = cx_arena_array(&d->arena, n, sizeof *f.nudged);
	f.use = cx_arena_array(&d->arena, n, sizeof *f.use);
	f.keep = cx_arena_array(&d->arena, n, sizeof *f.keep);
	if (opts->fallback)
		d->opts.fallback = cx_arena_memdup(
			&d->arena, (const void *)opts->fallback, opts->n_devices * sizeof *opts->fallback);
	if ((opts->fallback && !d->opts.fallback) || !d->value || !d->notes || !d->opts.devices ||
		!f.got || !f.nudged || !f.use || !f.keep)
		st = no_memory(err);
	else st = cx__prober_init(&f.prober, g, &d->opts.alloc, err);
	if (st == CX_OK) st = run_reference(&f, err);
	for (f.dev = 0; f.dev < opts->n_devices && st == CX_OK; f.dev++) st = look_at_device(&f, err);
	cx__prober_deinit(&f.prober);
	if (st == CX_OK) {
		sum_up(d);
		*out = d;
	} else {
		cx__diff_free(d);
	}
	return st;
}

void cx__diff_free(cx_diff *d)
{
	cx_alloc alloc;
	if (!d) return;
	alloc = d->opts.alloc;
	cx_free(&alloc, d->rows, d->cap_rows * sizeof *d->rows);
	cx_arena_deinit(&d->arena);
	cx_free(&alloc, d, sizeof *d);
}
