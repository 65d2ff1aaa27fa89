/* device.c - opening a Vulkan device: what it must have, what it may have, queue, pools. */
#include "backends/vulkan/spirv.h"
#include "backends/vulkan/vk.h"

#include <stdio.h>
#include <string.h>

/* What the backend asks of a device, in one chain of structs. */
typedef struct features {
	VkPhysicalDeviceFeatures2 base;
	VkPhysicalDeviceVulkan11Features v11;
	VkPhysicalDeviceVulkan12Features v12;
	VkPhysicalDeviceShaderIntegerDotProductFeatures idot;
	VkPhysicalDeviceCooperativeMatrixFeaturesNV coop;
} features;

typedef struct extensions {
	VkExtensionProperties *list;
	uint32_t n, cap;
} extensions;

static cx_status list_extensions(cx_vk_device *d, extensions *e, cx_err *err)
{
	VkResult r = d->vk.EnumerateDeviceExtensionProperties(d->gpu, NULL, &e->n, NULL);
	if (r < 0) return cx__vk_fail(d, r, "no list of extensions", err);
	e->cap = e->n + 1;
	e->list = cx_calloc(d->alloc, e->cap, sizeof *e->list);
	if (!e->list) return CX_FAIL(err, CX_ERR_MEMORY, "vulkan: no memory for a list of extensions");
	r = d->vk.EnumerateDeviceExtensionProperties(d->gpu, NULL, &e->n, e->list);
	return r < 0 ? cx__vk_fail(d, r, "no list of extensions", err) : CX_OK;
}

static bool has_extension(const extensions *e, const char *name)
{
	for (uint32_t i = 0; i < e->n; i++)
		if (strcmp(e->list[i].extensionName, name) == 0) return true;
	return false;
}

static void query(cx_vk_device *d)
{
	VkPhysicalDeviceMaintenance3Properties m3 = {
		VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES};
	VkPhysicalDeviceSubgroupProperties sub = {
		VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES, &m3};
	VkPhysicalDeviceFloatControlsProperties fc = {
		VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FLOAT_CONTROLS_PROPERTIES, &sub};
	VkPhysicalDeviceDriverProperties drv = {
		VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, &fc};
	VkPhysicalDeviceProperties2 p = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, &drv};
	d->vk.GetPhysicalDeviceProperties2(d->gpu, &p);
	cx__vk_log(d, CX_LOG_INFO, "driver %.100s, %.100s", drv.driverName, drv.driverInfo);
	d->vk.GetPhysicalDeviceMemoryProperties(d->gpu, &d->memory);
	d->props = p.properties;
	memcpy(d->uuid, p.properties.pipelineCacheUUID, sizeof d->uuid);
	d->subgroup_size = sub.subgroupSize;
	d->max_alloc = m3.maxMemoryAllocationSize;
	d->max_range = p.properties.limits.maxStorageBufferRange;
	/* Vulkan allows 2.5 units in the last place; software rasterisers use the processor's
	 * division. */
	d->exact_div = drv.driverID == VK_DRIVER_ID_MESA_LLVMPIPE;
	if (fc.shaderSignedZeroInfNanPreserveFloat32) d->float_modes |= CX_SPV_MODE_NAN;
	if (fc.shaderDenormPreserveFloat32) d->float_modes |= CX_SPV_MODE_DENORM;
	if (fc.shaderRoundingModeRTEFloat32) d->float_modes |= CX_SPV_MODE_RTE;
}

/* Is there a cooperative matrix of 16x16x16 with f16 operands and f32 sums, for a subgroup? */
static bool coop_fits(const cx_vk_device *d)
{
	PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesNV get =
		(PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesNV)d->get_proc(
			d->instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesNV");
	VkCooperativeMatrixPropertiesNV p[64];
	uint32_t n = 64;
	if (!get || d->subgroup_size != 32) return false;
	for (uint32_t i = 0; i < n; i++)
		p[i] =
			(VkCooperativeMatrixPropertiesNV){VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_NV};
	if (get(d->gpu, &n, p) < 0) return false;
	for (uint32_t i = 0; i < n; i++)
		if (p[i].MSize == 16 && p[i].NSize == 16 && p[i].KSize == 16 &&
			p[i].AType == VK_COMPONENT_TYPE_FLOAT16_NV &&
			p[i].BType == VK_COMPONENT_TYPE_FLOAT16_NV &&
			p[i].CType == VK_COMPONENT_TYPE_FLOAT32_NV &&
			p[i].DType == VK_COMPONENT_TYPE_FLOAT32_NV && p[i].scope == VK_SCOPE_SUBGROUP_NV)
			return true;
	return false;
}

/* Whether int8 dot products are more than a list of multiplications. */
static bool idot_is_fast(const cx_vk_device *d)
{
	VkPhysicalDeviceShaderIntegerDotProductProperties dot = {
		VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES};
	VkPhysicalDeviceProperties2 p = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, &dot};
	d->vk.GetPhysicalDeviceProperties2(d->gpu, &p);
	return dot.integerDotProduct4x8BitPackedSignedAccelerated;
}

static cx_status check(cx_vk_device *d, const features *f, cx_err *err)
{
	const VkPhysicalDeviceLimits *l = &d->props.limits;
	const char *lacks = NULL;
	if (d->props.apiVersion < VK_API_VERSION_1_2) lacks = "Vulkan 1.2";
	else if (!f->v11.storageBuffer16BitAccess) lacks = "16-bit storage";
	else if (!f->v12.storageBuffer8BitAccess) lacks = "8-bit storage";
	else if (l->maxPerStageDescriptorStorageBuffers < CX_VK_TENSORS + 1)
		lacks = "14 storage buffers per shader";
	else if (l->maxComputeWorkGroupInvocations < 128) lacks = "work groups of 128";
	if (!lacks) return CX_OK;
	return CX_FAIL(err, CX_ERR_DEVICE, "vulkan: %.80s lacks %s", d->props.deviceName, lacks);
}

static cx_status choose_queue(cx_vk_device *d, cx_err *err)
{
	VkQueueFamilyProperties q[32];
	uint32_t n = 32;
	d->vk.GetPhysicalDeviceQueueFamilyProperties(d->gpu, &n, q);
	for (uint32_t i = 0; i < n; i++)
		if (q[i].queueFlags & VK_QUEUE_COMPUTE_BIT) {
			d->family = i;
			if (q[i].timestampValidBits)
				d->times_mask = UINT64_MAX >> (64 - q[i].timestampValidBits);
			return CX_OK;
		}
	return CX_FAIL(err, CX_ERR_DEVICE, "vulkan: %.80s has no compute queue", d->props.deviceName);
}

/* Chains what is there, asks for what is used. */
static cx_status make_device(cx_vk_device *d, const extensions *ext, cx_err *err)
{
	float priority = 1;
	VkDeviceQueueCreateInfo queue = {
		VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority};
	VkDeviceCreateInfo info = {VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .queueCreateInfoCount = 1,
		.pQueueCreateInfos = &queue};
	const char *extensions[4];
	uint32_t n = 0;
	features have = {.base = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, &have.v11},
				 .v11 = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, &have.v12},
				 .v12 = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES},
				 .idot = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES},
				 .coop = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_NV}},
			 use;
	void **tail = &have.v12.pNext;
	bool idot = has_extension(ext, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
	bool coop = has_extension(ext, VK_NV_COOPERATIVE_MATRIX_EXTENSION_NAME);
	cx_status st;
	VkResult r;
	if (idot) *tail = &have.idot, tail = &have.idot.pNext;
	if (coop) *tail = &have.coop, tail = &have.coop.pNext;
	d->vk.GetPhysicalDeviceFeatures2(d->gpu, &have.base);
	if ((st = check(d, &have, err)) != CX_OK || (st = choose_queue(d, err)) != CX_OK) return st;
	use = (features){.base = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, &use.v11},
		.v11 = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, &use.v12},
		.v12 = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES},
		.idot = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES},
		.coop = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_NV}};
	tail = &use.v12.pNext;
	use.v11.storageBuffer16BitAccess = use.v12.storageBuffer8BitAccess = VK_TRUE;
	use.base.features.shaderInt64 = have.base.features.shaderInt64;
	use.base.features.shaderInt16 = have.base.features.shaderInt16;
	use.v12.shaderFloat16 = have.v12.shaderFloat16;
	use.v12.shaderInt8 = have.v12.shaderInt8;
	use.v12.vulkanMemoryModel = have.v12.vulkanMemoryModel;
	use.v12.vulkanMemoryModelDeviceScope = have.v12.vulkanMemoryModelDeviceScope;
	d->has_int64 = have.base.features.shaderInt64;
	d->has_idot = idot && have.idot.shaderIntegerDotProduct;
	d->use_idot = d->has_idot && idot_is_fast(d);
	d->has_coopmat = coop && have.coop.cooperativeMatrix && have.v12.shaderFloat16 &&
					 have.v12.vulkanMemoryModel && coop_fits(d);
	if (d->has_idot) {
		use.idot.shaderIntegerDotProduct = VK_TRUE;
		*tail = &use.idot, tail = &use.idot.pNext;
		extensions[n++] = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
	}
	if (d->has_coopmat) {
		use.coop.cooperativeMatrix = VK_TRUE;
		*tail = &use.coop, tail = &use.coop.pNext;
		extensions[n++] = VK_NV_COOPERATIVE_MATRIX_EXTENSION_NAME;
	}
	info.pNext = &use.base;
	info.enabledExtensionCount = n;
	info.ppEnabledExtensionNames = extensions;
	queue.queueFamilyIndex = d->family;
	r = d->vk.CreateDevice(d->gpu, &info, NULL, &d->dev);
	return r == VK_SUCCESS ? CX_OK : cx__vk_fail(d, r, "the device does not open", err);
}

static cx_status make_queue(cx_vk_device *d, cx_err *err)
{
	VkCommandPoolCreateInfo pool = {VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
		.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT, .queueFamilyIndex = d->family};
	VkCommandBufferAllocateInfo cmd = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
		.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY, .commandBufferCount = 1};
	VkFenceCreateInfo fence = {VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
	VkQueryPoolCreateInfo times = {VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
		.queryType = VK_QUERY_TYPE_TIMESTAMP, .queryCount = 2};
	VkResult r;
#define X(name)                                                                                    \
	d->vk.name = (PFN_vk##name)d->vk.GetDeviceProcAddr(d->dev, "vk" #name);                        \
	if (!d->vk.name) return CX_FAIL(err, CX_ERR_DEVICE, "vulkan: the driver has no vk" #name);
	CX_VK_DEVICE_FNS(X)
#undef X
	d->vk.GetDeviceQueue(d->dev, d->family, 0, &d->queue);
	r = d->vk.CreateCommandPool(d->dev, &pool, NULL, &d->pool);
	cmd.commandPool = d->pool;
	if (r == VK_SUCCESS) r = d->vk.AllocateCommandBuffers(d->dev, &cmd, &d->copy_cmd);
	if (r == VK_SUCCESS) r = d->vk.CreateFence(d->dev, &fence, NULL, &d->fence);
	if (r == VK_SUCCESS && d->times_mask && d->props.limits.timestampPeriod > 0)
		r = d->vk.CreateQueryPool(d->dev, &times, NULL, &d->times);
	if (r != VK_SUCCESS) return cx__vk_fail(d, r, "no command pool, fence or timestamps", err);
	return CX_OK;
}

/* Integrated and software devices share the host's memory: one copy serves both. */
static bool is_unified(const cx_vk_device *d)
{
	VkMemoryPropertyFlags want =
		VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
		VK_MEMORY_PROPERTY_HOST_COHERENT_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
	if (d->props.deviceType == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU) return false;
	for (uint32_t i = 0; i < d->memory.memoryTypeCount; i++)
		if ((d->memory.memoryTypes[i].propertyFlags & want) == want) return true;
	return false;
}

cx_status cx__vk_open(cx_runtime *rt, int index, cx_device **out, cx_err *err)
{
	const cx_alloc *alloc = &cx_runtime_config(rt)->alloc;
	cx_vk_device *d = cx_calloc(alloc, 1, sizeof *d);
	extensions ext = {0};
	cx_status st;
	*out = NULL;
	if (!d) return CX_FAIL(err, CX_ERR_MEMORY, "no memory for device vulkan:%d", index);
	d->base.backend = &cx__backend_vulkan;
	d->base.rt = rt;
	d->alloc = alloc;
	if ((st = cx__vk_instance(d, index, err)) != CX_OK) goto fail;
	query(d);
	if ((st = list_extensions(d, &ext, err)) == CX_OK) st = make_device(d, &ext, err);
	cx_free(alloc, ext.list, ext.cap * sizeof *ext.list);
	if (st != CX_OK) goto fail;
	if ((st = make_queue(d, err)) != CX_OK) goto fail;
	d->unified = is_unified(d);
	snprintf(d->base.name, sizeof d->base.name, "vulkan:%d %.70s", index, d->props.deviceName);
	st = cx__vk_memory_make(d, CX_VK_STAGING, true, &d->staging, err);
	if (st != CX_OK) goto fail;
	cx__vk_cache_load(d);
	*out = &d->base;
	return CX_OK;
fail:
	cx__vk_close(&d->base);
	return st;
}

void cx__vk_close(cx_device *dev)
{
	cx_vk_device *d = (cx_vk_device *)dev;
	const cx_alloc *alloc;
	if (!d) return;
	alloc = d->alloc;
	if (d->dev && d->vk.DestroyDevice) {
		if (d->pool) {
			d->vk.DeviceWaitIdle(d->dev);
			cx__vk_cache_save(d);
			cx__vk_pipelines_free(d);
			cx__vk_memory_free(d, &d->staging);
			if (d->fence) d->vk.DestroyFence(d->dev, d->fence, NULL);
			if (d->times) d->vk.DestroyQueryPool(d->dev, d->times, NULL);
			d->vk.DestroyCommandPool(d->dev, d->pool, NULL);
		}
		d->vk.DestroyDevice(d->dev, NULL);
	}
	cx__vk_instance_close(d);
	cx_free(alloc, d, sizeof *d);
}
