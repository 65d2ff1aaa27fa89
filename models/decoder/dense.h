/* dense.h - the two networks that Cortex is compared with, on dense counts: a GRU and a Transformer
 * (spec/decoder.md 4.7).
 *
 * In: counts of the last T bins, as they are. Out: movement in the last one, z-scored. Parameters
 * have PyTorch's names and first values where PyTorch has a layer for them, so that either side can
 * read the other's.
 *
 * GRU: `layers` layers, each in one direction or both, dropout between them, a linear on the last
 * step's output. Gates r, z, n; the candidate is tanh(W_in x + b_in + r * (W_hn h + b_hn)) and
 * h' = (1 - z) n + z h. In the last layer the backward direction has seen the last bin alone.
 *
 * Transformer: linear of a bin's counts, a learned token in front of them, a learned table of T + 2
 * positions, pre-norm layers (attention, MLP with exact GELU, biases), no norm at the end, a linear
 * on the first token. Dropout on what a sublayer adds and inside the MLP. */
#ifndef CX_DECODER_DENSE_H
#define CX_DECODER_DENSE_H

#include "models/decoder/cortex.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_dense_config {
	bool transformer;             /* else a GRU */
	int64_t n_units, window;      /* N, T: of the data */
	int64_t width, layers, heads; /* heads, ff: Transformer */
	int64_t ff;                   /* hidden width of an MLP */
	bool bidirectional;           /* GRU */
	double dropout;
	int64_t behavior_dim;
} cx_dense_config;

/* One sentence that names the field. */
CX_API cx_status cx_dense_check(const cx_dense_config *c, cx_err *err);
CX_API size_t cx_dense_n_params(const cx_dense_config *c);
/* `linear` is true for what decays: matrices, not biases, norms, positions or the first token. */
CX_API void cx_dense_param_get(const cx_dense_config *c, size_t index, cx_cortex_param *out);

typedef struct cx_dense_graph {
	cx_tensor counts;   /* input f32: GRU [T*B, N], bin by bin; Transformer [B*T, N] */
	cx_tensor key;      /* input i32 [4] when training with dropout, else CX_NONE */
	cx_tensor behavior; /* f32 [B, behavior_dim] */
} cx_dense_graph;
/* param as for cx_cortex_build(). */
CX_API void cx_dense_build(const cx_dense_config *c, const cx_cortex_source *src, int64_t n_windows,
	bool train, cx_graph *g, cx_dense_graph *out, cx_tensor *param);

/* ---- for gru.c and transformer.c ---- */

typedef struct cx_dense_row {
	const char *name;
	int64_t dim[2]; /* dim[1] 0: rank 1 */
	cx_cortex_init init;
	int64_t fan_in;
	bool decay;
} cx_dense_row;
typedef struct cx_dense_builder {
	const cx_dense_config *c;
	const cx_cortex_source *src;
	cx_graph *g;
	int64_t n_windows;
	bool train;
	cx_tensor key;
	int32_t n_drops;
	size_t next;      /* parameters are asked for in their order */
	cx_tensor *param; /* may be NULL */
} cx_dense_builder;
cx_tensor cx__dense_next(cx_dense_builder *b); /* the next parameter of the state dict */
cx_tensor cx__dense_linear(cx_dense_builder *b, cx_tensor x); /* the next two: weight and bias */
cx_tensor cx__dense_drop(cx_dense_builder *b, cx_tensor x);
cx_tensor cx__dense_shape(
	cx_graph *g, cx_tensor x, int32_t rank, int64_t d0, int64_t d1, int64_t d2, int64_t d3);
/* `size` elements from `begin` on, along one axis. */
cx_tensor cx__dense_cut(cx_graph *g, cx_tensor x, int32_t axis, int64_t begin, int64_t size);
size_t cx__gru_n_params(const cx_dense_config *c);
void cx__gru_param_get(const cx_dense_config *c, size_t index, cx_cortex_param *out);
void cx__gru_build(cx_dense_builder *b, cx_dense_graph *out);
size_t cx__transformer_n_params(const cx_dense_config *c);
void cx__transformer_param_get(const cx_dense_config *c, size_t index, cx_cortex_param *out);
void cx__transformer_build(cx_dense_builder *b, cx_dense_graph *out);
void cx__dense_fill(const cx_dense_row *row, const char *scope, cx_cortex_param *out);

#ifdef __cplusplus
}
#endif
#endif
