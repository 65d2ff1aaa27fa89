/* int64.glsl - integer elements of every width as int64, wrapped when they are stored. */
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require

#define CX_LOAD_L(i)                                                                               \
	int64_t cx_ll##i(const uint dt, uint o)                                                        \
	{                                                                                              \
		int64_t r;                                                                                 \
		if (dt == CX_I64) r = packInt2x32(ivec2(cx_b32_##i.v[2u * o], cx_b32_##i.v[2u * o + 1u])); \
		else if (dt == CX_I32) r = int64_t(int(cx_b32_##i.v[o]));                                  \
		else if (dt == CX_I8) r = int64_t(int(uint(cx_b8_##i.v[o]) << 24) >> 24);                  \
		else if (dt == CX_U8) r = int64_t(uint(cx_b8_##i.v[o]));                                   \
		else r = uint(cx_b8_##i.v[o]) != 0u ? int64_t(1) : int64_t(0);                             \
		return r;                                                                                  \
	}
#define CX_STORE_L(i)                                                                              \
	void cx_sl##i(const uint dt, uint o, int64_t v)                                                \
	{                                                                                              \
		ivec2 w = unpackInt2x32(v);                                                                \
		if (dt == CX_I64) {                                                                        \
			cx_b32_##i.v[2u * o] = uint(w.x);                                                      \
			cx_b32_##i.v[2u * o + 1u] = uint(w.y);                                                 \
		} else if (dt == CX_I32) {                                                                 \
			cx_b32_##i.v[o] = uint(w.x);                                                           \
		} else if (dt == CX_BOOL) {                                                                \
			cx_b8_##i.v[o] = uint8_t(v != int64_t(0) ? 1u : 0u);                                   \
		} else {                                                                                   \
			cx_b8_##i.v[o] = uint8_t(uint(w.x) & 255u);                                            \
		}                                                                                          \
	}
