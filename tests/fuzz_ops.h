/* fuzz_ops.h - what the generators of fuzz_ops.c, fuzz_seq.c and fuzz_patterns.c share; see
 * random_graph.h. */
#ifndef CX_TESTS_FUZZ_OPS_H
#define CX_TESTS_FUZZ_OPS_H

#include "tests/random_graph.h"

#define CX_OP(name, n_min, n_max, n_out, attr, shape, grad, kind, tol, alias, fuzz, inputs, doc)   \
	cx_tensor cx__fuzz_##fuzz(cx_rgen *r, cx_op op);
#include "graph/ops.def"
#undef CX_OP

#define DIMS(...)                                                                                  \
	(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                   \
	{                                                                                              \
		__VA_ARGS__                                                                                \
	}

static inline int64_t pick_int(cx_rgen *r, int64_t lo, int64_t hi)
{
	return cx__rng_int(&r->rng, lo, hi);
}
static inline bool chance(cx_rgen *r, int64_t n)
{
	return cx__rg_chance(r, n);
}

static inline cx_tensor any(cx_rgen *r, int dtype, float lo, float hi)
{
	cx_want w = cx__want(dtype, lo, hi);
	w.nonempty = !r->rg->opts.zeros;
	return cx__rg_get(r, &w);
}

/* At least lo_rank axes, none of size 0. */
static inline cx_tensor rows(cx_rgen *r, int dtype, int lo_rank, float lo, float hi)
{
	cx_want w = cx__want(dtype, lo, hi);
	w.lo_rank = lo_rank;
	return cx__rg_get(r, &w);
}

static inline cx_tensor sized(
	cx_rgen *r, int dtype, float lo, float hi, int rank, const int64_t *dim)
{
	cx_want w = cx__want_dims(dtype, lo, hi, rank, dim);
	return cx__rg_get(r, &w);
}

/* f32 or, sometimes, the dtype of x: for weights of norms and biases. */
static inline int side_dtype(cx_rgen *r, cx_dtype dtype)
{
	return chance(r, 3) ? (int)dtype : CX_F32;
}

/* An axis of x, spelled either way. */
static inline int64_t axis_of(cx_rgen *r, int rank)
{
	return pick_int(r, -rank, rank - 1);
}

/* A second operand that broadcasts with the first: some axes 1, some in front left out. */
cx_tensor cx__fuzz_partner(cx_rgen *r, cx_tensor a, int dtype, float lo, float hi, bool exact);

#endif
