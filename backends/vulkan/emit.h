/* emit.h - a step as dispatches: what launch_*.c writes and program.c records.
 *
 * A launch function fills dispatches: shader, specialization constants, kernel parameters,
 * tensors, number of work
 * groups. Dispatches of a step run in order without a barrier between them, unless the later
 * one says `after`. */
#ifndef CX_VK_EMIT_H
#define CX_VK_EMIT_H

#include "backends/vulkan/vk.h"

/* Operands that are no tensors of the step. */
#define CX_VK_BUF_TABLE (UINT32_MAX - 1) /* off: in the table area, made by cx__vk_table() */

typedef struct cx_vk_slot {
	uint32_t buf; /* as in cx_operand, CX_BUF_NONE: unused */
	uint64_t off, bytes;
	bool write, read;
	VkFormat format; /* of a texel buffer */
} cx_vk_slot;

typedef struct cx_vk_dispatch {
	uint16_t shader, n_spec;
	bool after; /* waits for the dispatches before it in this step */
	bool copy;  /* no shader: the bytes of slot 1 go to slot 0, from copy_off[] */
	uint64_t copy_off[2], copy_bytes;
	uint32_t spec[CX_VK_SPEC];
	uint32_t groups[2];
	struct cx_kparams p;
	cx_vk_slot slot[CX_VK_TENSORS + CX_VK_TEXELS]; /* tensors, then texel buffers */
} cx_vk_dispatch;

typedef struct cx_vk_emit {
	cx_vk_device *dev;
	const cx_alloc *alloc;
	const cx_bindings *binds;
	const cx_step *step;
	cx_vk_dispatch *d; /* [n] grows */
	uint32_t n, cap;
	unsigned char *table; /* [n_table] bytes made by the host */
	size_t n_table, cap_table;
	cx_status st; /* sticky */
	cx_err *err;
} cx_vk_emit;

/* A new dispatch, work groups of `local` invocations (spec 0); never NULL: on failure e->st is
 * set and a scratch
 * one is given. It is valid until the next one. */
cx_vk_dispatch *cx__vk_begin(cx_vk_emit *e, uint32_t shader, uint32_t local);
/* Copies n bytes from x to y: as good as a driver can, and no pipeline. */
void cx__vk_copy(cx_vk_emit *e, const cx_operand *y, const cx_operand *x, uint64_t n);
/* Appends a specialization constant. */
static inline void cx__vk_spec(cx_vk_dispatch *d, uint32_t v)
{
	CX_ASSERT(d->n_spec < CX_VK_SPEC);
	d->spec[d->n_spec++] = v;
}
enum { CX_VK_READ = 1, CX_VK_WRITE = 2 };
/* Binds o as tensor i, described by `d`. The descriptor covers what d reaches, or `bytes` if
 * that is not 0. */
void cx__vk_bind(
	cx_vk_emit *e, cx_vk_dispatch *d, uint32_t i, const cx_operand *o, int access, uint64_t bytes);
/* Texel buffer i of the dispatch is the bytes of its tensor `from`, in texels of four elements.
 * False: its place or strides
 * do not allow that. */
bool cx__vk_texel_ok(const cx_vk_device *d, const cx_operand *o);
void cx__vk_texel(const cx_vk_emit *e, cx_vk_dispatch *d, uint32_t i, uint32_t from);
/* One invocation per item in groups of d->spec[0], or n groups. p.n becomes n. */
void cx__vk_items(cx_vk_dispatch *d, uint64_t n);
void cx__vk_groups(cx_vk_dispatch *d, uint64_t n);
/* Room for n bytes of host-made data, 16-byte aligned, and an operand for it. NULL on failure. */
void *cx__vk_table(cx_vk_emit *e, cx_dtype dtype, int64_t n, cx_operand *out);
/* A dense f32 (or other) operand in the step's scratch, `off` bytes into it. */
cx_operand cx__vk_scratch(
	const cx_step *s, uint64_t off, cx_dtype dtype, int64_t rows, int64_t cols);

/* ---- descriptions ---- */

static inline bool cx__vk_has(const cx_step *s, uint32_t i)
{
	return i < s->n_in && s->in[i].desc.dtype != CX_DTYPE_COUNT;
}
static inline bool cx__vk_float(cx_dtype t)
{
	return t <= CX_BF16;
}
static inline bool cx__vk_block(cx_dtype t)
{
	return t < CX_DTYPE_COUNT && cx_dtype_get(t)->cls == CX_CLASS_BLOCK;
}
static inline bool cx__vk_int(cx_dtype t)
{
	return t < CX_DTYPE_COUNT && (cx_dtype_get(t)->cls == CX_CLASS_INT || t == CX_BOOL);
}
/* Bytes from element 0 to the end of the last one. I8C: without its scales. */
uint64_t cx__vk_extent(const cx_desc *d);
/* Strides of d as seen in an index space of the given dims (aligned at the last axis, 0 where
 * broadcast). */
void cx__vk_in_space(cx_desc *d, int32_t rank, const int64_t *dim);
/* Merges neighbouring axes that all n descriptions, of equal dims, walk as one. */
void cx__vk_collapse(cx_desc **d, uint32_t n);
/* The range of a device's descriptors, less what alignment may cost. */
uint64_t cx__vk_room(const cx_vk_device *d);

/* Rows along `axis` (of all n descriptions, which have the same number there) that one dispatch
 * can take: all, or as
 * many as fit the descriptors and 2^31 elements; 0: not even one does. */
int64_t cx__vk_piece(const cx_vk_device *d, const cx_desc *const *desc, uint32_t n, int32_t axis);
/* o, from row `first` along `axis`, `n` rows. */
cx_operand cx__vk_rows(const cx_operand *o, int32_t axis, int64_t first, int64_t n);
/* Is the whole of it reachable by one descriptor and 32-bit offsets? */
bool cx__vk_fits(const cx_vk_device *d, const cx_desc *desc);
/* Axis `axis` becomes the last one, the others keep their order. */
void cx__vk_axis_last(cx_desc *d, int64_t axis);
/* Number of axes a shader must walk: 0 if d is dense. */
static inline uint32_t cx__vk_walk(const cx_desc *d)
{
	return d->rank == 0 || (d->rank == 1 && d->stride[0] == 1) ? 0 : (uint32_t)d->rank;
}
static inline uint32_t cx__vk_size(cx_dtype t)
{
	return (uint32_t)cx_dtype_get(t)->block_bytes;
}

/* put.c: element i of data = v, rounded once; integers saturate. */
void cx__vk_put(cx_dtype t, void *data, int64_t i, double v);

/* Whether x as rows of int8 fits a descriptor. */
bool cx__vk_int8_ok(const cx_vk_device *d, const cx_desc *x);
bool cx__vk_idot_ok(const cx_vk_device *d, const cx_desc *x, const cx_desc *w);
bool cx__vk_coop_ok(const cx_vk_device *d, const cx_desc *x, const cx_desc *w);
uint64_t cx__vk_matmul_int8_scratch(const cx_device *dev, const cx_kernel_key *key);
uint64_t cx__vk_matmul_scratch(const cx_device *dev, const cx_kernel_key *key);
uint64_t cx__vk_linear_scratch(const cx_device *dev, const cx_kernel_key *key);
uint64_t cx__vk_delta_scratch(const cx_device *dev, const cx_kernel_key *key);
uint64_t cx__vk_norm_grad_scratch(const cx_device *dev, const cx_kernel_key *key);
uint64_t cx__vk_attention_grad_scratch(const cx_device *dev, const cx_kernel_key *key);
uint64_t cx__vk_conv1d_grad_scratch(const cx_device *dev, const cx_kernel_key *key);
uint64_t cx__vk_delta_grad_scratch(const cx_device *dev, const cx_kernel_key *key);
uint64_t cx__vk_xent_scratch(const cx_device *dev, const cx_kernel_key *key);
/* The f32 scales behind an I8C matrix, from row `first` on. */
cx_operand cx__vk_i8c_scales(const cx_operand *w, int64_t first);
/* A norm's dispatch; kind: 0 layernorm, 1 rmsnorm, 2 l2norm, 3 groupnorm. See launch_row.c. */
cx_vk_dispatch *cx__vk_norm(cx_vk_emit *e, uint32_t kind, const cx_operand *y,
	const cx_operand *sum, const cx_operand *x, const cx_operand *x2, const cx_operand *w,
	const cx_operand *b, bool plus_one, float eps);

/* ---- kernels.c ---- */
typedef struct cx_vk_kernel {
	cx_kernel base;
	cx_op op;
	bool (*accept)(const cx_vk_device *d, const cx_kernel_key *key);
	void (*launch)(cx_vk_emit *e);
} cx_vk_kernel;
extern const cx_vk_kernel cx__vk_kernels[];
extern const uint32_t cx__vk_n_kernels;
const cx_kernel *cx__vk_find(const cx_device *dev, const cx_kernel_key *key);

#define CX_VK_KERNEL(op, name, accept, launch, scratch, inplace)                                   \
	void cx__vk_launch_##launch(cx_vk_emit *e);
#include "backends/vulkan/kernels.def"
#undef CX_VK_KERNEL

#endif
