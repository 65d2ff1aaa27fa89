/* grid_case.c - cases of the grid: which graph, which data; see grid.h. */
#include "tests/grid.h"

#include <stdio.h>
#include <string.h>

bool grid_is_run(cx_op op)
{
	return cx__ops[op].kind != CX_KIND_LEAF && cx__ops[op].kind != CX_KIND_META;
}

/* CX_DATA_LARGE of an op: with what values are multiplied, in which leaves (a bit each, in the
 * order in which the generator makes them; all others: every one). As large as the op can take
 * without an
 * overflow that f32 arithmetic has and the reference, in double, has not. */
static const struct {
	cx_op op;
	float by;
	uint32_t leaves;
} large_values[] = {
	{CX_OP_layernorm, 1e37f, 1},
	{CX_OP_rmsnorm, 1e37f, 1},
	{CX_OP_l2norm, 1e37f, 1},
	{CX_OP_groupnorm, 1e37f, 1},
	{CX_OP_add_norm, 1e37f, 1},
	{CX_OP_rope, 1e37f, 1},
	{CX_OP_rope_kv, 1e37f, 1},
	{CX_OP_softmax, 1e30f, 0},
	{CX_OP_log_softmax, 1e30f, 0},
	{CX_OP_cross_entropy, 1e30f, 0},
	{CX_OP_sum, 1e33f, 0},
	{CX_OP_mean, 1e33f, 0},
	{CX_OP_cumsum, 1e33f, 0},
	{CX_OP_scatter, 1e30f, 0},
	{CX_OP_embed_sum, 1e30f, 0},
	{CX_OP_scan, 1e30f, ~1u}, /* decays stay below 1 */
	{CX_OP_cscan, 1e30f, ~3u},
	{CX_OP_adamw, 1e8f, 0},
	{CX_OP_delta_rule, 1e15f, 1}, /* longer keys would make the state explode */
	{CX_OP_conv1d, 1e3f, 1},
	{CX_OP_linear, 4, 1}, /* an activation's slope magnifies what the product rounded */
	{CX_OP_map, 1e15f, 0},
};

/* A backward op: its formula may be arranged in any way, so that NaN and infinities do not come out
 * place by place as in the reference, and products of three factors overflow early. */
static bool is_backward(cx_op op)
{
	const char *name = cx__ops[op].name;
	size_t n = strlen(name);
	return n > 5 && strcmp(name + n - 5, "_grad") == 0;
}

/* Rows that are not in the table: moving data and functions of elements take any magnitude; what
 * may multiply and add gets what a product of two stands. */
static void magnitudes(cx_op op, cx_random_opts *o)
{
	cx_kind kind = cx__ops[op].kind;
	bool any =
		kind == CX_KIND_MAP || kind == CX_KIND_VIEW || kind == CX_KIND_MOVE || kind == CX_KIND_ROW;
	o->large = any ? 3e37f : 1e15f;
	o->large_leaves = UINT32_MAX;
	o->large_ints = (kind == CX_KIND_MAP || kind == CX_KIND_VIEW || kind == CX_KIND_ROW) &&
					cx__ops[op].n_min < 4 && op != CX_OP_rope;
	for (size_t i = 0; i < sizeof large_values / sizeof *large_values; i++) {
		if (large_values[i].op != op) continue;
		o->large = large_values[i].by;
		if (large_values[i].leaves) o->large_leaves = large_values[i].leaves;
	}
	if (is_backward(op)) o->large = 4;
	if (op == CX_OP_adamw) o->tame_leaves = 0x30; /* learning rate, and steps, which count from 1 */
}

/* By name, so that a new row does not change the cases of the others. */
static uint64_t op_seed(cx_op op)
{
	uint64_t h = 14695981039346656037ull;
	for (const char *s = cx__ops[op].name; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211ull;
	return h % 1000000007u;
}

static cx_status make_graph(grid_case *c, int group, int part, uint64_t seed, cx_err *err)
{
	static const cx_dtype floats[] = {CX_F32, CX_F16, CX_BF16};
	cx_random_opts o = {.seed = op_seed(c->op) + 1000 * seed + (uint64_t)(group * 3 + part),
		.float_dtype = floats[group % 3],
		.layout = group / 3,
		.edges = part == 1,
		.zeros = part == 2};
	magnitudes(c->op, &o);
	if (cx__random_case(c->op, &o, NULL, &c->rg, err) != CX_OK) return CX_ERR_ARGUMENT;
	c->node = UINT32_MAX;
	for (uint32_t i = 0; i < c->rg->g->n_nodes; i++)
		if (c->rg->g->nodes[i].op == c->op) c->node = i;
	return CX_OK;
}

cx_status grid_case_make(grid_case *c, cx_op op, int index, uint64_t seed, cx_err *err)
{
	static const char *const dtypes[] = {"f32", "f16", "bf16"};
	static const char *const layouts[] = {"any layout", "dense", "strided", "broadcast"};
	static const char *const datas[] = {"tame", "special", "tiny", "large"};
	static const char *const sizes[] = {"small", "edge sizes", "sizes of 0"};
	int group = index / GRID_PER_GROUP, part = index % GRID_PER_GROUP / GRID_PER_GRAPH;
	int data = index % GRID_PER_GROUP % GRID_PER_GRAPH;
	bool again = c->rg && c->op == op && c->index + 1 == index && data > 0;
	cx_status st = CX_OK;
	if (c->want.n) cx__values_free(&c->want);
	if (!again) grid_case_free(c);
	c->op = op;
	c->index = index;
	if (!again) st = make_graph(c, group, part, seed, err);
	snprintf(c->what, sizeof c->what, "%s %s, %s, %s", dtypes[group % 3], layouts[group / 3],
		sizes[part], datas[data]);
	if (st != CX_OK || c->node == UINT32_MAX) return st;
	c->rg->opts.data = data == CX_DATA_SPECIAL && is_backward(op) ? CX_DATA_TAME : data;
	c->rg->opts.data_seed = (uint64_t)data * 7919;
	return cx__harness_reference(c->rg, NULL, &c->want, err);
}

void grid_case_free(grid_case *c)
{
	if (c->want.n) cx__values_free(&c->want);
	cx__random_graph_free(c->rg);
	memset(c, 0, sizeof *c);
}
