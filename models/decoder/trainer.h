/* trainer.h - trains a network on a dataset: one call is one step of AdamW.
 *
 * Everything follows from the seed and the number of the step: the first values, the order of the
 * windows, what is dropped and masked. So a run that is saved and loaded goes on with the same bits
 * as one that was never interrupted.
 *
 * A step takes batch * accumulate windows, in micro-batches of `batch` whose gradients are added up
 * in order. Windows come in the order of cx_dataset_order(), epoch after epoch; the last ones of
   * an epoch that fill no micro-batch are left out. Rates as in spec/decoder.md 5, where a step is
    * a step of the optimiser whatever is accumulated. Weight decay is for matrices of linears
     * alone: not for norms, biases, embedding tables, positions, latents and queries (spec 8, item
      * 13).
 *
 * Plans are made for the room that a batch's events need (eight sizes per doubling) when a size
 * first comes; a step that needs no new one allocates nothing. */
#ifndef CX_DECODER_TRAINER_H
#define CX_DECODER_TRAINER_H

#include "models/decoder/evaluate.h"
#include "models/files/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_train_opts {
	uint64_t seed;
	int64_t steps, warmup;     /* of the whole run: what the rate follows */
	int64_t batch, accumulate; /* windows of a micro-batch; micro-batches of a step */
	double lr, weight_decay, beta1, beta2, eps;
	/* Cortex: what starts as N(0, 0.02^2) (tables, latents, query) starts so many times larger. At
	 * 0.02 a latent is drowned by what the attention adds to it, all latents stay alike for
	  * hundreds of steps, and a narrow model hardly learns; 1 is the specification's. */
	double init_scale;
	/* Cortex: the scores of the cross-attention start so many times larger (q and k, each by the
	 * root). At 1 they are flat: every latent sees the mean over all events, of which little
	  * depends on the movement. */
	double score_gain;
	double clip;          /* global norm of the gradients; 0: not clipped */
	double drop_units;    /* share of units that a window does not see */
	double drop_events;   /* share of what is left of its events */
	double mask_fraction; /* of events that Cortex is asked for (mask.h) ... */
	double mask_weight;   /* ... and the weight of that loss; 0: not trained */
	int64_t mask_queries; /* per window at most; a window with fewer counts less */
} cx_train_opts;
CX_API cx_train_opts cx_train_default(void); /* spec/decoder.md 5 */
/* Rate of step s, s >= 0: lr (s + 1) / warmup, then half a cosine down to 0. */
CX_API double cx_train_rate(const cx_train_opts *o, int64_t s);

typedef struct cx_train_result {
	double loss; /* mse + mask_weight * xent */
	double mse;  /* over windows and columns, z-scored */
	double xent; /* per query that was asked; 0 without */
	double norm; /* of the gradients before clipping */
	double rate;
} cx_train_result;

typedef struct cx_trainer cx_trainer;

/* data, dev and rt must outlive it. Makes the plans of the first step, and writes the first values.
 * */
CX_API cx_status cx_trainer_create(const cx_net_config *net, const cx_train_opts *opts,
	const cx_dataset *data, cx_runtime *rt, cx_device *dev, const cx_alloc *alloc, cx_trainer **out,
	cx_err *err);
CX_API void cx_trainer_free(cx_trainer *t); /* NULL is fine */
CX_API int64_t cx_trainer_n_done(const cx_trainer *t);
CX_API const cx_plan *cx_trainer_plan(const cx_trainer *t); /* of the last micro-batch */
/* One step. A loss or a norm that is not finite is an error; the weights are of no use then. */
CX_API cx_status cx_trainer_step(cx_trainer *t, cx_train_result *out, cx_err *err);
/* Decodes with the weights as they are. Owned by t. */
CX_API cx_status cx_trainer_evaluator(cx_trainer *t, cx_evaluator **out, cx_err *err);

/* Everything that the next step depends on, in one file, atomically: weights, moments, the number
 * of the step. meta: texts of the caller's, read back by cx_safetensors_meta(). */
CX_API cx_status cx_trainer_save(const cx_trainer *t, const char *path,
	const cx_safetensors_meta_pair *meta, size_t n_meta, cx_err *err);
/* Strict: a tensor that is missing, extra or of another shape is an error that names it, and then
 * the trainer is of no use. */
CX_API cx_status cx_trainer_load(cx_trainer *t, const char *path, cx_err *err);
/* The weights alone, for cx_net_file_open(); of Cortex also for cx_cortex_open(). */
CX_API cx_status cx_trainer_export(const cx_trainer *t, const char *path,
	const cx_safetensors_meta_pair *meta, size_t n_meta, cx_err *err);

/* ---- for trainer*.c ---- */

/* One micro-batch, ready for a bucket's inputs. Buffers are made once, for the largest. */
typedef struct cx_train_batch {
	cx_arena arena;
	uint32_t n, cap_events, cap_queries, room; /* room: queries in all, n * mask_queries */
	uint32_t *order, *which;                   /* [n_train], [n] */
	uint64_t epoch;                            /* of order; UINT64_MAX: none yet */
	uint64_t *id;
	int32_t *first_unit, *n_units;                 /* of each window's session */
	cx_batch b;                                    /* after masking and dropping */
	int32_t *q_off, *q_neuron, *q_time, *q_target; /* [n + 1], [cap_queries]; then cut to room */
	uint32_t n_events, n_queries;
	float *counts, *turned; /* dense */
	float *weight;          /* [n] ones */
} cx_train_batch;
cx_status cx__train_batch_init(cx_train_batch *t, const cx_net_config *net, const cx_train_opts *o,
	const cx_dataset *data, const cx_alloc *alloc, cx_err *err);
void cx__train_batch_deinit(cx_train_batch *t);
/* Fills number `index` of the run (step * accumulate + micro-batch). */
cx_status cx__train_batch_fill(cx_train_batch *t, const cx_net_config *net, const cx_train_opts *o,
	const cx_dataset *data, uint64_t index, cx_err *err);

typedef struct cx_train_bucket {
	int64_t n_events;
	cx_graph *graph;
	cx_plan *plan;
	cx_exec *exec;
} cx_train_bucket;
struct cx_trainer {
	cx_alloc alloc;
	cx_net_config net;
	cx_train_opts o;
	const cx_dataset *data;
	cx_runtime *rt;
	cx_device *dev;
	cx_store *store;
	cx_cortex_param *desc; /* [n] */
	cx_tensor *used;       /* [n], CX_NONE: this training does not touch it */
	size_t n;
	cx_train_batch batch;
	cx_train_bucket *at; /* [n_buckets] */
	size_t n_buckets, cap_buckets;
	cx_train_bucket *last;
	cx_train_bucket apply; /* with accumulation */
	int32_t *rows;         /* [cap_rows] an input with its padding */
	size_t cap_rows;
	cx_evaluator *evaluator;
	int64_t n_done;
};
extern const char cx__train_count[]; /* the state that counts steps for AdamW */

#ifdef __cplusplus
}
#endif
#endif
