/* plan_graphs.h - hand-made graphs for the planner's tests: each fusion pattern, legal and not, and
 * model-like ones. */
#ifndef CX_TESTS_PLAN_GRAPHS_H
#define CX_TESTS_PLAN_GRAPHS_H

#include "tests/plan_run.h"

/* A graph of one pattern. `variant` 0 is legal; the others break one condition each. */
typedef struct plan_case {
	const char *name;
	void (*build)(cx_graph *g, int variant);
	cx_fusion fusion;
	struct {
		const char *what;
		uint32_t n_fused; /* steps made by the fusion */
		int miss;         /* cx_reason that is recorded, or -1 */
	} want[5];            /* by variant; what == NULL ends them */
} plan_case;
extern const plan_case plan_cases[]; /* name == NULL ends them */

/* Decoder-only transformer, one bucket: `tokens` rows, caches as states. */
typedef struct plan_model {
	int layers, tokens, width, heads, kv_heads, hidden, slots;
} plan_model;
void plan_build_model(cx_graph *g, const plan_model *m);
/* n nodes of mixed kinds: chains, branches, products, reductions. */
void plan_build_mixed(cx_graph *g, uint32_t n);

/* Leaves: f32 in [-1, 1), i32 mostly i mod 3, bytes 0 and 1 for other dtypes; the same for the same
 * id. ctx is the graph. */
bool plan_fill_leaf(void *ctx, uint32_t id, void *buf, uint64_t bytes);

#endif
