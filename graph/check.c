/* check.c - cx__graph_check(): the invariants of graph.h, verified again from the nodes alone.
 *
 * Shapes are computed afresh by the rules; states and their versions are followed by a count of
 * updates per node, views by the bounds of their storage. Cost: one shape rule per node. */
#include "graph/shape.h"

#include <stdio.h>
#include <string.h>

#define CHECK_FAIL(g, id, ...) check_fail(g, id, err, __LINE__, __VA_ARGS__)

static cx_status check_fail(
	const cx_graph *g, uint32_t id, cx_err *err, int line, const char *fmt, ...) CX_PRINTF(5, 6);

static cx_status check_fail(
	const cx_graph *g, uint32_t id, cx_err *err, int line, const char *fmt, ...)
{
	char node[160], what[200];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	return cx__fail(err, CX_ERR_ARGUMENT, __FILE__, line, "graph check: %s: %s",
		cx__node_text(g, id, node, sizeof node), what);
}

/* The storage that a view touches lies inside its root. */
static cx_status check_view(const cx_graph *g, uint32_t id, cx_err *err)
{
	const cx_node *n = &g->nodes[id], *root = &g->nodes[n->root];
	int64_t last = n->view_off, size = cx__desc_elems(&root->desc);
	if (root->root != n->root) return CHECK_FAIL(g, id, "its root %%%u is a view", n->root);
	if (root->desc.dtype != n->desc.dtype)
		return CHECK_FAIL(g, id, "dtype differs from its root's");
	if (cx__desc_elems(&n->desc) == 0) return CX_OK;
	for (int32_t i = 0; i < n->desc.rank; i++) {
		if (n->desc.stride[i] < 0) return CHECK_FAIL(g, id, "stride %d is negative", i);
		last += (n->desc.dim[i] - 1) * n->desc.stride[i];
	}
	if (n->view_off < 0 || last >= size)
		return CHECK_FAIL(g, id, "reaches element %lld of %lld", (long long)last, (long long)size);
	return CX_OK;
}

static cx_status check_dense(const cx_graph *g, uint32_t id, cx_err *err)
{
	const cx_node *n = &g->nodes[id];
	cx_desc d = n->desc;
	uint64_t bytes;
	cx__desc_dense(&d);
	if (memcmp(&d, &n->desc, sizeof d) != 0)
		return CHECK_FAIL(g, id, "has storage, but is not dense");
	if (n->view_off != 0) return CHECK_FAIL(g, id, "has storage, but an offset");
	if (!cx_dtype_bytes(d.dtype, d.rank, d.dim, &bytes))
		return CHECK_FAIL(g, id, "its shape is out of range");
	if (n->op == CX_OP_const && (n->data_bytes != bytes || (bytes && !n->data)))
		return CHECK_FAIL(g, id, "%llu bytes of data, shape asks for %llu",
			(unsigned long long)n->data_bytes, (unsigned long long)bytes);
	return CX_OK;
}

/* Operands come before, and the shape rule gives what the nodes say. */
static cx_status check_node(const cx_graph *g, uint32_t id, cx_err *err)
{
	const cx_node *n = &g->nodes[id];
	const cx_op_info *info = &cx__ops[n->op];
	cx_shape_ctx c = {
		.op = (cx_op)n->op, .n_in = n->n_in, .prog = n->prog, .n_out = info->n_out, .err = err};
	cx_status st = CX_OK;
	cx_desc *in = cx_calloc(&g->arena.alloc, n->n_in ? n->n_in : 1, sizeof *in);
	void *attr = cx_calloc(&g->arena.alloc, 1, cx__attrs[info->attr].size);
	if (!in || !attr) {
		st = CX_FAIL(err, CX_ERR_MEMORY, "graph check: out of memory");
		goto done;
	}
	memcpy(attr, n->attr, cx__attrs[info->attr].size);
	c.in = in;
	c.attr = attr;
	for (uint32_t j = 0; j < n->n_in; j++) {
		if (n->in[j] == UINT32_MAX) in[j].dtype = CX_DTYPE_COUNT;
		else if (n->in[j] < id) in[j] = g->nodes[n->in[j]].desc;
		else st = CHECK_FAIL(g, id, "operand %u is %%%u, which comes later", j, n->in[j]);
	}
	if (st == CX_OK) st = info->shape(&c);
	if (st != CX_OK) goto done;
	if (c.n_out != n->n_out || g->n_nodes - id < n->n_out ||
		!cx__attr_equal(info->attr, attr, n->attr))
		st = CHECK_FAIL(g, id, "outputs or attributes are not what the shape rule gives");
	for (uint32_t o = 0; o < c.n_out && st == CX_OK; o++) {
		const cx_node *y = &g->nodes[id + o];
		bool proj = y->op == CX_OP_proj && y->n_in == 1 && y->in[0] == id &&
					((const cx_attr_proj *)y->attr)->index == (int64_t)o;
		if (o > 0 && !proj) st = CHECK_FAIL(g, id, "output %u has no proj node", o);
		else if (c.out[o].dtype != y->desc.dtype || c.out[o].rank != y->desc.rank ||
				 memcmp(c.out[o].dim, y->desc.dim, sizeof y->desc.dim) != 0)
			st = CHECK_FAIL(g, id, "output %u is %s, the shape rule gives %s", o,
				cx__dims_text(&y->desc).s, cx__dims_text(&c.out[o]).s);
	}
done:
	cx_free(&g->arena.alloc, in, (n->n_in ? n->n_in : 1) * sizeof *in);
	cx_free(&g->arena.alloc, attr, cx__attrs[info->attr].size);
	return st;
}

/* Versions: an aliased output of a version is one, nothing else is; n_updates[id] counts
 * successors. */
static cx_status check_versions(const cx_graph *g, uint32_t id, uint8_t *n_updates, cx_err *err)
{
	const cx_node *n = &g->nodes[id];
	const int8_t *alias = cx__ops[n->op].alias;
	if (n->op == CX_OP_proj) return CX_OK; /* seen with its node */
	for (uint32_t o = 0; o < n->n_out; o++) {
		uint32_t from = alias[o] >= 0 ? n->in[alias[o]] : UINT32_MAX;
		uint32_t state = from != UINT32_MAX ? g->nodes[from].state : UINT32_MAX;
		if (n->op == CX_OP_state) state = id;
		if (g->nodes[id + o].state != state)
			return CHECK_FAIL(g, id, "output %u is of the wrong state", o);
		if (from == UINT32_MAX || state == UINT32_MAX) continue;
		if (n_updates[from]++)
			return CHECK_FAIL(g, id, "updates %%%u, which was updated before", from);
	}
	return CX_OK;
}

cx_status cx__graph_check(const cx_graph *g, cx_err *err)
{
	uint8_t *n_updates = cx_calloc(&g->arena.alloc, g->n_nodes + 1, 1);
	cx_status st = CX_OK;
	if (!n_updates) return CX_FAIL(err, CX_ERR_MEMORY, "graph check: out of memory");
	for (uint32_t id = 0; id < g->n_nodes && st == CX_OK; id++) {
		const cx_node *n = &g->nodes[id];
		cx_kind kind = n->op < CX_OP_COUNT ? cx__ops[n->op].kind : CX_KIND_META;
		if (n->op >= CX_OP_COUNT || n->root > id || n->n_out < 1 || n->n_out > CX_MAX_OUT) {
			st = CHECK_FAIL(g, 0, "node %u is damaged", id);
			break;
		}
		if (n->root != id && kind != CX_KIND_VIEW)
			st = CHECK_FAIL(g, id, "is no view, but has a root");
		else st = n->root == id ? check_dense(g, id, err) : check_view(g, id, err);
		if (st == CX_OK && kind != CX_KIND_LEAF && kind != CX_KIND_META)
			st = check_node(g, id, err);
		if (st == CX_OK) st = check_versions(g, id, n_updates, err);
	}
	for (uint32_t id = 0; id < g->n_nodes && st == CX_OK; id++)
		if ((n_updates[id] != 0) != ((g->nodes[id].flags & CX_NODE_STATE_UPDATED) != 0))
			st = CHECK_FAIL(g, id, "its flag of being updated is wrong");
	for (uint32_t o = 0; o < g->n_outputs && st == CX_OK; o++)
		if (g->outputs[o].id >= g->n_nodes)
			st = CX_FAIL(
				err, CX_ERR_ARGUMENT, "graph check: output '%s' is no node", g->outputs[o].name);
	cx_free(&g->arena.alloc, n_updates, g->n_nodes + 1);
	return st;
}
