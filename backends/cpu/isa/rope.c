/* rope.c - rotary embedding, and rope with the write into a key/value cache.
 *
 * The angle is pos * freq, both f32 (spec/llm.md 1.4); sine and cosine with full range reduction.
 * They are computed once per token and shared by its heads. Scratch, per thread: one head in, one
 * head out, cos, sin, in f32. */
#include "backends/cpu/isa/lane.h"
#include "backends/cpu/isa/vmath.h"

typedef struct rope {
	int64_t hd, r, half;
	bool pairs;
	float amplitude;
	float *x, *y, *cs, *sn; /* scratch */
	const float *freq;
	int64_t freq_stride;
	const cx_cpu_arg *cos_table, *sin_table;
} rope;

static int64_t span_of(int64_t hd)
{
	return cx_pad16(hd);
}

/* Scratch of this thread; freqs from the operand or from theta. */
static void rope_init(
	rope *p, const cx_cpu_call *c, const cx_cpu_team *t, int64_t hd, uint32_t freqs)
{
	const cx_attr_rope *at = c->attr;
	int64_t pad = span_of(hd);
	memset(p, 0, sizeof *p);
	p->hd = hd;
	p->r = at->n_rot ? at->n_rot : hd;
	p->half = p->r / 2;
	p->pairs = at->pairs;
	p->amplitude = at->amplitude;
	p->x = cx_f32(c->scratch) + t->rank * 4 * pad;
	p->y = p->x + pad;
	p->cs = p->y + pad;
	p->sn = p->cs + pad;
	p->freq = cx_cpu_has(c, freqs) ? cx_f32(c->in[freqs].p) : c->plan;
	p->freq_stride = cx_cpu_has(c, freqs) ? c->in[freqs].d.stride[0] : 1;
}

static void rope_angles(const rope *p, int64_t pos)
{
	v16 amp = v16_set1(p->amplitude), at = v16_set1((float)pos);
	if (p->cos_table) {
		const cx_cpu_arg *ct = p->cos_table, *st = p->sin_table;
		bool inside = pos >= 0 && pos < ct->d.dim[0];
		for (int64_t j = 0; j < p->half; j++) {
			p->cs[j] = inside
						   ? cx_f32(ct->p)[pos * ct->d.stride[0] + j * ct->d.stride[1]] *
								 p->amplitude
						   : 0;
			p->sn[j] = inside
						   ? cx_f32(st->p)[pos * st->d.stride[0] + j * st->d.stride[1]] *
								 p->amplitude
						   : 0;
		}
		return;
	}
	for (int64_t j = 0; j < p->half; j += 16) {
		size_t k = p->half - j < 16 ? (size_t)(p->half - j) : 16;
		float f[16] = {0};
		for (size_t i = 0; i < k; i++) f[i] = p->freq[(j + (int64_t)i) * p->freq_stride];
		v16 a = v16_mul(at, v16_load(f));
		v16_store_n(p->cs + j, v16_mul(v16_cos(a), amp), k);
		v16_store_n(p->sn + j, v16_mul(v16_sin(a), amp), k);
	}
}

/* One head: y and x may be the same. */
static void rope_head(const rope *p, float *y, const float *x)
{
	if (p->pairs) {
		for (int64_t j = 0; j < p->half; j++) {
			float a = x[2 * j], b = x[2 * j + 1];
			y[2 * j] = a * p->cs[j] - b * p->sn[j];
			y[2 * j + 1] = b * p->cs[j] + a * p->sn[j];
		}
	} else {
		for (int64_t j = 0; j < p->half; j += 16) {
			size_t k = p->half - j < 16 ? (size_t)(p->half - j) : 16;
			v16 a = v16_load_n(x + j, k), b = v16_load_n(x + p->half + j, k);
			v16 cs = v16_load_n(p->cs + j, k), sn = v16_load_n(p->sn + j, k);
			v16_store_n(y + j, v16_sub(v16_mul(a, cs), v16_mul(b, sn)), k);
			v16_store_n(y + p->half + j, v16_add(v16_mul(b, cs), v16_mul(a, sn)), k);
		}
	}
	if (y != x) memcpy(y + p->r, x + p->r, (size_t)(p->hd - p->r) * sizeof *y);
}

CX_CPU_FN(cx_rope_token_f32)
{
	const cx_cpu_arg *x = &c->in[0], *y = &c->out[0], *pos = &c->in[1];
	int32_t rank = x->d.rank;
	int64_t hd = x->d.dim[rank - 1], heads = x->d.dim[rank - 2], total = cx__desc_elems(&x->d), lo,
			hi;
	cx_desc xt = x->d, yt = y->d;
	rope p;
	if (total == 0) return;
	rope_init(&p, c, t, hd, 2);
	if (cx_cpu_has(c, 3)) {
		p.cos_table = &c->in[3];
		p.sin_table = &c->in[4];
	}
	xt.rank = yt.rank = rank - 2;
	cx_cpu_share(t, total / heads / hd, 1, &lo, &hi);
	for (int64_t i = lo; i < hi; i++) {
		rope_angles(&p, ((const int32_t *)pos->p)[cx_cpu_off(&pos->d, -1, i)]);
		for (int64_t h = 0; h < heads; h++) {
			const float *xp =
				cx_row_load(p.x, cx_at_off(x, cx_cpu_off(&xt, -1, i) + h * x->d.stride[rank - 2]),
					x->d.dtype, x->d.stride[rank - 1], hd);
			void *yp = cx_at_off(y, cx_cpu_off(&yt, -1, i) + h * y->d.stride[rank - 2]);
			float *yb = cx_row_target(p.y, yp, y->d.dtype, y->d.stride[rank - 1]);
			rope_head(&p, yb, xp);
			cx_row_store(yp, y->d.dtype, y->d.stride[rank - 1], yb, hd);
		}
	}
}

/* k, v, pos, slot, kcache, vcache, freqs. The rotated key is rounded to k's dtype on its way, as
 * the rope that this op replaces would. Threads share the heads, so that writes to one slot keep
 * the order of tokens. */
CX_CPU_FN(cx_rope_kv_token_f32)
{
	const cx_cpu_arg *k = &c->in[0], *v = &c->in[1], *pos = &c->in[2], *slot = &c->in[3];
	const cx_cpu_arg *ko = &c->out[0], *vo = &c->out[1];
	int64_t n = k->d.dim[0], heads = k->d.dim[1], hd = k->d.dim[2], lo, hi;
	rope p;
	rope_init(&p, c, t, hd, 6);
	cx_cpu_share(t, heads, 1, &lo, &hi);
	for (int64_t i = 0; i < n && lo < hi; i++) {
		int64_t s = ((const int32_t *)slot->p)[i * slot->d.stride[0]];
		if (s < 0 || s >= ko->d.dim[0]) continue;
		rope_angles(&p, ((const int32_t *)pos->p)[i * pos->d.stride[0]]);
		for (int64_t h = lo; h < hi; h++) {
			const float *kp =
				cx_row_load(p.x, cx_at_off(k, i * k->d.stride[0] + h * k->d.stride[1]), k->d.dtype,
					k->d.stride[2], hd);
			rope_head(&p, p.y, kp);
			if (k->d.dtype != CX_F32) {
				cx_row_store(p.x, k->d.dtype, 1, p.y, hd);
				cx_row_load(p.y, p.x, k->d.dtype, 1, hd);
			}
			cx_row_store(
				cx_at_off(ko, s * ko->d.stride[0] + h * ko->d.stride[1]), ko->d.dtype, 1, p.y, hd);
			kp = cx_row_load(p.x, cx_at_off(v, i * v->d.stride[0] + h * v->d.stride[1]), v->d.dtype,
				v->d.stride[2], hd);
			cx_row_store(
				cx_at_off(vo, s * vo->d.stride[0] + h * vo->d.stride[1]), vo->d.dtype, 1, kp, hd);
		}
	}
}
