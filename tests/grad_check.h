/* grad_check.h - gradients against central differences in double, f32 and 16-bit runs against
 * those, and every backend against the reference. A case builds its forward graph on a grad_case;
 * all that is checked follows from that. For tests. */
#ifndef CX_TESTS_GRAD_CHECK_H
#define CX_TESTS_GRAD_CHECK_H

#include "tests/rng.h"

#include "graph/backend.h"

/* How leaves become operands: as they are, through a permute, as every second element of something
 * larger, spread from size 1 along the first axis. */
typedef enum grad_layout {
	GRAD_DENSE,
	GRAD_PERMUTED,
	GRAD_SLICED,
	GRAD_SPREAD,
	GRAD_LAYOUTS
} grad_layout;

enum { GRAD_LEAVES = 16 };
typedef struct grad_case {
	cx_graph *g;
	const char *name;
	cx_dtype dtype;     /* of floats made by grad_leaf() */
	grad_layout layout; /* GRAD_DENSE for states */
	bool no_spread;     /* set by a case that compares elements: equal ones have no derivative */
	uint32_t n;         /* leaves */
	struct {
		cx_tensor t;
		bool wrt;
		double *v; /* content; integers and bools too */
		int64_t size;
	} leaf[GRAD_LEAVES];
	cx_tensor loss;
	uint64_t n_mixed;
} grad_case;
typedef void grad_build(grad_case *k);

#define GD(...)                                                                                    \
	cx_list_from((int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[]){__VA_ARGS__})

/* A float operand, differentiated. Its elements are all different (at least at first, in f32). */
cx_tensor grad_leaf(grad_case *k, double lo, double hi, cx_list dims);
cx_tensor grad_leaf_f32(grad_case *k, double lo, double hi, cx_list dims); /* f32 in any case */
cx_tensor grad_state(grad_case *k, cx_dtype dtype, double lo, double hi, cx_list dims);
/* Not differentiated. values: in a row, repeated as needed. */
cx_tensor grad_ints(grad_case *k, cx_list dims, const int *values, int n_values);
cx_tensor grad_bools(grad_case *k, cx_list dims, const int *values, int n_values);
#define GRAD_VALUES(...)                                                                           \
	(const int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))
/* Adds sum(y * something random) to the loss. */
void grad_mix(grad_case *k, cx_tensor y);

typedef struct grad_row {
	const char *name;
	grad_build *build;
	bool f32_only; /* no 16-bit runs */
} grad_row;

/* Marks in `covered` the ops whose rules the case used. Fails the test with a sentence. */
void grad_check_differences(const grad_row *row, grad_layout layout, bool covered[CX_OP_COUNT]);
/* 16-bit runs on the reference against f32. */
void grad_check_narrow(const grad_row *row, cx_dtype dtype, double tol);
/* All cases as one graph with losses and gradients as outputs, planned for devs[0] (the others are
 * for what it lacks), against the reference. */
void grad_check_device(const grad_row *rows, uint32_t n_rows, cx_runtime *rt,
	cx_device *const *devs, uint32_t n_devs, grad_layout layout, bool no_fuse);

#endif
