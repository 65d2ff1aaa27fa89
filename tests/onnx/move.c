/* move.c - ONNX operators that shape, select and place data, as ours. See onnx.h. */
#include "tests/onnx/onnx.h"

#include <stdlib.h>
#include <string.h>

/* ---- shapes and constants ---- */

static bool shape_of(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_list d = dims_of(c, in_(c, n, 0));
	int64_t from = axis_of(attr_i(n, "start", 0), d.n), to = axis_of(attr_i(n, "end", d.n), d.n);
	(void)arg;
	from = from < 0 ? 0 : from > d.n ? d.n : from;
	to = to > d.n ? d.n : to < from ? from : to;
	return out_(c, n, 0, int_const(c, CX_I64, DIMS_(to - from), d.v + from));
}

static bool size_of(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_shape s = shape_(c, in_(c, n, 0));
	int64_t elems = cx_shape_elems(&s);
	(void)arg;
	return out_(c, n, 0, int_const(c, CX_I64, (cx_list){0}, &elems));
}

/* A tensor of the file as a constant of the graph. */
static cx_tensor constant_of(onnx_ctx *c, const Onnx__TensorProto *t)
{
	cx_dtype dtype;
	cx_list dims;
	void *data = onnx_tensor_data(t, &dtype, &dims, &c->widened, &c->why);
	cx_tensor y;
	if (!data) return CX_NONE;
	y = cx_const(c->g, dtype, dims.n, dims.v, data);
	free(data);
	return y;
}

static bool constant(onnx_ctx *c, const onnx_node *n, int arg)
{
	const Onnx__AttributeProto *a;
	int64_t size;
	(void)arg;
	if ((a = attr_(n, "value"))) return out_(c, n, 0, constant_of(c, a->t));
	if ((a = attr_(n, "value_float"))) return out_(c, n, 0, scalar(c, CX_F32, a->f));
	if ((a = attr_(n, "value_int")))
		return out_(c, n, 0, int_const(c, CX_I64, (cx_list){0}, &a->i));
	if ((a = attr_(n, "value_ints")))
		return out_(c, n, 0, int_const(c, CX_I64, DIMS_((int64_t)a->n_ints), a->ints));
	if (!(a = attr_(n, "value_floats"))) return onnx_not_ours(c, "constant of another kind");
	size = (int64_t)a->n_floats;
	return out_(c, n, 0, cx_const(c->g, CX_F32, 1, &size, a->floats));
}

static bool constant_of_shape(onnx_ctx *c, const onnx_node *n, int arg)
{
	const Onnx__AttributeProto *a = attr_(n, "value");
	cx_tensor v = a ? constant_of(c, a->t) : scalar(c, CX_F32, 0);
	(void)arg;
	if (cx_is_none(v)) return false;
	return out_(c, n, 0, expand_(c, reshape_(c, v, (cx_list){0}), host_list(c, in_(c, n, 0))));
}

static bool range(onnx_ctx *c, const onnx_node *n, int arg)
{
	int64_t v[3] = {0}, count;
	(void)arg;
	if (dtype_(c, in_(c, n, 0)) != CX_I64)
		return onnx_not_ours(c, "range of another type than i64");
	for (size_t i = 0; i < 3; i++) host_ints(c, in_(c, n, i), &v[i], 1);
	if (v[2] == 0) return onnx_not_ours(c, "range with step 0");
	count = (v[1] - v[0] + v[2] - (v[2] > 0 ? 1 : -1)) / v[2];
	return out_(c, n, 0,
		cx_iota(c->g, &(cx_attr_iota){.dims = DIMS_(count < 0 ? 0 : count),
						  .dtype = CX_I64,
						  .start = (float)v[0],
						  .step = (float)v[2]}));
}

/* ---- views ---- */

static bool reshape(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	cx_list d = {0}, old = dims_of(c, x);
	(void)arg;
	list_arg(c, n, 1, "shape", &d);
	for (int32_t i = 0; i < d.n; i++)
		if (d.v[i] == 0 && !attr_i(n, "allowzero", 0) && i < old.n) d.v[i] = old.v[i];
	return out_(c, n, 0, reshape_(c, x, d));
}

static bool flatten(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	cx_list d = dims_of(c, x), flat = {.n = 2, .v = {1, 1}};
	int64_t axis = axis_of(attr_i(n, "axis", 1), d.n);
	(void)arg;
	for (int32_t i = 0; i < d.n; i++) flat.v[i >= axis] *= d.v[i];
	return out_(c, n, 0, reshape_(c, x, flat));
}

static bool squeeze(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	cx_list axes = {0}, d = dims_of(c, x), left = {0};
	bool listed = list_arg(c, n, 1, "axes", &axes);
	(void)arg;
	for (int32_t i = 0; i < d.n; i++) {
		bool gone = !listed && d.v[i] == 1;
		for (int32_t j = 0; j < axes.n; j++) gone |= axis_of(axes.v[j], d.n) == i;
		if (!gone) left.v[left.n++] = d.v[i];
	}
	return out_(c, n, 0, reshape_(c, x, left));
}

static bool unsqueeze(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	cx_list axes = {0}, d = dims_of(c, x), more = {0};
	int32_t from = 0;
	(void)arg;
	list_arg(c, n, 1, "axes", &axes);
	if (d.n + axes.n > CX_MAX_RANK) return onnx_not_ours(c, "rank over 6");
	more.n = d.n + axes.n;
	for (int32_t j = 0; j < axes.n; j++) more.v[axis_of(axes.v[j], more.n)] = -1;
	for (int32_t i = 0; i < more.n; i++) more.v[i] = more.v[i] == -1 ? 1 : d.v[from++];
	return out_(c, n, 0, reshape_(c, x, more));
}

static bool transpose(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	cx_list perm = {.n = shape_(c, x).rank};
	(void)arg;
	for (int32_t i = 0; i < perm.n; i++) perm.v[i] = perm.n - 1 - i;
	attr_list(n, "perm", &perm);
	return out_(c, n, 0, perm_(c, x, perm));
}

/* ONNX's Expand broadcasts both ways. */
static bool expand(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	cx_list d = dims_of(c, x), to = host_list(c, in_(c, n, 1));
	(void)arg;
	while (to.n < d.n) {
		memmove(to.v + 1, to.v, (size_t)to.n * sizeof to.v[0]);
		to.v[0] = 1;
		to.n++;
	}
	for (int32_t i = 0; i < d.n; i++)
		if (to.v[to.n - d.n + i] == 1) to.v[to.n - d.n + i] = d.v[i];
	return out_(c, n, 0, expand_(c, x, to));
}

static bool tile(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), many[64];
	cx_list reps = host_list(c, in_(c, n, 1));
	(void)arg;
	for (int32_t axis = 0; axis < reps.n; axis++) {
		if (reps.v[axis] > 64) return onnx_not_ours(c, "many repeats");
		for (int64_t i = 0; i < reps.v[axis]; i++) many[i] = x;
		x = cx_concat(c->g, many, (uint32_t)reps.v[axis], &(cx_attr_axis){.axis = axis});
	}
	return out_(c, n, 0, x);
}

/* Depth to blocks of pixels and back: a six-axis transpose. */
static bool depth_space(onnx_ctx *c, const onnx_node *n, int to_space)
{
	cx_tensor x = in_(c, n, 0);
	cx_list d = dims_of(c, x);
	int64_t b = attr_i(n, "blocksize", 1), N = d.v[0], C = d.v[1], H = d.v[2], W = d.v[3];
	if (!to_space) {
		x = perm_(c, reshape_(c, x, DIMS_(N, C, H / b, b, W / b, b)), DIMS_(0, 3, 5, 1, 2, 4));
		return out_(c, n, 0, reshape_(c, x, DIMS_(N, C * b * b, H / b, W / b)));
	}
	if (attr_is(n, "mode", "CRD", "DCR"))
		x = perm_(c, reshape_(c, x, DIMS_(N, C / b / b, b, b, H, W)), DIMS_(0, 1, 4, 2, 5, 3));
	else x = perm_(c, reshape_(c, x, DIMS_(N, b, b, C / b / b, H, W)), DIMS_(0, 3, 4, 1, 5, 2));
	return out_(c, n, 0, reshape_(c, x, DIMS_(N, C / b / b, H * b, W * b)));
}

/* ---- joining and cutting ---- */

static bool concat(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor parts[64];
	int64_t rank = shape_(c, in_(c, n, 0)).rank;
	(void)arg;
	if (n->n_input > 64) return onnx_not_ours(c, "many operands");
	for (size_t i = 0; i < n->n_input; i++) parts[i] = in_(c, n, i);
	return out_(c, n, 0,
		cx_concat(c->g, parts, (uint32_t)n->n_input,
			&(cx_attr_axis){.axis = axis_of(attr_i(n, "axis", 1), (int32_t)rank)}));
}

static bool split(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	cx_list sizes = {0};
	int64_t axis = axis_of(attr_i(n, "axis", 0), shape_(c, x).rank), total = shape_(c, x).dim[axis],
			at = 0;
	int64_t each = (total + (int64_t)n->n_output - 1) / (int64_t)n->n_output;
	bool listed = list_arg(c, n, 1, "split", &sizes);
	(void)arg;
	if (listed && sizes.n != (int32_t)n->n_output) return onnx_not_ours(c, "many operands");
	for (size_t i = 0; i < n->n_output; i++) {
		int64_t size = listed ? sizes.v[i] : total - at < each ? total - at : each;
		out_(c, n, i, part_(c, x, axis, at, size));
		at += size;
	}
	return true;
}

static int64_t clamp_to(int64_t v, int64_t lo, int64_t hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

static bool slice(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	cx_list starts = {0}, ends = {0}, axes = {0}, steps = {0};
	bool has_axes, has_steps;
	(void)arg;
	list_arg(c, n, 1, "starts", &starts);
	list_arg(c, n, 2, "ends", &ends);
	has_axes = list_arg(c, n, 3, "axes", &axes);
	has_steps = list_arg(c, n, 4, "steps", &steps);
	for (int32_t i = 0; i < starts.n; i++) {
		cx_list d = dims_of(c, x);
		int64_t axis = has_axes ? axis_of(axes.v[i], d.n) : i, size = d.v[axis],
				step = has_steps ? steps.v[i] : 1;
		int64_t from = axis_of(starts.v[i], (int32_t)size),
				to = ends.v[i] < 0 ? ends.v[i] + size : ends.v[i];
		int64_t count = 0, at[1024];
		from = step > 0 ? clamp_to(from, 0, size) : clamp_to(from, 0, size - 1);
		to = step > 0 ? clamp_to(to, 0, size) : clamp_to(to, -1, size - 1);
		for (int64_t p = from; (step > 0 ? p < to : p > to) && count < 1024; p += step)
			at[count++] = p;
		x = step == 1 ? part_(c, x, axis, from, count) : pick_(c, x, axis, count, at);
	}
	return out_(c, n, 0, x);
}

/* Source of place i of an axis of n elements that was padded by `before`. */
static int64_t padded_from(int64_t i, int64_t before, int64_t n, const onnx_node *node)
{
	int64_t p = i - before, period = 2 * (n - 1);
	if (attr_is(node, "mode", "wrap", "constant")) return ((p % n) + n) % n;
	if (attr_is(node, "mode", "edge", "constant")) return clamp_to(p, 0, n - 1);
	if (period == 0) return 0;
	p = ((p % period) + period) % period; /* reflect, without repeating the edge */
	return p < n ? p : period - p;
}

static bool pad(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	int64_t pads[2 * CX_MAX_RANK], at[256], n_pads = 0;
	double value = attr_f(n, "value", 0);
	cx_list axes = {0}, d = dims_of(c, x);
	const Onnx__AttributeProto *a = attr_(n, "pads");
	bool constant_mode = attr_is(n, "mode", "constant", "constant");
	(void)arg;
	if (a) memcpy(pads, a->ints, (size_t)(n_pads = (int64_t)a->n_ints) * 8);
	else n_pads = host_ints(c, in_(c, n, 1), pads, 2 * CX_MAX_RANK);
	if (has_in(n, 2)) value = host_number(c, in_(c, n, 2));
	if (!list_arg(c, n, 3, "", &axes))
		for (axes.n = 0; axes.n < d.n; axes.n++) axes.v[axes.n] = axes.n;
	for (int32_t i = 0; i < axes.n && n_pads == 2 * axes.n; i++) {
		int64_t axis = axis_of(axes.v[i], d.n), before = pads[i], after = pads[axes.n + i],
				size = d.v[axis];
		if (!constant_mode) {
			if (size + before + after > 256) return onnx_not_ours(c, "long axis to pad");
			for (int64_t p = 0; p < size + before + after; p++)
				at[p] = padded_from(p, before, size, n);
			x = pick_(c, x, axis, size + before + after, at);
			continue;
		}
		if (before < 0 || after < 0) {
			x = part_(c, x, axis, before < 0 ? -before : 0,
				size + (before < 0 ? before : 0) + (after < 0 ? after : 0));
			before = before < 0 ? 0 : before;
			after = after < 0 ? 0 : after;
		}
		cx_attr_pad at_pad = {.before.n = d.n, .after.n = d.n, .value = (float)value};
		at_pad.before.v[axis] = before;
		at_pad.after.v[axis] = after;
		x = cx_pad(c->g, x, &at_pad);
	}
	return out_(c, n, 0, x);
}

/* ---- gather and scatter ---- */

static bool gather(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), idx = in_(c, n, 1);
	int64_t axis = axis_of(attr_i(n, "axis", 0), shape_(c, x).rank);
	(void)arg;
	idx = index_(c, idx, shape_(c, x).dim[axis]);
	return out_(c, n, 0, cx_gather(c->g, x, idx, &(cx_attr_axis){.axis = axis}));
}

/* Row-major places in x that GatherElements and ScatterElements name: own coordinates, but idx
 * along the axis. */
static cx_tensor element_places(onnx_ctx *c, cx_tensor x, cx_tensor idx, int64_t axis)
{
	cx_list d = dims_of(c, x), di = dims_of(c, idx);
	cx_tensor at = expand_(c, scalar(c, CX_I32, 0), di);
	int64_t stride = 1;
	for (int32_t i = d.n - 1; i >= 0; i--) {
		cx_tensor own =
			i == axis
				? index_(c, idx, d.v[i])
				: cx_iota(c->g, &(cx_attr_iota){.dims = di, .axis = i, .dtype = CX_I32, .step = 1});
		at = cx_add(c->g, at, cx_mul(c->g, own, scalar(c, CX_I32, (double)stride)));
		stride *= d.v[i];
	}
	return at;
}

static bool gather_elements(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), idx = in_(c, n, 1);
	int64_t axis = axis_of(attr_i(n, "axis", 0), shape_(c, x).rank);
	(void)arg;
	idx = element_places(c, x, idx, axis);
	return out_(
		c, n, 0, cx_gather(c->g, reshape_(c, x, DIMS_(-1)), idx, &(cx_attr_axis){.axis = 0}));
}

/* Scatter with what reductions ours has. */
static bool place(
	onnx_ctx *c, const onnx_node *n, cx_tensor flat, cx_tensor rows, cx_tensor src, cx_list dims)
{
	bool add = attr_is(n, "reduction", "add", "none");
	if (!add && !attr_is(n, "reduction", "none", "none"))
		return onnx_not_ours(c, "scatter with mul, min or max");
	flat = cx_scatter(c->g, flat, rows, src, &(cx_attr_scatter){.add = add});
	return out_(c, n, 0, reshape_(c, flat, dims));
}

static bool scatter_elements(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), at = in_(c, n, 1), src = in_(c, n, 2);
	int64_t axis = axis_of(attr_i(n, "axis", 0), shape_(c, x).rank);
	(void)arg;
	at = reshape_(c, element_places(c, x, at, axis), DIMS_(-1));
	return place(c, n, reshape_(c, x, DIMS_(-1)), at, reshape_(c, src, DIMS_(-1)), dims_of(c, x));
}

/* Tuples of k indices, the last axis of idx, as row numbers of x with its first k axes joined. */
static cx_tensor tuple_rows(onnx_ctx *c, cx_tensor idx, const cx_list *d, int64_t k)
{
	cx_list di = dims_of(c, idx);
	cx_tensor rows = scalar(c, CX_I32, 0);
	int64_t stride = 1;
	di.n--;
	for (int64_t i = k - 1; i >= 0; i--) {
		cx_tensor one = index_(c, reshape_(c, part_(c, idx, di.n, i, 1), di), d->v[i]);
		rows = cx_add(c->g, rows, cx_mul(c->g, one, scalar(c, CX_I32, (double)stride)));
		stride *= d->v[i];
	}
	return rows;
}

/* x with its first k axes joined. */
static cx_tensor joined(onnx_ctx *c, cx_tensor x, int64_t k)
{
	cx_list d = dims_of(c, x), j = {.n = 1, .v = {1}};
	for (int64_t i = 0; i < k; i++) j.v[0] *= d.v[i];
	for (int64_t i = k; i < d.n; i++) j.v[j.n++] = d.v[i];
	return reshape_(c, x, j);
}

static bool gather_nd(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), idx = in_(c, n, 1);
	cx_list d = dims_of(c, x), di = dims_of(c, idx);
	int64_t k = di.v[di.n - 1];
	(void)arg;
	if (attr_i(n, "batch_dims", 0)) return onnx_not_ours(c, "batch_dims");
	return out_(c, n, 0,
		cx_gather(c->g, joined(c, x, k), tuple_rows(c, idx, &d, k), &(cx_attr_axis){.axis = 0}));
}

static bool scatter_nd(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), idx = in_(c, n, 1), src = in_(c, n, 2), rows;
	cx_list d = dims_of(c, x), di = dims_of(c, idx);
	int64_t k = di.v[di.n - 1];
	(void)arg;
	rows = reshape_(c, tuple_rows(c, idx, &d, k), DIMS_(-1));
	return place(c, n, joined(c, x, k), rows, joined(c, src, di.n - 1), d);
}

/* A cache [B, .., S, ..] gets `update` at write_indices[b] along the axis; circular wraps. */
static bool tensor_scatter(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0), up = in_(c, n, 1);
	cx_list d = dims_of(c, x), perm = {.n = d.n, .v = {0}}, back = {.n = d.n}, moved = {.n = d.n};
	int64_t axis = axis_of(attr_i(n, "axis", -2), d.n), steps = shape_(c, up).dim[axis], rows[256],
			first[64] = {0};
	bool wrap = attr_is(n, "mode", "circular", "linear");
	int32_t at = 2;
	(void)arg;
	if (d.v[0] > 64 || d.v[0] * steps > 256) return onnx_not_ours(c, "large cache");
	if (has_in(n, 2)) host_ints(c, in_(c, n, 2), first, 64);
	perm.v[1] = axis;
	for (int32_t i = 1; i < d.n; i++)
		if (i != axis) perm.v[at++] = i;
	for (int32_t i = 0; i < d.n; i++) {
		back.v[perm.v[i]] = i;
		moved.v[i] = d.v[perm.v[i]];
	}
	for (int64_t b = 0; b < d.v[0]; b++)
		for (int64_t t = 0; t < steps; t++) {
			int64_t p = first[b] + t;
			rows[b * steps + t] = b * d.v[axis] + (wrap ? p % d.v[axis] : p);
		}
	x = joined(c, perm_(c, x, perm), 2);
	up = joined(c, perm_(c, up, perm), 2);
	x = cx_scatter(c->g, x, int_const(c, CX_I32, DIMS_(d.v[0] * steps), rows), up, NULL);
	return out_(c, n, 0, perm_(c, reshape_(c, x, moved), back));
}

static bool compress(onnx_ctx *c, const onnx_node *n, int arg)
{
	cx_tensor x = in_(c, n, 0);
	int64_t keep[256], at[256], count = 0, axis = 0, total = host_ints(c, in_(c, n, 1), keep, 256);
	(void)arg;
	if (total > 256) return onnx_not_ours(c, "long condition");
	for (int64_t i = 0; i < total; i++)
		if (keep[i]) at[count++] = i;
	if (attr_(n, "axis")) axis = axis_of(attr_i(n, "axis", 0), shape_(c, x).rank);
	else x = reshape_(c, x, DIMS_(-1));
	return out_(c, n, 0, pick_(c, x, axis, count, at));
}

const onnx_row onnx_rows_move[] = {
	{"Shape", shape_of, 0},
	{"Size", size_of, 0},
	{"Constant", constant, 0},
	{"ConstantOfShape", constant_of_shape, 0},
	{"Range", range, 0},
	{"Reshape", reshape, 0},
	{"Flatten", flatten, 0},
	{"Squeeze", squeeze, 0},
	{"Unsqueeze", unsqueeze, 0},
	{"Transpose", transpose, 0},
	{"Expand", expand, 0},
	{"Tile", tile, 0},
	{"SpaceToDepth", depth_space, 0},
	{"DepthToSpace", depth_space, 1},
	{"Concat", concat, 0},
	{"Split", split, 0},
	{"Slice", slice, 0},
	{"Pad", pad, 0},
	{"Gather", gather, 0},
	{"GatherElements", gather_elements, 0},
	{"GatherND", gather_nd, 0},
	{"ScatterElements", scatter_elements, 0},
	{"ScatterND", scatter_nd, 0},
	{"TensorScatter", tensor_scatter, 0},
	{"Compress", compress, 0},
	{NULL, NULL, 0},
};
