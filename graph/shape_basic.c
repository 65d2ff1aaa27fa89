/* shape_basic.c - shape rules of leaves, elementwise ops, reductions and row ops; helpers for all
 * rules. */
#include "graph/shape.h"

#include <stdio.h>
#include <string.h>

/* ---- helpers --------------------------------------------------------------------------------- */

cx_operand_name cx__operand_name(cx_op op, uint32_t j)
{
	const char *s = cx__ops[op].inputs, *next;
	cx_operand_name n;
	size_t len;
	for (uint32_t i = 0; i < j && (next = strchr(s, ',')) != NULL; i++) s = next + 1;
	while (*s == ' ') s++;
	len = strcspn(s, ",.");
	snprintf(n.s, sizeof n.s, "%.*s", (int)len, s);
	return n;
}

cx_dims_text cx__dims_text(const cx_desc *d)
{
	cx_dims_text t = {""};
	cx_shape s = {.rank = d->rank};
	memcpy(s.dim, d->dim, sizeof s.dim);
	cx_shape_text(&s, t.s, sizeof t.s);
	return t;
}

static cx_status present(cx_shape_ctx *c, uint32_t j)
{
	if (cx__has(c, j)) return CX_OK;
	return SHAPE_FAIL(c, "operand %u (%s) is missing", j, cx__operand_name(c->op, j).s);
}

cx_status cx__need_class(cx_shape_ctx *c, uint32_t j, unsigned classes)
{
	static const char *const names[] = {"float", "integer", "bool", "block"};
	char want[48] = "";
	cx_status st = present(c, j);
	if (st != CX_OK) return st;
	if (classes & 1u << cx_dtype_get(c->in[j].dtype)->cls) return CX_OK;
	for (unsigned i = 0; i < 4; i++) {
		if (!(classes & 1u << i)) continue;
		if (want[0]) strcat(want, " or ");
		strcat(want, names[i]);
	}
	return SHAPE_FAIL(c, "operand %u (%s) is %s, not a %s type", j, cx__operand_name(c->op, j).s,
		cx_dtype_get(c->in[j].dtype)->name, want);
}

cx_status cx__need_dtype(cx_shape_ctx *c, uint32_t j, cx_dtype dtype)
{
	cx_status st = present(c, j);
	if (st != CX_OK || c->in[j].dtype == dtype) return st;
	return SHAPE_FAIL(c, "operand %u (%s) is %s, must be %s", j, cx__operand_name(c->op, j).s,
		cx_dtype_get(c->in[j].dtype)->name, cx_dtype_get(dtype)->name);
}

cx_status cx__need_f32_or(cx_shape_ctx *c, uint32_t j, cx_dtype dtype)
{
	cx_status st = present(c, j);
	if (st != CX_OK || c->in[j].dtype == dtype || c->in[j].dtype == CX_F32) return st;
	return SHAPE_FAIL(c, "operand %u (%s) is %s, must be f32 or %s", j,
		cx__operand_name(c->op, j).s, cx_dtype_get(c->in[j].dtype)->name,
		cx_dtype_get(dtype)->name);
}

cx_status cx__need_rank(cx_shape_ctx *c, uint32_t j, int32_t lo, int32_t hi)
{
	char want[24];
	cx_status st = present(c, j);
	if (st != CX_OK || (c->in[j].rank >= lo && c->in[j].rank <= hi)) return st;
	if (lo == hi) snprintf(want, sizeof want, "%d", lo);
	else if (hi == CX_MAX_RANK) snprintf(want, sizeof want, "%d or more", lo);
	else snprintf(want, sizeof want, "%d to %d", lo, hi);
	return SHAPE_FAIL(c, "operand %u (%s) is %s, must be of rank %s", j,
		cx__operand_name(c->op, j).s, cx__dims_text(&c->in[j]).s, want);
}

cx_status cx__need_dims(cx_shape_ctx *c, uint32_t j, cx_dtype dtype, int32_t n, const int64_t *dim)
{
	cx_desc want = {.rank = n};
	cx_status st = present(c, j);
	if (st != CX_OK) return st;
	if (dtype != CX_DTYPE_COUNT && (st = cx__need_dtype(c, j, dtype)) != CX_OK) return st;
	memcpy(want.dim, dim, (size_t)n * sizeof dim[0]);
	if (c->in[j].rank == n && memcmp(c->in[j].dim, want.dim, sizeof want.dim) == 0) return CX_OK;
	return SHAPE_FAIL(c, "operand %u (%s) is %s, must be %s", j, cx__operand_name(c->op, j).s,
		cx__dims_text(&c->in[j]).s, cx__dims_text(&want).s);
}

cx_status cx__need_same(cx_shape_ctx *c, uint32_t j, uint32_t like)
{
	return cx__need_dims(c, j, c->in[like].dtype, c->in[like].rank, c->in[like].dim);
}

cx_status cx__need_axis(cx_shape_ctx *c, int64_t *axis, int32_t rank)
{
	if (*axis < -rank || *axis >= rank)
		return SHAPE_FAIL(c, "axis is %lld, but the rank is %d", (long long)*axis, rank);
	if (*axis < 0) *axis += rank;
	return CX_OK;
}

bool cx__broadcast(cx_desc *acc, const cx_desc *d)
{
	int32_t rank = acc->rank > d->rank ? acc->rank : d->rank;
	int64_t dim[CX_MAX_RANK] = {0};
	for (int32_t i = 1; i <= rank; i++) { /* from the last axis */
		int64_t a = i <= acc->rank ? acc->dim[acc->rank - i] : 1;
		int64_t b = i <= d->rank ? d->dim[d->rank - i] : 1;
		if (a != b && a != 1 && b != 1) return false;
		dim[rank - i] = a == 1 ? b : a;
	}
	acc->rank = rank;
	memcpy(acc->dim, dim, sizeof dim);
	return true;
}

static void out_like(cx_shape_ctx *c, uint32_t o, uint32_t j)
{
	c->out[o] = c->in[j];
}

/* ---- leaves: never made through a rule ------------------------------------------------------- */

cx_status cx__shape_leaf(cx_shape_ctx *c)
{
	return CX_FAIL(c->err, CX_ERR_ARGUMENT,
		"leaves are made by cx_input(), cx_weight(), cx_const() and cx_state()");
}

cx_status cx__shape_proj(cx_shape_ctx *c)
{
	return CX_FAIL(
		c->err, CX_ERR_ARGUMENT, "made together with its multi-output node; read it with cx_out()");
}

/* ---- elementwise ----------------------------------------------------------------------------- */

/* True if scalar.def has an integer form of the op; ops that are not in it have one. */
static bool has_int(cx_op op)
{
	static const char *const forms[CX_OP_COUNT] = {
#define CX_MAP1(name, expr, int_expr) [CX_OP_##name] = #int_expr,
#define CX_MAP1P(name, expr, int_expr) [CX_OP_##name] = #int_expr,
#define CX_MAP2(name, expr, int_expr) [CX_OP_##name] = #int_expr,
#include "graph/scalar.def"
#undef CX_MAP1
#undef CX_MAP1P
#undef CX_MAP2
	};
	return !forms[op] || strcmp(forms[op], "CX_NOINT") != 0;
}

cx_status cx__shape_same(cx_shape_ctx *c)
{
	if (cx__need_class(c, 0, has_int(c->op) ? DT_FLOAT | DT_INT : DT_FLOAT)) return c->err->code;
	out_like(c, 0, 0);
	return CX_OK;
}

cx_status cx__shape_float(cx_shape_ctx *c)
{
	cx_attr_softmax *a = c->attr;
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_axis(c, &a->axis, c->in[0].rank))
		return c->err->code;
	out_like(c, 0, 0);
	return CX_OK;
}

cx_status cx__shape_same_int(cx_shape_ctx *c)
{
	cx_attr_cumsum *a = c->attr;
	if (cx__need_class(c, 0, DT_FLOAT | DT_INT) || cx__need_axis(c, &a->axis, c->in[0].rank))
		return c->err->code;
	out_like(c, 0, 0);
	return CX_OK;
}

cx_status cx__shape_cast(cx_shape_ctx *c)
{
	const cx_attr_cast *a = c->attr;
	cx_dtype from = c->in[0].dtype;
	if (cx__is_block(a->dtype))
		return SHAPE_FAIL(c, "dtype is %s: results are plain types", cx_dtype_get(a->dtype)->name);
	if (cx__is_block(from) && !cx__is_float(a->dtype))
		return SHAPE_FAIL(c, "from %s to %s: block formats become floats", cx_dtype_get(from)->name,
			cx_dtype_get(a->dtype)->name);
	out_like(c, 0, 0);
	c->out[0].dtype = a->dtype;
	return CX_OK;
}

/* Common shape of operands j.. into out[0]. */
static cx_status broadcast_all(cx_shape_ctx *c, uint32_t j)
{
	out_like(c, 0, j);
	for (uint32_t i = j + 1; i < c->n_in; i++)
		if (!cx__broadcast(&c->out[0], &c->in[i]))
			return SHAPE_FAIL(c, "%s and %s do not broadcast: %s and %s",
				cx__operand_name(c->op, j).s, cx__operand_name(c->op, i).s,
				cx__dims_text(&c->out[0]).s, cx__dims_text(&c->in[i]).s);
	return CX_OK;
}

static cx_status same_dtypes(cx_shape_ctx *c, uint32_t a, uint32_t b)
{
	if (c->in[a].dtype == c->in[b].dtype) return CX_OK;
	return SHAPE_FAIL(c, "%s is %s, %s is %s: cast one of them", cx__operand_name(c->op, a).s,
		cx_dtype_get(c->in[a].dtype)->name, cx__operand_name(c->op, b).s,
		cx_dtype_get(c->in[b].dtype)->name);
}

cx_status cx__shape_bcast(cx_shape_ctx *c)
{
	unsigned classes = has_int(c->op) ? DT_FLOAT | DT_INT : DT_FLOAT;
	if (cx__need_class(c, 0, classes) || cx__need_class(c, 1, classes) || same_dtypes(c, 0, 1) ||
		broadcast_all(c, 0))
		return c->err->code;
	return CX_OK;
}

cx_status cx__shape_compare(cx_shape_ctx *c)
{
	if (cx__need_class(c, 0, DT_PLAIN) || cx__need_class(c, 1, DT_PLAIN) || same_dtypes(c, 0, 1) ||
		broadcast_all(c, 0))
		return c->err->code;
	c->out[0].dtype = CX_BOOL;
	return CX_OK;
}

cx_status cx__shape_logic(cx_shape_ctx *c)
{
	for (uint32_t j = 0; j < c->n_in; j++)
		if (cx__need_dtype(c, j, CX_BOOL)) return c->err->code;
	return broadcast_all(c, 0);
}

cx_status cx__shape_where(cx_shape_ctx *c)
{
	if (cx__need_dtype(c, 0, CX_BOOL) || cx__need_class(c, 1, DT_PLAIN) ||
		cx__need_class(c, 2, DT_PLAIN) || same_dtypes(c, 1, 2) || broadcast_all(c, 0))
		return c->err->code;
	c->out[0].dtype = c->in[1].dtype;
	return CX_OK;
}

/* ---- reductions and row ops ------------------------------------------------------------------ */

cx_status cx__shape_reduce(cx_shape_ctx *c)
{
	cx_attr_reduce *a = c->attr;
	const cx_desc *x = &c->in[0];
	bool gone[CX_MAX_RANK] = {false};
	if (cx__need_class(c, 0, c->op == CX_OP_mean ? DT_FLOAT : DT_FLOAT | DT_INT))
		return c->err->code;
	for (int32_t i = 0; i < a->axes.n; i++) {
		if (cx__need_axis(c, &a->axes.v[i], x->rank)) return c->err->code;
		if (gone[a->axes.v[i]])
			return SHAPE_FAIL(c, "axis %lld is listed twice", (long long)a->axes.v[i]);
		gone[a->axes.v[i]] = true;
	}
	if (a->axes.n == 0) memset(gone, true, sizeof gone);
	memset(&a->axes, 0, sizeof a->axes); /* written back in order, all of them */
	c->out[0].dtype = x->dtype;
	for (int32_t i = 0; i < x->rank; i++) {
		if (gone[i]) a->axes.v[a->axes.n++] = i;
		if (!gone[i]) c->out[0].dim[c->out[0].rank++] = x->dim[i];
		else if (a->keep) c->out[0].dim[c->out[0].rank++] = 1;
	}
	return CX_OK;
}

cx_status cx__shape_arg(cx_shape_ctx *c)
{
	cx_attr_arg *a = c->attr;
	const cx_desc *x = &c->in[0];
	if (cx__need_class(c, 0, DT_FLOAT | DT_INT) || cx__need_axis(c, &a->axis, x->rank))
		return c->err->code;
	if (x->dim[a->axis] == 0)
		return SHAPE_FAIL(c, "axis %lld of %s is empty", (long long)a->axis, cx__dims_text(x).s);
	c->out[0].dtype = CX_I32;
	for (int32_t i = 0; i < x->rank; i++) {
		if (i != a->axis) c->out[0].dim[c->out[0].rank++] = x->dim[i];
		else if (a->keep) c->out[0].dim[c->out[0].rank++] = 1;
	}
	return CX_OK;
}

cx_status cx__shape_topk(cx_shape_ctx *c)
{
	cx_attr_topk *a = c->attr;
	const cx_desc *x = &c->in[0];
	if (cx__need_class(c, 0, DT_FLOAT | DT_INT) || cx__need_axis(c, &a->axis, x->rank))
		return c->err->code;
	if (a->k < 1 || a->k > x->dim[a->axis])
		return SHAPE_FAIL(c, "k is %lld, but axis %lld has %lld elements", (long long)a->k,
			(long long)a->axis, (long long)x->dim[a->axis]);
	for (int o = 0; o < 2; o++) {
		out_like(c, (uint32_t)o, 0);
		c->out[o].dim[a->axis] = a->k;
	}
	c->out[1].dtype = CX_I32;
	return CX_OK;
}

cx_status cx__shape_norm(cx_shape_ctx *c)
{
	const cx_desc *x = &c->in[0];
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 1, CX_MAX_RANK)) return c->err->code;
	for (uint32_t j = 1; j < c->n_in; j++) {
		if (!cx__has(c, j)) continue;
		if (cx__need_f32_or(c, j, x->dtype) ||
			cx__need_dims(c, j, CX_DTYPE_COUNT, DIMS(x->dim[x->rank - 1])))
			return c->err->code;
	}
	out_like(c, 0, 0);
	return CX_OK;
}

cx_status cx__shape_groupnorm(cx_shape_ctx *c)
{
	const cx_attr_groupnorm *a = c->attr;
	const cx_desc *x = &c->in[0];
	if (cx__need_class(c, 0, DT_FLOAT) || cx__need_rank(c, 0, 2, CX_MAX_RANK)) return c->err->code;
	if (a->groups < 1 || x->dim[1] % a->groups != 0)
		return SHAPE_FAIL(c, "groups is %lld, which does not divide the %lld channels",
			(long long)a->groups, (long long)x->dim[1]);
	for (uint32_t j = 1; j < c->n_in; j++) {
		if (!cx__has(c, j)) continue;
		if (cx__need_f32_or(c, j, x->dtype) || cx__need_dims(c, j, CX_DTYPE_COUNT, DIMS(x->dim[1])))
			return c->err->code;
	}
	out_like(c, 0, 0);
	return CX_OK;
}
