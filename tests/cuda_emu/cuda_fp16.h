/* cuda_fp16.h - of CUDA's header of this name, the two functions that kernels/cuda16.h uses. */
#ifndef EMU_CUDA_FP16_H
#define EMU_CUDA_FP16_H

struct __half {
	unsigned short bits;
};
static inline __half __ushort_as_half(unsigned short bits)
{
	return {bits};
}
static inline float __half2float(__half h)
{
	int e = h.bits >> 10 & 31, m = h.bits & 1023;
	float v = e == 31 ? (m ? (float)NAN : (float)INFINITY)
			  : e     ? ldexpf((float)(m + 1024), e - 25)
					  : ldexpf((float)m, -24);
	return h.bits & 0x8000 ? -v : v;
}

#endif
