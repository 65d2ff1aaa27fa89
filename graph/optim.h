/* optim.h - what a training step needs behind its gradients: parameters with their states,
 * clipping, AdamW, accumulation over micro-batches, dropout. All are nodes of the graph: a step is
 * one cx_exec_run().
 *
 *	g:    w = cx_param_state(g, "w", CX_F32, 2, dim);
 *	      loss = ... cx_matmul(g, x, w.value, ...) ...;
 *	      cx_graph_grad(g, loss, values, n, NULL, grads);
 *	      norm = cx_clip_global_norm(g, grads, n, 1.0f);
 *	      cx_adamw_step(g, params, grads, n, &attr, lr, t);
 *	      cx_output(g, "loss", loss);
 *
 * Gradient accumulation is two plans over one cx_store, which share all states by name:
 *
 *	accumulate   forward, backward, cx_accumulate(); run once for each micro-batch but the last
 *	apply        the same, then cx_accumulate_take(), clip, AdamW; run for the last one
 *
 * Where gradients are summed over processes between the two, the apply graph has no forward: it
 * calls cx_accumulate_take() with gradients CX_NONE, and every micro-batch runs `accumulate`; the
 * host adds up the states "<name>.acc" of all processes by cx_store_state_read() and _write().
 *
 * Everything is added in a fixed order: same inputs, same bits. */
#ifndef CX_OPTIM_H
#define CX_OPTIM_H

#include "graph/cx.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A trained tensor and its states, all of its dims, zeros until cx_store_state_write():
 *   "<name>"         value, f32, bf16 or f16: what the model reads
 *   "<name>.master"  f32, only for 16-bit values: what is updated; value is this, rounded. Write
 *                    both at the start (cx_store_state_write), or training starts from zeros
 *   "<name>.m" ".v"  f32 moments
 *   "<name>.acc"     f32, after cx_param_accumulator() alone */
typedef struct cx_param {
	cx_tensor value, master, m, v, acc; /* master, acc: CX_NONE if there is none */
	const char *name;                   /* the caller's, as given */
	bool no_decay;                      /* true: AdamW without weight decay (biases, norms) */
} cx_param;

/* Makes the states of a parameter in g. name: 1..120 bytes, as for leaves. no_decay is false. */
CX_API cx_param cx_param_state(
	cx_graph *g, const char *name, cx_dtype dtype, int32_t rank, const int64_t *dim);
/* Adds the state "<name>.acc". */
CX_API void cx_param_accumulator(cx_graph *g, cx_param *p);

/* grads[i] becomes grads[i] * min(1, max_norm / (norm + 1e-6)) in f32, and norm, the root of the
 * sum of all squares before that, is returned (f32 scalar). As torch.nn.utils.clip_grad_norm_: a
 * norm that is NaN makes all gradients NaN. */
CX_API cx_tensor cx_clip_global_norm(cx_graph *g, cx_tensor *grads, uint32_t n, float max_norm);

/* The op adamw on every parameter: p[i].value, master, m, v become their next versions. lr, t: f32
 * [1]; t counts steps from 1. attr NULL: defaults; its decay is 0 where no_decay says so. */
CX_API void cx_adamw_step(cx_graph *g, cx_param *p, const cx_tensor *grads, uint32_t n,
	const cx_attr_adamw *attr, cx_tensor lr, cx_tensor t);
/* A state f32 [1] that goes up by one in every run; gives the new number: 1 in the first run. Exact
 * up to 2^24. */
CX_API cx_tensor cx_step_count(cx_graph *g, const char *name);

/* acc += scale * grads[i]; scale is 1/n for the mean over n micro-batches of equal size. */
CX_API void cx_accumulate(
	cx_graph *g, cx_param *p, const cx_tensor *grads, uint32_t n, float scale);
/* grads[i] becomes acc + scale * grads[i], or acc where it is CX_NONE, in f32; acc becomes zeros.
 */
CX_API void cx_accumulate_take(cx_graph *g, cx_param *p, cx_tensor *grads, uint32_t n, float scale);

/* y = x / (1 - p) with probability 1 - p, else 0; 0 <= p < 1, p == 0 gives x. key: i32 [4] as for
 * the op random; the same key drops the same elements, so each place in a model and each step needs
 * its own: fill words 0..2 per step (seed lo, seed hi, step) and let cx_random_site() number the
 * places in word 3. Counter-based: recomputation, other devices and resumed runs drop the same. */
CX_API cx_tensor cx_dropout(cx_graph *g, cx_tensor x, float p, cx_tensor key);
CX_API cx_tensor cx_random_site(cx_graph *g, cx_tensor key, int32_t site);

#ifdef __cplusplus
}
#endif
#endif
