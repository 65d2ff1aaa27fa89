/* plan_run.h - runs a planned graph beside the unplanned reference, twice in a row, and compares
 * outputs and states. For tests of the planner. */
#ifndef CX_TESTS_PLAN_RUN_H
#define CX_TESTS_PLAN_RUN_H

#include "graph/plan.h"

/* Dense content of leaf `id` before the first run; false fails the run. */
typedef bool plan_fill(void *ctx, uint32_t id, void *buf, uint64_t bytes);

/* What the reference gives for two runs in a row, the second from the states of the first. */
typedef struct plan_want {
	const cx_graph *g;
	uint64_t *bytes; /* [n_nodes] */
	bool *narrow;    /* [n_nodes] f16 or bf16, or computed from such */
	void **leaf;     /* [n_nodes] inputs, weights, states before the first run */
	void **out[2];   /* [n_outputs] */
	void **state[2]; /* [n_nodes] by leaf, after the run */
	int run;
} plan_want;
cx_status plan_want_make(const cx_graph *g, plan_fill *fill, void *ctx, plan_want *w, cx_err *err);
void plan_want_free(plan_want *w);

typedef struct plan_check {
	cx_plan_opts opts;
	double tol;        /* NMSE of f32 outputs; 0: the same bits (any NaN is any NaN) */
	double tol_narrow; /* of f16 and bf16 outputs, and of what is computed from such; 0: tol */
	double floor;      /* see cx__is_inside */
} plan_check;
/* Plans w->g, runs it twice and compares with w. *out_plan (may be NULL) gets the plan; the caller
 * frees it. Where the plan has fusions that change rounding, bits are not asked for: see
 * plan_is_exact(). */
cx_status plan_run_check(
	const plan_want *w, cx_runtime *rt, const plan_check *c, cx_plan **out_plan, cx_err *err);
/* No fusion of the plan changes where values are rounded. */
bool plan_is_exact(const cx_plan *p);
uint32_t plan_count(const cx_plan *p, cx_op op);               /* steps of this op */
uint32_t plan_count_fused(const cx_plan *p, cx_fusion fusion); /* steps made by it */
bool plan_missed(const cx_plan *p, cx_fusion fusion, cx_reason why);

/* A `ref` device that lacks some ops and, if asked, refuses operands that are not dense. One at a
 * time. */
typedef struct plan_cripple {
	bool lacks[CX_OP_COUNT];
	bool wants_dense;
} plan_cripple;
cx_device *plan_cripple_open(
	cx_runtime *rt, plan_cripple *what); /* NULL on failure; cx_device_close() it */

#endif
