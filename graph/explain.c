/* explain.c - cx_plan_explain: per step the kernel, where it runs, what it moves and why it is
 * there; then what was nearly fused, fallbacks, and totals. */
#include "graph/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct text {
	const cx_alloc *alloc;
	char *s;
	size_t n, cap;
	bool failed;
} text;

static void put(text *t, const char *fmt, ...) CX_PRINTF(2, 3);
static void put(text *t, const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	if (n < 0 || t->failed) return;
	if ((size_t)n >= sizeof line) n = (int)sizeof line - 1;
	if (t->n + (size_t)n + 1 > t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 4096;
		char *s = cx_realloc(t->alloc, t->s, t->cap, cap);
		if (!s) {
			t->failed = true;
			return;
		}
		t->s = s;
		t->cap = cap;
	}
	memcpy(t->s + t->n, line, (size_t)n + 1);
	t->n += (size_t)n;
}

static void put_desc(text *t, const cx_desc *d)
{
	char buf[80];
	cx_shape s = {.rank = d->rank};
	memcpy(s.dim, d->dim, sizeof s.dim);
	put(t, "%s%s%s", cx_dtype_get(d->dtype)->name, cx_shape_text(&s, buf, sizeof buf),
		cx__desc_is_dense(d) ? "" : "~");
}

static void put_place(text *t, const cx_plan *p, uint32_t root)
{
	const cx_storage *m = &p->mem[p->t[root].mem];
	if (m->kind == CX_MEM_SLAB) put(t, "@%llu", (unsigned long long)m->off);
	else put(t, "@%s", m->kind == CX_MEM_STATE ? "state" : "output");
}

static void put_step(text *t, const cx_plan *p, uint32_t pos)
{
	const cx_pnode *n = &p->n[p->order[pos]];
	char where[200];
	put(t, "%4u %s %s: ", pos, p->devs[n->dev].dev->backend->name,
		n->kernel ? n->kernel->name : "transfer");
	for (uint32_t j = 0, some = 0; j < n->n_in; j++) {
		if (n->in[j] == CX_NO) continue;
		if (some++) put(t, ", ");
		put_desc(t, &p->t[n->in[j]].desc);
	}
	put(t, " -> ");
	for (uint32_t o = 0; o < n->n_out; o++) {
		if (o) put(t, ", ");
		put_desc(t, &p->t[n->out[o]].desc);
		put_place(t, p, n->out[o]);
	}
	put(t, "  %llu bytes", (unsigned long long)cx__pnode_bytes(p, n));
	if (n->scratch) put(t, ", scratch %llu", (unsigned long long)n->scratch);
	if (n->inplace >= 0) put(t, ", in place of operand %d", n->inplace);
	put(t, "\n     %s\n     why: ", cx__pnode_text(p, n, where, sizeof where));
	if (n->fusion != CX_FUSION_none)
		put(t, "%s: %s", cx__fusion_name((cx_fusion)n->fusion),
			cx__fusion_why((cx_fusion)n->fusion));
	else put(t, "%s", cx__reason_text((cx_reason)n->reason));
	if (n->n_origin > 1) {
		put(t, "; covers");
		for (uint32_t i = 0; i < n->n_origin; i++)
			put(t, " %%%u %s", n->origin[i], cx__ops[p->g->nodes[n->origin[i]].op].name);
	}
	put(t, "\n");
}

static void put_totals(text *t, const cx_plan *p)
{
	const cx_plan_stats *s = &p->stats;
	double ratio = s->slab_bound ? (double)s->slab_bytes / (double)s->slab_bound : 1.0;
	put(t, "steps %u for %u nodes, %u fused away, %u copies between devices, %u fallbacks\n",
		s->n_steps, s->n_nodes, s->n_fused, s->n_copies, s->n_fallback);
	put(t, "slab %llu bytes, liveness bound %llu, ratio %.4f\n", (unsigned long long)s->slab_bytes,
		(unsigned long long)s->slab_bound, ratio);
	put(t, "weights %llu bytes, states %llu, inputs and outputs %llu\n",
		(unsigned long long)s->weight_bytes, (unsigned long long)s->state_bytes,
		(unsigned long long)s->io_bytes);
}

static void put_misses(text *t, const cx_plan *p)
{
	char where[160];
	for (uint32_t i = 0; i < p->n_misses; i++)
		put(t, "not fused: %s at %s: %s\n", cx__fusion_name((cx_fusion)p->misses[i].fusion),
			cx__node_text(p->g, p->misses[i].src, where, sizeof where),
			cx__reason_text((cx_reason)p->misses[i].reason));
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *n = &p->n[p->order[i]];
		if (n->reason != CX_WHY_FALLBACK && n->dev == 0) continue;
		if (n->flags & CX_PNODE_XDEV) continue;
		put(t, "fallback to %s: %s\n", p->devs[n->dev].dev->name,
			cx__pnode_text(p, n, where, sizeof where));
	}
}

cx_status cx_plan_explain(
	const cx_plan *plan, const cx_alloc *alloc, char **out, size_t *n_bytes, cx_err *err)
{
	text t = {.alloc = alloc};
	*out = NULL;
	*n_bytes = 0;
	for (uint32_t d = 0; d < plan->n_devs; d++)
		put(&t, "device %u: %s\n", d, plan->devs[d].dev->name);
	for (uint32_t i = 0; i < plan->n_order; i++) put_step(&t, plan, i);
	put_misses(&t, plan);
	put_totals(&t, plan);
	if (!t.failed) { /* the caller frees n + 1 bytes: make it exactly that */
		char *s = cx_malloc(alloc, t.n + 1);
		if (s) memcpy(s, t.s, t.n + 1);
		*out = s;
	}
	cx_free(alloc, t.s, t.cap);
	if (!*out) return CX_FAIL(err, CX_ERR_MEMORY, "out of memory for the explanation of a plan");
	*n_bytes = t.n;
	return CX_OK;
}
