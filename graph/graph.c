/* graph.c - building a cx_graph: leaves, nodes, outputs, names, scopes, sticky errors, versions of
 * states.
 *
 * Every node is made by add_leaf() or cx__node_add(). All that can fail is done before the graph
 * changes, so a failed graph still holds the nodes made before; the first error stays in
 * g->first_error and turns later calls into no-ops. Leaf names are taken as given; the scope
 * prefixes labels (cx_named) and messages only. */
#include "graph/shape.h"

#include <stdio.h>
#include <string.h>

enum { MAX_NAME = 127, MAX_SCOPE = 127 };

/* A scope's prefix, in the arena; g->scope points to text. */
typedef struct scope_frame {
	struct scope_frame *up;
	char text[MAX_SCOPE + 1];
} scope_frame;

typedef struct name_slot {
	const char *name;
	uint8_t kind;
} name_slot;

/* Behind g->names: an open-addressing set of (kind, name), and the stack of scopes. */
typedef struct name_set {
	name_slot *slots; /* [cap], cap a power of two */
	uint32_t n, cap;
	scope_frame *top; /* NULL: no scope */
} name_set;

enum { NAME_OUTPUT = 255 }; /* kind of output names; leaves use their op */

cx_status cx_graph_create(const cx_alloc *alloc, cx_graph **out, cx_err *err)
{
	cx_graph *g = cx_calloc(alloc, 1, sizeof *g);
	*out = NULL;
	if (!g) return CX_FAIL(err, CX_ERR_MEMORY, "graph: out of memory");
	cx_arena_init(&g->arena, alloc);
	g->scope = "";
	g->names = cx_arena_alloc(&g->arena, sizeof(name_set));
	if (!g->names) {
		cx_graph_free(g);
		return CX_FAIL(err, CX_ERR_MEMORY, "graph: out of memory");
	}
	*out = g;
	return CX_OK;
}

void cx_graph_free(cx_graph *g)
{
	cx_alloc alloc;
	if (!g) return;
	alloc = g->arena.alloc;
	cx_free(&alloc, g->nodes, g->cap_nodes * sizeof g->nodes[0]);
	cx_free(&alloc, g->outputs, g->cap_outputs * sizeof g->outputs[0]);
	cx_arena_deinit(&g->arena);
	cx_free(&alloc, g, sizeof *g);
}

/* ---- errors ---------------------------------------------------------------------------------- */

/* " in 'blk.3.' (model.c:77)": where the next node would come from. */
static const char *place_text(const cx_graph *g, char *buf, size_t size)
{
	const char *file = g->at_file ? strrchr(g->at_file, '/') : NULL;
	int n = 0;
	buf[0] = 0;
	if (g->scope[0]) n = snprintf(buf, size, " in '%s'", g->scope);
	file = file ? file + 1 : g->at_file;
	if (file && n >= 0 && (size_t)n < size)
		snprintf(buf + n, size - (size_t)n, " (%s:%d)", file, g->at_line);
	return buf;
}

/* First error wins; what is the op or call, name (may be NULL) the leaf. */
static cx_tensor fail(cx_graph *g, const char *what, const char *name, const cx_err *e)
{
	char place[208];
	place_text(g, place, sizeof place);
	if (name)
		cx__fail(&g->first_error, e->code, e->file, e->line, "%s '%.80s'%s: %s", what, name, place,
			e->msg);
	else cx__fail(&g->first_error, e->code, e->file, e->line, "%s%s: %s", what, place, e->msg);
	return CX_NONE;
}

static bool stopped(cx_graph *g, const char *what)
{
	cx_err e = {0};
	if (g->first_error.code != CX_OK) return true;
	if (!g->finished) return false;
	CX_FAIL(&e, CX_ERR_ARGUMENT, "the graph is finished");
	fail(g, what, NULL, &e);
	return true;
}

cx_status cx_graph_finish(cx_graph *g, cx_err *err)
{
	bool writes = g->n_outputs > 0;
	if (g->first_error.code != CX_OK)
		return cx__fail(err, g->first_error.code, g->first_error.file, g->first_error.line, "%s",
			g->first_error.msg);
	for (uint32_t i = 0; i < g->n_nodes && !writes; i++)
		writes = (g->nodes[i].flags & CX_NODE_STATE_UPDATED) != 0;
	if (!writes) return CX_FAIL(err, CX_ERR_ARGUMENT, "graph has no output and updates no state");
	g->finished = true;
	return CX_OK;
}

const char *cx__node_text(const cx_graph *g, uint32_t id, char *buf, size_t size)
{
	const cx_node *n = &g->nodes[id];
	const char *file = n->file ? strrchr(n->file, '/') : NULL;
	int at = snprintf(buf, size, "%%%u %s", id, cx__ops[n->op].name);
	file = file ? file + 1 : n->file;
	if ((n->scope[0] || n->name[0]) && at >= 0 && (size_t)at < size)
		at += snprintf(buf + at, size - (size_t)at, " '%s%s'", n->scope, n->name);
	if (file && at >= 0 && (size_t)at < size)
		snprintf(buf + at, size - (size_t)at, " (%s:%d)", file, n->line);
	return buf;
}

/* ---- names and scopes ------------------------------------------------------------------------ */

static bool name_ok(const char *s, size_t max)
{
	size_t n = 0;
	for (; s && s[n]; n++)
		if (n == max || s[n] < 0x20 || s[n] > 0x7e || s[n] == '"' || s[n] == '\'' || s[n] == '\\')
			return false;
	return n > 0;
}

static uint32_t name_hash(uint8_t kind, const char *s)
{
	uint32_t h = 2166136261u ^ kind;
	for (; *s; s++) h = (h ^ (uint8_t)*s) * 16777619u;
	return h ^ h >> 15;
}

static name_slot *name_find(const name_set *set, uint8_t kind, const char *name)
{
	uint32_t i = name_hash(kind, name) & (set->cap - 1);
	while (
		set->slots[i].name && (set->slots[i].kind != kind || strcmp(set->slots[i].name, name) != 0))
		i = (i + 1) & (set->cap - 1);
	return &set->slots[i];
}

/* Copies the name and enters it; NULL with *e filled when it is malformed, taken, or memory is out.
 */
static const char *name_add(cx_graph *g, uint8_t kind, const char *name, cx_err *e)
{
	name_set *set = g->names, old = *set;
	name_slot *slot;
	char *copy;
	if (!name_ok(name, MAX_NAME)) {
		CX_FAIL(e, CX_ERR_ARGUMENT,
			"a name is 1 to %d bytes of printable ASCII without quotes or backslash", MAX_NAME);
		return NULL;
	}
	if (set->n * 2 >= set->cap) {
		name_set bigger = {.n = old.n, .cap = old.cap ? old.cap * 2 : 64, .top = old.top};
		bigger.slots = cx_arena_array(&g->arena, bigger.cap, sizeof bigger.slots[0]);
		if (!bigger.slots) goto memory;
		for (uint32_t i = 0; i < old.cap; i++)
			if (old.slots[i].name)
				*name_find(&bigger, old.slots[i].kind, old.slots[i].name) = old.slots[i];
		*set = bigger;
	}
	slot = name_find(set, kind, name);
	if (slot->name) {
		CX_FAIL(e, CX_ERR_ARGUMENT, "the name is taken");
		return NULL;
	}
	copy = cx_arena_strdup(&g->arena, name);
	if (!copy) goto memory;
	*slot = (name_slot){copy, kind};
	set->n++;
	return copy;
memory:
	CX_FAIL(e, CX_ERR_MEMORY, "out of memory");
	return NULL;
}

cx_graph *cx_graph_at(cx_graph *g, const char *file, int line)
{
	g->at_file = file;
	g->at_line = line;
	return g;
}

void cx_scope_push(cx_graph *g, const char *fmt, ...)
{
	name_set *set = g->names;
	scope_frame *frame;
	cx_err e = {0};
	va_list ap;
	size_t used = strlen(g->scope);
	int n;
	if (stopped(g, "scope")) return;
	frame = cx_arena_alloc(&g->arena, sizeof *frame);
	if (!frame) {
		CX_FAIL(&e, CX_ERR_MEMORY, "out of memory");
		fail(g, "scope", NULL, &e);
		return;
	}
	memcpy(frame->text, g->scope, used);
	va_start(ap, fmt);
	n = vsnprintf(frame->text + used, sizeof frame->text - used, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n + 1 >= sizeof frame->text - used ||
		!name_ok(frame->text + used, MAX_SCOPE)) {
		CX_FAIL(&e, CX_ERR_ARGUMENT, "scopes are printable ASCII without quotes, %d bytes in all",
			MAX_SCOPE);
		fail(g, "scope", NULL, &e);
		return;
	}
	strcat(frame->text, ".");
	frame->up = set->top;
	set->top = frame;
	g->scope = frame->text;
}

void cx_scope_pop(cx_graph *g)
{
	name_set *set = g->names;
	if (set->top) set->top = set->top->up;
	g->scope = set->top ? set->top->text : "";
}

cx_tensor cx_named(cx_graph *g, cx_tensor t, const char *name)
{
	cx_err e = {0};
	cx_node *n;
	char *copy;
	if (stopped(g, "cx_named")) return t;
	if (t.id >= g->n_nodes) CX_FAIL(&e, CX_ERR_ARGUMENT, "not a tensor of this graph");
	else if (!name_ok(name, MAX_NAME))
		CX_FAIL(&e, CX_ERR_ARGUMENT, "label is not 1 to %d bytes of printable ASCII", MAX_NAME);
	if (e.code != CX_OK) return fail(g, "cx_named", NULL, &e);
	n = &g->nodes[t.id];
	if (n->op == CX_OP_input || n->op == CX_OP_weight || n->op == CX_OP_state) return t;
	copy = cx_arena_strdup(&g->arena, name);
	if (!copy) {
		CX_FAIL(&e, CX_ERR_MEMORY, "out of memory");
		return fail(g, "cx_named", NULL, &e);
	}
	n->name = copy;
	n->scope = g->scope;
	return t;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static bool reserve_nodes(cx_graph *g, uint32_t n, cx_err *e)
{
	uint32_t cap = g->cap_nodes ? g->cap_nodes * 2 : 64;
	cx_node *nodes;
	if (g->n_nodes + n <= g->cap_nodes) return true;
	if (g->n_nodes > UINT32_MAX / 4) {
		CX_FAIL(e, CX_ERR_ARGUMENT, "too many nodes");
		return false;
	}
	nodes = cx_realloc(
		&g->arena.alloc, g->nodes, g->cap_nodes * sizeof nodes[0], cap * sizeof nodes[0]);
	if (!nodes) {
		CX_FAIL(e, CX_ERR_MEMORY, "out of memory");
		return false;
	}
	g->nodes = nodes;
	g->cap_nodes = cap;
	return true;
}

/* Appends a node with storage of its own; room was reserved. */
static cx_node *append(cx_graph *g, cx_op op, const cx_desc *desc)
{
	cx_node *n = &g->nodes[g->n_nodes];
	*n = (cx_node){.op = (uint16_t)op,
		.desc = *desc,
		.root = g->n_nodes,
		.state = UINT32_MAX,
		.n_out = 1,
		.name = "",
		.scope = g->scope,
		.file = g->at_file,
		.line = g->at_line};
	/* Kept only where there are no fields, and never written through. */
	n->attr = (void *)(uintptr_t)cx__attrs[cx__ops[op].attr].defaults;
	g->n_nodes++;
	return n;
}

static cx_tensor add_leaf(cx_graph *g, cx_op op, const char *name, cx_dtype dtype, int32_t rank,
	const int64_t *dim, const void *data)
{
	const char *what = cx__ops[op].name, *copy = "";
	cx_desc desc = {.dtype = dtype, .rank = rank};
	cx_err e = {0};
	uint64_t bytes = 0;
	void *bytes_copy = NULL;
	cx_node *n;
	if (stopped(g, what)) return CX_NONE;
	if ((unsigned)dtype >= CX_DTYPE_COUNT) {
		CX_FAIL(&e, CX_ERR_ARGUMENT, "dtype %d does not exist", (int)dtype);
	} else if (op != CX_OP_weight && cx__is_block(dtype)) {
		CX_FAIL(&e, CX_ERR_ARGUMENT, "dtype %s is for weights only", cx_dtype_get(dtype)->name);
	} else if (rank < 0 || rank > CX_MAX_RANK) {
		CX_FAIL(&e, CX_ERR_SHAPE, "rank %d is not 0 to %d", rank, CX_MAX_RANK);
	} else {
		if (rank > 0) memcpy(desc.dim, dim, (size_t)rank * sizeof dim[0]);
		if (!cx_dtype_bytes(dtype, rank, desc.dim, &bytes))
			CX_FAIL(&e, CX_ERR_SHAPE, "%s %s: dims negative, too large, or no whole blocks",
				cx_dtype_get(dtype)->name, cx__dims_text(&desc).s);
	}
	if (e.code == CX_OK && op == CX_OP_const) {
		if (!data && bytes > 0) CX_FAIL(&e, CX_ERR_ARGUMENT, "no data");
		else if ((bytes_copy = cx_arena_memdup(&g->arena, data, bytes)) == NULL)
			CX_FAIL(&e, CX_ERR_MEMORY, "out of memory for %llu bytes", (unsigned long long)bytes);
	}
	if (e.code != CX_OK || !reserve_nodes(g, 1, &e) ||
		(op != CX_OP_const && (copy = name_add(g, (uint8_t)op, name, &e)) == NULL))
		return fail(g, what, op == CX_OP_const ? NULL : name ? name : "", &e);
	cx__desc_dense(&desc);
	n = append(g, op, &desc);
	n->name = copy;
	if (op != CX_OP_const) n->scope = "";
	if (op == CX_OP_state) n->state = n->root;
	n->data = bytes_copy;
	n->data_bytes = op == CX_OP_const ? bytes : 0;
	return (cx_tensor){n->root};
}

cx_tensor cx_input(cx_graph *g, const char *name, cx_dtype dtype, int32_t rank, const int64_t *dim)
{
	return add_leaf(g, CX_OP_input, name, dtype, rank, dim, NULL);
}

cx_tensor cx_weight(cx_graph *g, const char *name, cx_dtype dtype, int32_t rank, const int64_t *dim)
{
	return add_leaf(g, CX_OP_weight, name, dtype, rank, dim, NULL);
}

cx_tensor cx_state(cx_graph *g, const char *name, cx_dtype dtype, int32_t rank, const int64_t *dim)
{
	return add_leaf(g, CX_OP_state, name, dtype, rank, dim, NULL);
}

cx_tensor cx_const(cx_graph *g, cx_dtype dtype, int32_t rank, const int64_t *dim, const void *data)
{
	return add_leaf(g, CX_OP_const, NULL, dtype, rank, dim, data);
}

cx_tensor cx_const_f32(cx_graph *g, float value)
{
	return add_leaf(g, CX_OP_const, NULL, CX_F32, 0, NULL, &value);
}

/* What a new node is made of until it is sure to become one. */
typedef struct draft {
	cx_shape_ctx c;
	cx_desc in_desc[16], *in; /* in: in_desc, or from the allocator when there are more */
	union {
#define CX_ATTR(name, fields) cx_attr_##name name##_;
#include "graph/attrs.def"
#undef CX_ATTR
	} attr;
} draft;

/* Conv1d's bias and fused biases are absent inside the fixed operands; the shape rules refuse other
 * gaps. */
static bool may_be_absent(cx_op op, uint32_t j)
{
	return j >= cx__ops[op].n_min || (op == CX_OP_conv1d && j == 2) || op == CX_OP_linear;
}

static cx_status check_operands(
	const cx_graph *g, draft *d, const cx_tensor *in, uint32_t n_in, cx_err *e)
{
	const cx_op_info *info = &cx__ops[d->c.op];
	bool any = info->n_max == 255;
	if (n_in < info->n_min || (!any && n_in > info->n_max))
		return CX_FAIL(e, CX_ERR_ARGUMENT, "%u operands, must be %u to %u", n_in, info->n_min,
			any ? UINT32_MAX : info->n_max);
	for (uint32_t j = 0; j < n_in; j++) {
		if (cx_is_none(in[j]) && may_be_absent(d->c.op, j) && (!any || d->c.op == CX_OP_linear)) {
			d->in[j] = (cx_desc){.dtype = CX_DTYPE_COUNT};
			continue;
		}
		if (cx_is_none(in[j]))
			return CX_FAIL(e, CX_ERR_ARGUMENT, "operand %u (%s) is missing", j,
				cx__operand_name(d->c.op, j).s);
		if (in[j].id >= g->n_nodes)
			return CX_FAIL(e, CX_ERR_ARGUMENT, "operand %u (%s) is not a tensor of this graph", j,
				cx__operand_name(d->c.op, j).s);
		d->in[j] = g->nodes[in[j].id].desc;
	}
	return CX_OK;
}

static cx_status check_attr(const cx_attr_info *info, const void *attr, cx_err *e)
{
	for (uint16_t i = 0; i < info->n_fields; i++) {
		const cx_field *f = &info->fields[i];
		const void *p = (const char *)attr + f->offset;
		int64_t x = 0;
		if (f->kind == 'L') x = ((const cx_list *)p)->n;
		if (f->kind == 'D') x = (int64_t) * (const cx_dtype *)p;
		if (f->kind == 'O') x = *(const int64_t *)p;
		if (x < 0 || (f->kind == 'L' && x > CX_MAX_LIST) ||
			(f->kind == 'D' && x >= CX_DTYPE_COUNT) || (f->kind == 'O' && x >= CX_OP_COUNT))
			return CX_FAIL(e, CX_ERR_ARGUMENT, "%s: %s%lld is out of range", f->name,
				f->kind == 'L' ? "length " : "", (long long)x);
	}
	return CX_OK;
}

/* An updated state must be the newest version itself; marks nothing yet. */
static cx_status check_states(const cx_graph *g, const draft *d, const cx_tensor *in, cx_err *e)
{
	const int8_t *alias = cx__ops[d->c.op].alias;
	char text[200];
	for (uint32_t o = 0; o < d->c.n_out; o++) {
		const cx_node *n;
		if (alias[o] < 0) continue;
		n = &g->nodes[in[alias[o]].id];
		if (g->nodes[n->root].state == UINT32_MAX) continue;
		cx__node_text(g, in[alias[o]].id, text, sizeof text);
		if (n->root != in[alias[o]].id)
			return CX_FAIL(e, CX_ERR_ARGUMENT,
				"operand %d (%s) is a view of state '%s': update the state itself, or a copy",
				alias[o], text, g->nodes[g->nodes[n->root].state].name);
		if (n->flags & CX_NODE_STATE_UPDATED)
			return CX_FAIL(e, CX_ERR_ARGUMENT,
				"operand %d (%s): this version of state '%s' is updated at most once", alias[o],
				text, g->nodes[n->state].name);
		for (uint32_t p = 0; p < o; p++)
			if (alias[p] >= 0 && in[alias[p]].id == in[alias[o]].id)
				return CX_FAIL(e, CX_ERR_ARGUMENT,
					"operands %d and %d are the same version of state '%s'", alias[p], alias[o],
					g->nodes[n->state].name);
	}
	return CX_OK;
}

static cx_status check_outputs(draft *d, cx_err *e)
{
	uint64_t bytes;
	for (uint32_t o = 0; o < d->c.n_out; o++) {
		cx_desc *y = &d->c.out[o];
		if (!cx_dtype_bytes(y->dtype, y->rank, y->dim, &bytes))
			return CX_FAIL(e, CX_ERR_SHAPE, "result %s is too large", cx__dims_text(y).s);
		if (cx__ops[d->c.op].kind != CX_KIND_VIEW || d->c.materialise) cx__desc_dense(y);
	}
	return CX_OK;
}

/* Attribute and operand list of a proj node. */
typedef struct proj_part {
	cx_attr_proj attr;
	uint32_t in;
} proj_part;

/* Appends the node, and proj nodes for its further outputs. Everything it keeps is in the arena
 * already. */
static cx_tensor commit(
	cx_graph *g, const draft *d, uint32_t *in, void *attr, const cx_prog *prog, proj_part *parts)
{
	const cx_op_info *info = &cx__ops[d->c.op];
	uint32_t id = g->n_nodes;
	cx_node *n = append(g, d->c.op, &d->c.out[0]);
	n->n_in = d->c.n_in;
	n->in = in;
	if (attr) n->attr = attr;
	n->prog = prog;
	n->n_out = d->c.n_out;
	if (info->kind == CX_KIND_VIEW && !d->c.materialise) {
		n->root = g->nodes[in[0]].root;
		n->view_off = g->nodes[in[0]].view_off + d->c.view_off;
	}
	for (uint32_t o = 1; o < d->c.n_out; o++) {
		cx_node *p = append(g, CX_OP_proj, &d->c.out[o]);
		parts[o - 1] = (proj_part){{.index = o}, id};
		p->in = &parts[o - 1].in;
		p->n_in = 1;
		p->attr = &parts[o - 1].attr;
	}
	for (uint32_t o = 0; o < d->c.n_out; o++) {
		cx_node *from = info->alias[o] >= 0 ? &g->nodes[in[info->alias[o]]] : NULL;
		if (!from || from->state == UINT32_MAX) continue;
		g->nodes[id + o].state = from->state;
		from->flags |= CX_NODE_STATE_UPDATED;
	}
	return (cx_tensor){id};
}

/* Runs the shape rule and all checks; on success everything is allocated and commit() cannot fail.
 */
static cx_tensor build(
	cx_graph *g, draft *d, const cx_tensor *in, const void *attr, const cx_prog *prog, cx_err *e)
{
	const cx_op_info *info = &cx__ops[d->c.op];
	const cx_attr_info *ai = &cx__attrs[info->attr];
	proj_part *parts = NULL;
	void *attr_copy = NULL;
	uint32_t *ids;
	memcpy(&d->attr, attr ? attr : ai->defaults, ai->size);
	d->c.in = d->in;
	d->c.attr = &d->attr;
	d->c.prog = prog;
	d->c.n_out = info->n_out;
	d->c.err = e;
	if (check_operands(g, d, in, d->c.n_in, e) || check_attr(ai, &d->attr, e) ||
		info->shape(&d->c) || check_outputs(d, e) || check_states(g, d, in, e) ||
		!reserve_nodes(g, d->c.n_out, e))
		return CX_NONE;
	ids = cx_arena_array(&g->arena, d->c.n_in, sizeof ids[0]);
	if (ai->n_fields) attr_copy = cx_arena_memdup(&g->arena, &d->attr, ai->size);
	if (d->c.n_out > 1) parts = cx_arena_array(&g->arena, d->c.n_out - 1, sizeof parts[0]);
	if (prog) prog = cx_arena_memdup(&g->arena, prog, sizeof *prog);
	if (!ids || (ai->n_fields && !attr_copy) || (d->c.n_out > 1 && !parts) ||
		(d->c.prog && !prog)) {
		CX_FAIL(e, CX_ERR_MEMORY, "out of memory");
		return CX_NONE;
	}
	for (uint32_t j = 0; j < d->c.n_in; j++) ids[j] = in[j].id;
	return commit(g, d, ids, attr_copy, prog, parts);
}

cx_tensor cx__node_add(cx_graph *g, cx_op op, const cx_tensor *in, uint32_t n_in, const void *attr,
	const cx_prog *prog)
{
	const char *what = (unsigned)op < CX_OP_COUNT ? cx__ops[op].name : "cx_node_add";
	cx_err e = {0};
	cx_tensor t = CX_NONE;
	draft d;
	if (stopped(g, what)) return CX_NONE;
	if ((unsigned)op >= CX_OP_COUNT) {
		CX_FAIL(&e, CX_ERR_ARGUMENT, "op %d does not exist", (int)op);
		return fail(g, what, NULL, &e);
	}
	if (cx__ops[op].n_max != 255) /* absent operands at the end are not kept */
		while (n_in > cx__ops[op].n_min && cx_is_none(in[n_in - 1])) n_in--;
	memset(&d, 0, offsetof(draft, in_desc));
	d.c.op = op;
	d.c.n_in = n_in;
	d.in = d.in_desc;
	if (n_in > sizeof d.in_desc / sizeof d.in_desc[0])
		d.in = cx_calloc(&g->arena.alloc, n_in, sizeof d.in[0]);
	if (!d.in) CX_FAIL(&e, CX_ERR_MEMORY, "out of memory for %u operands", n_in);
	else t = build(g, &d, in, attr, op == CX_OP_map ? prog : NULL, &e);
	if (d.in != d.in_desc) cx_free(&g->arena.alloc, d.in, n_in * sizeof d.in[0]);
	return e.code == CX_OK ? t : fail(g, what, NULL, &e);
}

cx_tensor cx_node_add(cx_graph *g, cx_op op, const cx_tensor *in, uint32_t n_in, const void *attr)
{
	return cx__node_add(g, op, in, n_in, attr, NULL);
}

/* ---- outputs and questions ------------------------------------------------------------------- */

void cx_output(cx_graph *g, const char *name, cx_tensor t)
{
	uint32_t cap = g->cap_outputs ? g->cap_outputs * 2 : 8;
	cx_out_name *outputs;
	cx_err e = {0};
	const char *copy;
	if (stopped(g, "output")) return;
	if (t.id >= g->n_nodes) {
		CX_FAIL(&e, CX_ERR_ARGUMENT, "not a tensor of this graph");
	} else if (cx__is_block(g->nodes[t.id].desc.dtype)) {
		CX_FAIL(&e, CX_ERR_ARGUMENT, "%s is no plain type",
			cx_dtype_get(g->nodes[t.id].desc.dtype)->name);
	} else if (g->n_outputs == g->cap_outputs) {
		outputs = cx_realloc(&g->arena.alloc, g->outputs, g->cap_outputs * sizeof outputs[0],
			cap * sizeof outputs[0]);
		if (outputs) {
			g->outputs = outputs;
			g->cap_outputs = cap;
		} else {
			CX_FAIL(&e, CX_ERR_MEMORY, "out of memory");
		}
	}
	if (e.code == CX_OK && (copy = name_add(g, NAME_OUTPUT, name, &e)) != NULL)
		g->outputs[g->n_outputs++] = (cx_out_name){copy, t.id};
	else fail(g, "output", name ? name : "", &e);
}

cx_tensor cx_out(cx_graph *g, cx_tensor t, int index)
{
	cx_err e = {0};
	if (stopped(g, "cx_out")) return CX_NONE;
	if (t.id >= g->n_nodes) CX_FAIL(&e, CX_ERR_ARGUMENT, "not a tensor of this graph");
	else if (index < 0 || (uint32_t)index >= g->nodes[t.id].n_out)
		CX_FAIL(&e, CX_ERR_ARGUMENT, "%s has %u outputs, index is %d",
			cx__ops[g->nodes[t.id].op].name, g->nodes[t.id].n_out, index);
	if (e.code != CX_OK) return fail(g, "cx_out", NULL, &e);
	return (cx_tensor){t.id + (uint32_t)index};
}

cx_shape cx_tensor_shape(const cx_graph *g, cx_tensor t)
{
	cx_shape s = {0};
	if (t.id >= g->n_nodes) return s;
	s.rank = g->nodes[t.id].desc.rank;
	memcpy(s.dim, g->nodes[t.id].desc.dim, sizeof s.dim);
	return s;
}

cx_dtype cx_tensor_dtype(const cx_graph *g, cx_tensor t)
{
	return t.id < g->n_nodes ? g->nodes[t.id].desc.dtype : CX_F32;
}

const char *cx_tensor_name(const cx_graph *g, cx_tensor t)
{
	return t.id < g->n_nodes ? g->nodes[t.id].name : NULL;
}

uint32_t cx_graph_n_nodes(const cx_graph *g)
{
	return g->n_nodes;
}
