/* pipeline.c - compute pipelines by shader and specialization constants, and their cache on disk.
 *
 * File: "cxvkpc01", u64 bytes, u64 FNV-1a of the data, the data of vkGetPipelineCacheData. It
 * is named after the
 * driver's pipelineCacheUUID, written to a temporary name and renamed, so a reader never sees
 * half a file. */
#include "backends/vulkan/spirv.h"
#include "backends/vulkan/vk.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- modules ---- */

static cx_status make_module(
	cx_vk_device *d, const cx_vk_pipeline *p, VkShaderModule *out, cx_err *err)
{
	const cx_vk_shader *s = &cx__vk_shaders[p->shader];
	cx_spv code = {.alloc = d->alloc};
	VkShaderModuleCreateInfo info = {VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO};
	VkResult r = VK_SUCCESS;
	bool ok =
		cx__spv_specialise(s->code, s->n_bytes / 4, p->spec, p->n_spec, d->float_modes, &code);
	info.pCode = code.word;
	info.codeSize = code.n * 4;
	if (ok) r = d->vk.CreateShaderModule(d->dev, &info, NULL, out);
	cx_free(d->alloc, code.word, code.cap * 4);
	if (!ok)
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for shader %s", d->base.name, s->name);
	return r == VK_SUCCESS ? CX_OK : cx__vk_fail(d, r, s->name, err);
}

/* ---- layouts ---- */

static cx_status make_layout(cx_vk_device *d, uint32_t shader, cx_err *err)
{
	const cx_vk_shader *s = &cx__vk_shaders[shader];
	uint32_t n = s->n_tensors + 1u, all = n + s->n_texel;
	VkDescriptorSetLayoutBinding b[CX_VK_TENSORS + 1 + CX_VK_TEXELS];
	VkDescriptorSetLayoutCreateInfo set = {
		VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO, .bindingCount = all, .pBindings = b};
	VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, 4};
	VkPipelineLayoutCreateInfo layout = {VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
		.setLayoutCount = 1, .pushConstantRangeCount = 1, .pPushConstantRanges = &push};
	VkResult r = VK_SUCCESS;
	for (uint32_t i = 0; i < all; i++)
		b[i] = (VkDescriptorSetLayoutBinding){i,
			i < n ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER : VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, 1,
			VK_SHADER_STAGE_COMPUTE_BIT, NULL};
	if (!d->set_layout[shader])
		r = d->vk.CreateDescriptorSetLayout(d->dev, &set, NULL, &d->set_layout[shader]);
	layout.pSetLayouts = &d->set_layout[shader];
	if (r == VK_SUCCESS && !d->layout[shader])
		r = d->vk.CreatePipelineLayout(d->dev, &layout, NULL, &d->layout[shader]);
	return r == VK_SUCCESS ? CX_OK : cx__vk_fail(d, r, "no pipeline layout", err);
}

/* ---- pipelines ---- */

static uint64_t fnv(uint64_t h, const void *p, size_t n)
{
	const unsigned char *b = p;
	for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 1099511628211ull;
	return h;
}
static const uint64_t fnv_start = 14695981039346656037ull;

static cx_status grow(cx_vk_device *d, cx_err *err)
{
	uint32_t cap = d->cap_pipes ? d->cap_pipes * 2 : 64;
	cx_vk_pipeline **p;
	if (d->n_pipes * 2 < d->cap_pipes) return CX_OK;
	p = cx_calloc(d->alloc, cap, sizeof(cx_vk_pipeline *));
	if (!p) return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for pipelines", d->base.name);
	for (uint32_t i = 0; i < d->cap_pipes; i++) {
		uint32_t at;
		if (!d->pipes[i]) continue;
		for (at = d->pipes[i]->hash & (cap - 1); p[at]; at = (at + 1) & (cap - 1)) {
		}
		p[at] = d->pipes[i];
	}
	cx_free(d->alloc, d->pipes, d->cap_pipes * sizeof *p);
	d->pipes = p;
	d->cap_pipes = cap;
	return CX_OK;
}

static cx_status make_pipeline(cx_vk_device *d, cx_vk_pipeline *p, cx_err *err)
{
	VkSpecializationMapEntry map[CX_VK_SPEC];
	VkSpecializationInfo spec = {p->n_spec, map, p->n_spec * 4u, p->spec};
	VkComputePipelineCreateInfo info = {VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
		.stage = {VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
			.stage = VK_SHADER_STAGE_COMPUTE_BIT, .pName = "main", .pSpecializationInfo = &spec},
		.layout = d->layout[p->shader]};
	cx_status st;
	VkResult r;
	if ((st = make_module(d, p, &info.stage.module, err)) != CX_OK) return st;
	for (uint32_t i = 0; i < p->n_spec; i++) map[i] = (VkSpecializationMapEntry){i, i * 4, 4};
	r = d->vk.CreateComputePipelines(d->dev, d->cache, 1, &info, NULL, &p->pipe);
	d->vk.DestroyShaderModule(d->dev, info.stage.module, NULL);
	d->n_made++;
	return r == VK_SUCCESS ? CX_OK : cx__vk_fail(d, r, cx__vk_shaders[p->shader].name, err);
}

cx_status cx__vk_pipeline_get(cx_vk_device *d, uint32_t shader, const uint32_t *spec,
	uint32_t n_spec, VkPipeline *out, cx_err *err)
{
	uint64_t h = fnv(fnv(fnv_start, &shader, sizeof shader), spec, n_spec * sizeof *spec);
	cx_vk_pipeline *p;
	uint32_t at;
	cx_status st;
	CX_ASSERT(n_spec <= CX_VK_SPEC);
	if ((st = grow(d, err)) != CX_OK) return st;
	for (at = h & (d->cap_pipes - 1); (p = d->pipes[at]) != NULL;
		 at = (at + 1) & (d->cap_pipes - 1))
		if (p->hash == h && p->shader == shader && p->n_spec == n_spec &&
			memcmp(p->spec, spec, n_spec * sizeof *spec) == 0) {
			*out = p->pipe;
			return CX_OK;
		}
	if ((st = make_layout(d, shader, err)) != CX_OK) return st;
	if (!(p = cx_calloc(d->alloc, 1, sizeof *p)))
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: no memory for a pipeline", d->base.name);
	p->hash = h;
	p->shader = shader;
	p->n_spec = n_spec;
	memcpy(p->spec, spec, n_spec * sizeof *spec);
	if ((st = make_pipeline(d, p, err)) != CX_OK) {
		cx_free(d->alloc, p, sizeof *p);
		return st;
	}
	d->pipes[at] = p;
	d->n_pipes++;
	*out = p->pipe;
	return CX_OK;
}

void cx__vk_pipelines_free(cx_vk_device *d)
{
	for (uint32_t i = 0; i < d->cap_pipes; i++) {
		if (!d->pipes[i]) continue;
		d->vk.DestroyPipeline(d->dev, d->pipes[i]->pipe, NULL);
		cx_free(d->alloc, d->pipes[i], sizeof *d->pipes[i]);
	}
	cx_free(d->alloc, d->pipes, d->cap_pipes * sizeof *d->pipes);
	d->pipes = NULL;
	d->cap_pipes = d->n_pipes = 0;
	for (uint32_t i = 0; i < CX_SHADER_COUNT; i++) {
		if (d->layout[i]) d->vk.DestroyPipelineLayout(d->dev, d->layout[i], NULL);
		if (d->set_layout[i]) d->vk.DestroyDescriptorSetLayout(d->dev, d->set_layout[i], NULL);
	}
	if (d->cache) d->vk.DestroyPipelineCache(d->dev, d->cache, NULL);
	d->cache = NULL;
}

/* ---- the cache file ---- */

typedef struct cache_head {
	char magic[8];
	uint64_t bytes, sum;
} cache_head;
static const char cache_magic[8] = {'c', 'x', 'v', 'k', 'p', 'c', '0', '1'};
enum { CACHE_MAX = 256 << 20 };

static bool cache_path(const cx_vk_device *d, const char *suffix, char *buf, size_t size)
{
	const char *dir = cx_runtime_config(d->base.rt)->cache_dir;
	char id[2 * VK_UUID_SIZE + 1];
	int n;
	if (!dir) return false;
	for (uint32_t i = 0; i < VK_UUID_SIZE; i++) snprintf(id + 2 * i, 3, "%02x", d->uuid[i]);
	n = snprintf(buf, size, "%s/vulkan-%s.bin%s", dir, id, suffix);
	return n > 0 && (size_t)n < size;
}

/* Is it what this device's driver made? It checks that too, but not all drivers do it well. */
static bool is_own(const cx_vk_device *d, const void *data, uint64_t bytes)
{
	VkPipelineCacheHeaderVersionOne h;
	if (bytes < sizeof h) return false;
	memcpy(&h, data, sizeof h);
	return h.headerSize >= sizeof h && h.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
		   h.vendorID == d->props.vendorID && h.deviceID == d->props.deviceID &&
		   memcmp(h.pipelineCacheUUID, d->uuid, sizeof d->uuid) == 0;
}

/* The data of a good file, else NULL; the reason is logged. */
static void *cache_read(cx_vk_device *d, const char *path, size_t *size)
{
	FILE *f = fopen(path, "rb");
	cache_head h;
	void *data = NULL;
	const char *why = NULL;
	if (!f) return NULL; /* the first start */
	if (fread(&h, 1, sizeof h, f) != sizeof h || memcmp(h.magic, cache_magic, 8) != 0 ||
		h.bytes > CACHE_MAX)
		why = "has no valid head";
	else if (!(data = cx_malloc(d->alloc, (size_t)h.bytes + 1))) why = "does not fit in memory";
	else if (fread(data, 1, (size_t)h.bytes, f) != h.bytes || fgetc(f) != EOF)
		why = "has the wrong length";
	else if (fnv(fnv_start, data, (size_t)h.bytes) != h.sum) why = "has a wrong checksum";
	else if (!is_own(d, data, h.bytes)) why = "is of another device or driver";
	fclose(f);
	if (!why) {
		*size = (size_t)h.bytes;
		return data;
	}
	cx__vk_log(d, CX_LOG_WARN, "shader cache %s %s and is ignored", path, why);
	if (data) cx_free(d->alloc, data, (size_t)h.bytes + 1);
	return NULL;
}

void cx__vk_cache_load(cx_vk_device *d)
{
	VkPipelineCacheCreateInfo info = {VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
	char path[600];
	void *data = NULL;
	size_t n = 0;
	if (cache_path(d, "", path, sizeof path)) data = cache_read(d, path, &n);
	info.initialDataSize = n;
	info.pInitialData = data;
	if (d->vk.CreatePipelineCache(d->dev, &info, NULL, &d->cache) != VK_SUCCESS)
		d->cache = VK_NULL_HANDLE;
	if (data) cx_free(d->alloc, data, n + 1);
}

static bool cache_write(const char *path, const cache_head *h, const void *data)
{
	FILE *f = fopen(path, "wb");
	bool ok;
	if (!f) return false;
	ok =
		fwrite(h, 1, sizeof *h, f) == sizeof *h && fwrite(data, 1, (size_t)h->bytes, f) == h->bytes;
	return fclose(f) == 0 && ok;
}

void cx__vk_cache_save(cx_vk_device *d)
{
	char path[600], tmp[600], pid[24];
	cache_head h;
	size_t n = 0, cap;
	void *data;
	if (!d->cache || d->n_made == 0 || !cache_path(d, "", path, sizeof path)) return;
	snprintf(pid, sizeof pid, ".%ld", (long)getpid());
	if (!cache_path(d, pid, tmp, sizeof tmp)) return;
	if (d->vk.GetPipelineCacheData(d->dev, d->cache, &n, NULL) != VK_SUCCESS || n == 0) return;
	cap = n;
	if (!(data = cx_malloc(d->alloc, cap))) return;
	if (d->vk.GetPipelineCacheData(d->dev, d->cache, &n, data) == VK_SUCCESS) {
		memcpy(h.magic, cache_magic, sizeof h.magic);
		h.bytes = n;
		h.sum = fnv(fnv_start, data, n);
		if (!cache_write(tmp, &h, data) || rename(tmp, path) != 0) {
			cx__vk_log(d, CX_LOG_WARN, "shader cache %s could not be written", path);
			remove(tmp);
		}
	}
	cx_free(d->alloc, data, cap);
}
