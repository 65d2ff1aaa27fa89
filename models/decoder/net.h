/* net.h - any network that is trained here, behind one set of functions: Cortex, and the two
 * baselines of dense.h. */
#ifndef CX_DECODER_NET_H
#define CX_DECODER_NET_H

#include "models/decoder/dense.h"

#ifdef __cplusplus
extern "C" {
#endif

/* In the order of the words of the key `network`. */
typedef enum cx_net_kind {
	CX_NET_CORTEX,
	CX_NET_GRU,
	CX_NET_TRANSFORMER,
	CX_NET_N_KINDS
} cx_net_kind;

typedef struct cx_net_config {
	cx_net_kind kind;
	cx_cortex_config cortex;
	cx_dense_config dense; /* GRU, Transformer; dense.transformer must agree with kind */
} cx_net_config;

CX_API const char *cx_net_name(cx_net_kind kind); /* "cortex" "gru" "transformer" */
CX_API cx_status cx_net_check(const cx_net_config *c, cx_err *err);
CX_API int64_t cx_net_behavior_dim(const cx_net_config *c);
CX_API size_t cx_net_n_params(const cx_net_config *c);
CX_API void cx_net_param_get(const cx_net_config *c, size_t index, cx_cortex_param *out);
CX_API uint64_t cx_net_n_elems(const cx_net_config *c); /* the parameter count */

typedef struct cx_net_graph {
	cx_cortex_graph cortex; /* behavior and masked_logits are set for every kind */
	cx_tensor key;          /* CX_NONE without dropout */
} cx_net_graph;
/* b->n_events and n_queries are read for Cortex alone. param as for cx_cortex_build(). */
CX_API void cx_net_build(const cx_net_config *c, const cx_cortex_source *src,
	const cx_cortex_bucket *b, cx_graph *g, cx_net_graph *out, cx_tensor *param);
/* cx_cortex_loss_build() for every kind. */
CX_API cx_cortex_loss cx_net_loss(
	const cx_net_config *c, const cx_cortex_bucket *b, cx_graph *g, const cx_net_graph *m);

#ifdef __cplusplus
}
#endif
#endif
