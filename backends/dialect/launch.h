/* launch.h - the host side of the kernels in kernels/: which kernel runs a step, and which tensor
 * goes to which argument of which launch. OpenCL and CUDA share it.
 *
 * In: a step of a plan.   Out: drafts of launches, in order. A backend makes its own launches of
 * them: a draft's buffers are cx_buffers, its grid counts items. Its device begins with
 * cx_dk_device. */
#ifndef CX_DIALECT_LAUNCH_H
#define CX_DIALECT_LAUNCH_H

#include "graph/backend.h"
#include "kernels/params.h"

/* ---- what the launches depend on ---- */

typedef struct cx_dk_device {
	cx_device base;
	uint64_t max_alloc, memory; /* bytes */
	uint32_t n_units;
	bool is_host; /* runs in this machine's own memory: tiles are not grouped */
	bool has_f64;
	/* Elements that a launch touches from which its dtypes are fixed (draft.n_own), and elements
	 * from which a map program becomes text. */
	double own_from;
	uint32_t text_from;
} cx_dk_device;

/* ---- launches (launch.c) ---- */

enum {
	CX_DK_ARGS = CX_K_TENSORS + 1,
	CX_DK_ITEMS = 64,
	CX_DK_DELTA_EVERY = 16 /* CX_DELTA_EVERY of kernels/grad.cl.h */
};

/* What a launch will be, until all of a program's are known. */
typedef struct cx_dk_draft {
	struct cx_dk_draft *next;
	enum { CX_DK_KERNEL, CX_DK_COPY, CX_DK_FILL, CX_DK_NOTHING } kind;
	const char *family, *name, *defines;
	struct cx_kparams p;
	uint32_t n_own;             /* tensors whose dtypes `defines` fixes; 0: none */
	cx_buffer *buf[CX_DK_ARGS]; /* by argument; NULL where absent, or in the constants */
	uint32_t is_const;          /* bit i: argument i is the buffer of constants */
	uint32_t n_args, n_dims;
	size_t grid[3], group[3]; /* items */
	size_t off[2], bytes;     /* copy: from, to; fill: to in off[1] */
} cx_dk_draft;

typedef struct cx_dk_builder {
	cx_dk_device *dev;
	const cx_step *step;
	const cx_bindings *binds;
	cx_arena *arena; /* of drafts */
	cx_dk_draft *first, **last;
	cx_dk_draft spare; /* filled in after a failure, and not used */
	uint32_t n_drafts;
	uint8_t *consts; /* [n_consts] bytes that kernels read, made at compile() */
	size_t n_consts, cap_consts;
	cx_status st; /* sticky */
	cx_err *err;
} cx_dk_builder;

/* A new launch of kernel `name` of a family; never NULL (after a failure: a draft that is thrown
 * away). */
cx_dk_draft *cx__dk_draft(cx_dk_builder *b, const char *family, const char *name, uint32_t n_args);
/* Parameters t[t] from an operand, whose buffer becomes argument `arg` (-1: none). Absent operands
 * too. A block format's first byte goes to the last of i[], and its offset is 0. */
void cx__dk_tensor(cx_dk_builder *b, cx_dk_draft *d, int t, int arg, const cx_operand *o);
/* Parameters from a description, dims padded in front; off counts elements (blocks). */
void cx__dk_desc(struct cx_ktensor *t, const cx_desc *desc, uint64_t off);
void cx__dk_absent(cx_dk_draft *d, int t);
/* The step's scratch, from byte `off` of it, as tensor t of `dtype` and dims; and as an operand of
 * it. */
cx_operand cx__dk_scratch(const cx_dk_builder *b, uint64_t off, const cx_desc *desc);
/* Bytes for kernels to read, copied; argument `arg` is that buffer. Returns their offset in 4-byte
 * units. */
uint32_t cx__dk_const(cx_dk_builder *b, cx_dk_draft *d, int arg, const void *data, size_t bytes);
/* Grids; with nothing in them the launch is dropped. Items: groups of CX_DK_ITEMS over n; groups: n
 * groups of CX_ROW_ITEMS (over m rows of groups). */
void cx__dk_items(cx_dk_draft *d, uint64_t n);
void cx__dk_groups(cx_dk_draft *d, uint64_t n, uint64_t m);
/* A program for the dtypes of tensors 0..n-1 alone, if there is much to do (`work`: elements
 * touched). */
void cx__dk_specialise(cx_dk_builder *b, cx_dk_draft *d, uint32_t n, double work);
void cx__dk_copy_bytes(
	cx_dk_builder *b, const cx_operand *to, const cx_operand *from, uint64_t bytes);
void cx__dk_zero(cx_dk_builder *b, const cx_operand *to);
/* t without axes: dims and strides of axes for which drop bit is clear. */
cx_desc cx__dk_without(const cx_desc *d, uint32_t drop);
/* Axes merged where all n tensors of equal dims allow it, in place. */
void cx__dk_merge(cx_desc *d, uint32_t n);
/* d with the dims of `space`, stride 0 where it is broadcast. */
cx_desc cx__dk_broadcast(const cx_desc *d, const cx_desc *space);

/* b of a matmul as [.., n, k] with stride 1 along k (*nt), else as [.., k, n] with stride 1 along
 * n; false: it is neither. (plan_tile.c) */
bool cx__dk_product_layout(const cx_desc *b, bool trans_b, cx_desc *out, bool *nt);
/* Whether the leading axes of d are one. */
bool cx__dk_is_rows(const cx_desc *d);
/* h = norm(x) of a `linear` step. (plan_row.c) */
void cx__dk_linear_norm(cx_dk_builder *b, const cx_step *s, const cx_operand *h);

/* ---- kernels (kernels.c, kernels.def) ---- */

typedef struct cx_dk_kernel {
	cx_kernel base;
	cx_op op;
	bool (*accept)(const cx_dk_device *dev, const cx_kernel_key *key);
	void (*plan)(cx_dk_builder *b, const cx_step *s); /* failures: b->st */
} cx_dk_kernel;

const cx_kernel *cx__dk_find(const cx_dk_device *dev, const cx_kernel_key *key);

#define CX_DK_PLANS(X)                                                                             \
	X(map)                                                                                         \
	X(reduce)                                                                                      \
	X(argmax)                                                                                      \
	X(topk)                                                                                        \
	X(cumsum)                                                                                      \
	X(softmax)                                                                                     \
	X(norm)                                                                                        \
	X(groupnorm) X(add_norm) X(matmul) X(linear) X(attention) X(paged) X(view) X(copy)             \
		X(cast_block) X(assign) X(concat) X(pad) X(gather) X(gather_block) X(scatter) X(embed)     \
			X(rope) X(rope_kv) X(conv1d) X(delta) X(scan) X(cscan) X(xent) X(pair) X(adamw)        \
				X(random) X(iota) X(norm_grad) X(attention_grad) X(conv1d_grad) X(delta_grad)
#define X(name) void cx__dk_plan_##name(cx_dk_builder *b, const cx_step *s);
CX_DK_PLANS(X)
#undef X

/* Element count as a u32 parameter; the kernels' accept functions saw to it that it fits. */
static inline uint32_t cx__dk_elems(const cx_desc *d)
{
	return (uint32_t)cx__desc_elems(d);
}
/* Elements that one group of a loss sums. */
static inline uint32_t cx__dk_pair_part(uint32_t n)
{
	return n < 64 * 4096 ? 4096 : (n + 63) / 64;
}
static inline bool cx__dk_has(const cx_step *s, uint32_t j)
{
	return j < s->n_in && s->in[j].buf != CX_BUF_NONE;
}
/* The program of an elementwise op, or key->prog. */
cx_prog cx__dk_prog(cx_op op, const void *attr, const cx_prog *prog, uint32_t n_in, cx_dtype out);
/* Straight-line text of a program for these operand dtypes (map_text.c). `body` and `give` are
 * filled for CX_MAP_BODY and CX_MAP_GIVE; flat bit j: operand j is read at the item's own index,
 * one bit j: at its start. */
size_t cx__dk_map_text(const cx_prog *p, const cx_desc *in, uint32_t flat, uint32_t one,
	uint32_t flat_out, char *text, size_t size);
/* Dtype of each register. */
void cx__dk_reg_dtypes(const cx_prog *p, const cx_desc *in, uint8_t *dtype);

#endif
