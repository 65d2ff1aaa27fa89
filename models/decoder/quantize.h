/* quantize.h - turns a Cortex decoder to int8 (spec/decoder.md 3): weights by output channel,
 * activations by layer, calibrated on data; and says what that did to its output.
 *
 * All linears that run, 4N + 6: all but that of the masked-spike head. Their weights become I8C:
 *	scale[c] = max(largest |w[c,:]|, 1e-8) / 127,  q = clamp(rint(w / scale[c]), -127, 127)
 * halves to even, so that an element moves by 0.5 scale[c] at most (and a rounding of w / scale).
 * Their activations are rounded when the model runs, in steps of act_scale[layer], and products are
 * sums of integers: op `matmul`, attribute act_scale. All other parameters are rounded to F16, in
 * the file too (BF16 where one of them is too large for that): with that S has 25.9 MB.
 *
 * Scales come from the windows of `calib`: the 99th percentile, the entropy cut (calibrate.h), or
 * the best of a grid of cuts from 3/8 to 5/4 of the largest magnitude.
 * AUTO measures. Every layer's product of activations that came by, int8 against f32, for each
 * method; then the output of the whole model on the windows of `eval`, f32 against int8, with the
 * scales of each way, and of the best one for each layer. The set with the least mean
 * difference is kept. */
#ifndef CX_DECODER_QUANTIZE_H
#define CX_DECODER_QUANTIZE_H

#include "models/decoder/calibrate.h"
#include "models/decoder/checkpoint.h"
#include "models/decoder/dataset.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cx_quantize_method {
	CX_QUANTIZE_NONE, /* weights alone: products of floats */
	CX_QUANTIZE_PERCENTILE,
	CX_QUANTIZE_ENTROPY,
	CX_QUANTIZE_SEARCH, /* the cut with the least error of the layer's product */
	CX_QUANTIZE_AUTO,   /* as a set of scales: the best one for each layer */
	CX_QUANTIZE_N_METHODS
} cx_quantize_method;
CX_API const char *cx_quantize_method_name(cx_quantize_method m);
/* "none" "percentile" "entropy" "search" "auto"; false: none of these. */
CX_API bool cx_quantize_method_parse(const char *name, cx_quantize_method *out);

/* Batches of windows. */
typedef struct cx_quantize_data {
	/* Batch index < n_calib to calibrate on, or < n_eval to measure on: events in out, off[0] 0, at
	 * most cap_events; its target may be left as it is. */
	cx_status (*fill)(void *ctx, bool eval, uint32_t index, cx_batch *out, cx_err *err);
	void *ctx;
	uint32_t n_windows;  /* of every batch */
	uint32_t cap_events; /* of a batch, at most */
	uint32_t n_calib;    /* 1..CX_CALIB_MAX_BATCHES; spec: 50 */
	uint32_t n_eval;     /* at least 1 */
} cx_quantize_data;

typedef struct cx_quantize_opts {
	cx_quantize_method method;
	/* may be NULL; done 0..1 */
	void (*progress)(void *ctx, const char *what, double done);
	void *progress_ctx;
} cx_quantize_opts;

typedef struct cx_quantize_layer {
	size_t index;  /* of its weight among the parameters */
	char name[64]; /* "encoder.cross_attn.q_proj" */
	uint32_t n_batches;
	float abs_max, cut[CX_QUANTIZE_AUTO]; /* of activations; cut[NONE] unused */
	/* Of the product: root of the mean square of int8 - f32 over that of f32. */
	double error[CX_QUANTIZE_AUTO];
	cx_quantize_method chosen; /* any but AUTO */
	float act_scale;           /* 0: NONE */
	float weight_scale_min, weight_scale_max;
} cx_quantize_layer;

typedef struct cx_quantize_report {
	cx_arena arena; /* owns every pointer below */
	cx_quantize_layer *layer;
	size_t n_layers, n_linears;         /* 34 of 35 in S */
	uint64_t bytes_before, bytes_after; /* of tensors in a file: before as f32 */
	cx_quantize_method chosen;          /* the set of scales that was kept */
	bool tried[CX_QUANTIZE_N_METHODS];  /* NONE always */
	double max_diff[CX_QUANTIZE_N_METHODS], mean_diff[CX_QUANTIZE_N_METHODS]; /* |int8 - f32| */
	size_t n_outputs;  /* n_eval * n_windows * behavior_dim */
	float *f32, *int8; /* [n_outputs] what was decoded on `eval` */
} cx_quantize_report;

/* m, not bound to a store, becomes int8, ready for cx_cortex_save(); after a failure it is of no
 * use. A model that is int8 already, a weight or an activation that is not finite: an error that
 * names it. */
CX_API cx_status cx_cortex_quantize(cx_cortex *m, cx_runtime *rt, cx_device *dev,
	const cx_quantize_opts *opts, const cx_quantize_data *data, cx_quantize_report *out,
	cx_err *err);
CX_API void cx_quantize_report_deinit(cx_quantize_report *r); /* zeroed is fine */

/* One matrix [n,k] as I8C by the formula above; dst has cx_i8c_scale_off(n, k) + 4 n bytes. False:
 * an element is not finite. */
CX_API bool cx_quantize_rows(const float *w, int64_t n, int64_t k, void *dst);

#ifdef __cplusplus
}
#endif
#endif
