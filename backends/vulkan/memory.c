/* memory.c - buffers of the vulkan backend. On devices that share the host's memory a buffer is
 * mapped once and
 * written and read through that; elsewhere it is device-local and goes through a staging
 * buffer in pieces. */
#include "backends/vulkan/vk.h"

#include <stdio.h>
#include <string.h>

/* Index of the best memory type among `allowed`, or -1. */
static int memory_type(const cx_vk_device *d, uint32_t allowed, bool host)
{
	const VkMemoryPropertyFlags visible =
		VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
	VkMemoryPropertyFlags want[3] = {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0, 0};
	if (host) want[0] = visible | VK_MEMORY_PROPERTY_HOST_CACHED_BIT, want[1] = want[2] = visible;
	else if (d->unified)
		want[0] |= visible | VK_MEMORY_PROPERTY_HOST_CACHED_BIT, want[1] = want[2] = visible;
	for (int k = 0; k < 3; k++)
		for (uint32_t i = 0; i < d->memory.memoryTypeCount; i++)
			if ((allowed >> i & 1) && (d->memory.memoryTypes[i].propertyFlags & want[k]) == want[k])
				return (int)i;
	return -1;
}

cx_status cx__vk_memory_make(
	cx_vk_device *d, uint64_t bytes, bool host, struct cx_vk_memory *out, cx_err *err)
{
	VkBufferCreateInfo info = {VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = bytes,
		.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT |
				 VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT};
	VkMemoryAllocateInfo mem = {VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO};
	VkMemoryRequirements need;
	void *map = NULL;
	char what[64];
	VkResult r;
	int type;
	*out = (struct cx_vk_memory){0};
	if (d->max_alloc && bytes > d->max_alloc)
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: a buffer of %llu bytes, the driver allows %llu",
			d->base.name, (unsigned long long)bytes, (unsigned long long)d->max_alloc);
	if ((r = d->vk.CreateBuffer(d->dev, &info, NULL, &out->buf)) != VK_SUCCESS) goto fail;
	d->vk.GetBufferMemoryRequirements(d->dev, out->buf, &need);
	type = memory_type(d, need.memoryTypeBits, host);
	mem.allocationSize = need.size;
	mem.memoryTypeIndex = (uint32_t)type;
	r = type < 0 ? VK_ERROR_OUT_OF_DEVICE_MEMORY
				 : d->vk.AllocateMemory(d->dev, &mem, NULL, &out->mem);
	if (r == VK_SUCCESS) r = d->vk.BindBufferMemory(d->dev, out->buf, out->mem, 0);
	if (r == VK_SUCCESS && (host || d->unified))
		r = d->vk.MapMemory(d->dev, out->mem, 0, VK_WHOLE_SIZE, 0, &map);
	out->map = map;
	if (r == VK_SUCCESS) return CX_OK;
fail:
	cx__vk_memory_free(d, out);
	snprintf(what, sizeof what, "no buffer of %llu bytes", (unsigned long long)bytes);
	return cx__vk_fail(d, r, what, err);
}

void cx__vk_memory_free(cx_vk_device *d, struct cx_vk_memory *m)
{
	if (m->buf) d->vk.DestroyBuffer(d->dev, m->buf, NULL);
	if (m->mem) d->vk.FreeMemory(d->dev, m->mem, NULL); /* unmaps */
	*m = (struct cx_vk_memory){0};
}

/* ---- the queue ---- */

static VkResult read_times(cx_vk_device *d)
{
	uint64_t t[2] = {0, 0};
	VkResult r = d->vk.GetQueryPoolResults(
		d->dev, d->times, 0, 2, sizeof t, t, sizeof t[0], VK_QUERY_RESULT_64_BIT);
	d->timing = false;
	d->base.seconds =
		1e-9 * (double)d->props.limits.timestampPeriod * (double)((t[1] - t[0]) & d->times_mask);
	return r;
}

cx_status cx__vk_wait(cx_device *dev, cx_err *err)
{
	cx_vk_device *d = (cx_vk_device *)dev;
	VkResult r;
	cx_status st = cx__vk_usable(d, err);
	if (st != CX_OK || !d->in_flight) return st;
	d->in_flight = false;
	r = d->vk.WaitForFences(d->dev, 1, &d->fence, VK_TRUE, UINT64_MAX);
	if (r == VK_SUCCESS) r = d->vk.ResetFences(d->dev, 1, &d->fence);
	if (r == VK_SUCCESS && d->timing) r = read_times(d);
	if (r == VK_SUCCESS) return CX_OK;
	d->base.failed = true; /* whatever it is, the order of what comes next is lost */
	return cx__vk_fail(d, r, "waiting for the device", err);
}

static cx_status begin_copy(cx_vk_device *d, cx_err *err)
{
	VkCommandBufferBeginInfo info = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
		.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
	VkResult r;
	cx_status st = cx__vk_wait(&d->base, err);
	if (st != CX_OK) return st;
	r = d->vk.BeginCommandBuffer(d->copy_cmd, &info);
	return r == VK_SUCCESS ? CX_OK : cx__vk_fail(d, r, "recording a copy", err);
}

/* Submits the copy and waits; what it wrote is then visible to shaders, later copies and the
 * host. */
static cx_status end_copy(cx_vk_device *d, cx_err *err)
{
	VkMemoryBarrier all = {VK_STRUCTURE_TYPE_MEMORY_BARRIER,
		.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
		.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
						 VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT |
						 VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT};
	VkSubmitInfo submit = {
		VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &d->copy_cmd};
	VkResult r;
	d->vk.CmdPipelineBarrier(d->copy_cmd, VK_PIPELINE_STAGE_TRANSFER_BIT,
		VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT |
			VK_PIPELINE_STAGE_HOST_BIT,
		0, 1, &all, 0, NULL, 0, NULL);
	r = d->vk.EndCommandBuffer(d->copy_cmd);
	if (r == VK_SUCCESS) r = d->vk.QueueSubmit(d->queue, 1, &submit, d->fence);
	if (r != VK_SUCCESS) return cx__vk_fail(d, r, "submitting a copy", err);
	d->in_flight = true;
	return cx__vk_wait(&d->base, err);
}

/* ---- buffers ---- */

static cx_status clear(cx_vk_device *d, cx_vk_buffer *b, cx_err *err)
{
	cx_status st;
	if (b->m.map) {
		memset(b->m.map, 0, (size_t)b->size);
		return CX_OK;
	}
	if ((st = begin_copy(d, err)) != CX_OK) return st;
	d->vk.CmdFillBuffer(d->copy_cmd, b->m.buf, 0, VK_WHOLE_SIZE, 0);
	return end_copy(d, err);
}

cx_status cx__vk_alloc(
	cx_device *dev, uint64_t bytes, const void *host, cx_buffer **out, cx_err *err)
{
	cx_vk_device *d = (cx_vk_device *)dev;
	cx_vk_buffer *b;
	cx_status st = cx__vk_usable(d, err);
	*out = NULL;
	CX_ASSERT(!host); /* limits say that host memory is not wrapped */
	if (st != CX_OK) return st;
	b = cx_calloc(d->alloc, 1, sizeof *b);
	if (!b) return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a buffer", dev->name);
	b->base = (cx_buffer){dev, bytes};
	/* whole words, and never empty: shaders see every buffer as words too */
	if (!cx_add_u64(bytes, 16, &b->size)) b->size = UINT64_MAX;
	b->size &= ~(uint64_t)15;
	if (b->size < 16) b->size = 16;
	st = cx__vk_memory_make(d, b->size, false, &b->m, err);
	if (st == CX_OK) st = clear(d, b, err);
	if (st != CX_OK) {
		cx__vk_free(&b->base);
		return st;
	}
	*out = &b->base;
	return CX_OK;
}

void cx__vk_free(cx_buffer *buf)
{
	cx_vk_buffer *b = (cx_vk_buffer *)buf;
	cx_vk_device *d;
	if (!b) return;
	d = (cx_vk_device *)buf->dev;
	if (d->in_flight) cx__vk_wait(buf->dev, NULL); /* a step may still use it */
	cx__vk_memory_free(d, &b->m);
	cx_free(d->alloc, b, sizeof *b);
}

static cx_status check_range(const cx_buffer *buf, uint64_t off, uint64_t bytes, cx_err *err)
{
	if (off <= buf->bytes && bytes <= buf->bytes - off) return CX_OK;
	return CX_FAIL(err, CX_ERR_ARGUMENT, "vulkan: %llu bytes at %llu are outside a buffer of %llu",
		(unsigned long long)bytes, (unsigned long long)off, (unsigned long long)buf->bytes);
}

/* One piece between the staging buffer and b. */
static cx_status stage(cx_vk_device *d, VkBuffer from, uint64_t from_off, VkBuffer to,
	uint64_t to_off, uint64_t n, cx_err *err)
{
	VkBufferCopy piece = {from_off, to_off, n};
	cx_status st = begin_copy(d, err);
	if (st != CX_OK) return st;
	d->vk.CmdCopyBuffer(d->copy_cmd, from, to, 1, &piece);
	return end_copy(d, err);
}

cx_status cx__vk_write(cx_buffer *buf, uint64_t off, const void *src, uint64_t bytes, cx_err *err)
{
	cx_vk_device *d = (cx_vk_device *)buf->dev;
	cx_vk_buffer *b = (cx_vk_buffer *)buf;
	cx_status st = check_range(buf, off, bytes, err);
	if (st != CX_OK || bytes == 0) return st;
	if ((st = cx__vk_wait(buf->dev, err)) != CX_OK) return st;
	if (b->m.map) {
		memcpy(b->m.map + off, src, (size_t)bytes);
		return CX_OK;
	}
	for (uint64_t at = 0; at < bytes; at += CX_VK_STAGING) {
		uint64_t n = bytes - at < CX_VK_STAGING ? bytes - at : CX_VK_STAGING;
		memcpy(d->staging.map, (const char *)src + at, (size_t)n);
		if ((st = stage(d, d->staging.buf, 0, b->m.buf, off + at, n, err)) != CX_OK) return st;
	}
	return CX_OK;
}

cx_status cx__vk_read(cx_buffer *buf, uint64_t off, void *dst, uint64_t bytes, cx_err *err)
{
	cx_vk_device *d = (cx_vk_device *)buf->dev;
	cx_vk_buffer *b = (cx_vk_buffer *)buf;
	cx_status st = check_range(buf, off, bytes, err);
	if (st != CX_OK || bytes == 0) return st;
	if ((st = cx__vk_wait(buf->dev, err)) != CX_OK) return st;
	if (b->m.map) {
		memcpy(dst, b->m.map + off, (size_t)bytes);
		return CX_OK;
	}
	for (uint64_t at = 0; at < bytes; at += CX_VK_STAGING) {
		uint64_t n = bytes - at < CX_VK_STAGING ? bytes - at : CX_VK_STAGING;
		if ((st = stage(d, b->m.buf, off + at, d->staging.buf, 0, n, err)) != CX_OK) return st;
		memcpy((char *)dst + at, d->staging.map, (size_t)n);
	}
	return CX_OK;
}
