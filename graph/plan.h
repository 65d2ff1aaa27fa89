/* plan.h - the inside of a cx_plan: the planner's own copy of a graph, which its passes rewrite.
 *
 * Tensors 0..g->n_nodes-1 are the source graph's, by the same ids; passes append more. A tensor is
 * a root (it owns storage: a leaf, or output of a node) or a view (dims, strides and an offset into
 * a root): views are not nodes. Nodes are what will be launched. Their ids are stable; `order` is
 * the run order, and pos its inverse. A fused node keeps the source nodes that it covers in
 * `origin`. Everything lives in the plan's arena except the arrays that grow; `tmp` is emptied
 * after every pass. */
#ifndef CX_PLAN_H
#define CX_PLAN_H

#include "graph/backend.h"

#define CX_NO UINT32_MAX

/* Why a step is what it is; explain prints the sentences. */
#define CX_REASONS(X)                                                                              \
	X(PLAIN, "as the graph says")                                                                  \
	X(DENSE, "copy: the kernel wants a dense operand")                                             \
	X(RESHAPE, "copy: these strides cannot express the reshape")                                   \
	X(RULE, "simpler op in place of one that has no kernel here")                                  \
	X(DEVICE, "copy between devices")                                                              \
	X(FALLBACK, "fallback: no kernel on the first device")                                         \
	X(OLD_STATE, "copy: an old version is read after its update")                                  \
	X(KEEP_DST, "copy: the update would destroy what is read later")                               \
	X(SELF_READ, "copy: the update reads what it overwrites")                                      \
	X(OUTPUT, "copy to the output's own buffer")                                                   \
	X(ELIDED, "writes straight into the state")                                                    \
	X(FUSED, "fused")                                                                              \
	X(MISS_READER, "an inner value has another reader")                                            \
	X(MISS_OUTPUT, "an inner value is an output or a state")                                       \
	X(MISS_ORDER, "it would have to run both before and after another")                            \
	X(MISS_KERNEL, "the device has no kernel for it")                                              \
	X(MISS_SHAPE, "shapes or dtypes do not fit")                                                   \
	X(MISS_MASK, "a row of the mask may see nothing, or is not known")                             \
	X(MISS_LIMIT, "too many operands or instructions")
typedef enum cx_reason {
#define X(name, text) CX_WHY_##name,
	CX_REASONS(X)
#undef X
		CX_WHY_COUNT
} cx_reason;
const char *cx__reason_text(cx_reason why);

typedef enum cx_fusion {
	CX_FUSION_none,
#define CX_FUSION(name, why) CX_FUSION_##name,
#include "graph/fusions.def"
#undef CX_FUSION
	CX_FUSION_COUNT
} cx_fusion;
const char *cx__fusion_name(cx_fusion f);
const char *cx__fusion_why(cx_fusion f);

enum { CX_LEAF_NONE = 255 };
typedef struct cx_ptensor {
	cx_desc desc;
	int64_t view_off; /* elements from the start of root */
	uint32_t root;    /* itself, or the root that it views */
	uint32_t src;     /* the source tensor that this is, or CX_NO */
	uint32_t def; /* roots: node that writes it; CX_NO for leaves and for what has become unused */
	uint32_t state;    /* roots: index of the state whose version this is, else CX_NO */
	uint32_t prev;     /* roots that are a version of a state: the one before; else CX_NO */
	uint32_t same_as;  /* roots made by the attention pattern: a view whose elements it holds in
						  order; CX_NO */
	uint32_t mem;      /* roots, after memory: index of its storage */
	uint8_t leaf;      /* roots: CX_OP_input, weight, const or state; CX_LEAF_NONE */
	uint8_t dev;       /* roots with a def, and states: device that holds it */
	uint8_t is_output; /* roots: some output reads it */
	uint8_t trusted; /* constants: folded, the source's value by name. Others: 1 rewritten by rule,
						2 and noted in expr */
	uint64_t
		expr[2]; /* what the rule computes, as verify_values.c numbers it, from its first look on */
	const void *data; /* const: dense bytes */
} cx_ptensor;

enum { CX_PNODE_DEAD = 1, CX_PNODE_XDEV = 2 /* copy between devices, done by the executor */ };
typedef struct cx_pnode {
	uint16_t op;
	uint8_t flags, dev, fusion, reason, n_out;
	int8_t
		inplace; /* operand whose bytes output 0 takes over without being an alias of the row; -1 */
	uint32_t n_in;
	uint32_t *in; /* [n_in] tensors, CX_NO where absent */
	uint32_t out[CX_MAX_OUT];
	void *attr;
	const cx_prog *prog;
	const cx_kernel *kernel;
	uint32_t *origin; /* [n_origin] source nodes that it covers; NULL: src alone */
	uint32_t n_origin;
	uint32_t src;  /* source node that it ends with, or for which it was inserted */
	uint32_t pos;  /* index in order */
	uint32_t into; /* dead: node that took it over, or CX_NO */
	uint32_t mark;
	uint64_t key;     /* schedule: smaller runs first, where dependencies leave the choice */
	uint64_t scratch; /* bytes, after memory */
	uint32_t scratch_mem;
} cx_pnode;

typedef struct cx_pstate {
	uint32_t leaf, last;
	uint8_t dev;
} cx_pstate; /* tensors: leaf and last version */
typedef struct cx_pout {
	const char *name;
	uint32_t t;
} cx_pout;
typedef struct cx_miss {
	uint32_t src;
	uint8_t fusion, reason;
} cx_miss;

typedef enum cx_mem_kind {
	CX_MEM_SLAB,
	CX_MEM_OUTPUT,
	CX_MEM_STATE,
	CX_MEM_INPUT,
	CX_MEM_WEIGHT,
	CX_MEM_CONST
} cx_mem_kind;
/* Where building may stop, with the number of passes run until then. */
#define CX_STAGES(X)                                                                               \
	X(built, 0, "as the source graph says")                                                        \
	X(simplified, 1, "constants folded, identities and doubles gone")                              \
	X(placed, 3, "legalised, a device and a kernel per node")                                      \
	X(fused, 4, "groups of nodes as one")                                                          \
	X(scheduled, 5, "in run order, updates after their readers")                                   \
	X(planned, 7, "with memory: what runs")
typedef enum cx_stage {
#define X(name, n_passes, doc) CX_STAGE_##name,
	CX_STAGES(X)
#undef X
		CX_STAGE_COUNT
} cx_stage;

/* Bytes that several roots may share, one after the other. */
typedef struct cx_storage {
	uint8_t kind, dev;
	uint32_t what;        /* OUTPUT: tensor; STATE: state; leaves: tensor */
	uint32_t first, last; /* positions, inclusive */
	uint64_t bytes, off;  /* off: in the slab, or in the constants' buffer */
} cx_storage;

/* One row of a device's binding table; row 0 is the slab, row 1 the constants. */
typedef struct cx_bind {
	uint8_t kind;
	uint32_t what;
	uint64_t bytes;
} cx_bind;

typedef struct cx_pdevice {
	cx_device *dev;
	cx_limits limits;
	cx_step *steps;
	uint32_t n_steps;
	cx_bind *binds;
	uint32_t n_binds;
	uint64_t slab_bytes, slab_bound, const_bytes;
} cx_pdevice;

/* Steps [first, first+n) of one device; or, with n == 0, a transfer between two devices. */
typedef struct cx_segment {
	uint8_t dev, from;
	uint32_t first, n, pos;
	uint32_t src_buf, dst_buf;
	uint64_t src_off, dst_off, bytes;
} cx_segment;

struct cx_plan {
	cx_alloc alloc;
	cx_arena arena, tmp;
	const cx_graph *g;
	cx_runtime *rt;
	cx_pdevice *devs;
	uint32_t n_devs;
	cx_plan_opts opts;
	cx_ptensor *t;
	uint32_t n_t, cap_t;
	cx_pnode *n;
	uint32_t n_n, cap_n;
	uint32_t *order;
	uint32_t n_order, cap_order;
	cx_pstate *states;
	uint32_t n_states;
	cx_pout *outs;
	uint32_t n_outs;
	cx_miss *misses;
	uint32_t n_misses, cap_misses;
	cx_storage *mem;
	uint32_t n_mem, cap_mem;
	cx_segment *segs;
	uint32_t n_segs;
	uint32_t *step_node; /* [n_order] after emit: step index inside its device */
	cx_desc *key;        /* scratch for cx__plan_find */
	uint32_t cap_key;
	uint32_t mark;
	cx_stage stage; /* after which building stops; only a planned one can be run or explained */
	bool scheduled, placed_mem;
	cx_plan_stats stats;
};

/* ---- building blocks (plan.c); CX_NO or NULL means out of memory ---- */

uint32_t cx__plan_root(
	cx_plan *p, const cx_desc *desc, uint32_t src); /* dense strides are filled in */
uint32_t cx__plan_view(cx_plan *p, uint32_t root, int64_t off, const cx_desc *desc, uint32_t src);
/* Not yet in the order. `in` is copied; outs get def and dev. */
uint32_t cx__plan_node(cx_plan *p, cx_op op, const uint32_t *in, uint32_t n_in, const uint32_t *out,
	uint32_t n_out, void *attr, uint32_t src);
cx_status cx__plan_push(cx_plan *p, uint32_t node, cx_err *err); /* onto the order */
void cx__plan_compact(cx_plan *p); /* drops dead nodes from the order and renumbers */
const cx_kernel *cx__plan_find(cx_plan *p, uint32_t dev, const cx_pnode *n); /* NULL: none */
cx_kernel_key cx__plan_key(cx_plan *p, const cx_pnode *n); /* valid until the next */
/* Runs the op's shape rule on the node's operands and compares with its outputs. */
cx_status cx__plan_shape(cx_plan *p, const cx_pnode *n, cx_err *err);
cx_status cx__plan_refuse(
	cx_plan *p, const cx_pnode *n, cx_err *err); /* no kernel: names op, operands and node */
cx_status cx__plan_oom(cx_err *err);
uint64_t cx__desc_bytes(const cx_desc *d); /* dense */
bool cx__desc_equal(const cx_desc *a, const cx_desc *b);
bool cx__desc_same_dims(const cx_desc *a, const cx_desc *b);
/* Whether tensor t is all of its root, in its order. */
bool cx__plan_is_whole(const cx_plan *p, uint32_t t);
/* "scatter %12 'blk.0.k' (model.c:7)". */
const char *cx__pnode_text(const cx_plan *p, const cx_pnode *n, char *buf, size_t size);
cx_status cx__plan_miss(
	cx_plan *p, cx_fusion f, uint32_t src, cx_reason why); /* recorded, at most a fixed number */
/* Operand that output o updates in place, or -1. */
static inline int cx__pnode_alias(const cx_pnode *n, uint32_t o)
{
	return cx__ops[n->op].alias[o];
}

/* Who reads each root: nodes in order, one entry per operand. From tmp; stale once nodes are fused:
 * see `into`. */
typedef struct cx_readers {
	uint32_t n_t;
	uint32_t *start; /* [n_t + 1] */
	uint32_t *node;
} cx_readers;
cx_status cx__plan_readers(cx_plan *p, cx_readers *out, cx_err *err);
static inline uint32_t cx__plan_live(const cx_plan *p, uint32_t node)
{
	while (p->n[node].into != CX_NO) node = p->n[node].into;
	return node;
}

/* ---- costs (cost.c) ---- */

/* Bytes that the node must read and write. Tables and states of which only some rows are touched
 * count as these rows; paged attention counts its whole pools, an upper bound. */
uint64_t cx__pnode_bytes(const cx_plan *p, const cx_pnode *n);
/* Multiplications, additions, and function values (one each) that the node's definition asks for.
 * Attention counts every key, also masked ones: an upper bound. */
double cx__pnode_flops(const cx_plan *p, const cx_pnode *n);

/* ---- passes, in order ---- */

/* cx_plan_build() that stops after a stage; for dumps. */
cx_status cx__plan_build_to(
	const cx_graph *g, const cx_plan_opts *opts, cx_stage stage, cx_plan **out, cx_err *err);

cx_status cx__pass_simplify(cx_plan *p, cx_err *err);
cx_status cx__pass_legalise(cx_plan *p, cx_err *err);
cx_status cx__pass_place(cx_plan *p, cx_err *err);
cx_status cx__pass_fuse(cx_plan *p, cx_err *err);
cx_status cx__pass_schedule(cx_plan *p, cx_err *err);
cx_status cx__pass_memory(cx_plan *p, cx_err *err);
cx_status cx__pass_emit(cx_plan *p, cx_err *err);

/* Marks nodes whose results nothing needs as dead. */
cx_status cx__plan_drop_dead(cx_plan *p, cx_err *err);
/* Evaluates what depends on constants alone (fold.c). */
cx_status cx__plan_fold(cx_plan *p, cx_err *err);
/* Simpler nodes, at most 16, in place of one that this device lacks; none: no rule
 * (legalise_rules.c). The caller puts them into the order. */
cx_status cx__plan_rule(
	cx_plan *p, uint32_t dev, uint32_t node, uint32_t *made, uint32_t *n_made, cx_err *err);

/* Which operands must be dense for the kernel of this device: bits by position, up to 64; false:
 * none helps. */
bool cx__plan_dense_set(cx_plan *p, uint32_t dev, const cx_pnode *n, uint64_t *set);

/* Proves the plan against the source graph, by other means than the passes use; any stage. */
cx_status cx__plan_verify(cx_plan *p, const char *stage, cx_err *err);
/* Parts of it. Values: what each tensor computes is what the source says. Bytes: replay with owners
 * of bytes. */
cx_status cx__verify_values(cx_plan *p, const char *stage, cx_err *err);
cx_status cx__verify_bytes(cx_plan *p, const char *stage, cx_err *err);

#endif
