/* shape.h - the shape rules, one per name in the `shape` column of ops.def, and what they share.
 *
 * A rule checks dtypes, ranks and dims of the operands against each other and the attributes,
 * normalises the attributes in place, and gives dtype and dims of each output. It never sees sizes
 * that overflow: node_add() checks every output with cx_dtype_bytes() after it, and rules multiply
 * only dims of one existing operand. */
#ifndef CX_SHAPE_H
#define CX_SHAPE_H

#include "graph/graph.h"

#define CX_OP(name, n_min, n_max, n_out, attr, shape, ...)                                         \
	cx_status cx__shape_##shape(cx_shape_ctx *c);
#include "graph/ops.def"
#undef CX_OP

#define SHAPE_FAIL(c, ...) CX_FAIL((c)->err, CX_ERR_SHAPE, __VA_ARGS__)

/* Name of operand j from the row's `inputs`, for messages: "w". The last name stands for all that
 * follow. */
typedef struct cx_operand_name {
	char s[24];
} cx_operand_name;
cx_operand_name cx__operand_name(cx_op op, uint32_t j);
/* "[4,64]" of a desc, by value so that two fit into one message. */
typedef struct cx_dims_text {
	char s[80];
} cx_dims_text;
cx_dims_text cx__dims_text(const cx_desc *d);

static inline bool cx__has(const cx_shape_ctx *c, uint32_t j)
{
	return j < c->n_in && c->in[j].dtype != CX_DTYPE_COUNT;
}
static inline bool cx__is_float(cx_dtype t)
{
	return cx_dtype_get(t)->cls == CX_CLASS_FLOAT;
}
static inline bool cx__is_int(cx_dtype t)
{
	return cx_dtype_get(t)->cls == CX_CLASS_INT;
}
static inline bool cx__is_block(cx_dtype t)
{
	return cx_dtype_get(t)->cls == CX_CLASS_BLOCK;
}

/* Each fails with a sentence that names the operand, so a rule reads: if (a || b || c) return
 * c->err->code; (c->err is never NULL here). `classes` is a set of DT_ bits. */
enum {
	DT_FLOAT = 1 << CX_CLASS_FLOAT,
	DT_INT = 1 << CX_CLASS_INT,
	DT_BOOL = 1 << CX_CLASS_BOOL,
	DT_BLOCK = 1 << CX_CLASS_BLOCK,
	DT_PLAIN = DT_FLOAT | DT_INT | DT_BOOL
};
cx_status cx__need_class(cx_shape_ctx *c, uint32_t j, unsigned classes);
cx_status cx__need_dtype(cx_shape_ctx *c, uint32_t j, cx_dtype dtype);
cx_status cx__need_f32_or(cx_shape_ctx *c, uint32_t j, cx_dtype dtype); /* f32 or that one */
cx_status cx__need_rank(cx_shape_ctx *c, uint32_t j, int32_t lo, int32_t hi);
/* Dims exactly these (n of them, as int64_t arguments), and the dtype; CX_DTYPE_COUNT: any. */
cx_status cx__need_dims(cx_shape_ctx *c, uint32_t j, cx_dtype dtype, int32_t n, const int64_t *dim);
cx_status cx__need_same(
	cx_shape_ctx *c, uint32_t j, uint32_t like); /* dtype and dims of another operand */
/* Makes a negative axis positive; fails unless it is inside [0, rank). */
cx_status cx__need_axis(cx_shape_ctx *c, int64_t *axis, int32_t rank);
/* NumPy rules: *acc becomes the common shape of *acc and d (dims only). False if there is none. */
bool cx__broadcast(cx_desc *acc, const cx_desc *d);

/* n, and the dims themselves: cx__need_dims(c, 1, CX_F32, DIMS(rows, cols)). */
#define DIMS(...)                                                                                  \
	(int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])               \
	{                                                                                              \
		__VA_ARGS__                                                                                \
	}

/* What act_scale of matmul and linear asks of a weight operand [.., n, k]; 0 asks nothing. */
cx_status cx__need_act_scale(cx_shape_ctx *c, uint32_t w, float act_scale);

#endif
