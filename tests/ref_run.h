/* ref_run.h - builds a graph on given numbers, evaluates it with cx__ref_eval(), reads any node.
 * For tests. */
#ifndef CX_REF_RUN_H
#define CX_REF_RUN_H

#include "graph/backend.h"

enum { REF_RUN_MAX = 1024 }; /* nodes */

typedef struct ref_run {
	cx_graph *g;
	void *leaf[REF_RUN_MAX];  /* content of leaves, dense */
	void *value[REF_RUN_MAX]; /* of every node, after eval */
	uint64_t bytes[REF_RUN_MAX];
	void *last[REF_RUN_MAX]; /* by state leaf: its content after the run */
	uint32_t n_leaves;
} ref_run;

#define DIMS_(...)                                                                                 \
	cx_list_from((int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[]){__VA_ARGS__})
#define NUMS(...) ((const double[]){__VA_ARGS__})

void ref_run_start(ref_run *r);
/* Leaves of these numbers, rounded to the dtype; v NULL: zeros. */
cx_tensor ref_run_in(ref_run *r, cx_dtype dtype, cx_list dims, const double *v);
cx_tensor ref_run_state(ref_run *r, cx_dtype dtype, cx_list dims, const double *v);
/* An input, or a weight, of these dense bytes. */
cx_tensor ref_run_bytes(ref_run *r, bool weight, cx_dtype dtype, cx_list dims, const void *data);
/* Fails the test, with the graph's message, if the graph or the run failed. */
void ref_run_eval(ref_run *r);
cx_status ref_run_try(ref_run *r, const cx_alloc *alloc, cx_err *err);
/* Element i (row-major) of a node's value. */
double ref_run_get(const ref_run *r, cx_tensor t, int64_t i);
void ref_run_end(ref_run *r);

/* One number of a dtype to and from double, by the conversions of graph/quant.h. */
double number_get(cx_dtype dtype, const void *p, int64_t i);
void number_put(cx_dtype dtype, void *p, int64_t i, double v);

/* Inside abs + rel * |want|; NaN matches NaN alone, an infinity itself. */
bool is_close(double want, double got, double rel, double abs);
/* Fails the test unless the first n elements of t are close to want. */
void ref_run_expect(
	const ref_run *r, cx_tensor t, const double *want, int64_t n, double rel, double abs);
#define EXPECT(r, t, rel, ...)                                                                     \
	ref_run_expect(r, t, NUMS(__VA_ARGS__), (int64_t)(sizeof NUMS(__VA_ARGS__) / 8), rel, rel)

#endif
