/* shaders.c - the compiled shaders, embedded. gen/shaders.inc is made by the Makefile: one
 * array of SPIR-V words per file
 * of shaders/. */
#include "backends/vulkan/vk.h"

#include "gen/shaders.inc"

const cx_vk_shader cx__vk_shaders[CX_SHADER_COUNT] = {
#define CX_SHADER(name, n_tensors, n_out, n_texel, needs)                                          \
	{#name, spv_##name, sizeof spv_##name, n_tensors, n_out, n_texel, CX_VK_NEEDS_##needs},
#include "backends/vulkan/shaders.def"
#undef CX_SHADER
};
