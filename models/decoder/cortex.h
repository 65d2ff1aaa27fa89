/* cortex.h - the Cortex decoder as a graph: spike events in, hand velocity out (spec/decoder.md 1).
 *
 * Events of a batch of B windows are flat vectors, window after window; off[B+1] says where each
 * window begins. A bucket has room for E events: rows past off[B] are padding. They carry index -1
 * (their token is 0), belong to no window, and nothing reads them. A window without events has
 * latents that no event has changed: finite, never NaN. Tokens, attention and heads are ragged: no
 * tensor has a row per window and longest window.
 *
 * One function builds every graph; where parameters come from is the caller's cx_cortex_source:
 * weights to serve, states to train, casts of states to train in bf16.
 *
 * The masked-spike head. Of each window some events are dropped and some silent cells (neuron, time
 * bin without a spike) are drawn (mask.h); each is a query, its bucket the target (0 for silent).
 *	x = neuron_emb[n] + time_emb[t]
 *	o = x + attention(x Wq', K, V), with Wq, K and V of the behaviour head, over the window's
 *	latents logits = o Wm' + bm
 * So it has no parameters beside `masked_spike_head.proj`, as in the state dict, and the read-out
 * that decodes movement learns from it. The earlier system's head, mean over latents to logits, can
 * be asked for as well. */
#ifndef CX_DECODER_CORTEX_H
#define CX_DECODER_CORTEX_H

#include "graph/cx.h"
#include "models/decoder/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- parameters ---------------------------------------------------------------------------- */

/* How it starts (spec/decoder.md 1.10). */
typedef enum cx_cortex_init {
	CX_CORTEX_NORMAL,  /* N(0, 0.02^2): tables, latents, query */
	CX_CORTEX_UNIFORM, /* +-1/sqrt(fan_in): linears, and the bias of the masked-spike head */
	CX_CORTEX_ONES,    /* norm weights */
	CX_CORTEX_ZEROS    /* norm biases */
} cx_cortex_init;

typedef struct cx_cortex_param {
	char name[64]; /* of the state dict: "encoder.self_attn_blocks.3.mlp.0.weight" */
	int32_t rank;
	int64_t dim[2];
	cx_cortex_init init;
	int64_t fan_in; /* UNIFORM */
	bool linear; /* matrix of a linear: may be of any float or block type, is quantised and decays;
					   the others are f32 */
} cx_cortex_param;

/* In the order of the state dict. c must be checked. */
CX_API size_t cx_cortex_n_params(const cx_cortex_config *c);
CX_API void cx_cortex_param_get(const cx_cortex_config *c, size_t index, cx_cortex_param *out);
CX_API uint64_t cx_cortex_param_elems(const cx_cortex_param *p);
CX_API uint64_t cx_cortex_n_elems(const cx_cortex_config *c); /* of all: the parameter count */
/* Index of "encoder.latents" (block -1), or of "mlp.0.weight" of a block; it must be there. */
size_t cx__cortex_param_index(const cx_cortex_config *c, int64_t block, const char *name);
/* Fills p's values for a seed: element i depends on the seed, the name and i alone (Philox). */
CX_API void cx_cortex_param_init(const cx_cortex_param *p, uint64_t seed, float *out);

/* ---- graph --------------------------------------------------------------------------------- */

/* Where parameters come from. */
typedef struct cx_cortex_source {
	/* The tensor that stands for parameter p (index in state-dict order), of p's shape: a leaf, or
	 * made of one. Called at most once per parameter and graph. */
	cx_tensor (*get)(void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index);
	void *ctx;
	/* What depends on parameters alone is not computed but read from two weights: "folded.cross_q"
	 * f32 [L,D] and "folded.behavior_q" f32 [behavior_dim,D] (cx_cortex_fold_build). */
	bool folded;
	/* Type of activations between tokens and behaviour: F32 (0), or, with linears of that type,
	 * BF16:
	 * products of pairs, sums in f32, every result rounded. */
	cx_dtype act;
	/* The product x w' of linear p, where it is another than the plain one: of int8 activations, or
	 * with x noted. NULL: the plain one, which masked-spike queries have in any case. */
	cx_tensor (*product)(
		void *ctx, cx_graph *g, const cx_cortex_param *p, size_t index, cx_tensor x, cx_tensor w);
} cx_cortex_source;
CX_API cx_cortex_source cx_cortex_weights(void); /* f32 weight leaves named as in the state dict */
CX_API cx_cortex_source cx_cortex_states(void);  /* f32 states of the same names */

typedef struct cx_cortex_bucket {
	int64_t n_windows; /* B >= 1 */
	int64_t n_events;  /* E >= 0: room for events */
	int64_t n_queries; /* Q >= 0: room for queries of the masked-spike head; 0: without it */
	bool mean_logits;  /* the earlier system's masked-spike head, from the mean of the latents */
	bool train;        /* dropout as configured: adds the input "key" i32 [4] (op `random`) */
} cx_cortex_bucket;

/* The inputs are made by these names; CX_NONE where there is none. */
typedef struct cx_cortex_graph {
	cx_tensor neuron, time, value;                 /* inputs i32 [E], -1 in padding rows */
	cx_tensor off;                                 /* input "off" i32 [B+1] */
	cx_tensor query_neuron, query_time, query_off; /* inputs i32 [Q], [Q], [B+1] */
	cx_tensor key;                                 /* input i32 [4] */
	cx_tensor latents;                             /* f32 [B*L, D] after the final norm */
	cx_tensor behavior;                            /* f32 [B, behavior_dim], z-scored units */
	cx_tensor masked_logits; /* f32 [Q, buckets]; rows past query_off[B] mean nothing */
	cx_tensor mean_logits;   /* f32 [B, buckets] */
} cx_cortex_graph;

/* Adds the model to g. param (may be NULL): [cx_cortex_n_params] what src gave for each, CX_NONE
 * for one that this graph does not use. c must be checked; other errors come out of
 * cx_graph_finish(). Marks nothing as an output. */
CX_API void cx_cortex_build(const cx_cortex_config *c, const cx_cortex_source *src,
	const cx_cortex_bucket *b, cx_graph *g, cx_cortex_graph *out, cx_tensor *param);
/* A graph of its own with outputs "cross_q" and "behavior_q": what cx_cortex_source.folded
 * wants. */
CX_API void cx_cortex_fold_build(
	const cx_cortex_config *c, const cx_cortex_source *src, cx_graph *g);

/* Loss of a training graph. Adds inputs
 *	target         f32 [B, behavior_dim]
 *	window_weight  f32 [B], 1, or 0 for a window that does not count
 *	query_target   i32 [Q], a bucket, or -100 for a query that does not count   (if Q > 0)
 *	loss_scale     f32 [2]
 * loss = loss_scale[0] * sum of window_weight (behavior - target)^2
 *	  + loss_scale[1] * sum of cross-entropies.
 * The scales carry the divisors, which the caller knows: with 1 / (windows * behavior_dim) and
 * 0.1 / queries of the whole step, 0 where there are none, losses and gradients of micro-batches
 * and of processes add up to mean squared error + 0.1 cross-entropy of the whole, and nothing
 * divides by zero. */
typedef struct cx_cortex_loss {
	cx_tensor loss; /* f32, rank 0 */
	cx_tensor sse;  /* f32, rank 0: sum of window_weight (behavior - target)^2 */
	cx_tensor xent; /* f32, rank 0: sum of cross-entropies; CX_NONE without queries */
} cx_cortex_loss;
CX_API cx_cortex_loss cx_cortex_loss_build(
	const cx_cortex_config *c, const cx_cortex_bucket *b, cx_graph *g, const cx_cortex_graph *m);

/* ---- input --------------------------------------------------------------------------------- */

/* A ragged batch against what the model can take: off[0] is 0 and off does not fall, no more than
 * n_events_max events, ids and bins and values inside their vocabularies. ARGUMENT names the window
 * (0-based), the event of the window and the field. (In a graph an index out of range is no fault
 * of memory: its table contributes zeros.) value may be NULL. */
CX_API cx_status cx_cortex_check_events(const cx_cortex_config *c, const int32_t *off,
	int64_t n_windows, const int32_t *neuron, const int32_t *time, const int32_t *value,
	int64_t n_events_max, cx_err *err);

/* ---- cost ---------------------------------------------------------------------------------- */

/* Multiply-add work of one window in FLOP, two per multiplication, as in spec/decoder.md 1.2. */
typedef struct cx_cortex_flops {
	double cross_q; /* folded away when served */
	double cross_kv, cross_core, cross_out, self_linear, self_core, behavior;
	double total; /* of all of the above */
} cx_cortex_flops;
CX_API cx_cortex_flops cx_cortex_count_flops(const cx_cortex_config *c, int64_t n_events);

#ifdef __cplusplus
}
#endif
#endif
