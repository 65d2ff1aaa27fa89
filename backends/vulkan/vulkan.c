/* vulkan.c - the vulkan backend: its twelve functions. */
#include "backends/vulkan/emit.h"

static void vk_limits(const cx_device *dev, cx_limits *out)
{
	const cx_vk_device *d = (const cx_vk_device *)dev;
	uint64_t align = d->props.limits.minStorageBufferOffsetAlignment;
	*out = (cx_limits){.alignment = align > 64 ? align : 64,
		.max_buffer = d->max_alloc,
		.n_threads = 1,
		.clock_ns = d->times ? (double)d->props.limits.timestampPeriod : 0};
	for (uint32_t i = 0; i < d->memory.memoryHeapCount; i++)
		if (d->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
			out->max_bytes += d->memory.memoryHeaps[i].size;
}

const cx_backend cx__backend_vulkan = {"vulkan", cx__vk_open, cx__vk_close, vk_limits, cx__vk_find,
	cx__vk_alloc, cx__vk_free, cx__vk_write, cx__vk_read, cx__vk_compile, cx__vk_submit,
	cx__vk_wait, cx__vk_discard};
