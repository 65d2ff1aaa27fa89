/* mapred.comp - map programs that reduce the last axis: map.glsl. */
#version 450
#extension GL_GOOGLE_include_directive : require
#define CX_MAP_OUT 4
#define CX_MAP_IN 8
#define CX_MAP_MAX 24
#define CX_MAP_REDUCE 1
#include "shaders/map.glsl"
