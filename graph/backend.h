/* backend.h - what a backend implements: twelve functions, a list of kernels, nothing else.
 *
 * The planner decides everything (placement, fusion, memory, order); a backend owns memory and runs
 * steps. find() is the only answer to "can you?". To add one: copy backends/null/, add a row to
 * backends/list.def. */
#ifndef CX_BACKEND_H
#define CX_BACKEND_H

#include "graph/graph.h"

typedef struct cx_buffer cx_buffer;   /* each backend's struct begins with cx_buffer */
typedef struct cx_program cx_program; /* opaque, each backend's own */
typedef struct cx_backend cx_backend;

struct cx_buffer {
	cx_device *dev;
	uint64_t bytes;
};
struct cx_device {
	const cx_backend *backend;
	cx_runtime *rt;
	char name[96];
	bool failed;
	/* Profiling. While `timed`, submit() of one single step has the device's own clock time it, and
	 * the wait() that follows leaves the seconds here; untouched where limits.clock_ns is 0. */
	bool timed;
	double seconds;
}; /* first member likewise */

typedef struct cx_limits {
	uint64_t alignment;  /* of offsets inside the slab, bytes, power of two */
	uint64_t max_buffer; /* bytes of the largest buffer */
	uint64_t max_bytes;  /* memory of the device, 0: unknown */
	uint32_t n_threads;  /* host threads, or compute units */
	bool maps_host;      /* alloc() can wrap host memory without a copy */
	double clock_ns;     /* resolution of the clock that times steps (cx_device.timed); 0: none */
} cx_limits;

/* What is to run: op, attributes and operand descriptions. Absent operands have dtype
 * CX_DTYPE_COUNT. */
typedef struct cx_kernel_key {
	cx_op op;
	const void *attr;
	const cx_prog *prog;
	const cx_desc *in;
	uint32_t n_in;
	const cx_desc *out;
	uint32_t n_out;
} cx_kernel_key;

/* A kernel as find() gives it: static storage of the backend, whose own struct begins with this. */
typedef struct cx_kernel {
	const char *name; /* "cx_softmax_row_f32" */
	uint32_t inplace; /* bit j: output 0 may be the same bytes as operand j, if both are dense, of
	                     the same dims and of equal element size */
	/* Scratch bytes that a step needs in the slab; NULL: none. */
	uint64_t (*scratch)(const cx_device *dev, const cx_kernel_key *key);
} cx_kernel;

/* An operand of a step: where it is. buf indexes cx_bindings.bufs; CX_BUF_NONE: absent. */
#define CX_BUF_NONE UINT32_MAX
#define CX_BUF_SLAB 0u
typedef struct cx_operand {
	cx_desc desc;
	uint32_t buf;
	uint64_t off; /* bytes */
} cx_operand;

/* One launch. For an output that the op's row aliases to an operand, both are the same bytes and
 * already hold the old content: the kernel updates in place. Steps run in order; a step sees all
 * writes of earlier ones. */
typedef struct cx_step {
	const cx_kernel *kernel;
	cx_op op;
	const void *attr;
	const cx_prog *prog;
	uint32_t n_in, n_out;
	const cx_operand *in, *out;
	uint64_t scratch_off, scratch_bytes; /* in the slab */
	uint32_t node;                       /* graph node that it ends with, for messages */
} cx_step;

typedef struct cx_bindings {
	cx_buffer *const *bufs; /* [n_bufs]; bufs[CX_BUF_SLAB] is the slab */
	uint32_t n_bufs;
} cx_bindings;

struct cx_backend {
	const char *name;
	cx_status (*open)(cx_runtime *rt, int index, cx_device **out, cx_err *err);
	void (*close)(cx_device *dev);
	void (*limits)(const cx_device *dev, cx_limits *out);
	/* The kernel that will run, or NULL. It looks at strides: the planner asks again with dense
	 * operands, and copies. */
	const cx_kernel *(*find)(const cx_device *dev, const cx_kernel_key *key);
	/* host != NULL (only with limits.maps_host): wraps that memory, which outlives the buffer, and
	 * is only read unless the caller owns it for writing. Otherwise the content is zeros. bytes 0
	 * is legal. */
	cx_status (*alloc)(
		cx_device *dev, uint64_t bytes, const void *host, cx_buffer **out, cx_err *err);
	void (*free)(cx_buffer *buf);
	cx_status (*write)(cx_buffer *buf, uint64_t off, const void *src, uint64_t bytes, cx_err *err);
	cx_status (*read)(cx_buffer *buf, uint64_t off, void *dst, uint64_t bytes, cx_err *err);
	/* Keeps what it needs of the steps: they may be freed after. May look at binds to record
	 * addresses: the same buffers are given to every submit of this program. */
	cx_status (*compile)(cx_device *dev, const cx_step *steps, uint32_t n_steps,
		const cx_bindings *binds, cx_program **out, cx_err *err);
	/* Starts steps [first, first+n) and may return before they end; allocates nothing. */
	cx_status (*submit)(cx_program *prog, uint32_t first, uint32_t n, cx_err *err);
	cx_status (*wait)(cx_device *dev, cx_err *err);
	void (*discard)(cx_program *prog);
};

/* A number that a backend may keep per runtime (what a probe found, say); 0 at first. */
int *cx__runtime_note(cx_runtime *rt, const cx_backend *backend);

/* backends/list.def through backends/list.c: NULL-terminated, best first. graph/ reaches backends
 * only through this. */
extern const cx_backend *const cx__backends[];

/* The reference, unplanned: every node of g in creation order, each in memory of its own, states
 * functional. in/out are found by name: the caller supplies a callback for leaves and one for
 * results. backends/ref. */
typedef struct cx_ref_io {
	void *ctx;
	/* Dense content of an input, weight or state leaf (never a const). NULL fails the run. */
	const void *(*leaf)(void *ctx, const cx_graph *g, uint32_t id);
	/* Called for every node in order with its dense value; NULL: not called. */
	void (*node)(void *ctx, const cx_graph *g, uint32_t id, const void *data, uint64_t bytes);
	/* Called at the end with the last version of each state; NULL: not called. */
	void (*state)(void *ctx, const cx_graph *g, uint32_t leaf, const void *data, uint64_t bytes);
} cx_ref_io;
cx_status cx__ref_eval(const cx_graph *g, const cx_alloc *alloc, const cx_ref_io *io, cx_err *err);

#endif
