/* harness.h - comparing tensors, and running random graphs: the reference, and plans against it. */
#ifndef CX_TESTS_HARNESS_H
#define CX_TESTS_HARNESS_H

#include "graph/backend.h"
#include "tests/random_graph.h"

/* ---- comparison -------------------------------------------------------------------------------
 */

typedef struct cx_close {
	double nmse; /* sum (got-want)^2 / max(sum want^2, n * floor^2), over finite elements */
	int64_t
		n_odd;  /* NaN or infinities not in the same place with the same sign; ints that differ */
	int64_t at; /* the worst element */
	double want, got;
} cx_close;

/* True if got is inside tol: floats by NMSE, integers and bools exactly. n dense elements of a
 * plain dtype. tol 0: equal values (any NaN equals any NaN, 0 equals -0). floor: a tensor whose
 * root mean square is below it is judged as if it had that. Fills *out, which may be NULL. */
bool cx__is_inside(cx_dtype dtype, int64_t n, const void *want, const void *got, double tol,
	double floor, cx_close *out);

/* ---- values of a whole graph --------------------------------------------------------------------
 */

typedef struct cx_values {
	cx_alloc alloc;
	uint32_t n;
	void **leaf;     /* [n] content of inputs, weights and states before the run */
	void **node;     /* [n] dense value of every node; NULL before the run */
	void **state;    /* [n] by state leaf: content after the run */
	uint64_t *bytes; /* [n] of a node's dense value */
} cx_values;

/* Evaluates rg with cx__ref_eval on the data that cx__random_fill gives. */
cx_status cx__harness_reference(
	const cx_random_graph *rg, const cx_alloc *alloc, cx_values *out, cx_err *err);
void cx__values_free(cx_values *v);

/* ---- plans --------------------------------------------------------------------------------------
 */

typedef struct cx_plan_check {
	cx_device *const *devices;
	uint32_t n_devices;
	bool allow_fallback, no_fuse;
	bool same_bits; /* outputs and states must equal the reference's: for plans on `ref` */
	const cx_tol
		*tol;     /* by output dtype; NULL: by how much error the value may carry (cx_rvalue) */
	double floor; /* see cx__is_inside; 0: 1e-3 */
} cx_plan_check;

/* Plans rg with verify on, runs it twice from the same states, and compares every output and every
 * state with want; the second run must repeat the first bit for bit. The error names what differs,
 * or is the planner's. stats may be NULL. */
cx_status cx__harness_plan(cx_runtime *rt, const cx_random_graph *rg, const cx_values *want,
	const cx_plan_check *check, cx_plan_stats *stats, cx_err *err);

#endif
