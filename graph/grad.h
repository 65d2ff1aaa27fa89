/* grad.h - what a gradient rule sees, and the helpers that rules are written with.
 *
 * A row of ops.def names its rule in the grad column; grad.c calls it once per node through which a
 * gradient flows, last node first. A rule appends the nodes that compute the gradients of its
 * operands to c->g and leaves them in c->din:
 *
 *	void cx__grad_mul(cx_grad_ctx *c)
 *	{
 *		if (c->need[0]) cx__grad_give(c, 0, cx_mul(c->g, cx__grad_dout(c, 0), cx__grad_in(c, 1)));
 *		if (c->need[1]) cx__grad_give(c, 1, cx_mul(c->g, cx__grad_dout(c, 0), cx__grad_in(c, 0)));
 *	}
 *
 * Rules compute in f32 whatever the operands are, so that a chain of maps rounds once: the helpers
 * cast where that is needed, and the casts become part of the fused map. Errors are sticky in the
 * graph; a rule need not look. */
#ifndef CX_GRAD_H
#define CX_GRAD_H

#include "graph/graph.h"

typedef struct cx_grad_ctx {
	cx_graph *g;   /* append the backward nodes here; this may move g->nodes */
	uint32_t node; /* the forward node */
	const void *attr;
	uint32_t n_in, n_out;
	const cx_tensor *in;   /* [n_in] operands as the backward may read them (recomputed ones) */
	const cx_tensor *out;  /* [n_out] its results, likewise */
	const cx_tensor *dout; /* [n_out] gradients of the outputs, their dtype; CX_NONE is zero */
	const bool *need;      /* [n_in] whose gradients are wanted: floats on a path from wrt */
	cx_tensor *din;        /* [n_in] result, of the operand's dims and dtype; CX_NONE: zero */
} cx_grad_ctx;
typedef void cx_grad_fn(cx_grad_ctx *c);

/* One rule per name in the column; `stop` is no rule (ops.c puts NULL there). */
#define CX_OP(name, n_min, n_max, n_out, attr, shape, grad, ...) cx_grad_fn cx__grad_##grad;
#include "graph/ops.def"
#undef CX_OP

/* ---- reading: f32 versions, cast where the tensor is not f32 ---- */

cx_tensor cx__grad_f32(cx_grad_ctx *c, cx_tensor t); /* CX_NONE stays */
cx_tensor cx__grad_in(cx_grad_ctx *c, uint32_t j);   /* operand j */
cx_tensor cx__grad_out(cx_grad_ctx *c, uint32_t o);  /* result o */
cx_tensor cx__grad_dout(cx_grad_ctx *c, uint32_t o); /* gradient of result o; may be CX_NONE */
static inline bool cx__grad_has(const cx_grad_ctx *c, uint32_t j)
{
	return j < c->n_in && !cx_is_none(c->in[j]);
}
static inline const cx_desc *cx__grad_desc(const cx_grad_ctx *c, cx_tensor t)
{
	return &c->g->nodes[t.id].desc; /* until the next node is appended */
}

/* ---- giving ---- */

/* din[j] = t, summed over the axes along which operand j was broadcast, then cast to its dtype. */
void cx__grad_give(cx_grad_ctx *c, uint32_t j, cx_tensor t);

/* ---- pieces ---- */

cx_tensor cx__grad_k(cx_grad_ctx *c, double value);               /* f32 constant, rank 0 */
cx_tensor cx__grad_scale(cx_grad_ctx *c, cx_tensor t, double by); /* t itself for 1 */
cx_tensor cx__grad_fill(cx_grad_ctx *c, cx_dtype dtype, int32_t rank, const int64_t *dim,
	double value); /* a view of one element */
cx_tensor cx__grad_reshape(cx_grad_ctx *c, cx_tensor t, int32_t rank, const int64_t *dim);
cx_tensor cx__grad_broadcast(cx_grad_ctx *c, cx_tensor t, int32_t rank, const int64_t *dim);
/* Sum over one axis, which stays with size 1. */
cx_tensor cx__grad_row_sum(cx_grad_ctx *c, cx_tensor t, int64_t axis);
/* size elements from begin on, along one axis. */
cx_tensor cx__grad_cut(cx_grad_ctx *c, cx_tensor t, int32_t axis, int64_t begin, int64_t size);

/* ---- slices (grad_slice.c) ---- */

typedef struct cx_grad_piece {
	const cx_attr_slice *attr;
	cx_tensor grad; /* of the slice */
} cx_grad_piece;
/* The gradient of tensor id through as many of the *n slices p as do not overlap, which leave p;
 * the rest moves up. */
cx_tensor cx__grad_join(cx_graph *g, uint32_t id, cx_grad_piece *p, uint32_t *n);

#endif
