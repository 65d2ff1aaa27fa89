/* wide.h - graphs evaluated in double, for finite differences: the reference backend compiled with
 * double in place of f32 (tests/wide_ref.h). f32 tensors are given and come out as doubles. */
#ifndef CX_TESTS_WIDE_H
#define CX_TESTS_WIDE_H

#include "graph/backend.h"

/* Content of a leaf: doubles for f32, else the dtype's bytes. NULL fails the run. */
typedef const void *wide_leaf(void *ctx, const cx_graph *g, uint32_t id);
/* Content of a node, dense, likewise. */
typedef void wide_node(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes);

/* g: f32, integers and bools only; an error otherwise. state (may be NULL): as in cx_ref_io. */
cx_status wide_eval(
	const cx_graph *g, wide_leaf *leaf, wide_node *node, wide_node *state, void *ctx, cx_err *err);
/* 8 for f32. */
uint64_t wide_bytes(const cx_desc *d);

#endif
