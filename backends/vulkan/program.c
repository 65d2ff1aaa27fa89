/* program.c - steps compiled into recorded command buffers.
 *
 * One command buffer runs the whole program, and one more per step serves submits of a part, with
 * timestamps around it. A
 * barrier is recorded
 * only where a dispatch reads or writes bytes that an earlier one since the last barrier wrote
 * or read. */
#include "backends/vulkan/emit.h"

#include <string.h>

typedef struct access {
	VkBuffer buf;
	uint64_t lo, hi;
	bool write;
} access;

struct cx_program {
	cx_vk_device *dev;
	cx_buffer *params; /* of launches, then tables, then a block for bindings that are not used */
	uint64_t table_off, dummy_off;
	VkDescriptorPool sets;
	VkBufferView *views; /* [n_views] */
	uint32_t n_views, cap_views;
	VkCommandPool pool;
	VkCommandBuffer *cmds; /* [n_steps + 1]; the last is the whole program */
	uint32_t n_steps;
};

typedef struct compiler {
	cx_program *p;
	cx_vk_emit e;
	uint32_t *first; /* [n_steps + 1]: first dispatch of each step */
	VkPipeline *pipes;
	VkDescriptorSet *sets;
	access *log; /* accesses since the last barrier */
	uint32_t n_log, cap_log;
} compiler;

static cx_status no_memory(cx_err *err)
{
	return CX_FAIL(err, CX_ERR_MEMORY, "vulkan: no memory for a program");
}

/* ---- parameters ---- */

static cx_status make_params(compiler *c, cx_err *err)
{
	cx_program *p = c->p;
	cx_vk_emit *e = &c->e;
	uint64_t head = (uint64_t)e->n * sizeof(struct cx_kparams), all;
	cx_status st;
	p->table_off = (head + 255) & ~(uint64_t)255;
	p->dummy_off = (p->table_off + e->n_table + 255) & ~(uint64_t)255;
	all = p->dummy_off + 256;
	if (all > p->dev->max_range)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"vulkan: the parameters of %u dispatches are over the device's %llu bytes", e->n,
			(unsigned long long)p->dev->max_range);
	if ((st = cx__vk_alloc(&p->dev->base, all, NULL, &p->params, err)) != CX_OK) return st;
	for (uint32_t i = 0; i < e->n; i++) {
		st = cx__vk_write(
			p->params, i * sizeof(struct cx_kparams), &e->d[i].p, sizeof(struct cx_kparams), err);
		if (st != CX_OK) return st;
	}
	return cx__vk_write(p->params, p->table_off, e->table, e->n_table, err);
}

/* ---- descriptors ---- */

static VkDescriptorBufferInfo slot_info(const compiler *c, const cx_vk_slot *s, bool is_output)
{
	const cx_program *p = c->p;
	const cx_vk_buffer *params = (const cx_vk_buffer *)p->params, *b;
	uint64_t off = s->off, size;
	if (s->buf ==
		CX_BUF_NONE) /* bytes of its own, so that nothing seems to race with the parameters */
		return (VkDescriptorBufferInfo){params->m.buf, is_output ? p->dummy_off : 0, 256};
	b = s->buf == CX_VK_BUF_TABLE ? params : (const cx_vk_buffer *)c->e.binds->bufs[s->buf];
	if (s->buf == CX_VK_BUF_TABLE) off += p->table_off;
	size = (s->bytes + 15) & ~(uint64_t)15; /* words around the last element */
	if (s->bytes == 0 || off >= b->size) off = 0, size = 16;
	if (size > b->size - off) size = b->size - off;
	CX_ASSERT(size <= p->dev->max_range && off + s->bytes <= b->size);
	return (VkDescriptorBufferInfo){b->m.buf, off, size};
}

static cx_status make_view(compiler *c, const cx_vk_slot *s, VkBufferView *out, cx_err *err)
{
	cx_program *p = c->p;
	cx_vk_device *d = p->dev;
	const cx_vk_buffer *b = (const cx_vk_buffer *)c->e.binds->bufs[s->buf];
	VkBufferViewCreateInfo info = {VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO, .buffer = b->m.buf,
		.format = s->format, .offset = s->off, .range = s->bytes};
	VkResult r = d->vk.CreateBufferView(d->dev, &info, NULL, out);
	if (r != VK_SUCCESS) return cx__vk_fail(d, r, "no texel buffer", err);
	p->views[p->n_views++] = *out;
	return CX_OK;
}

static cx_status write_set(compiler *c, uint32_t i, cx_err *err)
{
	cx_vk_device *d = c->p->dev;
	const cx_vk_dispatch *x = &c->e.d[i];
	const cx_vk_shader *s = &cx__vk_shaders[x->shader];
	VkDescriptorBufferInfo b[CX_VK_TENSORS + 1];
	VkBufferView views[CX_VK_TEXELS];
	VkWriteDescriptorSet w[2] = {
		{VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET, .dstSet = c->sets[i],
			.descriptorCount = s->n_tensors + 1u,
			.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, .pBufferInfo = b},
		{VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET, .dstSet = c->sets[i],
			.dstBinding = s->n_tensors + 1u, .descriptorCount = s->n_texel,
			.descriptorType = VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, .pTexelBufferView = views}};
	cx_status st;
	b[0] = (VkDescriptorBufferInfo){((cx_vk_buffer *)c->p->params)->m.buf, 0, c->p->dummy_off};
	for (uint32_t k = 0; k < s->n_tensors; k++) b[k + 1] = slot_info(c, &x->slot[k], k < s->n_out);
	for (uint32_t k = 0; k < s->n_texel; k++)
		if ((st = make_view(c, &x->slot[s->n_tensors + k], &views[k], err)) != CX_OK) return st;
	d->vk.UpdateDescriptorSets(d->dev, s->n_texel ? 2 : 1, w, 0, NULL);
	return CX_OK;
}

static cx_status make_sets(compiler *c, cx_err *err)
{
	cx_vk_device *d = c->p->dev;
	VkDescriptorPoolSize size[2] = {
		{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 0}, {VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, 0}};
	VkDescriptorPoolCreateInfo info = {
		VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO, .poolSizeCount = 1, .pPoolSizes = size};
	VkResult r;
	cx_status st;
	for (uint32_t i = 0; i < c->e.n; i++) {
		if (c->e.d[i].copy) continue;
		info.maxSets++;
		size[0].descriptorCount += 1u + cx__vk_shaders[c->e.d[i].shader].n_tensors;
		size[1].descriptorCount += cx__vk_shaders[c->e.d[i].shader].n_texel;
	}
	if (info.maxSets == 0) return CX_OK;
	if (size[1].descriptorCount) info.poolSizeCount = 2;
	c->p->cap_views = size[1].descriptorCount;
	c->p->views = cx_calloc(d->alloc, c->p->cap_views + 1, sizeof *c->p->views);
	if (!c->p->views) return no_memory(err);
	r = d->vk.CreateDescriptorPool(d->dev, &info, NULL, &c->p->sets);
	if (r != VK_SUCCESS) return cx__vk_fail(d, r, "no descriptor pool", err);
	for (uint32_t i = 0; i < c->e.n; i++) {
		VkDescriptorSetAllocateInfo alloc = {VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
			.descriptorPool = c->p->sets, .descriptorSetCount = 1,
			.pSetLayouts = &d->set_layout[c->e.d[i].shader]};
		if (c->e.d[i].copy) continue;
		r = d->vk.AllocateDescriptorSets(d->dev, &alloc, &c->sets[i]);
		if (r != VK_SUCCESS) return cx__vk_fail(d, r, "no descriptor set", err);
		if ((st = write_set(c, i, err)) != CX_OK) return st;
	}
	return CX_OK;
}

/* ---- barriers ---- */

static void barrier(const compiler *c, VkCommandBuffer cmd, bool from_outside, bool to_outside)
{
	const VkPipelineStageFlags inside =
		VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
	const VkAccessFlags writes = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
	const VkAccessFlags reads = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_TRANSFER_READ_BIT;
	VkMemoryBarrier all = {VK_STRUCTURE_TYPE_MEMORY_BARRIER,
		.srcAccessMask = writes | (from_outside ? VK_ACCESS_HOST_WRITE_BIT : 0),
		.dstAccessMask =
			reads | writes | (to_outside ? VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT : 0)};
	c->p->dev->vk.CmdPipelineBarrier(cmd, inside | (from_outside ? VK_PIPELINE_STAGE_HOST_BIT : 0),
		inside | (to_outside ? VK_PIPELINE_STAGE_HOST_BIT : 0), 0, 1, &all, 0, NULL, 0, NULL);
}

static access access_of(const compiler *c, const cx_vk_slot *s)
{
	const cx_vk_buffer *b = (const cx_vk_buffer *)c->e.binds->bufs[s->buf];
	return (access){b->m.buf, s->off, s->off + s->bytes, s->write};
}

static bool is_memory(const cx_vk_slot *s)
{
	return s->buf != CX_BUF_NONE && s->buf != CX_VK_BUF_TABLE && s->bytes > 0;
}

/* Does dispatch x touch what the first n entries of the log touched, one of the two writing? */
static bool clashes(const compiler *c, const cx_vk_dispatch *x, uint32_t n)
{
	for (uint32_t k = 0; k < CX_VK_TENSORS + CX_VK_TEXELS; k++) {
		access a;
		if (!is_memory(&x->slot[k])) continue;
		a = access_of(c, &x->slot[k]);
		for (uint32_t i = 0; i < n; i++) {
			const access *b = &c->log[i];
			if (a.buf == b->buf && (a.write || b->write) && a.lo < b->hi && b->lo < a.hi)
				return true;
		}
	}
	return false;
}

static cx_status remember(compiler *c, const cx_vk_dispatch *x, cx_err *err)
{
	for (uint32_t k = 0; k < CX_VK_TENSORS + CX_VK_TEXELS; k++) {
		if (!is_memory(&x->slot[k])) continue;
		if (c->n_log == c->cap_log) {
			uint32_t cap = c->cap_log ? c->cap_log * 2 : 64;
			access *log =
				cx_realloc(c->p->dev->alloc, c->log, c->cap_log * sizeof *log, cap * sizeof *log);
			if (!log) return no_memory(err);
			c->log = log;
			c->cap_log = cap;
		}
		c->log[c->n_log++] = access_of(c, &x->slot[k]);
	}
	return CX_OK;
}

/* ---- recording ---- */

static void record_copy(const compiler *c, VkCommandBuffer cmd, const cx_vk_dispatch *x)
{
	const cx_vk_buffer *b[2];
	VkBufferCopy part = {x->copy_off[1], x->copy_off[0], x->copy_bytes};
	for (int i = 0; i < 2; i++)
		b[i] = (const cx_vk_buffer *)(x->slot[i].buf == CX_VK_BUF_TABLE
										  ? c->p->params
										  : c->e.binds->bufs[x->slot[i].buf]);
	if (x->slot[1].buf == CX_VK_BUF_TABLE) part.srcOffset += c->p->table_off;
	c->p->dev->vk.CmdCopyBuffer(cmd, b[1]->m.buf, b[0]->m.buf, 1, &part);
}

static void record_dispatch(const compiler *c, VkCommandBuffer cmd, uint32_t i)
{
	const cx_vk_dispatch *x = &c->e.d[i];
	const cx_vk_device *d = c->p->dev;
	VkPipelineLayout layout = d->layout[x->shader];
	uint32_t base = i * CX_VK_PARAM_WORDS;
	if (x->copy) {
		record_copy(c, cmd, x);
		return;
	}
	d->vk.CmdBindPipeline(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, c->pipes[i]);
	d->vk.CmdBindDescriptorSets(
		cmd, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &c->sets[i], 0, NULL);
	d->vk.CmdPushConstants(cmd, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, 4, &base);
	d->vk.CmdDispatch(cmd, x->groups[0], x->groups[1], 1);
}

/* Timestamp 0 or 1 of the device, which one run at a time uses. */
static void stamp(const cx_vk_device *d, VkCommandBuffer cmd, uint32_t which)
{
	if (!d->times) return;
	if (which == 0) d->vk.CmdResetQueryPool(cmd, d->times, 0, 2);
	d->vk.CmdWriteTimestamp(cmd,
		which == 0 ? VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT : VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT,
		d->times, which);
}

/* Steps first..end-1 into cmd; cmds[n_steps] is that of runs and has no timestamps. */
static cx_status record(compiler *c, VkCommandBuffer cmd, uint32_t first, uint32_t end, cx_err *err)
{
	const cx_vk_device *d = c->p->dev;
	VkCommandBufferBeginInfo info = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
	VkResult r = d->vk.BeginCommandBuffer(cmd, &info);
	bool whole = cmd == c->p->cmds[c->p->n_steps];
	cx_status st;
	if (r != VK_SUCCESS) return cx__vk_fail(c->p->dev, r, "recording a program", err);
	barrier(c, cmd, true, false);
	if (!whole) stamp(d, cmd, 0);
	c->n_log = 0;
	for (uint32_t s = first; s < end; s++) {
		uint32_t others =
			c->n_log; /* dispatches of one step say themselves where they depend on each other */
		for (uint32_t i = c->first[s]; i < c->first[s + 1]; i++) {
			const cx_vk_dispatch *x = &c->e.d[i];
			if (x->groups[0] == 0) continue;
			/* descriptors begin at aligned addresses, so those of neighbours overlap: fine
			 * among shaders, which
			 * write their own elements only, but copies are of another stage */
			bool mixed = i > c->first[s] && c->e.d[i - 1].copy != x->copy;
			if (x->after || mixed || clashes(c, x, others)) {
				barrier(c, cmd, false, false);
				c->n_log = others = 0;
			}
			record_dispatch(c, cmd, i);
			if ((st = remember(c, x, err)) != CX_OK) return st;
		}
	}
	if (!whole) stamp(d, cmd, 1);
	barrier(c, cmd, false, true);
	r = d->vk.EndCommandBuffer(cmd);
	return r == VK_SUCCESS ? CX_OK : cx__vk_fail(c->p->dev, r, "recording a program", err);
}

static cx_status record_all(compiler *c, cx_err *err)
{
	cx_program *p = c->p;
	cx_vk_device *d = p->dev;
	VkCommandPoolCreateInfo pool = {
		VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .queueFamilyIndex = d->family};
	VkCommandBufferAllocateInfo cmd = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
		.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY, .commandBufferCount = p->n_steps + 1};
	cx_status st = CX_OK;
	VkResult r = d->vk.CreateCommandPool(d->dev, &pool, NULL, &p->pool);
	cmd.commandPool = p->pool;
	if (r == VK_SUCCESS) r = d->vk.AllocateCommandBuffers(d->dev, &cmd, p->cmds);
	if (r != VK_SUCCESS) return cx__vk_fail(d, r, "no command buffers", err);
	for (uint32_t s = 0; s < p->n_steps && st == CX_OK; s++)
		st = record(c, p->cmds[s], s, s + 1, err);
	return st == CX_OK ? record(c, p->cmds[p->n_steps], 0, p->n_steps, err) : st;
}

static cx_status emit_steps(compiler *c, const cx_step *steps, cx_err *err)
{
	for (uint32_t s = 0; s < c->p->n_steps; s++) {
		c->first[s] = c->e.n;
		c->e.step = &steps[s];
		((const cx_vk_kernel *)steps[s].kernel)->launch(&c->e);
		if (c->e.st != CX_OK) return c->e.st;
	}
	c->first[c->p->n_steps] = c->e.n;
	c->pipes = cx_calloc(c->e.alloc, c->e.n + 1, sizeof *c->pipes);
	c->sets = cx_calloc(c->e.alloc, c->e.n + 1, sizeof *c->sets);
	if (!c->pipes || !c->sets) return no_memory(err);
	for (uint32_t i = 0; i < c->e.n; i++) {
		const cx_vk_dispatch *x = &c->e.d[i];
		cx_status st = x->copy ? CX_OK
							   : cx__vk_pipeline_get(
									 c->p->dev, x->shader, x->spec, x->n_spec, &c->pipes[i], err);
		if (st != CX_OK) return st;
	}
	return CX_OK;
}

static void compiler_free(compiler *c)
{
	const cx_alloc *a = c->e.alloc;
	cx_free(a, c->first, (c->p->n_steps + 1) * sizeof *c->first);
	cx_free(a, c->pipes, (c->e.n + 1) * sizeof *c->pipes);
	cx_free(a, c->sets, (c->e.n + 1) * sizeof *c->sets);
	cx_free(a, c->log, c->cap_log * sizeof *c->log);
	cx_free(a, c->e.d, c->e.cap * sizeof *c->e.d);
	cx_free(a, c->e.table, c->e.cap_table);
}

static cx_status start(
	compiler *c, cx_vk_device *d, uint32_t n_steps, const cx_bindings *binds, cx_err *err)
{
	c->p = cx_calloc(d->alloc, 1, sizeof *c->p);
	if (!c->p) return no_memory(err);
	c->p->dev = d;
	c->p->n_steps = n_steps;
	c->e = (cx_vk_emit){.dev = d, .alloc = d->alloc, .binds = binds, .err = err};
	c->first = cx_calloc(d->alloc, n_steps + 1, sizeof *c->first);
	c->p->cmds = cx_calloc(d->alloc, n_steps + 1, sizeof(VkCommandBuffer));
	c->e.d = cx_calloc(d->alloc, 16, sizeof *c->e.d);
	if (!c->first || !c->p->cmds || !c->e.d) return no_memory(err);
	c->e.cap = 16;
	return CX_OK;
}

cx_status cx__vk_compile(cx_device *dev, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err)
{
	cx_vk_device *d = (cx_vk_device *)dev;
	compiler c = {0};
	cx_status st = cx__vk_usable(d, err);
	*out = NULL;
	if (st != CX_OK) return st;
	st = start(&c, d, n_steps, binds, err);
	if (st == CX_OK) st = emit_steps(&c, steps, err);
	if (st == CX_OK) st = make_params(&c, err);
	if (st == CX_OK) st = make_sets(&c, err);
	if (st == CX_OK) st = record_all(&c, err);
	if (c.p) compiler_free(&c);
	if (st != CX_OK) {
		cx__vk_discard(c.p);
		return st;
	}
	*out = c.p;
	return CX_OK;
}

cx_status cx__vk_submit(cx_program *p, uint32_t first, uint32_t n, cx_err *err)
{
	cx_vk_device *d = p->dev;
	VkSubmitInfo info = {
		VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = n, .pCommandBuffers = p->cmds + first};
	cx_status st;
	VkResult r;
	if (first > p->n_steps || n > p->n_steps - first)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "vulkan: steps %u..+%u of %u", first, n, p->n_steps);
	if ((st = cx__vk_wait(&d->base, err)) != CX_OK || n == 0)
		return st; /* one fence, one run at a time */
	d->timing = d->base.timed && n == 1 && d->times;
	if (n == p->n_steps && !d->timing) {
		info.commandBufferCount = 1;
		info.pCommandBuffers = p->cmds + n;
	}
	r = d->vk.QueueSubmit(d->queue, 1, &info, d->fence);
	if (r != VK_SUCCESS) {
		d->base.failed = true;
		return cx__vk_fail(d, r, "starting a run", err);
	}
	d->in_flight = true;
	return CX_OK;
}

void cx__vk_discard(cx_program *p)
{
	cx_vk_device *d;
	if (!p) return;
	d = p->dev;
	if (d->in_flight) cx__vk_wait(&d->base, NULL);
	if (p->pool) d->vk.DestroyCommandPool(d->dev, p->pool, NULL);
	if (p->sets) d->vk.DestroyDescriptorPool(d->dev, p->sets, NULL);
	for (uint32_t i = 0; i < p->n_views; i++) d->vk.DestroyBufferView(d->dev, p->views[i], NULL);
	if (p->views) cx_free(d->alloc, p->views, (p->cap_views + 1) * sizeof *p->views);
	cx__vk_free(p->params);
	cx_free(d->alloc, p->cmds, (p->n_steps + 1) * sizeof(VkCommandBuffer));
	cx_free(d->alloc, p, sizeof *p);
}
