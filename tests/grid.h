/* grid.h - the test grid: op x dtype x layout x sizes x data x backend, against the reference.
 *
 * grid_case.c makes the cases from the rows of ops.def; grid_run.c runs one as a step of a device
 * on guarded memory; grid_models.c has whole graphs; test_grid.c walks over all of them. Nothing
 * here uses cmocka: it runs in child processes. */
#ifndef CX_TESTS_GRID_H
#define CX_TESTS_GRID_H

#include "graph/backend.h"
#include "tests/harness.h"

/* ---- cases ----------------------------------------------------------------------------------- */

/* Per op: 3 float dtypes x 4 layouts x (4 kinds of data on small sizes, 4 on edge sizes, 1 with
 * dims of 0). */
enum {
	GRID_PER_GRAPH = 4,
	GRID_PER_GROUP = 2 * GRID_PER_GRAPH + 1,
	GRID_CASES = 12 * GRID_PER_GROUP
};

typedef struct grid_case {
	cx_op op;
	int index; /* 0..GRID_CASES-1 */
	cx_random_graph *rg;
	uint32_t node; /* under test; UINT32_MAX: the generator made another op of it */
	cx_values want;
	char what[80]; /* "f16 strided, edge sizes, large" */
} grid_case;

/* False for leaves and what is not made alone. */
bool grid_is_run(cx_op op);
/* Makes case `index`; *c is zero or holds the case before it, whose graph is used again where only
 * the data differ. seed: 0, or others for other cases. */
cx_status grid_case_make(grid_case *c, cx_op op, int index, uint64_t seed, cx_err *err);
void grid_case_free(grid_case *c);

/* ---- devices and runs ------------------------------------------------------------------------ */

enum { GRID_MAX_COLUMNS = 12 };
typedef struct grid_device {
	const char *backend;
	char label[24];
	cx_runtime *rt;
	cx_device *dev;
	cx_buffer *mem; /* slab of all runs; grows */
	unsigned char *image, *after;
	uint64_t cap;
	uint32_t n_warnings; /* logged by the device: what a validation layer says, above all */
} grid_device;
/* isa: of a cpu, else NULL. share_ns of a cpu is set to 0, so that even small steps use threads.
 * validate: as in cx_config; every warning is then a FAIL of the case that made it. d must stay
 * where it is until it is closed. */
cx_status grid_device_open(
	grid_device *d, const char *backend, const char *isa, int n_threads, int validate, cx_err *err);
void grid_device_close(grid_device *d);

typedef enum grid_verdict { GRID_NONE, GRID_PASS, GRID_PLAN, GRID_FAIL } grid_verdict;

/* The outputs of a step, dense, for bit comparisons. */
typedef struct grid_bits {
	uint32_t n_out;
	unsigned char *out[CX_MAX_OUT];
	uint64_t bytes[CX_MAX_OUT];
} grid_bits;
void grid_bits_free(grid_bits *b);

/* Runs the node under test as one step; then in place of every operand that the kernel allows.
 * Around every operand, and the scratch, are guards; operands must stay as they were; outputs are
 * poisoned before. Where find() knows no kernel, the graph is planned, so that legalisation can
 * help: GRID_PLAN. GRID_NONE: neither; `why` says so, as it says what is wrong after GRID_FAIL.
 * bits: NULL, or gets the outputs of a pass. */
grid_verdict grid_case_run(
	grid_device *d, const grid_case *c, grid_bits *bits, char *why, size_t why_size);
bool grid_bits_same(
	const grid_case *c, const grid_bits *a, const grid_bits *b, char *why, size_t n);

/* ---- whole graphs ---------------------------------------------------------------------------- */

typedef struct grid_model {
	const char *name;
	void (*build)(cx_graph *g);
} grid_model;
extern const grid_model grid_models[]; /* name == NULL ends them */
/* Runs it planned, fused or not, twice in a row, against the reference. */
grid_verdict grid_model_run(
	grid_device *d, const grid_model *m, bool no_fuse, char *why, size_t why_size);

#endif
