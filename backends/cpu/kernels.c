/* kernels.c - the rows of kernels.def: what each kernel takes, how long it runs, what scratch it
 * needs.
 *
 * Every kernel writes dense results (an operand that is updated in place must be dense too).
 * Operands may be strided as accept_*() says; where it says no, the planner asks again with a dense
 * copy. Shapes were checked by the shape rules. */
#include "backends/cpu/cpu.h"
#include "backends/cpu/isa/attn.h"
#include "backends/cpu/isa/attn_grad.h"
#include "backends/cpu/isa/delta_grad.h"
#include "backends/cpu/isa/norm_grad.h"
#include "backends/cpu/map.h"
#include "backends/cpu/product.h"

#include <math.h>

/* ---- what a kernel takes ---- */

static bool present(const cx_kernel_key *k, uint32_t i)
{
	return i < k->n_in && k->in[i].dtype != CX_DTYPE_COUNT;
}
static bool plain(cx_dtype t)
{
	return t < CX_DTYPE_COUNT && cx_dtype_get(t)->cls != CX_CLASS_BLOCK;
}
/* Along its last axis. What holds nothing is dense to the planner, whatever its strides say. */
static bool contiguous(const cx_desc *d)
{
	return d->rank == 0 || d->dim[d->rank - 1] <= 1 || d->stride[d->rank - 1] == 1 ||
		   cx__desc_elems(d) == 0;
}
/* Axes from `axis` on are one contiguous run. */
static bool inner_dense(const cx_desc *d, int32_t axis)
{
	int64_t n = 1;
	for (int32_t i = d->rank - 1; i >= axis; i--) {
		if (d->dim[i] > 1 && d->stride[i] != n) return cx__desc_elems(d) == 0;
		n *= d->dim[i];
	}
	return true;
}

/* Plain dtypes everywhere, operands of any strides. */
static bool accept_plain(const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < k->n_in; i++)
		if (present(k, i) && !plain(k->in[i].dtype)) return false;
	for (uint32_t i = 0; i < k->n_out; i++)
		if (!plain(k->out[i].dtype) || !cx__desc_is_dense(&k->out[i])) return false;
	return true;
}
static bool accept_float(const cx_kernel_key *k)
{
	return accept_plain(k) && cx_cpu_is_float(k->in[0].dtype);
}
static bool accept_int(const cx_kernel_key *k)
{
	return accept_plain(k) && cx_cpu_is_int(k->in[0].dtype);
}
static bool accept_map(const cx_kernel_key *k)
{
	return accept_plain(k) && k->n_in >= 1 && k->n_in <= CX_PROG_MAX_IN;
}
static bool accept_dense(const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < k->n_in; i++)
		if (present(k, i) && !cx__desc_is_dense(&k->in[i])) return false;
	return accept_plain(k);
}
/* The same elements in the same order, in dims that differ at most by a dense reshape. */
static bool accept_copy(const cx_kernel_key *k)
{
	return accept_plain(k) && cx__desc_elems(&k->in[0]) == cx__desc_elems(&k->out[0]);
}
static bool accept_block(const cx_kernel_key *k)
{
	return cx_dtype_get(k->in[0].dtype)->cls == CX_CLASS_BLOCK &&
		   cx_cpu_is_float(k->out[0].dtype) && k->in[0].rank >= 1 && inner_dense(&k->in[0], 0) &&
		   cx__desc_is_dense(&k->out[0]);
}
static bool vectors_dense(const cx_kernel_key *k, uint32_t from)
{
	for (uint32_t i = from; i < k->n_in; i++)
		if (present(k, i) && !inner_dense(&k->in[i], 0)) return false;
	return true;
}
static bool accept_norm(const cx_kernel_key *k)
{
	return accept_float(k) && vectors_dense(k, 1);
}
static bool accept_add_norm(const cx_kernel_key *k)
{
	return accept_float(k) && vectors_dense(k, 2);
}
static bool accept_groupnorm(const cx_kernel_key *k)
{
	return accept_norm(k) && inner_dense(&k->in[0], 1);
}
static bool accept_rope(const cx_kernel_key *k)
{
	return accept_float(k);
}
static bool accept_rope_kv(const cx_kernel_key *k)
{
	return accept_float(k);
}
static bool accept_attention(const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < 3; i++)
		if (!contiguous(&k->in[i])) return false;
	for (uint32_t i = 3; i < 5; i++)
		if (present(k, i) && !contiguous(&k->in[i])) return false;
	return accept_float(k);
}
static bool accept_paged(const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < 6; i++)
		if (i != 3 && !contiguous(&k->in[i])) return false;
	return accept_float(k);
}
static bool accept_gather(const cx_kernel_key *k)
{
	const cx_attr_axis *at = k->attr;
	if (cx_dtype_get(k->in[0].dtype)->cls == CX_CLASS_BLOCK)
		return inner_dense(&k->in[0], 0) && (k->in[0].dtype != CX_I8C || k->in[0].rank == 2) &&
			   cx__desc_is_dense(&k->out[0]);
	return accept_plain(k) && inner_dense(&k->in[0], (int32_t)at->axis + 1);
}
static bool accept_scatter(const cx_kernel_key *k)
{
	return accept_plain(k) && inner_dense(&k->in[2], 1);
}
static bool accept_embed_sum(const cx_kernel_key *k)
{
	return accept_float(k);
}
static bool accept_conv1d(const cx_kernel_key *k)
{
	return accept_float(k) && contiguous(&k->in[0]);
}
static bool accept_delta(const cx_kernel_key *k)
{
	return accept_float(k);
}
static bool accept_norm_grad(const cx_kernel_key *k)
{
	return accept_float(k) && vectors_dense(k, 2);
}
static bool accept_attention_grad(const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < 7; i++)
		if (present(k, i) && !contiguous(&k->in[i])) return false;
	return accept_float(k);
}
static bool accept_conv1d_grad(const cx_kernel_key *k)
{
	for (uint32_t i = 0; i < 6; i++)
		if (i != 1 && i != 4 && present(k, i) && !contiguous(&k->in[i])) return false;
	return accept_float(k);
}
static bool accept_scan(const cx_kernel_key *k)
{
	uint32_t n = k->op == CX_OP_scan ? 3 : 6;
	for (uint32_t i = 0; i < n; i++)
		if (!contiguous(&k->in[i])) return false;
	return accept_float(k);
}
static bool products_plain(const cx_kernel_key *k)
{
	for (uint32_t o = 0; o < k->n_out; o++)
		if (!cx_cpu_is_float(k->out[o].dtype) || !cx__desc_is_dense(&k->out[o])) return false;
	return cx_cpu_is_float(k->in[0].dtype);
}
/* Rows of a block format are whole; I8C keeps its scales behind the whole matrix. */
static bool weight_ok(const cx_desc *d)
{
	if (cx_dtype_get(d->dtype)->cls != CX_CLASS_BLOCK) return true;
	return d->rank >= 2 && inner_dense(d, d->dtype == CX_I8C ? 0 : d->rank - 2);
}
static bool accept_matmul(const cx_kernel_key *k)
{
	cx_cpu_linear l;
	cx_cpu_batch b;
	return products_plain(k) && weight_ok(&k->in[1]) &&
		   cx__cpu_matmul_shape(k->attr, k->in, k->out, &l, &b);
}
static bool accept_linear(const cx_kernel_key *k)
{
	const cx_attr_linear *at = k->attr;
	cx_cpu_linear l;
	for (int64_t i = 0; i < at->n_w; i++)
		if (!weight_ok(&k->in[1 + at->norm_in + i])) return false;
	return products_plain(k) && cx__cpu_linear_shape(at, k->in, k->n_in, k->out, &l);
}

/* ---- how long it runs ---- */

static uint64_t elems(const cx_desc *d)
{
	return d->dtype == CX_DTYPE_COUNT ? 0 : (uint64_t)cx__desc_elems(d);
}
static uint64_t bytes_of(const cx_desc *d)
{
	const cx_dtype_info *info;
	if (d->dtype == CX_DTYPE_COUNT) return 0;
	info = cx_dtype_get(d->dtype);
	return elems(d) / (uint64_t)info->block_elems * (uint64_t)info->block_bytes;
}
/* 16 bytes per nanosecond in and out. */
static uint64_t work_move(const cx_kernel_key *k)
{
	uint64_t b = 0;
	for (uint32_t i = 0; i < k->n_in; i++) b += bytes_of(&k->in[i]);
	for (uint32_t i = 0; i < k->n_out; i++) b += bytes_of(&k->out[i]);
	return b / 16;
}
static uint64_t work_out(const cx_kernel_key *k)
{
	return bytes_of(&k->out[0]) / 8;
}
static uint64_t work_src(const cx_kernel_key *k)
{
	return bytes_of(&k->in[2]) / 8;
}
static uint64_t work_embed_sum(const cx_kernel_key *k)
{
	return elems(&k->out[0]) * (k->n_in / 2) / 8;
}
static uint64_t largest(const cx_kernel_key *k)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < k->n_in; i++) n = elems(&k->in[i]) > n ? elems(&k->in[i]) : n;
	return elems(&k->out[0]) > n ? elems(&k->out[0]) : n;
}
static uint64_t work_row(const cx_kernel_key *k)
{
	return largest(k) / 4;
}
static uint64_t work_math(const cx_kernel_key *k)
{
	return largest(k) / 2;
}
static uint64_t work_exact(const cx_kernel_key *k)
{
	return largest(k) * 2;
}
static uint64_t work_map(const cx_kernel_key *k)
{
	bool is_int = cx_cpu_is_int(k->in[k->n_in - 1].dtype);
	uint64_t n = k->op == CX_OP_map ? (uint64_t)k->prog->n_instr : 1;
	return work_move(k) + largest(k) * n / (is_int ? 1 : 8);
}
static uint64_t work_linear_of(const cx_cpu_linear *l, int64_t n)
{
	double bytes, macs;
	cx__cpu_linear_cost(l, &bytes, &macs);
	return (uint64_t)((double)n * fmax(bytes / 20, macs / 40));
}
static uint64_t work_matmul(const cx_kernel_key *k)
{
	cx_cpu_linear l;
	cx_cpu_batch b;
	return cx__cpu_matmul_shape(k->attr, k->in, k->out, &l, &b) ? work_linear_of(&l, b.n) : 0;
}
static uint64_t work_linear(const cx_kernel_key *k)
{
	cx_cpu_linear l;
	return cx__cpu_linear_shape(k->attr, k->in, k->n_in, k->out, &l) ? work_linear_of(&l, 1) : 0;
}
static uint64_t work_attention(const cx_kernel_key *k)
{
	return elems(&k->in[0]) * (uint64_t)k->in[1].dim[k->in[1].rank - 3] / 16;
}
static uint64_t work_paged(const cx_kernel_key *k)
{
	return elems(&k->in[0]) * (uint64_t)(k->in[3].dim[1] * ((const cx_attr_paged *)k->attr)->page) /
		   32;
}
static uint64_t work_delta(const cx_kernel_key *k)
{
	return elems(&k->in[2]) * (uint64_t)k->in[0].dim[2] / 8;
}

static uint64_t work_norm_grad(const cx_kernel_key *k)
{
	return largest(k);
}
static uint64_t work_attention_grad(const cx_kernel_key *k)
{
	return work_attention(k) * 5 / 2;
}
static uint64_t work_conv1d_grad(const cx_kernel_key *k)
{
	return largest(k) * (uint64_t)k->in[1].dim[1] / 4;
}
static uint64_t work_delta_grad(const cx_kernel_key *k)
{
	return work_delta(k) * 3;
}

/* ---- scratch ---- */

static uint64_t pad16(int64_t n)
{
	return ((uint64_t)n + 15) & ~15ull;
}
static uint64_t n_threads(const cx_device *dev)
{
	return ((const cx_cpu_device *)dev)->n_threads;
}
/* `rows` rows of n f32 per thread. */
static uint64_t rows_of(const cx_device *dev, uint64_t rows, int64_t n)
{
	return n_threads(dev) * rows * pad16(n) * 4;
}

#define scratch_none NULL
static uint64_t scratch_block_row(const cx_device *dev, const cx_kernel_key *k)
{
	return rows_of(dev, 1, k->in[0].dim[k->in[0].rank - 1]);
}
static uint64_t scratch_topk(const cx_device *dev, const cx_kernel_key *k)
{
	return n_threads(dev) * (((uint64_t)((const cx_attr_topk *)k->attr)->k * 16 + 63) & ~63ull);
}
static uint64_t scratch_softmax(const cx_device *dev, const cx_kernel_key *k)
{
	return rows_of(dev, 2, k->in[0].dim[((const cx_attr_softmax *)k->attr)->axis]);
}
static uint64_t scratch_norm(const cx_device *dev, const cx_kernel_key *k)
{
	return rows_of(dev, 2, k->in[0].dim[k->in[0].rank - 1]);
}
static uint64_t scratch_add_norm(const cx_device *dev, const cx_kernel_key *k)
{
	return rows_of(dev, 3, k->in[0].dim[k->in[0].rank - 1]);
}
static uint64_t scratch_groupnorm(const cx_device *dev, const cx_kernel_key *k)
{
	const cx_desc *x = &k->in[0];
	int64_t n = x->dim[1] / ((const cx_attr_groupnorm *)k->attr)->groups;
	for (int32_t i = 2; i < x->rank; i++) n *= x->dim[i];
	return rows_of(dev, 2, n);
}
static uint64_t scratch_rope(const cx_device *dev, const cx_kernel_key *k)
{
	return rows_of(dev, 4, k->in[0].dim[k->in[0].rank - 1]);
}
static uint64_t scratch_attention(const cx_device *dev, const cx_kernel_key *k)
{
	return n_threads(dev) * 4 *
		   (uint64_t)cx_attn_scratch(
			   k->in[0].dim[k->in[0].rank - 1], k->in[2].dim[k->in[2].rank - 1]);
}
static uint64_t scratch_embed_sum(const cx_device *dev, const cx_kernel_key *k)
{
	return rows_of(dev, 2, k->out[0].dim[1]);
}
static uint64_t scratch_conv1d(const cx_device *dev, const cx_kernel_key *k)
{
	(void)dev;
	return ((uint64_t)k->in[1].dim[1] + 1) * pad16(k->in[1].dim[0]) * 4;
}
static uint64_t scratch_delta(const cx_device *dev, const cx_kernel_key *k)
{
	const cx_attr_delta *at = k->attr;
	int64_t rows = k->in[0].dim[0], dk = k->in[0].dim[2], dv = k->in[2].dim[2];
	int64_t n = at->chunk == 0 ? 1 : at->chunk < rows ? at->chunk : rows;
	return n_threads(dev) * 4 *
		   (pad16(n * dk) * 3 + pad16(n * dv) * 2 + pad16(n) + pad16(n * n) + pad16(dk * dv));
}
static uint64_t scratch_norm_grad(const cx_device *dev, const cx_kernel_key *k)
{
	int64_t n = k->in[0].dim[k->in[0].rank - 1], rows = n ? cx__desc_elems(&k->in[0]) / n : 0,
			per = cx_norm_grad_rows(rows);
	return (uint64_t)((rows + per - 1) / per) * 2 * pad16(n) * 4 + rows_of(dev, 4, n);
}
static uint64_t scratch_attention_grad(const cx_device *dev, const cx_kernel_key *k)
{
	cx_attn_grad_scratch s;
	return n_threads(dev) * cx_attn_grad_lay_out(&s, NULL, k->in, 0) * 4;
}
static uint64_t scratch_conv1d_grad(const cx_device *dev, const cx_kernel_key *k)
{
	return n_threads(dev) * 64 * (uint64_t)(k->in[0].dim[0] + 3 * k->in[1].dim[1]);
}
static uint64_t scratch_delta_grad(const cx_device *dev, const cx_kernel_key *k)
{
	cx_delta_grad_scratch s;
	return n_threads(dev) * cx_delta_grad_lay_out(&s, NULL, k->in, 0) * 4;
}
static uint64_t scratch_xent(const cx_device *dev, const cx_kernel_key *k)
{
	return pad16(2 * k->in[0].dim[0]) * 4 + rows_of(dev, 1, k->in[0].dim[1]);
}
static uint64_t scratch_pair(const cx_device *dev, const cx_kernel_key *k)
{
	(void)dev;
	return (elems(&k->in[0]) / 4096 + 1) * 8;
}
static const cx_cpu_isa *isa_of(const cx_device *dev)
{
	return ((const cx_cpu_device *)dev)->isa;
}
static uint64_t scratch_matmul(const cx_device *dev, const cx_kernel_key *k)
{
	cx_cpu_linear l;
	cx_cpu_batch b;
	if (!cx__cpu_matmul_shape(k->attr, k->in, k->out, &l, &b)) return 0;
	return cx__cpu_product_scratch(isa_of(dev), &l, b.n, (uint32_t)n_threads(dev));
}
static uint64_t scratch_linear(const cx_device *dev, const cx_kernel_key *k)
{
	const cx_attr_linear *at = k->attr;
	cx_cpu_linear l;
	if (!cx__cpu_linear_shape(at, k->in, k->n_in, k->out, &l)) return 0;
	if (at->norm)
		l.row = (void (*)(const void *, int64_t, float *))1; /* only asked whether it is set */
	return cx__cpu_product_scratch(isa_of(dev), &l, 1, (uint32_t)n_threads(dev));
}

/* ---- the list ---- */

#define prepare_none NULL
#define prepare_map cx__cpu_map_prepare
#define prepare_rope rope_freqs

/* theta^(-2j/r), unless the frequencies are an operand. */
static cx_status rope_freqs(const cx_cpu_call *c, cx_arena *a, const void **plan, cx_err *err)
{
	const cx_attr_rope *at = c->attr;
	int64_t hd = c->in[0].d.dim[c->in[0].d.rank - 1], r = at->n_rot ? at->n_rot : hd;
	float *f = cx_arena_array(a, (size_t)(r / 2 + 1), sizeof *f);
	if (!f) return CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for the frequencies of a rope");
	for (int64_t j = 0; j < r / 2; j++) f[j] = (float)pow(at->theta, -2.0 * (double)j / (double)r);
	*plan = f;
	return CX_OK;
}

const cx_cpu_kernel cx__cpu_kernels[CX_CPU_N_KERNELS] = {
#define CX_CPU_KERNEL(op, fn, accept, work, scratch, inplace, prepare)                             \
	{{#fn, inplace, scratch_##scratch}, CX_OP_##op, accept_##accept, work_##work,                  \
		prepare_##prepare},
#include "backends/cpu/kernels.def"
#undef CX_CPU_KERNEL
};
