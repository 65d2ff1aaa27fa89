/* cpu.h - the inside of the cpu backend: a launch as a kernel sees it, the kernel rows, the device.
 *
 * A kernel is void f(const cx_cpu_call *c, cx_cpu_team *t). Every thread of the team calls it, and
 * takes the part of the rows or tiles that belongs to its rank; the threads meet again after the
 * step. What a thread computes for a row never depends on the team's size, on how many rows there
 * are, or on the instruction set: sums run over 16 lanes (element i in lane i mod 16), each in
 * order, and lanes are added by the tree of v16_sum(). Kernels are compiled once per instruction
 * set (backends/cpu/isa); kernels.def lists them, find() and the tests read that list. */
#ifndef CX_CPU_H
#define CX_CPU_H

#include "backends/cpu/isa.h"
#include "backends/cpu/pool.h"
#include "graph/backend.h"

/* An operand with its address; absent: dtype CX_DTYPE_COUNT, p NULL. */
typedef struct cx_cpu_arg {
	cx_desc d;
	char *p;
} cx_cpu_arg;

struct cx_cpu_call;
typedef struct cx_cpu_team {
	uint32_t rank, n; /* this thread; threads in the team */
	cx_pool *pool;    /* for barriers, which all of the team must reach; NULL when n == 1 */
} cx_cpu_team;
typedef void (*cx_cpu_fn)(const struct cx_cpu_call *c, cx_cpu_team *t);

typedef struct cx_cpu_call {
	cx_op op;
	const void *attr;
	const cx_prog *prog;
	cx_cpu_arg *in, *out;
	const cx_desc *desc_in, *desc_out; /* the same descriptions next to each other */
	uint32_t n_in, n_out;
	char *scratch; /* 64-byte aligned, as many bytes as the kernel asked for */
	uint64_t scratch_bytes;
	const void *plan; /* what the kernel's prepare() left in the program's arena */
	const cx_cpu_isa *isa;
	cx_cpu_fn run;
	bool wide; /* worth all threads; else one runs it */
} cx_cpu_call;

/* A kernel row. */
typedef struct cx_cpu_kernel {
	cx_kernel base;
	cx_op op;
	bool (*accept)(const cx_kernel_key *key);
	/* Nanoseconds that one thread needs, roughly: decides how many threads take part. */
	uint64_t (*work)(const cx_kernel_key *key);
	/* Computes from shapes alone what every launch needs; NULL: nothing. *plan lives in a. */
	cx_status (*prepare)(const cx_cpu_call *c, cx_arena *a, const void **plan, cx_err *err);
} cx_cpu_kernel;

/* ORDER KERNEL: the tables of functions per instruction set are in this order. */
enum {
#define CX_CPU_KERNEL(op, name, ...) CX_CPU_K_##op##_##name,
#include "backends/cpu/kernels.def"
#undef CX_CPU_KERNEL
	CX_CPU_N_KERNELS
};
extern const cx_cpu_kernel cx__cpu_kernels[CX_CPU_N_KERNELS];

typedef struct cx_cpu_device {
	cx_device base;
	uint32_t n_threads;
	uint64_t share_ns; /* calls estimated to take longer are shared by all threads; tests set 0 */
	const cx_cpu_isa *isa;
	const cx_cpu_fn *fns; /* [CX_CPU_N_KERNELS] */
	cx_pool *pool;
	uint16_t first[CX_OP_COUNT]; /* first row of each op, CX_CPU_N_KERNELS: none */
} cx_cpu_device;

#define CX_CPU_ISA(isa) extern const cx_cpu_fn cx__cpu_fns_##isa[CX_CPU_N_KERNELS];
CX_CPU_ISA(generic)
CX_CPU_ISA(avx2)
CX_CPU_ISA(avx512)
#undef CX_CPU_ISA

/* ---- shared by kernels ---- */

/* Rows [*lo, *hi) of n that this thread takes: contiguous, in multiples of `grain`. */
static inline void cx_cpu_share(
	const cx_cpu_team *t, int64_t n, int64_t grain, int64_t *lo, int64_t *hi)
{
	int64_t units = (n + grain - 1) / grain;
	*lo = units * t->rank / t->n * grain;
	*hi = units * (t->rank + 1) / t->n * grain;
	if (*lo > n) *lo = n;
	if (*hi > n) *hi = n;
}

/* Element offset of row r, counted row-major over all dims but `skip` (-1: over all of them). */
static inline int64_t cx_cpu_off(const cx_desc *d, int32_t skip, int64_t r)
{
	int64_t off = 0;
	for (int32_t i = d->rank - 1; i >= 0; i--) {
		if (i == skip) continue;
		if (r == 0) break;
		off += r % d->dim[i] * d->stride[i];
		r /= d->dim[i];
	}
	return off;
}

static inline bool cx_cpu_has(const cx_cpu_call *c, uint32_t i)
{
	return i < c->n_in && c->in[i].p != NULL;
}
static inline bool cx_cpu_is_float(cx_dtype t)
{
	return t == CX_F32 || t == CX_F16 || t == CX_BF16;
}
static inline bool cx_cpu_is_int(cx_dtype t)
{
	return t == CX_I32 || t == CX_I64 || t == CX_U8 || t == CX_I8;
}
static inline uint32_t cx_cpu_size(cx_dtype t)
{
	return (uint32_t)cx_dtype_get(t)->block_bytes;
} /* plain dtypes */

#endif
