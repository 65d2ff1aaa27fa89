/* dump.c - a plan as graph text, JSON (docs/DUMP_JSON.md) or a Graphviz digraph. See dump.h. */
#include "graph/dump.h"

#include "graph/attr.h"
#include "graph/prog.h"

#include <stdio.h>
#include <string.h>

#define ULL(x) ((unsigned long long)(x))

/* ---- the string ---- */

static char *room(cx_text_out *t, size_t more)
{
	size_t cap = t->cap ? t->cap : 4096;
	char *s;
	if (t->failed) return NULL;
	while (cap - t->n <= more) {
		if (cap > SIZE_MAX / 4) goto fail;
		cap *= 2;
	}
	if (cap == t->cap) return t->s + t->n;
	if (!(s = cx_realloc(t->alloc, t->s, t->cap, cap))) goto fail;
	t->s = s;
	t->cap = cap;
	return s + t->n;
fail:
	t->failed = true;
	return NULL;
}

void cx__put(cx_text_out *t, const char *fmt, ...)
{
	enum { MAX = 512 };
	char *to = room(t, MAX);
	va_list ap;
	int n;
	if (!to) return;
	va_start(ap, fmt);
	n = vsnprintf(to, MAX, fmt, ap);
	va_end(ap);
	if (n > 0) t->n += (size_t)n < MAX ? (size_t)n : MAX - 1;
}

void cx__put_json(cx_text_out *t, const char *s)
{
	static const char hex[] = "0123456789abcdef";
	char *to = room(t, 6 * strlen(s) + 2), *start = to;
	if (!to) return;
	*to++ = '"';
	for (; *s; s++) {
		unsigned char b = (unsigned char)*s;
		if (b == '"' || b == '\\') {
			*to++ = '\\';
			*to++ = (char)b;
		} else if (b > 126) {
			memcpy(to, "\\ufffd", 6);
			to += 6;
		} else if (b < 32 || b == '<' || b == '>' || b == '&') {
			memcpy(to, "\\u00", 4);
			to[4] = hex[b >> 4];
			to[5] = hex[b & 15];
			to += 6;
		} else {
			*to++ = (char)b;
		}
	}
	*to++ = '"';
	t->n += (size_t)(to - start);
}

cx_status cx__text_out_take(cx_text_out *t, char **out, size_t *n_bytes, cx_err *err)
{
	char *fit = room(t, 1) ? cx_realloc(t->alloc, t->s, t->cap, t->n + 1) : NULL;
	*out = NULL;
	*n_bytes = 0;
	if (!fit) {
		cx_free(t->alloc, t->s, t->cap);
		memset(t, 0, sizeof *t);
		return CX_FAIL(err, CX_ERR_MEMORY, "out of memory for a dump");
	}
	fit[t->n] = 0;
	*out = fit;
	*n_bytes = t->n;
	memset(t, 0, sizeof *t);
	return CX_OK;
}

/* ---- names ---- */

const char *cx__pnode_label(const cx_plan *p, const cx_pnode *n, char *buf, size_t size)
{
	const cx_node *s = n->src == CX_NO ? NULL : &p->g->nodes[n->src];
	buf[0] = 0;
	if (s && cx__ops[s->op].kind == CX_KIND_LEAF) snprintf(buf, size, "%s", s->scope);
	else if (s) snprintf(buf, size, "%s%s", s->scope, s->name);
	return buf;
}

/* Scope of a step: what its label has before the last dot; a fused one without takes that of a node
 * that it covers. */
static const char *scope_of(const cx_plan *p, const cx_pnode *n, char *buf, size_t size)
{
	char *dot = strrchr((char *)cx__pnode_label(p, n, buf, size), '.');
	for (uint32_t i = 0; !dot && i < n->n_origin; i++) {
		const cx_node *s = &p->g->nodes[n->origin[i]];
		snprintf(buf, size, "%s%s", s->scope, s->name);
		dot = strrchr(buf, '.');
	}
	if (dot) *dot = 0;
	else buf[0] = 0;
	return buf;
}

static const char *reason_name(unsigned why)
{
	static const char *const names[CX_WHY_COUNT] = {
#define X(name, text) #name,
		CX_REASONS(X)
#undef X
	};
	return why < CX_WHY_COUNT ? names[why] : "?";
}

static const char *stage_name(cx_stage stage)
{
	static const char *const names[CX_STAGE_COUNT] = {
#define X(name, n_passes, doc) #name,
		CX_STAGES(X)
#undef X
	};
	return stage < CX_STAGE_COUNT ? names[stage] : "?";
}

/* ---- JSON ---- */

static void json_tables(cx_text_out *t, const cx_plan *p)
{
	cx__put(t, "\"devices\":[");
	for (uint32_t d = 0; d < p->n_devs; d++) {
		cx__put(t, "%s{\"backend\":", d ? "," : "");
		cx__put_json(t, p->devs[d].dev->backend->name);
		cx__put(t, ",\"name\":");
		cx__put_json(t, p->devs[d].dev->name);
		cx__put(t, ",\"slab_bytes\":%llu,\"slab_bound\":%llu}", ULL(p->devs[d].slab_bytes),
			ULL(p->devs[d].slab_bound));
	}
	cx__put(t,
		"],\n\"stats\":{\"nodes\":%u,\"steps\":%u,\"fused\":%u,\"copies\":%u,"
		"\"fallbacks\":%u,",
		p->g->n_nodes, p->n_order, p->stats.n_fused, p->stats.n_copies, p->stats.n_fallback);
	cx__put(t,
		"\"slab_bytes\":%llu,\"slab_bound\":%llu,\"weight_bytes\":%llu,"
		"\"state_bytes\":%llu,\"io_bytes\":%llu,\"build_seconds\":%.6f},\n",
		ULL(p->stats.slab_bytes), ULL(p->stats.slab_bound), ULL(p->stats.weight_bytes),
		ULL(p->stats.state_bytes), ULL(p->stats.io_bytes), p->stats.build_seconds);
	cx__put(t, "\"reasons\":{");
	for (unsigned i = 0; i < CX_WHY_COUNT; i++) {
		cx__put(t, "%s\"%s\":", i ? "," : "", reason_name(i));
		cx__put_json(t, cx__reason_text((cx_reason)i));
	}
	cx__put(t, "},\n\"fusions\":{");
	for (unsigned i = 1; i < CX_FUSION_COUNT; i++) {
		cx__put(t, "%s\"%s\":", i > 1 ? "," : "", cx__fusion_name((cx_fusion)i));
		cx__put_json(t, cx__fusion_why((cx_fusion)i));
	}
	cx__put(t, "},\n");
}

static void json_ints(cx_text_out *t, const char *key, int32_t n, const int64_t *v)
{
	cx__put(t, ",\"%s\":[", key);
	for (int32_t i = 0; i < n; i++) cx__put(t, i ? ",%lld" : "%lld", (long long)v[i]);
	cx__put(t, "]");
}

static void json_tensor(cx_text_out *t, const cx_plan *p, uint32_t id, bool first)
{
	const cx_ptensor *v = &p->t[id];
	bool leaf = v->leaf != CX_LEAF_NONE, view = v->root != id;
	const char *kind = view ? "view" : leaf ? cx__ops[v->leaf].name : "value";
	cx__put(t, "%s{\"id\":%u,\"kind\":\"%s\",\"dtype\":\"%s\"", first ? "" : ",\n", id, kind,
		cx_dtype_get(v->desc.dtype)->name);
	json_ints(t, "dims", v->desc.rank, v->desc.dim);
	if (!cx__desc_is_dense(&v->desc)) json_ints(t, "strides", v->desc.rank, v->desc.stride);
	cx__put(t, ",\"bytes\":%llu", ULL(cx__desc_bytes(&v->desc)));
	if (view) cx__put(t, ",\"root\":%u,\"offset\":%lld", v->root, (long long)v->view_off);
	if (!view && leaf && v->src != CX_NO && p->g->nodes[v->src].name[0]) {
		cx__put(t, ",\"name\":");
		cx__put_json(t, p->g->nodes[v->src].name);
	}
	if (!view && v->state != CX_NO) {
		cx__put(t, ",\"state\":");
		cx__put_json(t, p->g->nodes[p->t[p->states[v->state].leaf].src].name);
	}
	if (!view && p->placed_mem && v->mem != CX_NO) cx__put(t, ",\"memory\":%u", v->mem);
	cx__put(t, "}");
}

static void json_attr(cx_text_out *t, const cx_pnode *n)
{
	const cx_attr_info *info = &cx__attrs[cx__ops[n->op].attr];
	char value[CX_FIELD_TEXT_MAX], prog[CX_PROG_TEXT_MAX];
	bool some = false;
	for (uint16_t i = 0; n->attr && i < info->n_fields; i++) {
		const cx_field *f = &info->fields[i];
		if (cx__field_equal(f, n->attr, info->defaults)) continue;
		cx__field_print(f, n->attr, value, sizeof value);
		cx__put(t, "%s\"%s\":", some ? "," : ",\"attr\":{", f->name);
		cx__put_json(t, value);
		some = true;
	}
	if (n->prog) {
		cx__prog_print(n->prog, prog, sizeof prog);
		cx__put(t, "%s\"prog\":", some ? "," : ",\"attr\":{");
		cx__put_json(t, prog);
		some = true;
	}
	if (some) cx__put(t, "}");
}

static void json_refs(cx_text_out *t, const char *key, const uint32_t *v, uint32_t n)
{
	cx__put(t, ",\"%s\":[", key);
	for (uint32_t i = 0; i < n; i++) {
		if (v[i] == CX_NO) cx__put(t, i ? ",null" : "null");
		else cx__put(t, i ? ",%u" : "%u", v[i]);
	}
	cx__put(t, "]");
}

static void json_source(cx_text_out *t, const cx_plan *p, uint32_t id)
{
	const cx_node *s = &p->g->nodes[id];
	char name[300];
	snprintf(name, sizeof name, "%s%s", s->scope, s->name);
	cx__put(t, "{\"node\":%u,\"op\":\"%s\",\"name\":", id, cx__ops[s->op].name);
	cx__put_json(t, name);
	cx__put(t, "}");
}

static void json_step(cx_text_out *t, const cx_plan *p, uint32_t pos, const double *seconds)
{
	const cx_pnode *n = &p->n[p->order[pos]];
	const cx_node *s = n->src == CX_NO ? NULL : &p->g->nodes[n->src];
	char buf[300];
	cx__put(t, "%s{\"pos\":%u,\"op\":\"%s\",\"name\":", pos ? ",\n" : "", pos, cx__ops[n->op].name);
	cx__put_json(t, cx__pnode_label(p, n, buf, sizeof buf));
	cx__put(t, ",\"scope\":");
	cx__put_json(t, scope_of(p, n, buf, sizeof buf));
	if (s) cx__put(t, ",\"node\":%u", n->src);
	if (s && s->file) {
		snprintf(buf, sizeof buf, "%.200s:%d", s->file, s->line);
		cx__put(t, ",\"at\":");
		cx__put_json(t, buf);
	}
	if (p->stage >= CX_STAGE_placed)
		cx__put(t, ",\"device\":%u,\"kernel\":\"%s\"", n->dev,
			n->kernel ? n->kernel->name : "transfer");
	cx__put(t, ",\"reason\":\"%s\"", reason_name(n->reason));
	if (n->fusion != CX_FUSION_none)
		cx__put(t, ",\"fusion\":\"%s\"", cx__fusion_name((cx_fusion)n->fusion));
	if (n->n_origin > 1) {
		cx__put(t, ",\"covers\":[");
		for (uint32_t i = 0; i < n->n_origin; i++) {
			if (i) cx__put(t, ",");
			json_source(t, p, n->origin[i]);
		}
		cx__put(t, "]");
	}
	json_attr(t, n);
	json_refs(t, "in", n->in, n->n_in);
	json_refs(t, "out", n->out, n->n_out);
	cx__put(t, ",\"bytes\":%llu,\"flops\":%.0f", ULL(cx__pnode_bytes(p, n)), cx__pnode_flops(p, n));
	if (n->scratch) cx__put(t, ",\"scratch\":%llu", ULL(n->scratch));
	if (n->inplace >= 0) cx__put(t, ",\"inplace\":%d", n->inplace);
	if (seconds) cx__put(t, ",\"seconds\":%.9f", seconds[pos]);
	cx__put(t, "}");
}

static void json_memory(cx_text_out *t, const cx_plan *p)
{
	static const char *const kinds[] = {"slab", "output", "state", "input", "weight", "const"};
	cx__put(t, "\"memory\":[");
	for (uint32_t m = 0; p->placed_mem && m < p->n_mem; m++) {
		const cx_storage *s = &p->mem[m];
		cx__put(t, "%s{\"kind\":\"%s\",\"device\":%u,\"bytes\":%llu", m ? ",\n" : "",
			kinds[s->kind], s->dev, ULL(s->bytes));
		if (s->kind == CX_MEM_SLAB)
			cx__put(t, ",\"offset\":%llu,\"first\":%u,\"last\":%u", ULL(s->off), s->first, s->last);
		cx__put(t, "}");
	}
	cx__put(t, "],\n");
}

static void json_misses(cx_text_out *t, const cx_plan *p)
{
	cx__put(t, "\"not_fused\":[");
	for (uint32_t i = 0; i < p->n_misses; i++) {
		cx__put(t, "%s{\"fusion\":\"%s\",\"reason\":\"%s\",\"at\":", i ? ",\n" : "",
			cx__fusion_name((cx_fusion)p->misses[i].fusion), reason_name(p->misses[i].reason));
		json_source(t, p, p->misses[i].src);
		cx__put(t, "}");
	}
	cx__put(t, "],\n");
}

/* Tensors that a step or an output names, and their roots. */
static cx_status used_tensors(const cx_plan *p, const cx_alloc *alloc, uint8_t **out, cx_err *err)
{
	uint8_t *used = cx_calloc(alloc, (size_t)p->n_t + 1, 1);
	*out = used;
	if (!used) return cx__plan_oom(err);
	for (uint32_t i = 0; i < p->n_order; i++) {
		const cx_pnode *n = &p->n[p->order[i]];
		for (uint32_t j = 0; j < n->n_in; j++)
			if (n->in[j] != CX_NO) used[n->in[j]] = used[p->t[n->in[j]].root] = 1;
		for (uint32_t o = 0; o < n->n_out; o++) used[n->out[o]] = 1;
	}
	for (uint32_t i = 0; i < p->n_outs; i++) used[p->outs[i].t] = used[p->t[p->outs[i].t].root] = 1;
	return CX_OK;
}

static cx_status write_json(cx_text_out *t, const cx_plan *p, const double *seconds, cx_err *err)
{
	uint8_t *used;
	bool first = true;
	cx_status st = used_tensors(p, t->alloc, &used, err);
	if (st != CX_OK) return st;
	cx__put(
		t, "{\"format\":\"cortex-dump\",\"version\":1,\"stage\":\"%s\",\n", stage_name(p->stage));
	json_tables(t, p);
	cx__put(t, "\"tensors\":[");
	for (uint32_t i = 0; i < p->n_t; i++) {
		if (!used[i]) continue;
		json_tensor(t, p, i, first);
		first = false;
	}
	cx__put(t, "],\n\"steps\":[");
	for (uint32_t i = 0; i < p->n_order; i++) json_step(t, p, i, seconds);
	cx__put(t, "],\n");
	json_memory(t, p);
	json_misses(t, p);
	cx__put(t, "\"outputs\":[");
	for (uint32_t i = 0; i < p->n_outs; i++) {
		cx__put(t, "%s{\"name\":", i ? "," : "");
		cx__put_json(t, p->outs[i].name);
		cx__put(t, ",\"tensor\":%u}", p->outs[i].t);
	}
	cx__put(t, "]}\n");
	cx_free(t->alloc, used, (size_t)p->n_t + 1);
	return CX_OK;
}

/* ---- Graphviz ---- */

/* In double quotes; a backslash or quote inside is escaped. */
static void put_dot(cx_text_out *t, const char *s)
{
	for (; *s; s++) cx__put(t, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
}

static void dot_step(cx_text_out *t, const cx_plan *p, uint32_t pos, const double *seconds)
{
	const cx_pnode *n = &p->n[p->order[pos]];
	char buf[300];
	cx_shape s = {.rank = p->t[n->out[0]].desc.rank};
	memcpy(s.dim, p->t[n->out[0]].desc.dim, sizeof s.dim);
	cx__put(t, "\ts%u [label=\"%u %s\\n", pos, pos, cx__ops[n->op].name);
	if (cx__pnode_label(p, n, buf, sizeof buf)[0]) {
		put_dot(t, buf);
		cx__put(t, "\\n");
	}
	cx__put(t, "%s%s", cx_dtype_get(p->t[n->out[0]].desc.dtype)->name,
		cx_shape_text(&s, buf, sizeof buf));
	if (n->kernel) cx__put(t, "\\n%s", n->kernel->name);
	if (seconds) cx__put(t, "\\n%.1f us", seconds[pos] * 1e6);
	cx__put(t, "\"%s];\n", n->n_origin > 1 ? " fillcolor=\"#cfe3ff\"" : "");
}

static void dot_edges(cx_text_out *t, const cx_plan *p, uint32_t pos)
{
	const cx_pnode *n = &p->n[p->order[pos]];
	for (uint32_t j = 0; j < n->n_in; j++) {
		uint32_t root = n->in[j] == CX_NO ? CX_NO : p->t[n->in[j]].root;
		if (root == CX_NO) continue;
		if (p->t[root].def != CX_NO) cx__put(t, "\ts%u -> s%u;\n", p->n[p->t[root].def].pos, pos);
		else if (p->t[root].leaf != CX_OP_const) cx__put(t, "\tt%u -> s%u;\n", root, pos);
	}
}

static cx_status write_dot(cx_text_out *t, const cx_plan *p, const double *seconds, cx_err *err)
{
	char scope[300], last[300] = "";
	uint32_t n_clusters = 0;
	uint8_t *used;
	cx_status st = used_tensors(p, t->alloc, &used, err);
	if (st != CX_OK) return st;
	cx__put(
		t, "digraph cortex {\n\tnode [shape=box style=filled fillcolor=white fontname=sans];\n");
	for (uint32_t i = 0; i < p->n_t; i++) {
		const cx_ptensor *v = &p->t[i];
		if (!used[i] || v->root != i || v->leaf == CX_LEAF_NONE || v->leaf == CX_OP_const) continue;
		cx__put(t, "\tt%u [shape=ellipse label=\"%s\\n", i, cx__ops[v->leaf].name);
		put_dot(t, v->src == CX_NO ? "" : p->g->nodes[v->src].name);
		cx__put(t, "\"];\n");
	}
	for (uint32_t i = 0; i < p->n_order; i++) {
		scope_of(p, &p->n[p->order[i]], scope, sizeof scope);
		if (strcmp(scope, last) != 0) {
			if (last[0]) cx__put(t, "\t}\n");
			if (scope[0]) {
				cx__put(t, "\tsubgraph cluster_%u { label=\"", n_clusters++);
				put_dot(t, scope);
				cx__put(t, "\";\n");
			}
			snprintf(last, sizeof last, "%s", scope);
		}
		dot_step(t, p, i, seconds);
	}
	if (last[0]) cx__put(t, "\t}\n");
	for (uint32_t i = 0; i < p->n_order; i++) dot_edges(t, p, i);
	for (uint32_t i = 0; i < p->n_outs; i++) {
		uint32_t def = p->t[p->t[p->outs[i].t].root].def;
		cx__put(t, "\to%u [shape=ellipse label=\"output\\n", i);
		put_dot(t, p->outs[i].name);
		cx__put(t, "\"];\n");
		if (def != CX_NO) cx__put(t, "\ts%u -> o%u;\n", p->n[def].pos, i);
	}
	cx__put(t, "}\n");
	cx_free(t->alloc, used, (size_t)p->n_t + 1);
	return CX_OK;
}

cx_status cx__plan_dump(const cx_plan *p, cx_dump_format format, const double *seconds,
	const cx_alloc *alloc, char **text, size_t *n_bytes, cx_err *err)
{
	cx_text_out t = {.alloc = alloc};
	cx_graph *g;
	cx_status st;
	*text = NULL;
	*n_bytes = 0;
	if (format == CX_DUMP_text && p->stage == CX_STAGE_built)
		return cx_graph_print(p->g, alloc, text, n_bytes, err);
	if (format == CX_DUMP_text) {
		if ((st = cx__plan_to_graph(p, alloc, &g, err)) != CX_OK) return st;
		st = cx_graph_print(g, alloc, text, n_bytes, err);
		cx_graph_free(g);
		return st;
	}
	st = format == CX_DUMP_json ? write_json(&t, p, seconds, err) : write_dot(&t, p, seconds, err);
	if (st == CX_OK) return cx__text_out_take(&t, text, n_bytes, err);
	cx_free(alloc, t.s, t.cap);
	return st;
}
