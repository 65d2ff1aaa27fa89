/* net.c - see net.h. */
#include "models/decoder/net.h"

static const char *const names[CX_NET_N_KINDS] = {"cortex", "gru", "transformer"};

const char *cx_net_name(cx_net_kind kind)
{
	CX_ASSERT((unsigned)kind < CX_NET_N_KINDS);
	return names[kind];
}

cx_status cx_net_check(const cx_net_config *c, cx_err *err)
{
	if (c->kind == CX_NET_CORTEX) return cx_cortex_config_check(&c->cortex, err);
	CX_ASSERT(c->dense.transformer == (c->kind == CX_NET_TRANSFORMER));
	return cx_dense_check(&c->dense, err);
}

int64_t cx_net_behavior_dim(const cx_net_config *c)
{
	return c->kind == CX_NET_CORTEX ? c->cortex.behavior_dim : c->dense.behavior_dim;
}

size_t cx_net_n_params(const cx_net_config *c)
{
	return c->kind == CX_NET_CORTEX ? cx_cortex_n_params(&c->cortex) : cx_dense_n_params(&c->dense);
}

void cx_net_param_get(const cx_net_config *c, size_t index, cx_cortex_param *out)
{
	if (c->kind == CX_NET_CORTEX) cx_cortex_param_get(&c->cortex, index, out);
	else cx_dense_param_get(&c->dense, index, out);
}

uint64_t cx_net_n_elems(const cx_net_config *c)
{
	uint64_t n = 0;
	for (size_t i = 0; i < cx_net_n_params(c); i++) {
		cx_cortex_param p;
		cx_net_param_get(c, i, &p);
		n += cx_cortex_param_elems(&p);
	}
	return n;
}

void cx_net_build(const cx_net_config *c, const cx_cortex_source *src, const cx_cortex_bucket *b,
	cx_graph *g, cx_net_graph *out, cx_tensor *param)
{
	cx_dense_graph d;
	if (c->kind == CX_NET_CORTEX) {
		cx_cortex_build(&c->cortex, src, b, g, &out->cortex, param);
		out->key = out->cortex.key;
		return;
	}
	cx_dense_build(&c->dense, src, b->n_windows, b->train, g, &d, param);
	out->cortex.behavior = d.behavior;
	out->cortex.masked_logits = CX_NONE;
	out->key = d.key;
}

cx_cortex_loss cx_net_loss(
	const cx_net_config *c, const cx_cortex_bucket *b, cx_graph *g, const cx_net_graph *m)
{
	cx_cortex_config shape = {.behavior_dim = cx_net_behavior_dim(c)};
	return cx_cortex_loss_build(&shape, b, g, &m->cortex);
}
