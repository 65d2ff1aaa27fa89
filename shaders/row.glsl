/* row.glsl - rows handled by a work group of 64: sums and extrema whose order depends on nothing but the row's length,
 * so that a row has the same bits alone or among others, whatever the subgroup size. A shared array and three
 * barriers: on devices that run in software barriers are what costs. */
shared float cx_part[64];
shared float cx_part8[8];
shared vec2 cx_pair[64];
shared vec2 cx_pair8[8];

/* s + c is the running sum, c what rounding took (Neumaier). */
void cx_sum_add(inout float s, inout float c, float v)
{
	precise float t = s + v, e = abs(s) >= abs(v) ? (s - t) + v : (v - t) + s;
	precise float c2 = c + e;
	s = t;
	c = c2;
}
float cx_sum_get(float s, float c)
{
	bool odd = cx_isnan(s) || cx_isinf(s) || cx_isnan(c) || cx_isinf(c);
	precise float r = s + c;
	return odd ? s : r;
}

/* NaN wins over everything. */
float cx_max(float a, float b)
{
	return a > b || cx_isnan(a) ? a : b;
}
float cx_min(float a, float b)
{
	return a < b || cx_isnan(a) ? a : b;
}

#define CX_GROUP_FOLD(name, expr)                                                                  \
	float name(float v)                                                                            \
	{                                                                                              \
		uint me = gl_LocalInvocationIndex;                                                         \
		barrier(); /* the last result has been read */                                             \
		cx_part[me] = v;                                                                           \
		barrier();                                                                                 \
		if (me < 8u) {                                                                             \
			float a = cx_part[me * 8u];                                                            \
			for (uint k = 1; k < 8; k++) {                                                         \
				float b = cx_part[me * 8u + k];                                                    \
				a = expr;                                                                          \
			}                                                                                      \
			cx_part8[me] = a;                                                                      \
		}                                                                                          \
		barrier();                                                                                 \
		float a = cx_part8[0];                                                                     \
		for (uint k = 1; k < 8; k++) {                                                             \
			float b = cx_part8[k];                                                                 \
			a = expr;                                                                              \
		}                                                                                          \
		return a;                                                                                  \
	}
/* The sum of all s + c, still in two floats: sums of equal elements stay exact. */
vec2 cx_group_pair(float s, float c)
{
	uint me = gl_LocalInvocationIndex;
	barrier();
	cx_pair[me] = vec2(s, c);
	barrier();
	if (me < 8u) {
		vec2 a = cx_pair[me * 8u];
		for (uint k = 1; k < 8; k++) {
			vec2 b = cx_pair[me * 8u + k];
			cx_sum_add(a.x, a.y, b.x);
			a.y += b.y;
		}
		cx_pair8[me] = a;
	}
	barrier();
	vec2 a = cx_pair8[0];
	for (uint k = 1; k < 8; k++) {
		cx_sum_add(a.x, a.y, cx_pair8[k].x);
		a.y += cx_pair8[k].y;
	}
	return a;
}
float cx_group_sum(float s, float c)
{
	vec2 a = cx_group_pair(s, c);
	return cx_sum_get(a.x, a.y);
}

/* (s + c) / n, rounded nearly once: the quotient's remainder is divided too. */
float cx_pair_mean(vec2 a, float n)
{
	precise float q = a.x / n;
	precise float t = 4097.0 * q, qh = t - (t - q), ql = q - qh;
	precise float u = 4097.0 * n, nh = u - (u - n), nl = n - nh;
	precise float p = q * n, e = ((qh * nh - p) + qh * nl + ql * nh) + ql * nl;
	precise float r = ((a.x - p) - e + a.y) / n, m = q + r;
	return cx_isnan(r) || cx_isinf(r) ? q : m;
}

CX_GROUP_FOLD(cx_group_max, cx_max(a, b))
