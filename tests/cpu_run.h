/* cpu_run.h - runs one node of a graph as one step of a device, on given operands. For tests of
 * backends. */
#ifndef CX_TESTS_CPU_RUN_H
#define CX_TESTS_CPU_RUN_H

#include "graph/backend.h"

/* Values of all nodes of a graph, dense, as the reference computes them. */
typedef struct step_values {
	const cx_graph *g;
	void **value;    /* [n_nodes] */
	uint64_t *bytes; /* [n_nodes] */
	/* Content of leaf `id` into buf. */
	void (*fill)(void *ctx, uint32_t id, void *buf, uint64_t bytes);
	void *ctx;
	void *tmp; /* leaf being read */
} step_values;
/* Evaluates g with cx__ref_eval(); fails the test on error. */
void step_values_make(
	step_values *v, const cx_graph *g, void (*fill)(void *, uint32_t, void *, uint64_t), void *ctx);
void step_values_free(step_values *v);

/* The outputs of one run, dense. */
typedef struct step_result {
	const cx_kernel *kernel; /* NULL: the device has none, even with dense operands */
	bool copied;             /* operands had to be made dense */
	uint32_t n_out;
	void *out[CX_MAX_OUT];
	uint64_t bytes[CX_MAX_OUT];
} step_result;

enum { STEP_DENSE = 1 /* offer dense operands at once */ };
/* Runs node `id` on the values of its operands. inplace >= 0: output 0 takes over the bytes of that
 * operand (result's kernel is NULL if that does not apply). Bytes around every output must stay as
 * they are, or the test fails. */
void step_run(
	cx_device *dev, const step_values *v, uint32_t id, int inplace, int flags, step_result *r);
void step_result_free(step_result *r);

/* Mean square of the difference over the mean square of want; INFINITY if NaN or infinities are not
 * in the same places, or anything differs in an integer dtype. */
double step_nmse(cx_dtype dtype, const void *want, const void *got, int64_t n);
/* Same values bit for bit, NaN payloads aside; the first difference goes to *at. */
bool step_same(cx_dtype dtype, const void *a, const void *b, int64_t n, int64_t *at);

#endif
