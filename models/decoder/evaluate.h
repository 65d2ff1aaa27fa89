/* evaluate.h - decodes a part of a dataset with a network: a trainer's states, or weights. */
#ifndef CX_DECODER_EVALUATE_H
#define CX_DECODER_EVALUATE_H

#include "models/decoder/dataset.h"
#include "models/decoder/net.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_evaluator cx_evaluator;

/* src, its ctx, dev, store and data must outlive it. Plans are made when first needed. n_units and
 * the window of data must be what the network takes: else an error that names both. */
CX_API cx_status cx_evaluator_create(const cx_net_config *c, const cx_cortex_source *src,
	cx_device *dev, cx_store *store, const cx_dataset *data, const cx_alloc *alloc,
	cx_evaluator **out, cx_err *err);
CX_API void cx_evaluator_free(cx_evaluator *e); /* NULL is fine */
/* y [n_windows(part), behavior_dim]: decoded movement, z-scored. */
CX_API cx_status cx_evaluator_decode(cx_evaluator *e, cx_part part, float *y, cx_err *err);
/* The same windows scored: r2 [behavior_dim] (metrics.h); mean and mse (z-scored) may be NULL. NaN
 * if the part is empty. */
CX_API cx_status cx_evaluator_score(
	cx_evaluator *e, cx_part part, double *r2, double *mean, double *mse, cx_err *err);

/* A network from a file of weights that a training run wrote (trainer.h), ready to decode. */
typedef struct cx_net_file cx_net_file;
CX_API cx_status cx_net_file_open(const char *path, const cx_net_config *c, cx_runtime *rt,
	cx_device *dev, const cx_alloc *alloc, cx_net_file **out, cx_err *err);
CX_API void cx_net_file_close(cx_net_file *f); /* NULL is fine */
CX_API cx_status cx_net_file_evaluator(
	cx_net_file *f, const cx_dataset *data, cx_evaluator **out, cx_err *err);

/* Does the network take what the dataset gives? One sentence that names both numbers if not. */
CX_API cx_status cx_net_fits(const cx_net_config *c, const cx_dataset *data, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
