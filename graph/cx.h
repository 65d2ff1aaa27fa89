/* cx.h - the public interface of the graph library: types, graph building, plans, execution.
 *
 * A program: open devices on a runtime, build a graph, plan it for the devices, put weights into
 * a store, run.
 *
 *	cx_runtime_create -> cx_device_open -> cx_graph_create -> constructors -> cx_graph_finish
 *	-> cx_plan_build -> cx_store_create, cx_store_weight -> cx_exec_create
 *	-> cx_exec_set_input, cx_exec_run, cx_exec_get_output
 *
 * Conventions. Shapes are concrete, row-major, outermost dim first, rank 0..6, in brackets in
 * comments. Sizes are elements unless the name says bytes. A fallible call returns cx_status
 * and fills the caller's cx_err. Objects made by *_create or *_open are freed by the matching
 * *_free or *_close, which take NULL. Objects are not locked: one thread at a time per object;
 * different objects may be used by different threads. */
#ifndef CX_H
#define CX_H

#include "graph/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- element types (dtype.def) ------------------------------------------------------------- */

typedef enum cx_dtype {
#define CX_DTYPE(id, name, elems, bytes, cls, gguf, doc) CX_##id,
#include "graph/dtype.def"
#undef CX_DTYPE
	CX_DTYPE_COUNT
} cx_dtype;

typedef enum cx_dtype_class {
	CX_CLASS_FLOAT,
	CX_CLASS_INT,
	CX_CLASS_BOOL,
	CX_CLASS_BLOCK
} cx_dtype_class;

typedef struct cx_dtype_info {
	const char *name;    /* "f32" */
	int32_t block_elems; /* elements per block, 1 for plain types */
	int32_t block_bytes;
	cx_dtype_class cls;
	int32_t gguf_id; /* ggml type id, -1 if none */
	const char *doc;
} cx_dtype_info;

CX_API const cx_dtype_info *cx_dtype_get(cx_dtype dtype); /* never NULL for a valid dtype */
CX_API bool cx_dtype_parse(const char *name, cx_dtype *out);
CX_API bool cx_dtype_from_gguf(uint32_t gguf_id, cx_dtype *out);
/* Bytes of a dense tensor; false on overflow, rank or dims out of range, or rows that are not whole
 * blocks. */
enum { CX_MAX_RANK = 6, CX_MAX_OUT = 4, CX_MAX_LIST = 6, CX_MAX_DIM = 0x7fffffff };
CX_API bool cx_dtype_bytes(cx_dtype dtype, int32_t rank, const int64_t *dim, uint64_t *bytes);

typedef struct cx_shape {
	int32_t rank; /* 0 is a scalar with one element */
	/* each 0..CX_MAX_DIM; their product fits an int64; unused ones are 0 */
	int64_t dim[CX_MAX_RANK];
} cx_shape;
CX_API int64_t cx_shape_elems(const cx_shape *s);
CX_API bool cx_shape_equal(const cx_shape *a, const cx_shape *b);
/* "[4,64]"; returns buf. 80 bytes are always enough. */
CX_API const char *cx_shape_text(const cx_shape *s, char *buf, size_t size);

/* ---- ops (ops.def) and their attributes (attrs.def) ---------------------------------------- */

typedef enum cx_op {
#define CX_OP(name, ...) CX_OP_##name,
#define CX_UNARY(name, ...) CX_OP_##name,
#define CX_BINARY(name, ...) CX_OP_##name,
#include "graph/ops.def"
#undef CX_OP
#undef CX_UNARY
#undef CX_BINARY
	CX_OP_COUNT
} cx_op;

typedef struct cx_list {
	int32_t n;
	int64_t v[CX_MAX_LIST];
} cx_list;

#define CX_FIELD_I int64_t
#define CX_FIELD_F float
#define CX_FIELD_B bool
#define CX_FIELD_D cx_dtype
#define CX_FIELD_O int64_t
#define CX_FIELD_L cx_list
#define X(kind, name, def, doc) CX_FIELD_##kind name;
#define CX_ATTR(name, fields)                                                                      \
	typedef struct cx_attr_##name {                                                                \
		fields char pad_;                                                                          \
	} cx_attr_##name;
#include "graph/attrs.def"
#undef CX_ATTR
#undef X
/* The defaults: cx_attr_softmax a = cx_attr_softmax_default(); */
#define CX_ATTR(name, fields) CX_API cx_attr_##name cx_attr_##name##_default(void);
#include "graph/attrs.def"
#undef CX_ATTR
/* A list from its elements: cx_list_of(3, 2, 0, 1). */
CX_API cx_list cx_list_of(int32_t n, ...); /* n ints (C int) follow */
CX_API cx_list cx_list_from(int32_t n, const int64_t *v);

/* ---- graph --------------------------------------------------------------------------------- */

/* A tensor of a graph: an id, valid in that graph alone. */
typedef struct cx_tensor {
	uint32_t id;
} cx_tensor;
#define CX_NONE ((cx_tensor){UINT32_MAX}) /* an optional operand that is not there */
static inline bool cx_is_none(cx_tensor t)
{
	return t.id == UINT32_MAX;
}

/* An append-only SSA list of nodes. Errors are sticky: after the first one constructors do nothing
 * and return tensors that may be passed on; cx_graph_finish() gives the error, with the node's op,
 * scope and source line. */
typedef struct cx_graph cx_graph;

CX_API cx_status cx_graph_create(
	const cx_alloc *alloc, cx_graph **out, cx_err *err); /* alloc NULL: default */
CX_API void cx_graph_free(cx_graph *g);
/* No nodes can be added after it. A graph needs at least one output or assign. */
CX_API cx_status cx_graph_finish(cx_graph *g, cx_err *err);

/* Where the next nodes come from, for messages: cx_rmsnorm(cx_at(g), ...). Returns g. */
CX_API cx_graph *cx_graph_at(cx_graph *g, const char *file, int line);
#define cx_at(g) cx_graph_at((g), __FILE__, __LINE__)
/* Names of nodes made until pop are prefixed "blk.3." in messages, dumps and text. Nests. */
CX_API void cx_scope_push(cx_graph *g, const char *fmt, ...) CX_PRINTF(2, 3);
CX_API void cx_scope_pop(cx_graph *g);
/* A label for messages and dumps (under the current scope); leaves have theirs already. Returns t.
 */
CX_API cx_tensor cx_named(cx_graph *g, cx_tensor t, const char *name);

/* Leaves. Names are unique per kind, 1..127 bytes of printable ASCII without quotes; copied.
 *   input   any plain dtype, bound per run          weight  any dtype
 *   const   bytes copied, dense                     state   any plain dtype, outlives runs
 * States are zeros at first. A state is SSA too: scatter, assign, conv1d, delta_rule and adamw on a
 * version of a state give its next version (in place, the planner sees to it); each version is
 * updated at most once; reading an older version gives its old content. After a run the state
 * holds its last version. */
CX_API cx_tensor cx_input(
	cx_graph *g, const char *name, cx_dtype dtype, int32_t rank, const int64_t *dim);
CX_API cx_tensor cx_weight(
	cx_graph *g, const char *name, cx_dtype dtype, int32_t rank, const int64_t *dim);
CX_API cx_tensor cx_const(
	cx_graph *g, cx_dtype dtype, int32_t rank, const int64_t *dim, const void *data);
CX_API cx_tensor cx_const_f32(cx_graph *g, float value); /* rank 0 */
CX_API cx_tensor cx_state(
	cx_graph *g, const char *name, cx_dtype dtype, int32_t rank, const int64_t *dim);
/* Marks t as a result, readable after a run by this name. Views are allowed and come out dense. */
CX_API void cx_output(cx_graph *g, const char *name, cx_tensor t);

/* Output `index` of a multi-output node; index 0 is t itself. */
CX_API cx_tensor cx_out(cx_graph *g, cx_tensor t, int index);

/* Any op by its id; attr NULL means the defaults, else a struct of the row's type (copied). */
CX_API cx_tensor cx_node_add(
	cx_graph *g, cx_op op, const cx_tensor *in, uint32_t n_in, const void *attr);

/* One constructor per row of ops.def: cx_silu(g, x), cx_add(g, a, b), cx_softmax(g, x, &attr or
 * NULL), cx_concat(g, tensors, n, &attr). What each computes is its row's last column; docs/OPS.md
 * prints them all. */
#define CX_IN_0
#define CX_IN_1 , cx_tensor a0
#define CX_IN_2 CX_IN_1, cx_tensor a1
#define CX_IN_3 CX_IN_2, cx_tensor a2
#define CX_IN_4 CX_IN_3, cx_tensor a3
#define CX_IN_5 CX_IN_4, cx_tensor a4
#define CX_IN_6 CX_IN_5, cx_tensor a5
#define CX_IN_7 CX_IN_6, cx_tensor a6
#define CX_IN_8 CX_IN_7, cx_tensor a7
#define CX_IN_9 CX_IN_8, cx_tensor a8
#define CX_IN_10 CX_IN_9, cx_tensor a9
#define CX_IN_V , const cx_tensor *in, uint32_t n_in
/* CX_ATTR_PARAM(attr) is ", const cx_attr_<attr> *attr", or nothing for `none`. */
#define CX_PROBE_none ~, NO
#define CX_SECOND_(a, b, ...) b
#define CX_SECOND(...) CX_SECOND_(__VA_ARGS__)
#define CX_CAT_(a, b) a##b
#define CX_CAT(a, b) CX_CAT_(a, b)
#define CX_ATTR_PARAM_YES(attr) , const cx_attr_##attr *attr
#define CX_ATTR_PARAM_NO(attr)
#define CX_ATTR_PARAM(attr_) CX_CAT(CX_ATTR_PARAM_, CX_SECOND(CX_PROBE_##attr_, YES, ~))(attr_)
/* Leaves (and proj) have constructors of their own, above. */
#define CX_CTOR_LEAF(...)
#define CX_CTOR_META(...)
#define CX_CTOR_(name, n_max, attr)                                                                \
	CX_API cx_tensor cx_##name(cx_graph *g CX_IN_##n_max CX_ATTR_PARAM(attr));
#define CX_CTOR_VIEW(...) CX_CTOR_(__VA_ARGS__)
#define CX_CTOR_MAP(...) CX_CTOR_(__VA_ARGS__)
#define CX_CTOR_ROW(...) CX_CTOR_(__VA_ARGS__)
#define CX_CTOR_TILE(...) CX_CTOR_(__VA_ARGS__)
#define CX_CTOR_MOVE(...) CX_CTOR_(__VA_ARGS__)
#define CX_CTOR_SCAN(...) CX_CTOR_(__VA_ARGS__)
#define CX_CTOR_ATTN(...) CX_CTOR_(__VA_ARGS__)
#define CX_CTOR_LOSS(...) CX_CTOR_(__VA_ARGS__)
#define CX_CTOR_GEN(...) CX_CTOR_(__VA_ARGS__)
#define CX_CTOR_FUSED(...) /* the planner's; cx_node_add() makes them in tests */
#define CX_OP(name, n_min, n_max, n_out, attr, shape, grad, kind, ...)                             \
	CX_CTOR_##kind(name, n_max, attr)
#include "graph/ops.def"
#undef CX_OP

/* Questions. t must be a tensor of g (CX_NONE is answered with zeros and NULL). */
CX_API cx_shape cx_tensor_shape(const cx_graph *g, cx_tensor t);
CX_API cx_dtype cx_tensor_dtype(const cx_graph *g, cx_tensor t);
CX_API const char *cx_tensor_name(const cx_graph *g, cx_tensor t); /* "" if it has none */
CX_API uint32_t cx_graph_n_nodes(const cx_graph *g);

/* Text form: print gives a NUL-terminated string (cx_free(alloc, *text, *n_bytes + 1)); parse of it
 * gives a graph that prints byte for byte the same. The format is described at the head of
 * graph/text.c. */
CX_API cx_status cx_graph_print(
	const cx_graph *g, const cx_alloc *alloc, char **text, size_t *n_bytes, cx_err *err);
CX_API cx_status cx_graph_parse(
	const char *text, size_t n_bytes, const cx_alloc *alloc, cx_graph **out, cx_err *err);

/* ---- gradients ----------------------------------------------------------------------------- */

typedef struct cx_grad_opts {
	/* Recompute: give the tensors that the backward may keep from the forward, e.g. the outputs
	 * of a
	 * model's blocks. Everything else that it reads is computed again from these, block by
	 * block, last
	 * block first, as torch.utils.checkpoint does: memory for one block's inner values instead of
	 * all, for about one more forward. The same numbers as without (bit for bit on the reference;
	 * elsewhere the planner may fuse other groups). Always kept are leaves, constants, and versions
	 * of states (with the other outputs of the node that made them).
	 * NULL: keep all. An empty list (not NULL) computes everything again from the leaves. */
	const cx_tensor *checkpoints;
	uint32_t n_checkpoints;
} cx_grad_opts;

/* Appends to g the nodes that compute grads[i] = d loss / d wrt[i], before cx_graph_finish().
 *
 *   loss   one element, f32, f16 or bf16
 * wrt    leaves or any other tensors, floats; loss must depend on each. The gradient of a
 * state is
 *          with respect to its content before the run (the leaf), or to the version given
 *   opts   NULL: keep all that the backward reads
 * grads  [n_wrt] out; dims and dtype of wrt[i]. A tensor of g like any other: an output, an
 * operand
 *          of adamw, or of a loss that is differentiated once more. CX_NONE after an error
 *
 * One reverse walk over the nodes between wrt and loss; several contributions to one tensor are
 * added in the order of the walk, so the result is the same bits every time. Rules compute in f32
 * and round to the operand's dtype once per node; contributions are added in that dtype. Ties:
 * amax,
 * amin share equally among all that are equal, max and min of two give half to each, clamp
 * passes at
 * its bounds, relu and abs give 0 at 0, scatter gives to the last writer of a row.
 * Ops whose derivative is 0 wherever it exists (sign, floor, ceil, round) pass zeros. An op marked
 * `stop` in docs/OPS.md through which a gradient would have to flow, a wrt of an integer or block
 * format, or one on which loss does not depend is an error that names it (sticky, as everywhere).
 * Backward nodes carry the scope "grad." + the forward node's, and its name and source line. */
CX_API void cx_graph_grad(cx_graph *g, cx_tensor loss, const cx_tensor *wrt, uint32_t n_wrt,
	const cx_grad_opts *opts, cx_tensor *grads);

/* ---- runtime and devices ------------------------------------------------------------------- */

typedef struct cx_config {
	cx_alloc alloc; /* zero: malloc */
	cx_log_fn log;  /* NULL: silence */
	void *log_ctx;
	int n_threads; /* for host devices; 0: one per CPU this process may run on */
	/* Force a CPU instruction set ("generic", "avx2", "avx512"); NULL: the best one. */
	const char *isa;
	/* Existing folder where backends keep compiled kernels; NULL: no cache. */
	const char *cache_dir;
	int validate; /* vulkan: 1 validation layer with synchronization checks, 2 GPU-assisted as well;
	                 messages go to the log as errors */
} cx_config;

typedef struct cx_runtime cx_runtime;
typedef struct cx_device cx_device;

CX_API cx_status cx_runtime_create(
	const cx_config *config, cx_runtime **out, cx_err *err); /* NULL: defaults */
CX_API void cx_runtime_free(cx_runtime *rt);                 /* after its devices are closed */
CX_API const cx_config *cx_runtime_config(const cx_runtime *rt);

/* backend: "cpu", "ref", ...; index counts its devices from 0. */
CX_API cx_status cx_device_open(
	cx_runtime *rt, const char *backend, int index, cx_device **out, cx_err *err);
CX_API void cx_device_close(cx_device *dev);
CX_API const char *cx_device_name(const cx_device *dev); /* "cpu:0 avx512, 2 threads" */
/* Names of the compiled-in backends, best first, NULL at the end. */
CX_API const char *const *cx_backend_names(void);

/* ---- plan ---------------------------------------------------------------------------------- */

typedef struct cx_plan_opts {
	cx_device *const *devices; /* [n_devices] in order of preference */
	uint32_t n_devices;
	bool allow_fallback;  /* false: a node that devices[0] cannot run is an error that names it */
	bool no_fuse;         /* keep every node a step of its own */
	bool verify;          /* run cx__plan_verify after every pass (tests, debugging) */
	uint32_t pack_budget; /* search nodes of the memory packer; 0: a small default. Deterministic */
} cx_plan_opts;

typedef struct cx_plan cx_plan;
/* g must be finished and outlive the plan. */
CX_API cx_status cx_plan_build(
	const cx_graph *g, const cx_plan_opts *opts, cx_plan **out, cx_err *err);
CX_API void cx_plan_free(cx_plan *plan);

typedef struct cx_plan_stats {
	uint32_t n_nodes, n_steps,
	    n_fused;                   /* graph nodes; launches; nodes that went into another's step */
	uint32_t n_copies, n_fallback; /* copies between devices; steps not on devices[0] */
	uint64_t slab_bytes, slab_bound; /* peak of intermediates; liveness lower bound */
	uint64_t weight_bytes, state_bytes, io_bytes;
	double build_seconds;
} cx_plan_stats;
CX_API void cx_plan_get_stats(const cx_plan *plan, cx_plan_stats *out);
/* Per step: kernel, device, bytes and the reason; then totals. Text as from cx_graph_print. */
CX_API cx_status cx_plan_explain(
	const cx_plan *plan, const cx_alloc *alloc, char **text, size_t *n_bytes, cx_err *err);

/* ---- store: weights and states, shared by all plans of a model ----------------------------- */

typedef struct cx_store cx_store;
CX_API cx_status cx_store_create(cx_runtime *rt, cx_store **out, cx_err *err);
CX_API void cx_store_free(cx_store *s); /* after the execs that use it */
/* data (dense) is not copied here: it must stay valid and unchanged until the store is freed.
 * Devices that can read host memory use it in place. bytes must be what dtype and dims say. */
CX_API cx_status cx_store_weight(cx_store *s, const char *name, cx_dtype dtype, int32_t rank,
	const int64_t *dim, const void *data, uint64_t bytes, cx_err *err);
/* States are made by the first exec that has them. Whole content, dense bytes. */
CX_API cx_status cx_store_state_write(
	cx_store *s, const char *name, const void *data, uint64_t bytes, cx_err *err);
CX_API cx_status cx_store_state_read(
	cx_store *s, const char *name, void *data, uint64_t bytes, cx_err *err);
CX_API cx_status cx_store_state_clear(cx_store *s, cx_err *err); /* all states to zeros */

/* ---- execution ----------------------------------------------------------------------------- */

/* A plan ready to run: slab, input and output buffers, compiled programs. Allocates all it needs at
 * creation; set_input, run and get_output allocate nothing. plan and store must outlive it. */
typedef struct cx_exec cx_exec;
CX_API cx_status cx_exec_create(const cx_plan *plan, cx_store *store, cx_exec **out, cx_err *err);
CX_API void cx_exec_free(cx_exec *x);
/* Index of an input or output for the calls below; -1 if there is none of that name. */
CX_API int cx_exec_input(const cx_exec *x, const char *name);
CX_API int cx_exec_output(const cx_exec *x, const char *name);
CX_API cx_status cx_exec_set_input(
	cx_exec *x, int input, const void *data, uint64_t bytes, cx_err *err);
/* Runs the plan to its end. Fails if an input was never set. Inputs keep their content for the next
 * run. */
CX_API cx_status cx_exec_run(cx_exec *x, cx_err *err);
CX_API cx_status cx_exec_get_output(
	cx_exec *x, int output, void *data, uint64_t bytes, cx_err *err);
/* Runs step by step and adds each step's seconds to seconds[n_steps]: by the device's own clock
 * where
 * it has one, else (and for transfers) by the host's. */
CX_API cx_status cx_exec_profile(cx_exec *x, double *seconds, uint32_t n_steps, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
