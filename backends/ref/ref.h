/* ref.h - the inside of the reference backend: element access, walks over strided operands, the
 * kernel table.
 *
 * Every kernel is void cx__ref_<op>(const cx__ref_call *c), one per row of ops.def, checked at link
 * time. A kernel reads operands of any strides through the readers below, computes in double (or
 * exact integers), and rounds once when it writes. Operands and outputs come with their addresses
 * resolved; an absent operand has p == NULL and dtype CX_DTYPE_COUNT. Kernels take their temporary
 * memory from c->scratch (cx__ref_scratch bytes), never from an allocator. Shapes were checked by
 * the shape rules; values (indices, offsets) were not, so kernels check them. */
#ifndef CX_REF_H
#define CX_REF_H

#include "graph/backend.h"

typedef struct cx__ref_arg {
	cx_desc d;
	unsigned char *p; /* element 0; NULL: absent */
} cx__ref_arg;

typedef struct cx__ref_call {
	cx_op op;
	const void *attr;
	const cx_prog *prog;
	const cx__ref_arg *in, *out;
	uint32_t n_in, n_out;
	void *scratch; /* 16-byte aligned, cx__ref_scratch() bytes */
} cx__ref_call;

typedef void cx__ref_fn(const cx__ref_call *c);

extern const cx_backend cx__backend_ref;

/* Kernel of each op; NULL for leaves and proj, which are not computed. */
extern cx__ref_fn *const cx__ref_fns[CX_OP_COUNT];
#define CX_OP(name, ...) cx__ref_fn cx__ref_##name;
#include "graph/ops.def"
#undef CX_OP
/* Scratch bytes of a call with this key. */
uint64_t cx__ref_scratch(const cx_device *dev, const cx_kernel_key *key);

/* ---- elements (elem.c) ---- */

/* Integers are computed in 128 bits, so that no operation on 64-bit operands overflows before it is
 * wrapped. */
typedef __int128 cx__ref_int;

static inline bool cx__ref_has(const cx__ref_call *c, uint32_t i)
{
	return i < c->n_in && c->in[i].p != NULL;
}
static inline bool cx__ref_is_float(cx_dtype t)
{
	return t <= CX_BF16;
}
/* Element at `off` (elements) as double; integers and bools convert exactly up to 2^53. Plain
 * dtypes and blocks. */
double cx__elem_get(const cx__ref_arg *a, int64_t off);
/* Element of an integer or bool dtype. */
int64_t cx__elem_int(const cx__ref_arg *a, int64_t off);
/* Rounds to nearest even to a float dtype; floats saturate into integer dtypes, NaN gives 0; bool:
 * v != 0. */
void cx__elem_put(const cx__ref_arg *a, int64_t off, double v);
/* Wraps to an integer dtype; bool: v != 0; to a float dtype: nearest. */
void cx__elem_put_int(const cx__ref_arg *a, int64_t off, cx__ref_int v);
/* v as it reads back after being stored as this float dtype. */
double cx__elem_round(cx_dtype t, double v);
/* n elements from off on, `stride` apart, widened to dst. */
void cx__elem_row(const cx__ref_arg *a, int64_t off, int64_t stride, int64_t n, double *dst);
/* Float to integer: truncated, saturated to the dtype's range, NaN gives 0. */
int64_t cx__elem_saturate(cx_dtype t, double v);
/* An element of any dtype to any dtype, as the op `cast` says. */
void cx__elem_move(
	const cx__ref_arg *dst, int64_t dst_off, const cx__ref_arg *src, int64_t src_off);

/* ---- walks (elem.c) ---- */

/* Visits an index space in row-major order and keeps an element offset per attached operand. */
enum { CX__REF_WALK = CX_PROG_MAX_IN + CX_MAX_OUT };
typedef struct cx__ref_walk {
	int32_t rank, n;
	int64_t dim[CX_MAX_RANK], at[CX_MAX_RANK];
	int64_t stride[CX__REF_WALK][CX_MAX_RANK];
	int64_t off[CX__REF_WALK]; /* of each operand, in order of attachment */
} cx__ref_walk;

/* Starts at index 0; returns false if the space is empty. */
bool cx__walk_init(cx__ref_walk *w, int32_t rank, const int64_t *dim);
/* Adds an operand, aligned at the last axis; dims of 1 are broadcast. */
void cx__walk_add(cx__ref_walk *w, const cx_desc *d);
bool cx__walk_next(cx__ref_walk *w);
/* Offset of row-major index i in d. */
int64_t cx__elem_offset(const cx_desc *d, int64_t i);

/* ---- shared pieces ---- */

/* Columns of a matmul's b that are widened at once, so that each row of a is read that many times
 * less. */
enum { CX__REF_COLS = 8 };

/* Bytes of a dense tensor of these dims and dtype. */
uint64_t cx__ref_bytes(const cx_desc *d);
/* One element of a unary op on floats, not rounded (map.c); act 0 gives v. */
double cx__ref_unary(cx_op op, double v);
/* Carves n bytes off a scratch pointer, keeping it aligned to 64. */
static inline void *cx__ref_take(void **at, uint64_t n)
{
	void *p = *at;
	*at = (unsigned char *)p + ((n + 63) & ~(uint64_t)63);
	return p;
}
/* Philox4x32-10: out = f(counter, key) (gen.c). */
void cx__ref_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
