/* diff_leaves.h - what the leaves of a graph hold for `cortex diff`: files, a model, or numbers
 * from a seed. */
#ifndef CX_SERVE_DIFF_LEAVES_H
#define CX_SERVE_DIFF_LEAVES_H

#include "graph/graph.h"

typedef struct cx_leaves {
	cx_graph *g; /* owned */
	cx_arena arena;
	const void **data; /* [n_nodes] by leaf */
	struct cx_llm *model;
	struct cx_cortex *decoder; /* in place of model */
	uint32_t n_files, n_seeded;
} cx_leaves;

typedef struct cx_leaves_args {
	const char *model, *graph, *prompt, *inputs;
	uint64_t seed;
} cx_leaves_args;

/* Opens the graph, or builds the model's for the prompt (or 8 seeded tokens; a Cortex decoder's for
 * one window of 64 events), and finds every leaf's content: an NPY file of that name in `inputs`,
 * else what the graph itself carries ("data.NAME"), else the model, else seeded numbers; states
 * without a file start as zeros. */
cx_status cx__leaves_open(const cx_leaves_args *a, cx_leaves *out, cx_err *err);
void cx__leaves_close(cx_leaves *l); /* zeroed is fine */

#endif
