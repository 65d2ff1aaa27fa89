/* checkpoint.h - a Cortex decoder's parameters in host memory: from a file, or new; and to a file.
 *
 * Read are safetensors and, without executing any of them, the containers of spec/decoder.md 1.11:
 * model_state_dict, model, state_dict or a bare map in a .pt file, a distributed checkpoint's
 * folder, and the INT8 map (x.weight_int8 [n,k], x.weight_scale [n] in place of x.weight; with them
 * x.act_scale [1] for each or for none: activations are int8 too, quantize.h). Import is strict: a
 * tensor that is missing, not expected or of another shape is an error that names it.
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
	cx_dtype narrow; /* F16 or BF16: type in the file of F32 data that it holds exactly; else F32 */
	float act_scale; /* > 0, I8C only: x of x w' is rounded to int8 in these steps (op `matmul`) */
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
/* Overwrites parameter `index` with a copy of data, and forgets its act_scale; I8C only for
 * linears. F16 and BF16 of the others become F32 here, and what they were in a file. Not while a
 * store is bound. */
CX_API cx_status cx_cortex_set(
	cx_cortex *m, size_t index, cx_dtype dtype, const void *data, uint64_t bytes, cx_err *err);
/* scale: 0, or 1e-30 to 1e30 for a linear that is I8C. Not while a store is bound. */
CX_API cx_status cx_cortex_set_act_scale(cx_cortex *m, size_t index, float scale, cx_err *err);
/* Parameter w as f32: out [cx_cortex_param_elems]. */
CX_API void cx_cortex_weight_f32(const cx_cortex_weight *w, float *out);

/* Puts the weights into the store (their memory stays m's), and with them what depends on them
 * alone: the projected queries of both attentions, computed once, on dev. */
CX_API cx_status cx_cortex_bind(
	cx_cortex *m, cx_runtime *rt, cx_device *dev, cx_store *store, cx_err *err);
/* For cx_cortex_build(): weight leaves of m's types, products with their act_scale; after
 * cx_cortex_bind() with what is folded. */
CX_API cx_cortex_source cx_cortex_get_source(const cx_cortex *m);
/* Writes the parameters, as f32, to the states of their names, and reads them back into m as f32.
 * param: what cx_cortex_build() gave; those that it says CX_NONE for are left alone (NULL: all are
 * there). States are made by the first exec that has them: after that. */
CX_API cx_status cx_cortex_write_states(
	const cx_cortex *m, cx_store *store, const cx_tensor *param, cx_err *err);
CX_API cx_status cx_cortex_read_states(
	cx_cortex *m, cx_store *store, const cx_tensor *param, cx_err *err);

/* Safetensors, atomically (out.h): tensors under their names, I8C as the INT8 map does with
 * x.act_scale where there is one; metadata:
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
#define CX_ACT_SCALE_MIN 1e-30 /* what the op takes */
#define CX_ACT_SCALE_MAX 1e30
/* "x.weight" gives "x.act_scale". */
void cx__cortex_act_name(const char *weight, char *out, size_t size);
/* config and w from a file's tensors. meta: heads and norm as texts, NULL if unknown. */
cx_status cx__cortex_import(cx_cortex *m, const cx_tensor_list *l, const char *label, cx_err *err);

#ifdef __cplusplus
}
#endif
#endif
