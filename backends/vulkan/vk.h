/* vk.h - the inside of the vulkan backend: entry points, device, buffers, dispatches.
 *
 * Files: loader.c finds the loader and the devices; device.c opens one; memory.c owns buffers;
 * pipeline.c makes
 * pipelines (spirv.c their shaders) and keeps their cache on disk; program.c records steps;
 * kernels.c answers find() from kernels.def;
 * emit.c and launch_*.c turn a step into dispatches. The arithmetic is in shaders/.
 *
 * Bindings of every shader: 0 the launch parameters (one struct cx_kparams per dispatch, plus
 * tables made by the
 * host), 1+i the tensor t[i] of kernels/params.h. For block formats t[i].off counts bytes,
 * since a descriptor's
 * offset must be aligned and blocks are not. Behind the tensors a shader may have uniform
 * texel buffers. A push constant holds the first word of the dispatch's struct. */
#ifndef CX_VK_H
#define CX_VK_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include "graph/backend.h"
#include "kernels/params.h"

#define CX_VK_INSTANCE_FNS(X)                                                                      \
	X(DestroyInstance)                                                                             \
	X(EnumeratePhysicalDevices)                                                                    \
	X(EnumerateDeviceExtensionProperties)                                                          \
	X(GetPhysicalDeviceProperties2)                                                                \
	X(GetPhysicalDeviceFeatures2)                                                                  \
	X(GetPhysicalDeviceMemoryProperties)                                                           \
	X(GetPhysicalDeviceQueueFamilyProperties)                                                      \
	X(CreateDevice)                                                                                \
	X(GetDeviceProcAddr)
#define CX_VK_DEVICE_FNS(X)                                                                        \
	X(DestroyDevice)                                                                               \
	X(GetDeviceQueue)                                                                              \
	X(CreateBuffer)                                                                                \
	X(DestroyBuffer)                                                                               \
	X(CreateBufferView)                                                                            \
	X(DestroyBufferView)                                                                           \
	X(GetBufferMemoryRequirements)                                                                 \
	X(AllocateMemory)                                                                              \
	X(FreeMemory)                                                                                  \
	X(BindBufferMemory)                                                                            \
	X(MapMemory)                                                                                   \
	X(CreateCommandPool)                                                                           \
	X(DestroyCommandPool)                                                                          \
	X(AllocateCommandBuffers)                                                                      \
	X(BeginCommandBuffer)                                                                          \
	X(EndCommandBuffer)                                                                            \
	X(CreateFence)                                                                                 \
	X(DestroyFence)                                                                                \
	X(ResetFences)                                                                                 \
	X(WaitForFences)                                                                               \
	X(QueueSubmit)                                                                                 \
	X(DeviceWaitIdle)                                                                              \
	X(CmdCopyBuffer)                                                                               \
	X(CmdFillBuffer)                                                                               \
	X(CmdPipelineBarrier)                                                                          \
	X(CmdBindPipeline)                                                                             \
	X(CmdBindDescriptorSets)                                                                       \
	X(CmdPushConstants)                                                                            \
	X(CmdDispatch)                                                                                 \
	X(CreateShaderModule)                                                                          \
	X(DestroyShaderModule)                                                                         \
	X(CreatePipelineCache)                                                                         \
	X(DestroyPipelineCache)                                                                        \
	X(GetPipelineCacheData)                                                                        \
	X(CreateComputePipelines)                                                                      \
	X(DestroyPipeline)                                                                             \
	X(CreatePipelineLayout)                                                                        \
	X(DestroyPipelineLayout)                                                                       \
	X(CreateDescriptorSetLayout)                                                                   \
	X(DestroyDescriptorSetLayout)                                                                  \
	X(CreateDescriptorPool)                                                                        \
	X(DestroyDescriptorPool)                                                                       \
	X(AllocateDescriptorSets)                                                                      \
	X(UpdateDescriptorSets)                                                                        \
	X(CreateQueryPool)                                                                             \
	X(DestroyQueryPool)                                                                            \
	X(GetQueryPoolResults)                                                                         \
	X(CmdResetQueryPool)                                                                           \
	X(CmdWriteTimestamp)

typedef struct cx_vk_fns {
#define X(name) PFN_vk##name name;
	CX_VK_INSTANCE_FNS(X)
	CX_VK_DEVICE_FNS(X)
#undef X
} cx_vk_fns;

/* backends/vulkan/shaders.def */
enum {
#define CX_SHADER(name, n_tensors, n_out, n_texel, needs) CX_SHADER_##name,
#include "backends/vulkan/shaders.def"
#undef CX_SHADER
	CX_SHADER_COUNT
};
enum {
	CX_VK_NEEDS_NOTHING = 0,
	CX_VK_NEEDS_INT64 = 1,
	CX_VK_NEEDS_IDOT = 2,
	CX_VK_NEEDS_COOPMAT = 4
};
typedef struct cx_vk_shader {
	const char *name;
	const uint32_t *code;
	size_t n_bytes;
	uint8_t n_tensors, n_out, n_texel, needs; /* n_out: tensors 0.. that it writes */
} cx_vk_shader;
extern const cx_vk_shader cx__vk_shaders[CX_SHADER_COUNT];

enum {
	CX_VK_TENSORS = CX_K_TENSORS,
	CX_VK_TEXELS = 2, /* texel buffers of a shader, at most */
	CX_VK_SPEC = 96,  /* specialization constants of a pipeline, ids 0 .. n-1 */
	CX_VK_PARAM_WORDS = sizeof(struct cx_kparams) / 4,
	CX_VK_STAGING = 4 << 20
};

typedef struct cx_vk_pipeline {
	uint64_t hash;
	uint32_t shader, n_spec;
	uint32_t spec[CX_VK_SPEC];
	VkPipeline pipe;
} cx_vk_pipeline;

typedef struct cx_vk_device {
	cx_device base;
	const cx_alloc *alloc;
	void *lib;
	PFN_vkGetInstanceProcAddr get_proc;
	cx_vk_fns vk;
	VkInstance instance;
	VkDebugUtilsMessengerEXT messenger;
	uint32_t n_messages; /* errors and warnings of the validation layers */
	VkPhysicalDevice gpu;
	VkPhysicalDeviceProperties props;
	VkPhysicalDeviceMemoryProperties memory;
	uint8_t uuid[VK_UUID_SIZE];
	uint32_t subgroup_size;
	uint64_t max_alloc;
	VkDevice dev;
	VkQueue queue;
	uint32_t family;
	VkCommandPool pool;
	VkCommandBuffer copy_cmd;
	VkFence fence;
	bool in_flight;      /* submitted, fence not yet waited for */
	VkQueryPool times;   /* two timestamps around a single step; none: the queue has no clock */
	uint64_t times_mask; /* of their valid bits */
	bool timing;         /* in flight is a step whose timestamps are wanted */
	bool unified;        /* device memory is the host's: buffers are mapped, no staging */
	bool has_int64;
	bool has_idot; /* int8 dot products; use_idot: and they are fast, or a test wants them */
	bool use_idot;
	bool has_coopmat;     /* 16x16x16 f16 with f32 sums, by subgroups of 32 */
	bool exact_div;       /* the driver's f32 division is known to be correctly rounded */
	uint32_t float_modes; /* execution modes to add to every shader, bits CX_SPV_MODE_* */
	uint64_t max_range;   /* of one storage buffer descriptor; tests lower it */
	struct cx_vk_memory {
		VkBuffer buf;
		VkDeviceMemory mem;
		unsigned char *map;
	} staging;
	VkDescriptorSetLayout set_layout[CX_SHADER_COUNT]; /* made on first use */
	VkPipelineLayout layout[CX_SHADER_COUNT];
	cx_vk_pipeline **pipes; /* [cap_pipes], open addressing */
	uint32_t n_pipes, cap_pipes;
	VkPipelineCache cache;
	uint32_t n_made; /* pipelines made since the cache was loaded or saved */
} cx_vk_device;

typedef struct cx_vk_buffer {
	cx_buffer base;
	struct cx_vk_memory m; /* map is NULL unless unified */
	uint64_t size;         /* of the VkBuffer: bytes rounded up */
} cx_vk_buffer;

extern const cx_backend cx__backend_vulkan;

/* ---- loader.c ---- */
/* Opens the loader, makes an instance (with validation as the configuration asks) and chooses
 * physical device
 * `index`, best kind first. */
cx_status cx__vk_instance(cx_vk_device *d, int index, cx_err *err);
void cx__vk_instance_close(cx_vk_device *d);
/* "out of device memory" ... */
const char *cx__vk_result(VkResult r);
/* The error of a failed call; a lost device is marked. */
cx_status cx__vk_fail(cx_vk_device *d, VkResult r, const char *what, cx_err *err);
cx_status cx__vk_usable(cx_vk_device *d, cx_err *err);
void cx__vk_log(const cx_vk_device *d, cx_log_level level, const char *fmt, ...) CX_PRINTF(3, 4);

/* ---- device.c ---- */
cx_status cx__vk_open(cx_runtime *rt, int index, cx_device **out, cx_err *err);
void cx__vk_close(cx_device *dev);

/* ---- memory.c ---- */
/* Backed and zeroed nothing: content undefined. host: mapped, host-visible memory. */
cx_status cx__vk_memory_make(
	cx_vk_device *d, uint64_t bytes, bool host, struct cx_vk_memory *out, cx_err *err);
void cx__vk_memory_free(cx_vk_device *d, struct cx_vk_memory *m);
cx_status cx__vk_alloc(
	cx_device *dev, uint64_t bytes, const void *host, cx_buffer **out, cx_err *err);
void cx__vk_free(cx_buffer *buf);
cx_status cx__vk_write(cx_buffer *buf, uint64_t off, const void *src, uint64_t bytes, cx_err *err);
cx_status cx__vk_read(cx_buffer *buf, uint64_t off, void *dst, uint64_t bytes, cx_err *err);
cx_status cx__vk_wait(cx_device *dev, cx_err *err);

/* ---- pipeline.c ---- */
cx_status cx__vk_pipeline_get(cx_vk_device *d, uint32_t shader, const uint32_t *spec,
	uint32_t n_spec, VkPipeline *out, cx_err *err);
/* Reads the cache file, if there is one that fits; a damaged one is logged and ignored. */
void cx__vk_cache_load(cx_vk_device *d);
void cx__vk_cache_save(cx_vk_device *d);
void cx__vk_pipelines_free(cx_vk_device *d);

/* ---- program.c ---- */
cx_status cx__vk_compile(cx_device *dev, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err);
cx_status cx__vk_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err);
void cx__vk_discard(cx_program *prog);

#endif
