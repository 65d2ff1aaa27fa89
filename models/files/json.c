/* json.c - strict JSON loading and typed fields. See json.h. */
#include "models/files/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- loading ---- */

/* jansson's own limit is 2048 levels of recursion, fixed when it was built: too deep for a small
 * stack. Strings are skipped by their quotes; a text that is not JSON is jansson's to refuse. */
static bool depth_ok(const char *s, size_t n)
{
	size_t depth = 0;
	bool quoted = false;
	for (size_t i = 0; i < n; i++) {
		if (quoted) {
			if (s[i] == '\\') i++;
			else if (s[i] == '"') quoted = false;
		} else if (s[i] == '"') {
			quoted = true;
		} else if (s[i] == '[' || s[i] == '{') {
			if (++depth > CX_JSON_MAX_DEPTH) return false;
		} else if ((s[i] == ']' || s[i] == '}') && depth > 0) {
			depth--;
		}
	}
	return true;
}

/* jansson mostly says nothing when memory is short. In the middle of a string it blames the
 * string's text: a complete string that is "invalid" or is not the string that was expected. Text
 * that really is wrong gets another message, because the first one set is kept. */
static bool ran_out(const json_error_t *e)
{
	return json_error_code(e) == json_error_out_of_memory || e->text[0] == '\0' ||
		   strncmp(e->text, "invalid token near '\"", 21) == 0 ||
		   strncmp(e->text, "string or '}' expected near '\"", 30) == 0;
}

cx_status cx_json_parse(const char *label, const void *data, size_t size, json_t **out, cx_err *err)
{
	const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY;
	json_error_t e;
	*out = NULL;
	if (!depth_ok(data, size))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: JSON is nested deeper than %d levels", label,
			CX_JSON_MAX_DEPTH);
	memset(&e, 0, sizeof e);
	*out = json_loadb(data, size, flags, &e);
	if (!*out && json_error_code(&e) == json_error_numeric_overflow) {
		memset(&e, 0, sizeof e);
		*out = json_loadb(data, size, flags | JSON_DECODE_INT_AS_REAL, &e);
	}
	if (*out) return CX_OK;
	if (ran_out(&e))
		return CX_FAIL(err, CX_ERR_MEMORY, "%s: out of memory while reading JSON", label);
	return CX_FAIL(
		err, CX_ERR_FORMAT, "%s: line %d, column %d: %s", label, e.line, e.column, e.text);
}

cx_status cx_json_load(const cx_alloc *a, const char *path, json_t **out, cx_err *err)
{
	cx_file_map *map;
	cx_status st;
	*out = NULL;
	if ((st = cx_file_map_open(a, path, &map, err)) != CX_OK) return st;
	st = cx_json_parse(map->label, map->data, map->size, out, err);
	cx_file_map_close(map);
	return st;
}

/* ---- fields ---- */

static const char *type_text(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a bool";
	default:
		return "null";
	}
}

static cx_status bad_field(
	const cx_json_at *at, const char *field, const json_t *v, const char *want, cx_err *err)
{
	if (json_is_real(v))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s%.80s is %g, must be %s", at->file, at->where,
			field, json_real_value(v), want);
	if (json_is_string(v))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s%.80s is \"%.40s\", must be %s", at->file,
			at->where, field, json_string_value(v), want);
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s%.80s is %s, must be %s", at->file, at->where, field,
		type_text(v), want);
}

/* The field, or NULL with CX_OK if it may be absent. */
static cx_status find_field(
	const cx_json_at *at, const char *field, cx_need need, const json_t **out, cx_err *err)
{
	*out = at->obj ? json_object_get(at->obj, field) : NULL;
	if (json_is_null(*out)) *out = NULL;
	if (*out || need == CX_OPTIONAL) return CX_OK;
	return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s%.80s is missing", at->file, at->where, field);
}

bool cx_json_is_i64(const json_t *v, int64_t *out)
{
	double d;
	if (json_is_integer(v)) {
		*out = (int64_t)json_integer_value(v);
		return true;
	}
	if (!json_is_real(v)) return false;
	d = json_real_value(v);
	if (!(fabs(d) <= 0x1p53 && d == floor(d))) return false;
	*out = (int64_t)d;
	return true;
}

static cx_status int_in_range(const cx_json_at *at, const char *field, const json_t *v, int64_t lo,
	int64_t hi, int64_t *out, cx_err *err)
{
	int64_t i;
	if (!cx_json_is_i64(v, &i)) return bad_field(at, field, v, "an integer", err);
	if (!(i >= lo && i <= hi))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s%.80s is %lld, must be from %lld to %lld",
			at->file, at->where, field, (long long)i, (long long)lo, (long long)hi);
	*out = i;
	return CX_OK;
}

cx_status cx_json_root(const char *file, const json_t *root, cx_json_at *out, cx_err *err)
{
	memset(out, 0, sizeof *out);
	out->file = file;
	if (!json_is_object(root))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: is %s, must be an object", file,
			root ? type_text(root) : "empty");
	out->obj = root;
	return CX_OK;
}

cx_status cx_json_i64(const cx_json_at *at, const char *field, cx_need need, int64_t lo, int64_t hi,
	int64_t *io, cx_err *err)
{
	const json_t *v;
	cx_status st = find_field(at, field, need, &v, err);
	if (st != CX_OK || !v) return st;
	return int_in_range(at, field, v, lo, hi, io, err);
}

cx_status cx_json_f64(const cx_json_at *at, const char *field, cx_need need, double lo, double hi,
	double *io, cx_err *err)
{
	const json_t *v;
	double d;
	cx_status st = find_field(at, field, need, &v, err);
	if (st != CX_OK || !v) return st;
	if (!json_is_number(v)) return bad_field(at, field, v, "a number", err);
	d = json_number_value(v);
	if (!(d >= lo && d <= hi))
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s%.80s is %g, must be from %g to %g", at->file,
			at->where, field, d, lo, hi);
	*io = d;
	return CX_OK;
}

cx_status cx_json_bool(const cx_json_at *at, const char *field, cx_need need, bool *io, cx_err *err)
{
	const json_t *v;
	cx_status st = find_field(at, field, need, &v, err);
	if (st != CX_OK || !v) return st;
	if (!json_is_boolean(v)) return bad_field(at, field, v, "true or false", err);
	*io = json_is_true(v);
	return CX_OK;
}

cx_status cx_json_string(
	const cx_json_at *at, const char *field, cx_need need, const char **io, cx_err *err)
{
	const json_t *v;
	cx_status st = find_field(at, field, need, &v, err);
	if (st != CX_OK || !v) return st;
	if (!json_is_string(v)) return bad_field(at, field, v, "a string", err);
	*io = json_string_value(v);
	return CX_OK;
}

cx_status cx_json_array(
	const cx_json_at *at, const char *field, cx_need need, const json_t **io, cx_err *err)
{
	const json_t *v;
	cx_status st = find_field(at, field, need, &v, err);
	if (st != CX_OK || !v) return st;
	if (!json_is_array(v)) return bad_field(at, field, v, "an array", err);
	*io = v;
	return CX_OK;
}

cx_status cx_json_object(
	const cx_json_at *at, const char *field, cx_need need, cx_json_at *out, cx_err *err)
{
	const json_t *v;
	cx_status st = find_field(at, field, need, &v, err);
	memset(out, 0, sizeof *out);
	out->file = at->file;
	if (st != CX_OK || !v) return st;
	if (!json_is_object(v)) return bad_field(at, field, v, "an object", err);
	out->obj = v;
	if (snprintf(out->where, sizeof out->where, "%s%.60s.", at->where, field) >=
		(int)sizeof out->where)
		memcpy(
			out->where + sizeof out->where - 5, "...", 3); /* a very deep field: its name is cut */
	return CX_OK;
}

cx_status cx_json_i64s(const cx_json_at *at, const char *field, cx_need need, int64_t lo,
	int64_t hi, size_t cap, int64_t *io, size_t *n, cx_err *err)
{
	const json_t *v;
	size_t count;
	cx_status st = find_field(at, field, need, &v, err);
	if (st != CX_OK || !v) return st;
	count = json_is_array(v) ? json_array_size(v) : 1;
	if (count > cap)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s: %s%.80s has %zu elements, at most %zu are possible",
			at->file, at->where, field, count, cap);
	for (int pass = 0; pass < 2; pass++) /* check all before the output changes */
		for (size_t i = 0; i < count; i++) {
			int64_t x;
			st = int_in_range(
				at, field, json_is_array(v) ? json_array_get(v, i) : v, lo, hi, &x, err);
			if (st != CX_OK) return st;
			if (pass) io[i] = x;
		}
	*n = count;
	return CX_OK;
}
