/* json.h - JSON files through jansson, with errors that name the file and the place, and getters
 * for configurations.
 *
 * Strict: UTF-8, one value, no duplicate names, no "\u0000", nothing after the value, at most
 * CX_JSON_MAX_DEPTH levels. Integers keep 64 bits. One that has no room in them
 * (tokenizer_config.json likes 10^30 for "no limit") makes the whole file be read with reals in
 * place of integers, which the integer getters accept where they are whole and below 2^53 in size.
 * jansson's memory comes from its own hooks (json_set_alloc_funcs), not from a cx_alloc.
 * When it runs out, loading fails with MEMORY; but jansson 2.14 does not notice a failed allocation
 * while it collects a token of 16 bytes or more, and drops a byte of it. Nothing outside of it can
 * tell. */
#ifndef CX_FILES_JSON_H
#define CX_FILES_JSON_H

#include <jansson.h>

#include "models/files/map.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CX_JSON_MAX_DEPTH = 128, CX_JSON_WHERE = 96 };

/* Reads a whole file or block; `label` names it in messages. *out is NULL on failure, else
 * json_decref() it. */
CX_API cx_status cx_json_load(const cx_alloc *a, const char *path, json_t **out, cx_err *err);
CX_API cx_status cx_json_parse(
	const char *label, const void *data, size_t size, json_t **out, cx_err *err);

/* An object to take fields from, and how messages call it: "config.json: rope_scaling.factor ...".
 * A plain value, valid as long as the json_t. */
typedef struct cx_json_at {
	const char *file; /* label */
	const json_t *obj;
	char where[CX_JSON_WHERE]; /* "" at the root, "rope_scaling." inside that field; cut if long */
} cx_json_at;

/* The root, which must be an object. */
CX_API cx_status cx_json_root(const char *file, const json_t *root, cx_json_at *out, cx_err *err);

/* Fields. null counts as absent. OPTIONAL and absent: *io stays as it was and the result is CX_OK;
 * a field of the wrong type or outside [lo, hi] always fails. Strings live as long as the json_t.
 */
CX_API cx_status cx_json_i64(const cx_json_at *at, const char *field, cx_need need, int64_t lo,
	int64_t hi, int64_t *io, cx_err *err);
CX_API cx_status cx_json_f64(const cx_json_at *at, const char *field, cx_need need, double lo,
	double hi, double *io, cx_err *err);
CX_API cx_status cx_json_bool(
	const cx_json_at *at, const char *field, cx_need need, bool *io, cx_err *err);
CX_API cx_status cx_json_string(
	const cx_json_at *at, const char *field, cx_need need, const char **io, cx_err *err);
CX_API cx_status cx_json_array(
	const cx_json_at *at, const char *field, cx_need need, const json_t **io, cx_err *err);
/* An object inside: out->obj is NULL when it is absent and OPTIONAL. out may not be at. */
CX_API cx_status cx_json_object(
	const cx_json_at *at, const char *field, cx_need need, cx_json_at *out, cx_err *err);
/* An array of integers, or a single one (as eos_token_id may be). Gives at most cap into io; *n is
 * how many, and stays as it was when absent; more than cap is an error. */
CX_API cx_status cx_json_i64s(const cx_json_at *at, const char *field, cx_need need, int64_t lo,
	int64_t hi, size_t cap, int64_t *io, size_t *n, cx_err *err);
/* A number that is an integer (1, or 1.0 in a file read with reals) of at most 64 bits. */
CX_API bool cx_json_is_i64(const json_t *v, int64_t *out);

#ifdef __cplusplus
}
#endif
#endif
