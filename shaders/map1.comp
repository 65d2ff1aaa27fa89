/* map1.comp - elementwise programs of up to 1 instruction(s): map.glsl. */
#version 450
#extension GL_GOOGLE_include_directive : require
#define CX_MAP_OUT 1
#define CX_MAP_IN 3
#define CX_MAP_MAX 1
#include "shaders/map.glsl"
