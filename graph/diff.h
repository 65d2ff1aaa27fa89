/* diff.h - where two backends part: one graph on several devices, node by node, against the
 * reference.
 *
 * Three looks at each device. NODE: every node alone, fed with the reference's values, so that an
 * error is charged to the node that makes it. FUSED: every fused step of the device's plan, its
 * members planned alone and fed the same way; its members' own rows say which of them is wrong.
 * WHOLE: the whole graph unfused with every value read back: how far errors grew, and, where a
 * value is out of tolerance, whether the reference gives the same from the device's own operands
 * (if not, the run itself is at fault: memory, order, barriers).
 *
 * A value is inside if its normalised mean square error is at most the row's tolerance times scale,
 * or no larger than what a last-bit change of the operands does to the reference (sums that
 * cancel). NaN and infinities must be in the same places. EXACT rows ask for equal values. */
#ifndef CX_DIFF_H
#define CX_DIFF_H

#include "graph/backend.h"

typedef struct cx_metric {
	double nmse;             /* over the elements that are finite in both */
	double max_abs, max_rel; /* largest |got-want|, and that over |want| */
	uint64_t max_ulp;        /* in units of the dtype; integers: the difference */
	int64_t n, n_bad;        /* elements; those out of bounds by themselves */
	int64_t first_bad;       /* index in row-major order; -1 */
	double want, got;        /* there */
	int64_t nan_want, nan_got, inf_want, inf_got;
	int64_t n_odd; /* NaN or infinity not in the same place, integers that differ */
	bool inside;
} cx_metric;

/* n dense elements of a plain dtype; tol is an NMSE, slack a mean square error that passes anyway.
 */
void cx__metric(cx_dtype dtype, int64_t n, const void *want, const void *got, double tol,
	double slack, cx_metric *out);

typedef enum cx_diff_kind { CX_DIFF_NODE, CX_DIFF_FUSED, CX_DIFF_WHOLE } cx_diff_kind;
typedef struct cx_diff_row {
	uint32_t node; /* source node; FUSED: the last of its members */
	uint32_t dev;
	uint8_t kind;
	bool bad;
	bool refused;     /* the device has no kernel; metric is empty */
	uint8_t fusion;   /* FUSED: cx_fusion */
	uint8_t out;      /* which output of the node is worst */
	uint32_t n_alone; /* FUSED: how many members are out of tolerance alone */
	uint32_t n_member;
	const uint32_t *member; /* FUSED: source nodes, ascending */
	double tol;
	cx_metric m;
	double grown; /* NODE, WHOLE: NMSE in the whole run; -1: not known */
} cx_diff_row;

typedef struct cx_diff_opts {
	cx_device *const *devices;
	uint32_t n_devices;
	/* [n_devices] where what a device lacks runs in its fused steps and whole runs; a node alone is
	 * refused in any case. NULL: nowhere, then both are not possible. */
	cx_device *const *fallback;
	double tol_scale; /* 0: 1 */
	bool no_fused, no_whole;
	/* Dense content of an input, weight or state leaf; valid until cx__diff_free(). */
	const void *(*leaf)(void *ctx, const cx_graph *g, uint32_t id);
	void *ctx;
	cx_alloc alloc; /* zero: malloc */
} cx_diff_opts;

typedef struct cx_diff {
	cx_arena arena;
	const cx_graph *g;
	cx_diff_opts opts;
	const void **value; /* [n_nodes] the reference's, of roots */
	cx_diff_row *rows;  /* by device, node, kind */
	uint32_t n_rows, cap_rows;
	uint32_t n_bad, n_refused;
	const cx_diff_row *first; /* the first in graph order that is bad; NULL: none */
	cx_err *notes;            /* [n_devices] why a look was not possible; code 0: it was */
	uint32_t n_plans;         /* single-node plans made, all devices */
} cx_diff;

/* g must be finished and outlive the result. A failure here is no difference: the reference cannot
 * run, or memory is out. */
cx_status cx__diff_run(const cx_graph *g, const cx_diff_opts *opts, cx_diff **out, cx_err *err);
void cx__diff_free(cx_diff *d);

/* The smallest graph found that still fails on the row's device as the row does; finished, to be
 * freed. It carries its operands: leaf `x` has its bytes in a u8 const labelled "data.x". */
cx_status cx__diff_reduce(const cx_diff *d, const cx_diff_row *row, cx_graph **out, cx_err *err);
/* Bytes of such a const for a leaf; NULL if there is none of the right size. */
const void *cx__diff_data(const cx_graph *g, uint32_t leaf);

/* Seeded content for a leaf: floats near 1 and less, integers that its readers can take (indices
 * inside, offsets ascending). */
void cx__diff_fill(const cx_graph *g, uint32_t leaf, uint64_t seed, void *buf, uint64_t bytes);

/* ---- parts, for diff*.c ---- */

/* Some nodes of a graph as a graph of their own; what they read becomes leaves "i0", "i1" .... */
typedef struct cx_probe {
	cx_graph *g;
	uint32_t n_leaf, n_out;
	uint32_t *leaf;     /* [n_leaf] id in g, */
	uint32_t *leaf_src; /* whose value it holds: id in the source */
	uint32_t *out_src;  /* [n_out] output "o<i>" is this tensor of the source */
} cx_probe;
enum {
	CX_PROBE_KINDS = 1,  /* weights, consts and updated states stay such; else all are inputs */
	CX_PROBE_LABELS = 2, /* nodes keep their names, for people */
	CX_PROBE_ALL = 4     /* every value is an output, else those that others read */
};
typedef struct cx_prober {
	const cx_graph *src;
	const cx_alloc *alloc;
	uint32_t *to, *stamp, *chain; /* [n_nodes] */
	uint32_t now;
	uint32_t *reader_start, *reader; /* nodes that read a root, ascending */
	cx_arena arena, tmp;             /* tmp holds the latest probe's arrays */
} cx_prober;
cx_status cx__prober_init(cx_prober *p, const cx_graph *src, const cx_alloc *alloc, cx_err *err);
void cx__prober_deinit(cx_prober *p);
/* member: source nodes, ascending, no views or proj. out->g is the caller's; the arrays live until
 * the next call. */
cx_status cx__probe_build(
	cx_prober *p, const uint32_t *member, uint32_t n_member, int flags, cx_probe *out, cx_err *err);

/* Planned probes of one device, by their text. */
typedef struct cx_probe_cache cx_probe_cache;
/* fallback may be NULL. */
cx_status cx__probe_cache_create(
	cx_device *dev, cx_device *fallback, const cx_alloc *alloc, cx_probe_cache **out, cx_err *err);
void cx__probe_cache_free(cx_probe_cache *c);
uint32_t cx__probe_cache_plans(const cx_probe_cache *c);
/* Runs a probe, whose graph it takes over; on the fallback, too, if it may. value(ctx, id of the
 * source) gives operands; take gets the outputs in order. */
typedef struct cx_probe_io {
	void *ctx;
	const void *(*value)(void *ctx, uint32_t src);
	void (*take)(void *ctx, uint32_t src, const void *data, uint64_t bytes);
} cx_probe_io;
enum { CX_RUN_FUSE = 1, CX_RUN_FALLBACK = 2 };
cx_status cx__probe_run(
	cx_probe_cache *c, cx_probe *p, int how, const cx_probe_io *io, cx_err *err);

#endif
