/* opencl.h - the inside of the OpenCL backend: driver functions, device, programs, launches.
 *
 * The driver is reached by dlopen("libOpenCL.so.1"); headers give types alone. One in-order queue
 * per device: steps see the writes of earlier ones without barriers of ours. compile() turns each
 * step into launches whose kernels have their arguments set once; submit() only enqueues. Device
 * code is in kernels/, see kernels/dialect.h. */
#ifndef CX_OPENCL_H
#define CX_OPENCL_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "graph/backend.h"
#include "kernels/params.h"

extern const cx_backend cx__backend_opencl;

/* ---- driver (api.c) ---- */

#define CX_CL_FUNCTIONS(X)                                                                         \
	X(GetPlatformIDs)                                                                              \
	X(GetPlatformInfo)                                                                             \
	X(GetDeviceIDs)                                                                                \
	X(GetDeviceInfo)                                                                               \
	X(CreateContext)                                                                               \
	X(ReleaseContext)                                                                              \
	X(CreateCommandQueue)                                                                          \
	X(ReleaseCommandQueue)                                                                         \
	X(CreateBuffer)                                                                                \
	X(ReleaseMemObject)                                                                            \
	X(CreateProgramWithSource)                                                                     \
	X(CreateProgramWithBinary)                                                                     \
	X(BuildProgram)                                                                                \
	X(GetProgramBuildInfo)                                                                         \
	X(GetProgramInfo)                                                                              \
	X(ReleaseProgram)                                                                              \
	X(CreateKernel)                                                                                \
	X(SetKernelArg)                                                                                \
	X(ReleaseKernel)                                                                               \
	X(EnqueueNDRangeKernel)                                                                        \
	X(EnqueueCopyBuffer)                                                                           \
	X(EnqueueFillBuffer)                                                                           \
	X(EnqueueReadBuffer)                                                                           \
	X(EnqueueWriteBuffer)                                                                          \
	X(GetEventProfilingInfo)                                                                       \
	X(ReleaseEvent)                                                                                \
	X(Flush)                                                                                       \
	X(Finish)
typedef struct cx_cl_api {
	void *lib;
#define X(name) __typeof__(cl##name) *name;
	CX_CL_FUNCTIONS(X)
#undef X
} cx_cl_api;

/* False: no library, or it lacks a function; `why` says which. */
bool cx__cl_load(cx_cl_api *cl, char *why, size_t size);
void cx__cl_unload(cx_cl_api *cl);
/* "CL_OUT_OF_RESOURCES" */
const char *cx__cl_error(cl_int code);
/* Device `index` of all platforms, graphics processors first; also gives how many there are. */
bool cx__cl_pick(
	const cx_cl_api *cl, int index, cl_platform_id *platform, cl_device_id *device, int *n);

/* Whether the driver can be used at all, found out in a child process, since some drivers abort
 * where they cannot initialise. False: `why` says what happened. (probe.c) */
bool cx__cl_probe(char *why, size_t size);

/* ---- device (device.c) ---- */

typedef struct cx_cl_built cx_cl_built; /* a program that was built (build.c) */

typedef struct cx_cl_device {
	cx_device base;
	cx_cl_api cl;
	cl_platform_id platform;
	cl_device_id id;
	cl_context context;
	cl_command_queue queue;
	/* Steps that are timed go through a queue of their own, since profiling costs some drivers
	 * time. NULL: the device has no clock. Events: of the step's first and last launch. */
	cl_command_queue times;
	cl_event event[2];
	double clock_ns;
	bool timing; /* a timed step is under way */
	cx_cl_built *built;
	char ident[320]; /* device and driver, for names of cached programs */
	uint64_t max_alloc, memory;
	uint32_t n_units;
	bool is_host; /* runs in this machine's own memory: host memory is wrapped, tiles are not
					 grouped */
	bool has_f64;
	bool keeps_programs; /* the driver has a cache of its own */
	/* Elements that a launch touches, or a map program has, from which it gets a program of its
	 * own: that costs as much time to compile as very many of them. Tests set 0 to have all so. */
	double own_from;
	uint32_t text_from;
	bool exact_div; /* division and square root can be asked to be correctly rounded */
} cx_cl_device;

typedef struct cx_cl_buffer {
	cx_buffer base;
	cl_mem mem;
} cx_cl_buffer;

const cx_alloc *cx__cl_alloc_of(const cx_cl_device *dev);
/* Forgets the events of a timed step. */
void cx__cl_drop_events(cx_cl_device *dev);
/* DEVICE error that names the call; most mark the device as failed, after which it refuses
 * everything. */
cx_status cx__cl_fail(cx_cl_device *dev, const char *call, cl_int code, cx_err *err);
cx_status cx__cl_usable(const cx_cl_device *dev, cx_err *err);

/* ---- programs built from source (build.c) ---- */

/* The program of a kernels/<family>.cl.h with these #define lines before it; kept until the device
 * is closed. */
cx_status cx__cl_build(
	cx_cl_device *dev, const char *family, const char *defines, cl_program *out, cx_err *err);
void cx__cl_built_free(cx_cl_device *dev);

/* ---- programs of steps (program.c) ---- */

cx_status cx__cl_compile(cx_device *dev, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err);
cx_status cx__cl_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err);
void cx__cl_discard(cx_program *prog);

/* ---- launches (launch.c) ---- */

enum {
	CX_CL_ARGS = CX_K_TENSORS + 1,
	CX_CL_CONST = 1,
	CX_CL_ITEMS = 64,
	CX_CL_DELTA_EVERY = 16 /* CX_DELTA_EVERY of kernels/grad.cl.h */
};

/* What a launch will be, until all of a program's are known. */
typedef struct cx_cl_draft {
	struct cx_cl_draft *next;
	enum { CX_CL_KERNEL, CX_CL_COPY, CX_CL_FILL, CX_CL_NOTHING } kind;
	const char *family, *name, *defines;
	struct cx_kparams p;
	cl_mem mem[CX_CL_ARGS]; /* by argument; NULL where absent, or in the constants */
	uint32_t is_const;      /* bit i: argument i is the buffer of constants */
	uint32_t n_args, n_dims;
	size_t grid[3], group[3]; /* items */
	size_t off[2], bytes;     /* copy: from, to; fill: to in off[1] */
} cx_cl_draft;

typedef struct cx_cl_builder {
	cx_cl_device *dev;
	const cx_step *step;
	const cx_bindings *binds;
	cx_arena *arena; /* of drafts */
	cx_cl_draft *first, **last;
	cx_cl_draft spare; /* filled in after a failure, and not used */
	uint32_t n_drafts;
	uint8_t *consts; /* [n_consts] bytes that kernels read, made at compile() */
	size_t n_consts, cap_consts;
	cx_status st; /* sticky */
	cx_err *err;
} cx_cl_builder;

/* A new launch of kernel `name` of a family; never NULL (after a failure: a draft that is thrown
 * away). */
cx_cl_draft *cx__cl_draft(cx_cl_builder *b, const char *family, const char *name, uint32_t n_args);
/* Parameters t[t] from an operand, whose buffer becomes argument `arg` (-1: none). Absent operands
 * too. A block format's first byte goes to the last of i[], and its offset is 0. */
void cx__cl_tensor(cx_cl_builder *b, cx_cl_draft *d, int t, int arg, const cx_operand *o);
/* Parameters from a description, dims padded in front; off counts elements (blocks). */
void cx__cl_desc(struct cx_ktensor *t, const cx_desc *desc, uint64_t off);
void cx__cl_absent(cx_cl_draft *d, int t);
/* The step's scratch, from byte `off` of it, as tensor t of `dtype` and dims; and as an operand of
 * it. */
cx_operand cx__cl_scratch(const cx_cl_builder *b, uint64_t off, const cx_desc *desc);
/* Bytes for kernels to read, copied; argument `arg` is that buffer. Returns their offset in 4-byte
 * units. */
uint32_t cx__cl_const(cx_cl_builder *b, cx_cl_draft *d, int arg, const void *data, size_t bytes);
/* Grids; with nothing in them the launch is dropped. Items: groups of CX_CL_ITEMS over n; groups: n
 * groups of CX_ROW_ITEMS (over m rows of groups). */
void cx__cl_items(cx_cl_draft *d, uint64_t n);
void cx__cl_groups(cx_cl_draft *d, uint64_t n, uint64_t m);
/* A program for the dtypes of tensors 0..n-1 alone, if there is much to do (`work`: elements
 * touched). */
void cx__cl_specialise(cx_cl_builder *b, cx_cl_draft *d, uint32_t n, double work);
void cx__cl_copy_bytes(
	cx_cl_builder *b, const cx_operand *to, const cx_operand *from, uint64_t bytes);
void cx__cl_zero(cx_cl_builder *b, const cx_operand *to);
/* t without axes: dims and strides of axes for which drop bit is clear. */
cx_desc cx__cl_without(const cx_desc *d, uint32_t drop);
/* Axes merged where all n tensors of equal dims allow it, in place. */
void cx__cl_merge(cx_desc *d, uint32_t n);
/* d with the dims of `space`, stride 0 where it is broadcast. */
cx_desc cx__cl_broadcast(const cx_desc *d, const cx_desc *space);

/* b of a matmul as [.., n, k] with stride 1 along k (*nt), else as [.., k, n] with stride 1 along
 * n; false: it is neither. (plan_tile.c) */
bool cx__cl_product_layout(const cx_desc *b, bool trans_b, cx_desc *out, bool *nt);
/* Whether the leading axes of d are one. */
bool cx__cl_is_rows(const cx_desc *d);
/* h = norm(x) of a `linear` step. (plan_row.c) */
void cx__cl_linear_norm(cx_cl_builder *b, const cx_step *s, const cx_operand *h);

/* ---- kernels (kernels.c, kernels.def) ---- */

typedef struct cx_cl_kernel {
	cx_kernel base;
	cx_op op;
	bool (*accept)(const cx_cl_device *dev, const cx_kernel_key *key);
	void (*plan)(cx_cl_builder *b, const cx_step *s); /* failures: b->st */
} cx_cl_kernel;

const cx_kernel *cx__cl_find(const cx_cl_device *dev, const cx_kernel_key *key);

#define CX_CL_PLANS(X)                                                                             \
	X(map)                                                                                         \
	X(reduce)                                                                                      \
	X(argmax)                                                                                      \
	X(topk)                                                                                        \
	X(cumsum)                                                                                      \
	X(softmax) X(norm) X(groupnorm) X(add_norm) X(matmul) X(linear) X(attention) X(paged) X(view)  \
		X(copy) X(cast_block) X(assign) X(concat) X(pad) X(gather) X(gather_block) X(scatter)      \
			X(embed) X(rope) X(rope_kv) X(conv1d) X(delta) X(scan) X(cscan) X(xent) X(pair)        \
				X(adamw) X(random) X(iota) X(norm_grad) X(attention_grad) X(conv1d_grad)           \
					X(delta_grad)
#define X(name) void cx__cl_plan_##name(cx_cl_builder *b, const cx_step *s);
CX_CL_PLANS(X)
#undef X

/* Element count as a u32 parameter; the kernels' accept functions saw to it that it fits. */
static inline uint32_t cx__cl_elems(const cx_desc *d)
{
	return (uint32_t)cx__desc_elems(d);
}
/* Elements that one group of a loss sums. */
static inline uint32_t cx__cl_pair_part(uint32_t n)
{
	return n < 64 * 4096 ? 4096 : (n + 63) / 64;
}
static inline bool cx__cl_has(const cx_step *s, uint32_t j)
{
	return j < s->n_in && s->in[j].buf != CX_BUF_NONE;
}
/* The program of an elementwise op, or key->prog. */
cx_prog cx__cl_prog(cx_op op, const void *attr, const cx_prog *prog, uint32_t n_in, cx_dtype out);
/* Straight-line text of a program for these operand dtypes (map_text.c). `body` and `give` are
 * filled for CX_MAP_BODY and CX_MAP_GIVE; flat bit j: operand j is read at the item's own index,
 * one bit j: at its start. */
size_t cx__cl_map_text(const cx_prog *p, const cx_desc *in, uint32_t flat, uint32_t one,
	uint32_t flat_out, char *text, size_t size);
/* Dtype of each register. */
void cx__cl_reg_dtypes(const cx_prog *p, const cx_desc *in, uint8_t *dtype);

#endif
