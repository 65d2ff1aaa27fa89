/* checkpoint.h - a Cortex decoder's parameters in host memory: from a file, or new; and to a file.
 *
 * Read are safetensors and, without executing any of them, the containers of spec/decoder.md 1.11:
 * model_state_dict, model, state_dict or a bare map in a .pt file, a distributed checkpoint's
 * folder, and the INT8 map (x.weight_int8 [n,k], x.weight_scale [n] in place of x.weight). Import
 * is strict: a tensor that is missing, not expected or of another shape is an error that names it.
 * Sizes come from the shapes. The number of heads has no shape: it is in the metadata of
 * safetensors that cx_cortex_save() wrote; else it is that of the published size, else heads are 64
 * wide, as in every published one. A model without any norm bias is one of RMSNorm. */
#ifndef CX_DECODER_CHECKPOINT_H
#define CX_DECODER_CHECKPOINT_H

#include "models/decoder/cortex.h"
#include "models/files/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_cortex cx_cortex;

typedef struct cx_cortex_weight {
	cx_cortex_param p;
	cx_dtype dtype; /* F32; of linears also F16, BF16, I8C (rows, then scales: dtype.def) */
	const void *data;
	uint64_t bytes;
} cx_cortex_weight;

/* Data of linears stays in the mapped file where its type and alignment allow. *out is NULL on
 * failure. Owned by the caller: cx_cortex_close(). */
CX_API cx_status cx_cortex_open(
	const char *path, const cx_alloc *alloc, cx_cortex **out, cx_err *err);
/* Whether a path looks like one of those, and not like a language model: for commands that take
 * both. Opens and closes it; a path that cannot be read is none. */
CX_API bool cx_cortex_recognise(const char *path);
/* All parameters f32 with their first values for a seed. c is checked. */
CX_API cx_status cx_cortex_create(
	const cx_cortex_config *c, uint64_t seed, const cx_alloc *alloc, cx_cortex **out, cx_err *err);
CX_API void cx_cortex_close(cx_cortex *m); /* after the stores that it was bound to; NULL is fine */

CX_API const cx_cortex_config *cx_cortex_get_config(const cx_cortex *m);
CX_API const cx_cortex_weight *cx_cortex_get_weights(const cx_cortex *m, size_t *n);
CX_API uint64_t cx_cortex_n_bytes(const cx_cortex *m); /* of all weights */
/* "safetensors", "pytorch" or "new". */
CX_API const char *cx_cortex_container(const cx_cortex *m);
/* A text that the file carries beside the tensors (safetensors only); NULL if there is none. */
CX_API const char *cx_cortex_get_meta(const cx_cortex *m, const char *key);
/* Overwrites parameter `index` with a copy of data; a type other than F32 only for linears. Not
 * while a store is bound. */
CX_API cx_status cx_cortex_set(
	cx_cortex *m, size_t index, cx_dtype dtype, const void *data, uint64_t bytes, cx_err *err);

/* Puts the weights into the store (their memory stays m's), and with them what depends on them
 * alone: the projected queries of both attentions, computed once, on dev. */
CX_API cx_status cx_cortex_bind(
	cx_cortex *m, cx_runtime *rt, cx_device *dev, cx_store *store, cx_err *err);
/* For cx_cortex_build(): weight leaves of m's types; after cx_cortex_bind() with what is folded. */
CX_API cx_cortex_source cx_cortex_get_source(const cx_cortex *m);
/* Writes the parameters, as f32, to the states of their names, and reads them back into m as f32.
 * param: what cx_cortex_build() gave; those that it says CX_NONE for are left alone (NULL: all are
 * there). States are made by the first exec that has them: after that. */
CX_API cx_status cx_cortex_write_states(
	const cx_cortex *m, cx_store *store, const cx_tensor *param, cx_err *err);
CX_API cx_status cx_cortex_read_states(
	cx_cortex *m, cx_store *store, const cx_tensor *param, cx_err *err);

/* Safetensors, atomically (out.h): tensors under their names, I8C as the INT8 map does; metadata:
 * format, model, num_heads, cross_attn_heads, norm, and the caller's pairs. */
CX_API cx_status cx_cortex_save(const cx_cortex *m, const char *path,
	const cx_safetensors_meta_pair *meta, size_t n_meta, cx_err *err);

/* ---- for checkpoint.c and import.c ---- */

struct cx_cortex {
	cx_alloc alloc;
	cx_arena arena;
	cx_cortex_config config;
	cx_cortex_weight *w; /* [n] */
	size_t n;
	const char *container;
	cx_safetensors *safetensors; /* what was opened stays open: data points into it */
	struct cx_torch *torch;
	float *folded[2]; /* cross_q, behavior_q; NULL: not computed */
};
/* config and w from a file's tensors. meta: heads and norm as texts, NULL if unknown. */
cx_status cx__cortex_import(cx_cortex *m, const cx_tensor_list *l, const char *label, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
