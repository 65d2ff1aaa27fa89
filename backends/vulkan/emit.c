/* emit.c - what launch functions share: dispatches, bindings, descriptions. */
#include "backends/vulkan/emit.h"

#include <string.h>

cx_vk_dispatch *cx__vk_begin(cx_vk_emit *e, uint32_t shader, uint32_t local)
{
	cx_vk_dispatch *d;
	if (e->n + 1 >= e->cap) { /* one more than needed: the last one is scratch after a failure */
		uint32_t cap = e->cap ? e->cap * 2 : 16;
		d = cx_realloc(e->alloc, e->d, e->cap * sizeof *d, cap * sizeof *d);
		if (!d) {
			if (e->st == CX_OK)
				e->st = CX_FAIL(e->err, CX_ERR_MEMORY, "vulkan: no memory for a program");
			d = &e->d[e->n];
			goto start;
		}
		e->d = d;
		e->cap = cap;
	}
	d = &e->d[e->n++];
start:
	memset(d, 0, sizeof *d);
	d->shader = (uint16_t)shader;
	d->groups[0] = d->groups[1] = 1;
	for (uint32_t i = 0; i < CX_VK_TENSORS; i++) d->p.t[i].dtype = CX_K_NONE;
	for (uint32_t i = 0; i < CX_VK_TENSORS + CX_VK_TEXELS; i++) d->slot[i].buf = CX_BUF_NONE;
	d->p.op = e->step->op;
	cx__vk_spec(d, local);
	return d;
}

void cx__vk_copy(cx_vk_emit *e, const cx_operand *y, const cx_operand *x, uint64_t n)
{
	cx_vk_dispatch *d = cx__vk_begin(e, 0, 1);
	d->copy = true;
	d->copy_off[0] = y->off;
	d->copy_off[1] = x->off;
	d->copy_bytes = n;
	d->slot[0] = (cx_vk_slot){.buf = y->buf, .off = y->off, .bytes = n, .write = true};
	d->slot[1] = (cx_vk_slot){.buf = x->buf, .off = x->off, .bytes = n, .read = true};
}

uint64_t cx__vk_extent(const cx_desc *d)
{
	const cx_dtype_info *info = cx_dtype_get(d->dtype);
	uint64_t last = 0;
	for (int32_t i = 0; i < d->rank; i++) {
		if (d->dim[i] == 0) return 0;
		last += (uint64_t)(d->dim[i] - 1) * (uint64_t)d->stride[i];
	}
	return (last / (uint64_t)info->block_elems + 1) * (uint64_t)info->block_bytes;
}

uint64_t cx__vk_room(const cx_vk_device *d)
{
	return d->max_range - d->props.limits.minStorageBufferOffsetAlignment;
}

void cx__vk_bind(
	cx_vk_emit *e, cx_vk_dispatch *d, uint32_t i, const cx_operand *o, int access, uint64_t bytes)
{
	uint64_t align = e->dev->props.limits.minStorageBufferOffsetAlignment,
			 base = o->off & ~(align - 1);
	const cx_dtype_info *info = cx_dtype_get(o->desc.dtype);
	struct cx_ktensor *t = &d->p.t[i];
	CX_ASSERT(i < CX_VK_TENSORS && o->desc.dtype != CX_DTYPE_COUNT);
	if (bytes == 0) bytes = cx__vk_extent(&o->desc);
	d->slot[i] = (cx_vk_slot){o->buf, base, o->off - base + bytes, (access & CX_VK_WRITE) != 0,
		(access & CX_VK_READ) != 0};
	t->dtype = (cx_u32)o->desc.dtype;
	t->off = (cx_u32)(o->off - base);
	if (info->cls != CX_CLASS_BLOCK) t->off /= (cx_u32)info->block_bytes;
	for (int32_t k = 0; k < CX_K_RANK; k++) {
		int32_t from = k - (CX_K_RANK - o->desc.rank);
		t->dim[k] = from < 0 ? 1 : (cx_u32)o->desc.dim[from];
		t->stride[k] =
			from < 0 ? 0 : (cx_u32)(o->desc.stride[from] / (k < 5 ? info->block_elems : 1));
	}
}

/* Four f32 or f16 elements; all strides but the innermost, and the offset behind the aligned
 * base, in whole texels. */
bool cx__vk_texel_ok(const cx_vk_device *d, const cx_operand *o)
{
	const VkPhysicalDeviceLimits *l = &d->props.limits;
	uint64_t size = o->desc.dtype == CX_F32 ? 16 : 8, align = l->minStorageBufferOffsetAlignment;
	int32_t ones = 0;
	if (o->desc.dtype != CX_F32 && o->desc.dtype != CX_F16) return false;
	if (o->off % size || align % l->minTexelBufferOffsetAlignment) return false;
	if (cx__vk_extent(&o->desc) % size ||
		cx__vk_extent(&o->desc) / size > l->maxTexelBufferElements)
		return false;
	for (int32_t i = 0; i < o->desc.rank; i++) {
		if (o->desc.stride[i] == 1) ones++;
		else if (o->desc.dim[i] > 1 && o->desc.stride[i] % 4) return false;
	}
	return ones == 1;
}

void cx__vk_texel(const cx_vk_emit *e, cx_vk_dispatch *d, uint32_t i, uint32_t from)
{
	cx_vk_slot *t = &d->slot[cx__vk_shaders[d->shader].n_tensors + i];
	(void)e;
	*t = d->slot[from];
	t->format = d->p.t[from].dtype == CX_F32 ? VK_FORMAT_R32G32B32A32_SFLOAT
											 : VK_FORMAT_R16G16B16A16_SFLOAT;
	d->slot[from].buf = CX_BUF_NONE;
}

enum { MAX_GROUPS = 65535 };

void cx__vk_groups(cx_vk_dispatch *d, uint64_t n)
{
	uint64_t x = n < MAX_GROUPS ? n : MAX_GROUPS;
	d->groups[0] = (uint32_t)x;
	d->groups[1] = x ? (uint32_t)((n + x - 1) / x) : 0;
	d->p.n = (cx_u32)n;
}

void cx__vk_items(cx_vk_dispatch *d, uint64_t n)
{
	cx__vk_groups(d, (n + d->spec[0] - 1) / d->spec[0]);
	d->p.n = (cx_u32)n;
}

void *cx__vk_table(cx_vk_emit *e, cx_dtype dtype, int64_t n, cx_operand *out)
{
	size_t bytes = (size_t)n * (size_t)cx_dtype_get(dtype)->block_bytes,
		   at = (e->n_table + 255) & ~(size_t)255;
	if (at + bytes > e->cap_table) {
		size_t cap = (at + bytes) * 2;
		void *p = cx_realloc(e->alloc, e->table, e->cap_table, cap);
		if (!p) {
			if (e->st == CX_OK)
				e->st = CX_FAIL(e->err, CX_ERR_MEMORY, "vulkan: no memory for a table");
			return NULL;
		}
		memset((char *)p + e->cap_table, 0, cap - e->cap_table);
		e->table = p;
		e->cap_table = cap;
	}
	e->n_table = at + bytes;
	*out = (cx_operand){.desc = {.dtype = dtype, .rank = 1, .dim = {n}, .stride = {1}},
		.buf = CX_VK_BUF_TABLE,
		.off = at};
	return e->table + at;
}

cx_operand cx__vk_scratch(
	const cx_step *s, uint64_t off, cx_dtype dtype, int64_t rows, int64_t cols)
{
	return (cx_operand){
		.desc = {.dtype = dtype, .rank = 2, .dim = {rows, cols}, .stride = {cols, 1}},
		.buf = CX_BUF_SLAB,
		.off = s->scratch_off + off};
}

/* ---- descriptions ---- */

void cx__vk_in_space(cx_desc *d, int32_t rank, const int64_t *dim)
{
	cx_desc s = {.dtype = d->dtype, .rank = rank};
	for (int32_t i = 0; i < rank; i++) {
		int32_t from = i - (rank - d->rank);
		s.dim[i] = dim[i];
		s.stride[i] = from < 0 || d->dim[from] == 1 ? 0 : d->stride[from];
	}
	*d = s;
}

void cx__vk_collapse(cx_desc **d, uint32_t n)
{
	int32_t rank = d[0]->rank, to = -1;
	for (int32_t i = 0; i < rank; i++) {
		bool joins = to >= 0;
		if (d[0]->dim[i] == 1) continue;
		for (uint32_t k = 0; joins && k < n; k++)
			joins = d[k]->stride[to] == d[k]->stride[i] * d[k]->dim[i];
		if (!joins) to++;
		for (uint32_t k = 0; k < n; k++) {
			d[k]->dim[to] = (joins ? d[k]->dim[to] : 1) * d[k]->dim[i];
			d[k]->stride[to] = d[k]->stride[i];
		}
	}
	for (uint32_t k = 0; k < n; k++) d[k]->rank = to + 1;
}

bool cx__vk_fits(const cx_vk_device *d, const cx_desc *desc)
{
	return cx__vk_extent(desc) <= cx__vk_room(d) && cx__desc_elems(desc) <= INT32_MAX;
}

int64_t cx__vk_piece(const cx_vk_device *d, const cx_desc *const *desc, uint32_t n, int32_t axis)
{
	uint64_t room = cx__vk_room(d);
	int64_t most = desc[0]->dim[axis];
	for (uint32_t i = 0; i < n; i++) {
		const cx_dtype_info *info = cx_dtype_get(desc[i]->dtype);
		cx_desc one = *desc[i];
		uint64_t step, least;
		int64_t elems;
		if (one.dim[axis] == 0) continue;
		one.dim[axis] = 1;
		least = cx__vk_extent(&one);
		elems = cx__desc_elems(&one);
		step =
			(uint64_t)one.stride[axis] / (uint64_t)info->block_elems * (uint64_t)info->block_bytes;
		if (least > room || elems > INT32_MAX) return 0;
		if (step && (uint64_t)most > (room - least) / step + 1)
			most = (int64_t)((room - least) / step + 1);
		if (elems && most > INT32_MAX / elems) most = INT32_MAX / elems;
	}
	return most;
}

cx_operand cx__vk_rows(const cx_operand *o, int32_t axis, int64_t first, int64_t n)
{
	const cx_dtype_info *info = cx_dtype_get(o->desc.dtype);
	cx_operand part = *o;
	part.off +=
		(uint64_t)(first * o->desc.stride[axis] / info->block_elems) * (uint64_t)info->block_bytes;
	part.desc.dim[axis] = n;
	return part;
}

void cx__vk_axis_last(cx_desc *d, int64_t axis)
{
	int64_t dim = d->dim[axis], stride = d->stride[axis];
	for (int64_t i = axis; i + 1 < d->rank; i++) {
		d->dim[i] = d->dim[i + 1];
		d->stride[i] = d->stride[i + 1];
	}
	d->dim[d->rank - 1] = dim;
	d->stride[d->rank - 1] = stride;
}
