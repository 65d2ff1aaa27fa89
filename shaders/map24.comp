/* map24.comp - elementwise programs of up to 24 instruction(s): map.glsl. */
#version 450
#extension GL_GOOGLE_include_directive : require
#define CX_MAP_OUT 4
#define CX_MAP_IN 8
#define CX_MAP_MAX 24
#include "shaders/map.glsl"
