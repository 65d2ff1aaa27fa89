/* loader.c - the Vulkan loader, reached by dlopen so that a machine without one starts all the
 * same; instance,
 * validation layers, choice of a physical device, messages for failed calls. */
#include "backends/vulkan/vk.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const char layer_name[] = "VK_LAYER_KHRONOS_validation";

void cx__vk_log(const cx_vk_device *d, cx_log_level level, const char *fmt, ...)
{
	const cx_config *cfg = cx_runtime_config(d->base.rt);
	char msg[600];
	va_list ap;
	if (!cfg->log) return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof msg, fmt, ap);
	va_end(ap);
	for (char *c = msg; *c; c++)
		if (*c == '\n') *c = ' ';
	cfg->log(cfg->log_ctx, level, "vulkan", msg);
}

const char *cx__vk_result(VkResult r)
{
	switch (r) {
	case VK_ERROR_OUT_OF_HOST_MEMORY:
		return "out of host memory";
	case VK_ERROR_OUT_OF_DEVICE_MEMORY:
		return "out of device memory";
	case VK_ERROR_TOO_MANY_OBJECTS:
		return "too many allocations";
	case VK_ERROR_DEVICE_LOST:
		return "the device was lost";
	case VK_ERROR_INITIALIZATION_FAILED:
		return "initialisation failed";
	case VK_ERROR_INCOMPATIBLE_DRIVER:
		return "no driver that fits";
	case VK_ERROR_LAYER_NOT_PRESENT:
		return "a layer is not installed";
	case VK_ERROR_EXTENSION_NOT_PRESENT:
		return "an extension is missing";
	case VK_ERROR_FEATURE_NOT_PRESENT:
		return "a feature is missing";
	case VK_TIMEOUT:
		return "timed out";
	default:
		return "the driver failed";
	}
}

cx_status cx__vk_fail(cx_vk_device *d, VkResult r, const char *what, cx_err *err)
{
	bool memory = r == VK_ERROR_OUT_OF_HOST_MEMORY || r == VK_ERROR_OUT_OF_DEVICE_MEMORY ||
				  r == VK_ERROR_TOO_MANY_OBJECTS;
	if (r == VK_ERROR_DEVICE_LOST) d->base.failed = true;
	return CX_FAIL(err, memory ? CX_ERR_MEMORY : CX_ERR_DEVICE, "%s: %s: %s (%d)",
		d->base.name[0] ? d->base.name : "vulkan", what, cx__vk_result(r), (int)r);
}

cx_status cx__vk_usable(cx_vk_device *d, cx_err *err)
{
	if (!d->base.failed) return CX_OK;
	return CX_FAIL(
		err, CX_ERR_DEVICE, "%s failed earlier and cannot be used any more", d->base.name);
}

/* ---- the loader ---- */

static cx_status open_loader(cx_vk_device *d, cx_err *err)
{
	void *sym;
	d->lib = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!d->lib)
		return CX_FAIL(err, CX_ERR_DEVICE,
			"vulkan: libvulkan.so.1 cannot be loaded: no Vulkan on this machine");
	sym = dlsym(d->lib, "vkGetInstanceProcAddr");
	memcpy(&d->get_proc, &sym, sizeof sym);
	if (!sym)
		return CX_FAIL(err, CX_ERR_DEVICE, "vulkan: libvulkan.so.1 has no vkGetInstanceProcAddr");
	return CX_OK;
}

static VkBool32 VKAPI_PTR on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
	VkDebugUtilsMessageTypeFlagsEXT type, const VkDebugUtilsMessengerCallbackDataEXT *data,
	void *ctx)
{
	cx_vk_device *d = ctx;
	(void)type;
	(void)severity;
	d->n_messages++;
	cx__vk_log(d, CX_LOG_ERROR, "%s", data->pMessage ? data->pMessage : "a message without text");
	return VK_FALSE;
}

static bool has_layer(cx_vk_device *d)
{
	PFN_vkEnumerateInstanceLayerProperties list =
		(PFN_vkEnumerateInstanceLayerProperties)d->get_proc(
			NULL, "vkEnumerateInstanceLayerProperties");
	VkLayerProperties layers[64];
	uint32_t n = 64;
	if (!list || list(&n, layers) < 0) return false;
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(layers[i].layerName, layer_name) == 0) return true;
	return false;
}

static cx_status make_instance(cx_vk_device *d, cx_err *err)
{
	int validate = cx_runtime_config(d->base.rt)->validate;
	const char *layers[] = {layer_name}, *extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME};
	VkValidationFeatureEnableEXT on[2] = {
		VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,
		VK_VALIDATION_FEATURE_ENABLE_GPU_ASSISTED_EXT};
	VkDebugUtilsMessengerCreateInfoEXT messages = {
		VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
		.messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
						   VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
		.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
		.pfnUserCallback = on_message, .pUserData = d};
	/* GPU-assisted checks and synchronization checks do not work in the same instance of this
	 * layer. */
	VkValidationFeaturesEXT features = {VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT, &messages, 1,
		validate == 2 ? &on[1] : &on[0], 0, NULL};
	VkApplicationInfo app = {
		VK_STRUCTURE_TYPE_APPLICATION_INFO, NULL, "cortex", 1, "cortex", 1, VK_API_VERSION_1_2};
	VkInstanceCreateInfo info = {VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app};
	PFN_vkCreateInstance create = (PFN_vkCreateInstance)d->get_proc(NULL, "vkCreateInstance");
	PFN_vkEnumerateInstanceVersion version =
		(PFN_vkEnumerateInstanceVersion)d->get_proc(NULL, "vkEnumerateInstanceVersion");
	PFN_vkCreateDebugUtilsMessengerEXT create_messenger;
	uint32_t v = VK_API_VERSION_1_0;
	VkResult r;
	if (version) version(&v);
	if (!create || v < VK_API_VERSION_1_2)
		return CX_FAIL(err, CX_ERR_DEVICE, "vulkan: the loader is older than Vulkan 1.2");
	if (validate && !has_layer(d))
		return CX_FAIL(err, CX_ERR_DEVICE,
			"vulkan: validation was asked for, but %s is not installed", layer_name);
	if (validate) {
		info.pNext = &features;
		info.enabledLayerCount = info.enabledExtensionCount = 1;
		info.ppEnabledLayerNames = layers;
		info.ppEnabledExtensionNames = extensions;
	}
	r = create(&info, NULL, &d->instance);
	if (r != VK_SUCCESS) return cx__vk_fail(d, r, "no instance", err);
#define X(name)                                                                                    \
	d->vk.name = (PFN_vk##name)d->get_proc(d->instance, "vk" #name);                               \
	if (!d->vk.name) return CX_FAIL(err, CX_ERR_DEVICE, "vulkan: the loader has no vk" #name);
	CX_VK_INSTANCE_FNS(X)
#undef X
	create_messenger = (PFN_vkCreateDebugUtilsMessengerEXT)d->get_proc(
		d->instance, "vkCreateDebugUtilsMessengerEXT");
	if (validate && create_messenger) create_messenger(d->instance, &messages, NULL, &d->messenger);
	return CX_OK;
}

/* ---- physical devices ---- */

/* Better kinds first: discrete, integrated, virtual, software. */
static int kind_rank(VkPhysicalDeviceType t)
{
	static const int rank[] = {4, 1, 0, 2, 3};
	return (unsigned)t < 5 ? rank[t] : 5;
}

static cx_status choose(cx_vk_device *d, int index, cx_err *err)
{
	VkPhysicalDevice all[16], found = NULL;
	uint32_t n = 16, seen = 0;
	VkResult r = d->vk.EnumeratePhysicalDevices(d->instance, &n, all);
	if (r < 0) return cx__vk_fail(d, r, "no list of devices", err);
	if (n == 0)
		return CX_FAIL(
			err, CX_ERR_DEVICE, "vulkan: a loader but no device: no driver is installed");
	if (index < 0 || (uint32_t)index >= n)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "vulkan has %u device%s, there is no %d", n,
			n == 1 ? "" : "s", index);
	for (int rank = 0; rank <= 5 && !found; rank++)
		for (uint32_t i = 0; i < n && !found; i++) {
			VkPhysicalDeviceProperties2 p = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
			d->vk.GetPhysicalDeviceProperties2(all[i], &p);
			if (kind_rank(p.properties.deviceType) == rank && seen++ == (uint32_t)index)
				found = all[i];
		}
	d->gpu = found;
	return CX_OK;
}

cx_status cx__vk_instance(cx_vk_device *d, int index, cx_err *err)
{
	cx_status st = open_loader(d, err);
	if (st == CX_OK) st = make_instance(d, err);
	return st == CX_OK ? choose(d, index, err) : st;
}

void cx__vk_instance_close(cx_vk_device *d)
{
	if (d->messenger) {
		PFN_vkDestroyDebugUtilsMessengerEXT destroy =
			(PFN_vkDestroyDebugUtilsMessengerEXT)d->get_proc(
				d->instance, "vkDestroyDebugUtilsMessengerEXT");
		if (destroy) destroy(d->instance, d->messenger, NULL);
	}
	if (d->instance && d->vk.DestroyInstance) d->vk.DestroyInstance(d->instance, NULL);
	if (d->lib) dlclose(d->lib);
}
