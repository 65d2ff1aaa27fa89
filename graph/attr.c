/* attr.c - everything made from attrs.def: defaults, field tables, comparison, text of values. */
#include "graph/attr.h"

#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- defaults -------------------------------------------------------------------------------- */

#define DEFAULT_I(x) x
#define DEFAULT_F(x) x
#define DEFAULT_B(x) x
#define DEFAULT_D(x) x
#define DEFAULT_O(x) x
#define DEFAULT_L(x)                                                                               \
	{                                                                                              \
		x                                                                                          \
	}
#define X(kind, name, def, doc) .name = DEFAULT_##kind(def),
#define CX_ATTR(attr, fields) static const cx_attr_##attr defaults_##attr = {fields.pad_ = 0};
#include "graph/attrs.def"
#undef CX_ATTR
#undef X

#define CX_ATTR(attr, fields)                                                                      \
	cx_attr_##attr cx_attr_##attr##_default(void)                                                  \
	{                                                                                              \
		return defaults_##attr;                                                                    \
	}
#include "graph/attrs.def"
#undef CX_ATTR

/* ---- field tables: X turns a row's fields into a comma list, EACH applies FIELD(attr, field) to
 * it ------ */

#define UNPACK(...) __VA_ARGS__
#define FIELD_(attr, kind, name, def, doc) {(#kind)[0], #name, doc, offsetof(cx_attr_##attr, name)},
#define FIELD_CALL(...) FIELD_(__VA_ARGS__)
#define FIELD(attr, field) FIELD_CALL(attr, UNPACK field)
#define EACH_1(attr, f)
#define EACH_2(attr, f, ...) FIELD(attr, f) EACH_1(attr, __VA_ARGS__)
#define EACH_3(attr, f, ...) FIELD(attr, f) EACH_2(attr, __VA_ARGS__)
#define EACH_4(attr, f, ...) FIELD(attr, f) EACH_3(attr, __VA_ARGS__)
#define EACH_5(attr, f, ...) FIELD(attr, f) EACH_4(attr, __VA_ARGS__)
#define EACH_6(attr, f, ...) FIELD(attr, f) EACH_5(attr, __VA_ARGS__)
#define EACH_7(attr, f, ...) FIELD(attr, f) EACH_6(attr, __VA_ARGS__)
#define EACH_8(attr, f, ...) FIELD(attr, f) EACH_7(attr, __VA_ARGS__)
#define EACH_9(attr, f, ...) FIELD(attr, f) EACH_8(attr, __VA_ARGS__)
#define EACH_10(attr, f, ...) FIELD(attr, f) EACH_9(attr, __VA_ARGS__)
#define EACH_11(attr, f, ...) FIELD(attr, f) EACH_10(attr, __VA_ARGS__)
#define EACH_PICK(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, each, ...) each
#define EACH(attr, ...)                                                                            \
	EACH_PICK(__VA_ARGS__, EACH_11, EACH_10, EACH_9, EACH_8, EACH_7, EACH_6, EACH_5, EACH_4,       \
		EACH_3, EACH_2, EACH_1, ~)                                                                 \
	(attr, __VA_ARGS__)
#define X(kind, name, def, doc) (kind, name, def, doc),
#define CX_ATTR(attr, fields)                                                                      \
	static const cx_field fields_##attr[] = {EACH(attr, fields ~){0, NULL, NULL, 0}};
#include "graph/attrs.def"
#undef CX_ATTR
#undef X

const cx_attr_info cx__attrs[CX_ATTR_COUNT] = {
#define CX_ATTR(attr, fields)                                                                      \
	[CX_ATTR_##attr] = {#attr, sizeof(cx_attr_##attr),                                             \
		sizeof fields_##attr / sizeof(cx_field) - 1, fields_##attr, &defaults_##attr},
#include "graph/attrs.def"
#undef CX_ATTR
};

const cx_field *cx__field_by_name(cx_attr_id id, const char *name, size_t n)
{
	const cx_attr_info *info = &cx__attrs[id];
	for (uint16_t i = 0; i < info->n_fields; i++)
		if (strlen(info->fields[i].name) == n && memcmp(info->fields[i].name, name, n) == 0)
			return &info->fields[i];
	return NULL;
}

/* ---- lists and comparison -------------------------------------------------------------------- */

cx_list cx_list_of(int32_t n, ...)
{
	cx_list l = {0};
	va_list ap;
	va_start(ap, n);
	l.n = n; /* out of range: kept, so that the shape rule refuses it */
	for (int i = 0; i < n && i < CX_MAX_LIST; i++) l.v[i] = va_arg(ap, int);
	va_end(ap);
	return l;
}

cx_list cx_list_from(int32_t n, const int64_t *v)
{
	cx_list l = {0};
	l.n = n;
	for (int i = 0; i < n && i < CX_MAX_LIST; i++) l.v[i] = v[i];
	return l;
}

static const void *field_at(const cx_field *f, const void *attr)
{
	return (const char *)attr + f->offset;
}

static size_t scalar_size(char kind)
{
	switch (kind) {
	case 'I':
	case 'O':
		return sizeof(int64_t);
	case 'F':
		return sizeof(float);
	case 'D':
		return sizeof(cx_dtype);
	default:
		return sizeof(bool);
	}
}

bool cx__field_equal(const cx_field *f, const void *a, const void *b)
{
	const void *x = field_at(f, a), *y = field_at(f, b);
	const cx_list *l = x, *m = y;
	if (f->kind != 'L')
		return memcmp(x, y, scalar_size(f->kind)) == 0; /* bits: -0 is not 0, NaN equals itself */
	return l->n == m->n && memcmp(l->v, m->v, (size_t)l->n * sizeof l->v[0]) == 0;
}

bool cx__attr_equal(cx_attr_id id, const void *a, const void *b)
{
	for (uint16_t i = 0; i < cx__attrs[id].n_fields; i++)
		if (!cx__field_equal(&cx__attrs[id].fields[i], a, b)) return false;
	return true;
}

uint64_t cx__attr_hash(cx_attr_id id, const void *attr)
{
	uint64_t h = id;
	for (uint16_t i = 0; i < cx__attrs[id].n_fields; i++) {
		const cx_field *f = &cx__attrs[id].fields[i];
		const cx_list *l = field_at(f, attr);
		int64_t one = 0, n = f->kind == 'L' ? l->n : 1;
		if (f->kind != 'L') memcpy(&one, field_at(f, attr), scalar_size(f->kind));
		for (int64_t k = 0; k < n; k++) {
			h = (h ^ (uint64_t)(f->kind == 'L' ? l->v[k] : one)) * 0x9e3779b97f4a7c15u;
			h ^= h >> 29;
		}
	}
	return h;
}

/* ---- text ------------------------------------------------------------------------------------ */

size_t cx__float_print(float x, char *buf, size_t size)
{
	int n = isnan(x) ? snprintf(buf, size, "nan") : snprintf(buf, size, "%.9g", (double)x);
	for (char *c = buf; *c;
		 c++) /* another decimal point than '.' comes from the program's locale */
		if (!strchr("0123456789+-.einfa", *c)) *c = '.';
	return (size_t)n;
}

bool cx__float_parse(const char *text, size_t n, float *out)
{
	char buf[48], *end, *dot;
	if (n == 0 || n >= sizeof buf) return false;
	for (size_t i = 0; i < n; i++)
		if (!text[i] || !strchr("0123456789+-.einfa", text[i])) return false;
	memcpy(buf, text, n);
	buf[n] = 0;
	*out = strtof(buf, &end);
	if (*end == '.' && (dot = strchr(buf, '.')) != NULL) {
		*dot = localeconv()->decimal_point[0];
		*out = strtof(buf, &end);
	}
	return *end == 0;
}

bool cx__int_parse(const char *text, size_t n, int64_t *out)
{
	bool minus = n > 0 && text[0] == '-';
	int64_t x = 0;
	size_t i = minus;
	if (i >= n) return false;
	for (; i < n; i++) {
		int digit = text[i] - '0';
		if (digit < 0 || digit > 9) return false;
		if (!cx_mul_i64(x, 10, &x) || !cx_add_i64(x, minus ? -digit : digit, &x)) return false;
	}
	*out = x;
	return true;
}

size_t cx__field_print(const cx_field *f, const void *attr, char *buf, size_t size)
{
	const void *p = field_at(f, attr);
	const cx_list *l = p;
	size_t at = 0;
	switch (f->kind) {
	case 'I':
		return (size_t)snprintf(buf, size, "%lld", (long long)*(const int64_t *)p);
	case 'F':
		return cx__float_print(*(const float *)p, buf, size);
	case 'B':
		return (size_t)snprintf(buf, size, "%s", *(const bool *)p ? "true" : "false");
	case 'D':
		return (size_t)snprintf(buf, size, "%s", cx_dtype_get(*(const cx_dtype *)p)->name);
	case 'O':
		return (size_t)snprintf(buf, size, "%s", cx__ops[*(const int64_t *)p].name);
	default:
		buf[at++] = '[';
		for (int i = 0; i < l->n; i++)
			at += (size_t)snprintf(buf + at, size - at, i ? ",%lld" : "%lld", (long long)l->v[i]);
		buf[at++] = ']';
		buf[at] = 0;
		return at;
	}
}

static bool list_parse(cx_list *l, const char *text, size_t n)
{
	size_t at = 1;
	memset(l, 0, sizeof *l);
	if (n < 2 || text[0] != '[' || text[n - 1] != ']') return false;
	while (at < n - 1) {
		size_t len = 0;
		while (at + len < n - 1 && text[at + len] != ',') len++;
		if (l->n == CX_MAX_LIST || !cx__int_parse(text + at, len, &l->v[l->n])) return false;
		l->n++;
		at += len;
		if (at < n - 1 && ++at == n - 1) return false; /* a comma with nothing after it */
	}
	return true;
}

bool cx__field_parse(const cx_field *f, void *attr, const char *text, size_t n)
{
	void *p = (char *)attr + f->offset;
	char name[16];
	cx_op op;
	switch (f->kind) {
	case 'I':
		return cx__int_parse(text, n, p);
	case 'F':
		return cx__float_parse(text, n, p);
	case 'B':
		*(bool *)p = n == 4;
		return (n == 4 && memcmp(text, "true", 4) == 0) ||
			   (n == 5 && memcmp(text, "false", 5) == 0);
	case 'D':
		if (n >= sizeof name) return false;
		memcpy(name, text, n);
		name[n] = 0;
		return cx_dtype_parse(name, p);
	case 'O':
		if (!cx__op_by_name(text, n, &op)) return false;
		*(int64_t *)p = op;
		return true;
	default:
		return list_parse(p, text, n);
	}
}
