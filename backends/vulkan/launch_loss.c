/* launch_loss.c - losses, the optimizer step, random numbers. */
#include "backends/vulkan/emit.h"

#include <math.h>

enum { LOCAL = 64 };

/* The mean (1) or sum (2) of terms of kind `kind`, or each of them (0). */
static void emit_loss(cx_vk_emit *e, uint32_t kind, int64_t reduction, const cx_operand *y,
	const cx_operand *x, const cx_operand *t, float eps, bool after)
{
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_loss, LOCAL);
	bool dense = cx__desc_is_dense(&x->desc) && cx__desc_is_dense(&t->desc);
	int64_t n = cx__desc_elems(&x->desc);
	d->after = after;
	cx__vk_spec(d, (uint32_t)y->desc.dtype);
	cx__vk_spec(d, (uint32_t)x->desc.dtype);
	cx__vk_spec(d, kind);
	cx__vk_spec(d, (uint32_t)reduction);
	cx__vk_spec(d, dense ? 0 : (uint32_t)x->desc.rank);
	cx__vk_bind(e, d, 0, y, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, x, CX_VK_READ, 0);
	cx__vk_bind(e, d, 2, t, CX_VK_READ, 0);
	d->p.f[0] = eps;
	d->p.i[0] = (cx_i32)n;
	if (reduction == 0) cx__vk_items(d, (uint64_t)n);
	else cx__vk_groups(d, 1);
}

void cx__vk_launch_mse(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	emit_loss(e, 0, ((const cx_attr_loss *)s->attr)->reduction, &s->out[0], &s->in[0], &s->in[1], 0,
		false);
}

void cx__vk_launch_poisson(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_poisson *at = s->attr;
	emit_loss(e, at->rate ? 2 : 1, at->reduction, &s->out[0], &s->in[0], &s->in[1], at->eps, false);
}

static uint64_t padded(uint64_t n)
{
	return (n + 255) & ~(uint64_t)255;
}

/* The loss of each row and whether it counts, f32. */
uint64_t cx__vk_xent_scratch(const cx_device *dev, const cx_kernel_key *key)
{
	(void)dev;
	if (((const cx_attr_loss *)key->attr)->reduction == 0) return 0;
	return 2 * padded((uint64_t)key->in[0].dim[0] * 4) + 256;
}

void cx__vk_launch_xent(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_loss *at = s->attr;
	int64_t rows = s->in[0].desc.dim[0];
	cx_operand loss = s->out[0], kept = {0};
	cx_vk_dispatch *d;
	if (at->reduction) {
		loss = cx__vk_scratch(s, 0, CX_F32, 1, rows);
		kept = cx__vk_scratch(s, padded((uint64_t)rows * 4), CX_F32, 1, rows);
	}
	d = cx__vk_begin(e, CX_SHADER_xent, LOCAL);
	cx__vk_spec(d, (uint32_t)loss.desc.dtype);
	cx__vk_spec(d, (uint32_t)s->in[0].desc.dtype);
	cx__vk_spec(d, at->reduction != 0);
	cx__vk_bind(e, d, 0, &loss, CX_VK_WRITE, 0);
	if (at->reduction) cx__vk_bind(e, d, 1, &kept, CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 2, &s->in[0], CX_VK_READ, 0);
	cx__vk_bind(e, d, 3, &s->in[1], CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)s->in[0].desc.dim[1];
	d->p.i[1] = (cx_i32)at->ignore;
	cx__vk_groups(d, (uint64_t)rows);
	if (at->reduction) emit_loss(e, 3, at->reduction, &s->out[0], &loss, &kept, 0, true);
}

void cx__vk_launch_adamw(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_adamw *at = s->attr;
	const cx_desc *g = &s->in[1].desc;
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_adamw, LOCAL);
	cx__vk_spec(d, (uint32_t)s->out[0].desc.dtype);
	cx__vk_spec(d, (uint32_t)g->dtype);
	cx__vk_spec(d, cx__desc_is_dense(g) ? 0 : (uint32_t)g->rank);
	for (uint32_t i = 0; i < 3; i++) cx__vk_bind(e, d, i, &s->out[i], CX_VK_READ | CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 3, &s->in[1], CX_VK_READ, 0);
	cx__vk_bind(e, d, 4, &s->in[4], CX_VK_READ, 0);
	cx__vk_bind(e, d, 5, &s->in[5], CX_VK_READ, 0);
	d->p.f[0] = at->beta1;
	d->p.f[1] = (float)(1 - (double)at->beta1);
	d->p.f[2] = at->beta2;
	d->p.f[3] = (float)(1 - (double)at->beta2);
	d->p.f[4] = at->eps;
	d->p.f[5] = at->decay;
	d->p.f[6] = (float)log((double)at->beta1);
	d->p.f[7] = (float)log((double)at->beta2);
	cx__vk_items(d, (uint64_t)cx__desc_elems(&s->out[0].desc));
}

void cx__vk_launch_random(cx_vk_emit *e)
{
	const cx_step *s = e->step;
	const cx_attr_random *at = s->attr;
	int64_t n = cx__desc_elems(&s->out[0].desc);
	cx_vk_dispatch *d = cx__vk_begin(e, CX_SHADER_random, LOCAL);
	cx__vk_spec(d, (uint32_t)at->kind);
	cx__vk_bind(e, d, 0, &s->out[0], CX_VK_WRITE, 0);
	cx__vk_bind(e, d, 1, &s->in[0], CX_VK_READ, 0);
	d->p.i[0] = (cx_i32)n;
	cx__vk_items(d, (uint64_t)((n + 3) / 4));
}
