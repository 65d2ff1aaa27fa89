/* random_graph.h - seeded random valid graphs, and data for their leaves.
 *
 * Every op has a generator, cx__fuzz_<name> of fuzz_ops.c, by the `fuzz` column of ops.def. It
 * picks operands among the tensors that exist (so there are many readers, views of views, old
 * versions of states) or makes fresh leaves. Values are kept tame: the generator follows an
 * interval [lo, hi] per tensor and clamps operands into what an op can take, so that rounding
 * errors do not explode and nothing is NaN unless `specials` asks for it. */
#ifndef CX_TESTS_RANDOM_GRAPH_H
#define CX_TESTS_RANDOM_GRAPH_H

#include "graph/graph.h"
#include "tests/rng.h"

enum { CX_LAYOUT_ANY, CX_LAYOUT_DENSE, CX_LAYOUT_STRIDED, CX_LAYOUT_BROADCAST };

/* What float leaves of cx__random_case hold; see shape_value() of random_graph.c. */
enum {
	CX_DATA_TAME,    /* the range in which the op is well conditioned */
	CX_DATA_SPECIAL, /* a few NaN, infinities of either sign, -0 among them */
	CX_DATA_TINY,    /* denormals, alone and among others */
	CX_DATA_LARGE    /* times opts.large; ints over their whole range with opts.large_ints */
};

typedef struct cx_random_opts {
	uint64_t seed;
	uint32_t
		n_nodes; /* steps to add; each is an op with what its operands need, or a whole pattern */
	const bool *ops; /* [CX_OP_COUNT] ops to take; NULL: all that models may use */
	bool fused;      /* with ops == NULL: also what only the planner makes */
	bool no_states, no_views, no_patterns;
	bool f32_only;         /* floats are f32 */
	cx_dtype float_dtype;  /* cx__random_case: CX_F16, CX_BF16: the main float type; CX_F32 (0): as
							 f32_only says */
	int layout;            /* cx__random_case: layout of operands */
	bool zeros;            /* dims of 0 now and then, where legal */
	bool specials;         /* some NaN, infinities and -0 in float leaves */
	bool edges;            /* cx__random_case: sizes 1, primes and one off a tile, up to 257 */
	int data;              /* CX_DATA_* */
	float large;           /* CX_DATA_LARGE: what values are multiplied with */
	uint32_t large_leaves; /* ... in which leaves, a bit each in the order of creation */
	uint32_t tame_leaves;  /* leaves that stay as they are whatever `data` says, likewise */
	bool large_ints;
	uint64_t data_seed; /* other data for the same graph */
	bool smooth; /* discrete ops (argmax, floor, compare, casts to int) read only exact values, so
				  * that small errors stay small and backends can be compared end to end */
} cx_random_opts;

/* How a leaf is filled. */
typedef enum cx_fill_rule {
	CX_FILL_UNIFORM,
	CX_FILL_INDEX,
	CX_FILL_OFFSETS,
	CX_FILL_SLOTS,
	CX_FILL_TABLE
} cx_fill_rule;
typedef struct cx_fill {
	cx_fill_rule rule;
	float lo, hi; /* UNIFORM: range (ints: inclusive) */
	int64_t
		n; /* INDEX: 0..n-1, now and then -1 or n;  OFFSETS: ascending from 0 to n;  SLOTS: distinct
			* in 0..n-1, now and then -1;  TABLE: like SLOTS without -1, shared pages allowed */
} cx_fill;

typedef struct cx_rvalue {
	float lo, hi; /* of its elements, as far as the generator knows */
	uint8_t
		prec;   /* 0: exact on every backend; 1, 2, 3: carries rounding errors of f32, f16, bf16 */
	bool avoid; /* not to be picked as an operand */
	cx_fill fill; /* leaves */
} cx_rvalue;

typedef struct cx_random_graph {
	cx_graph *g; /* finished */
	cx_random_opts opts;
	cx_rvalue *v; /* [n_nodes] */
	uint32_t cap_v;
	cx_alloc alloc;
} cx_random_graph;

/* On failure the error names the seed: a bug of the generator or of a shape rule. */
cx_status cx__random_graph(
	const cx_random_opts *opts, const cx_alloc *alloc, cx_random_graph **out, cx_err *err);
/* One node of the op on fresh leaves, through views for strided and broadcast layouts; all its
 * outputs are outputs of the graph ("y0", "y1", ...). */
cx_status cx__random_case(cx_op op, const cx_random_opts *opts, const cx_alloc *alloc,
	cx_random_graph **out, cx_err *err);
void cx__random_graph_free(cx_random_graph *rg);

/* Dense content of leaf `id` (input, weight, state: a state's content before the run); the same for
 * the same seed. */
cx_status cx__random_fill(const cx_random_graph *rg, uint32_t id, void *buf, uint64_t bytes);

/* ---- for fuzz_ops.c and fuzz_patterns.c ------------------------------------------------------ */

typedef struct cx_rgen {
	cx_random_graph *rg;
	cx_graph *g;
	cx_rng rng;
	uint32_t n_seen; /* nodes whose cx_rvalue is made */
	uint32_t n_names;
	bool single; /* cx__random_case */
	bool failed; /* out of memory for values */
} cx_rgen;

enum { CX_WANT_FLOAT = -1, CX_WANT_NUM = -2, CX_WANT_PLAIN = -3 };
/* What an operand must be. rank -1: lo_rank..4; dim -1: any. Zero-initialise, then cx__want(). */
typedef struct cx_want {
	int dtype; /* a cx_dtype or CX_WANT_* */
	int rank, lo_rank;
	int64_t dim[CX_MAX_RANK];
	float lo, hi;
	bool nonempty, exact, fresh, dense;
} cx_want;
cx_want cx__want(int dtype, float lo, float hi); /* any shape */
cx_want cx__want_dims(int dtype, float lo, float hi, int rank, const int64_t *dim);
cx_tensor cx__rg_get(cx_rgen *r, const cx_want *w);

int64_t cx__rg_dim(cx_rgen *r);  /* 1..12, now and then 0 with opts.zeros */
int64_t cx__rg_size(cx_rgen *r); /* never 0 */
/* lo..hi; with opts.edges an edge size, at most `most`. */
int64_t cx__rg_len(cx_rgen *r, int64_t lo, int64_t hi, int64_t most);
cx_dtype cx__rg_dtype(cx_rgen *r, int want);
cx_tensor cx__rg_leaf(
	cx_rgen *r, cx_op kind, cx_dtype dtype, int rank, const int64_t *dim, cx_fill fill);
cx_tensor cx__rg_index(cx_rgen *r, cx_fill_rule rule, int64_t count, int64_t n); /* i32 [count] */
/* A block-format or float weight [n,k]; k must be a multiple of 256 for all formats to be possible.
 */
cx_tensor cx__rg_weight(cx_rgen *r, int64_t n, int64_t k);
/* A version of a state that may be updated, or with no states: any tensor. */
cx_tensor cx__rg_state(
	cx_rgen *r, cx_dtype dtype, int rank, const int64_t *dim, float lo, float hi);
/* Says what is known about t's elements (all outputs of a node have their own). */
cx_tensor cx__rg_range(cx_rgen *r, cx_tensor t, float lo, float hi);
cx_rvalue *cx__rg_value(cx_rgen *r, cx_tensor t);
const cx_desc *cx__rg_desc(const cx_rgen *r, cx_tensor t);
bool cx__rg_chance(cx_rgen *r, int64_t n); /* once in n */

typedef cx_tensor (*cx_fuzz_fn)(cx_rgen *r, cx_op op);
extern const cx_fuzz_fn cx__fuzz_ops[CX_OP_COUNT]; /* proj gives CX_NONE: it is not made alone */
/* A chain that the planner fuses, with or without readers from outside. */
void cx__fuzz_pattern(cx_rgen *r);

#endif
