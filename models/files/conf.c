/* conf.c - see conf.h. */
#include "models/files/conf.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUE = 1023 };

/* A piece of the file, not terminated. */
typedef struct span {
	const char *p;
	size_t n;
} span;

static span trim(span s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.n--;
	}
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t' || s.p[s.n - 1] == '\r')) s.n--;
	return s;
}

static bool is(span s, const char *text)
{
	return strlen(text) == s.n && memcmp(text, s.p, s.n) == 0;
}

/* ---- values ---- */

/* Index of v in "one two three", -1 if it is none. */
static int word_index(const char *words, const char *v)
{
	size_t n = strlen(v);
	for (int i = 0; n && *words; i++) {
		size_t k = strcspn(words, " ");
		if (k == n && memcmp(words, v, n) == 0) return i;
		words += k;
		while (*words == ' ') words++;
	}
	return -1;
}

/* `where` is "file:line: key 'steps'". */
static cx_status set_number(
	const cx_conf_key *k, const char *v, void *field, const char *where, cx_err *err)
{
	bool whole = k->kind == CX_CONF_INT;
	char *end;
	double x;
	long long i = 0;
	errno = 0;
	x = strtod(v, &end);
	if (whole) i = strtoll(v, &end, 10);
	if (!*v || *end || errno || !isfinite(x) || strpbrk(v, "xXnN"))
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: '%.40s' is not a %snumber", where, v, whole ? "whole " : "");
	if (!(x >= k->lo && x <= k->hi))
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s: %.40s is not in %.10g..%.10g", where, v, k->lo, k->hi);
	if (whole) memcpy(field, &(int64_t){i}, sizeof(int64_t));
	else memcpy(field, &x, sizeof x);
	return CX_OK;
}

static cx_status set_value(
	const cx_conf_key *k, const char *v, void *to, const char *where, cx_err *err)
{
	char *field = (char *)to + k->offset;
	int word;
	switch (k->kind) {
	case CX_CONF_INT:
	case CX_CONF_REAL:
		return set_number(k, v, field, where, err);
	case CX_CONF_BOOL:
		if (strcmp(v, "true") != 0 && strcmp(v, "false") != 0)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: '%.40s' is neither true nor false", where, v);
		*(bool *)field = strcmp(v, "true") == 0;
		return CX_OK;
	case CX_CONF_WORD:
		if ((word = word_index(k->words, v)) < 0)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: '%.40s' is none of: %s", where, v, k->words);
		memcpy(field, &word, sizeof word);
		return CX_OK;
	case CX_CONF_TEXT:
		if (strlen(v) >= k->size)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: %zu characters, %zu are possible", where,
				strlen(v), k->size - 1);
		if (strpbrk(v, "\"\n"))
			return CX_FAIL(err, CX_ERR_FORMAT, "%s: a quote inside the text", where);
		memcpy(field, v, strlen(v) + 1);
		return CX_OK;
	}
	return CX_FAIL(err, CX_ERR_ARGUMENT, "%s: the key's table is wrong", where);
}

void cx_conf_defaults(const cx_conf_section *s, size_t n_sections)
{
	for (size_t i = 0; i < n_sections; i++)
		for (size_t k = 0; s[i].keys && k < s[i].n_keys; k++)
			CX_ASSERT(
				set_value(&s[i].keys[k], s[i].keys[k].def, s[i].to, "default", NULL) == CX_OK);
}

/* ---- reading ---- */

typedef struct reader {
	const char *label;
	const cx_conf_section *s;
	size_t n_sections;
	uint32_t *seen; /* [CX_CONF_MAX_KEYS] line in which a key came; 0: not yet */
	const cx_conf_section *now;
	bool any; /* a section was opened */
	uint32_t line;
} reader;

static const cx_conf_key *find_key(const cx_conf_section *s, span name)
{
	for (size_t k = 0; s->keys && k < s->n_keys; k++)
		if (is(name, s->keys[k].name)) return &s->keys[k];
	return NULL;
}

/* Position of a key among those of all sections. */
static size_t key_number(const reader *r, const cx_conf_key *key)
{
	size_t n = (size_t)(key - r->now->keys);
	for (const cx_conf_section *s = r->s; s != r->now; s++) n += s->keys ? s->n_keys : 0;
	CX_ASSERT(n < CX_CONF_MAX_KEYS);
	return n;
}

/* What stands right of "=": up to a comment, or quoted. */
static cx_status read_value(const reader *r, span v, char out[MAX_VALUE + 1], cx_err *err)
{
	size_t n = 0;
	if (v.n && v.p[0] == '"') {
		const char *end = memchr(v.p + 1, '"', v.n - 1);
		span rest;
		if (!end)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s:%u: a quote is not closed", r->label, r->line);
		rest = trim((span){end + 1, v.n - (size_t)(end + 1 - v.p)});
		if (rest.n && rest.p[0] != '#')
			return CX_FAIL(
				err, CX_ERR_FORMAT, "%s:%u: text behind the closing quote", r->label, r->line);
		v = (span){v.p + 1, (size_t)(end - v.p - 1)};
	} else {
		const char *hash = memchr(v.p, '#', v.n);
		if (hash) v.n = (size_t)(hash - v.p);
		v = trim(v);
	}
	for (size_t i = 0; i < v.n && n <= MAX_VALUE; i++) {
		if ((unsigned char)v.p[i] < 0x20)
			return CX_FAIL(err, CX_ERR_FORMAT, "%s:%u: a control character", r->label, r->line);
		if (n < MAX_VALUE) out[n] = v.p[i];
		n++;
	}
	if (n > MAX_VALUE)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s:%u: the value is too long", r->label, r->line);
	out[n] = 0;
	return CX_OK;
}

static cx_status read_section(reader *r, span line, cx_err *err)
{
	const char *end = memchr(line.p, ']', line.n);
	span name, rest;
	if (!end) return CX_FAIL(err, CX_ERR_FORMAT, "%s:%u: ']' is missing", r->label, r->line);
	name = trim((span){line.p + 1, (size_t)(end - line.p - 1)});
	rest = trim((span){end + 1, line.n - (size_t)(end + 1 - line.p)});
	if (rest.n && rest.p[0] != '#')
		return CX_FAIL(err, CX_ERR_FORMAT, "%s:%u: text behind ']'", r->label, r->line);
	r->any = true;
	for (size_t i = 0; i < r->n_sections; i++)
		if (is(name, r->s[i].name)) {
			r->now = &r->s[i];
			return CX_OK;
		}
	return CX_FAIL(err, CX_ERR_FORMAT, "%s:%u: there is no section [%.*s]", r->label, r->line,
		name.n < 40 ? (int)name.n : 40, name.p);
}

static cx_status read_line(reader *r, span line, cx_err *err)
{
	const char *eq;
	char value[MAX_VALUE + 1], where[200];
	const cx_conf_key *key;
	span name;
	cx_status st;
	line = trim(line);
	if (line.n == 0 || line.p[0] == '#') return CX_OK;
	if (line.p[0] == '[') return read_section(r, line, err);
	if (r->any && !r->now->keys) return CX_OK;
	eq = memchr(line.p, '=', line.n);
	if (!eq)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%s:%u: neither [section] nor key = value", r->label, r->line);
	name = trim((span){line.p, (size_t)(eq - line.p)});
	if (name.n > 40) name.n = 40;
	if (!r->any)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s:%u: key '%.*s' comes before the first [section]",
			r->label, r->line, (int)name.n, name.p);
	key = find_key(r->now, name);
	if (!key)
		return CX_FAIL(err, CX_ERR_FORMAT, "%s:%u: [%s] has no key '%.*s'", r->label, r->line,
			r->now->name, (int)name.n, name.p);
	if (r->seen[key_number(r, key)])
		return CX_FAIL(err, CX_ERR_FORMAT, "%s:%u: key '%s' is in line %u already", r->label,
			r->line, key->name, r->seen[key_number(r, key)]);
	r->seen[key_number(r, key)] = r->line;
	if ((st = read_value(
			 r, trim((span){eq + 1, line.n - (size_t)(eq + 1 - line.p)}), value, err)) != CX_OK)
		return st;
	snprintf(where, sizeof where, "%s:%u: key '%s'", r->label, r->line, key->name);
	return set_value(key, value, r->now->to, where, err);
}

cx_status cx_conf_parse(
	const cx_file_map *map, const cx_conf_section *s, size_t n_sections, cx_err *err)
{
	uint32_t seen[CX_CONF_MAX_KEYS] = {0};
	reader r = {.label = map->label, .s = s, .n_sections = n_sections, .seen = seen, .now = s};
	const char *p = (const char *)map->data, *end = p + map->size;
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		const char *stop = nl ? nl : end;
		cx_status st;
		r.line++;
		if ((st = read_line(&r, (span){p, (size_t)(stop - p)}, err)) != CX_OK) return st;
		p = nl ? nl + 1 : end;
	}
	return CX_OK;
}

cx_status cx_conf_read(
	const cx_alloc *a, const char *path, const cx_conf_section *s, size_t n_sections, cx_err *err)
{
	cx_file_map *map;
	cx_status st = cx_file_map_open(a, path, &map, err);
	if (st != CX_OK) return st;
	st = cx_conf_parse(map, s, n_sections, err);
	cx_file_map_close(map);
	return st;
}

cx_status cx_conf_set(
	const cx_conf_section *s, size_t n_sections, const char *assignment, cx_err *err)
{
	const char *eq = strchr(assignment, '='), *dot;
	char where[100];
	span name, section = {"", 0};
	if (!eq)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "'%.60s' is not of the form key=value", assignment);
	name = trim((span){assignment, (size_t)(eq - assignment)});
	dot = memchr(name.p, '.', name.n);
	if (dot) {
		section = (span){name.p, (size_t)(dot - name.p)};
		name = (span){dot + 1, name.n - section.n - 1};
	}
	for (size_t i = 0; i < n_sections; i++) {
		const cx_conf_key *key = find_key(&s[i], name);
		if ((dot && !is(section, s[i].name)) || !key) continue;
		snprintf(where, sizeof where, "key '%s'", key->name);
		return set_value(key, eq + 1, s[i].to, where, err);
	}
	return CX_FAIL(err, CX_ERR_ARGUMENT, "there is no key '%.*s'",
		(int)(eq - assignment < 60 ? eq - assignment : 60), assignment);
}

/* ---- printing ---- */

typedef struct text {
	const cx_alloc *alloc;
	char *p;
	size_t n, cap;
	bool failed;
} text;

static void put(text *t, const char *fmt, ...) CX_PRINTF(2, 3);
static void put(text *t, const char *fmt, ...)
{
	char line[MAX_VALUE + 200];
	va_list ap;
	size_t n;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	n = strlen(line);
	if (t->failed) return;
	if (t->n + n + 1 > t->cap) {
		size_t cap = 2 * (t->n + n + 1);
		char *p = cx_realloc(t->alloc, t->p, t->cap, cap);
		if (!p) {
			t->failed = true;
			return;
		}
		t->p = p;
		t->cap = cap;
	}
	memcpy(t->p + t->n, line, n + 1);
	t->n += n;
}

static void put_word(text *t, const char *words, int index)
{
	for (int i = 0; i < index && *words; i++) {
		words += strcspn(words, " ");
		while (*words == ' ') words++;
	}
	put(t, "%.*s", (int)strcspn(words, " "), words);
}

/* In the fewest digits that read back. */
static void put_real(text *t, double x)
{
	char s[40];
	for (int digits = 1; digits <= 17; digits++) {
		snprintf(s, sizeof s, "%.*g", digits, x);
		if (strtod(s, NULL) == x) break;
	}
	put(t, "%s", s);
}

static void put_key(text *t, const cx_conf_key *k, const void *to)
{
	const char *field = (const char *)to + k->offset;
	int64_t i;
	double x;
	int word;
	put(t, "# %s", k->doc);
	if (k->kind == CX_CONF_WORD) put(t, ": %s", k->words);
	if (k->kind == CX_CONF_INT || k->kind == CX_CONF_REAL) put(t, "; %.10g..%.10g", k->lo, k->hi);
	if (*k->def) put(t, "; default %s\n", k->def);
	else put(t, "; default: empty\n");
	put(t, "%s = ", k->name);
	switch (k->kind) {
	case CX_CONF_INT:
		memcpy(&i, field, sizeof i);
		put(t, "%lld", (long long)i);
		break;
	case CX_CONF_REAL:
		memcpy(&x, field, sizeof x);
		put_real(t, x);
		break;
	case CX_CONF_BOOL:
		put(t, "%s", *(const bool *)field ? "true" : "false");
		break;
	case CX_CONF_WORD:
		memcpy(&word, field, sizeof word);
		put_word(t, k->words, word);
		break;
	case CX_CONF_TEXT:
		put(t, "\"%s\"", field);
		break;
	}
	put(t, "\n");
}

cx_status cx_conf_print(const cx_conf_section *s, size_t n_sections, const cx_alloc *a, char **out,
	size_t *n_bytes, cx_err *err)
{
	text t = {.alloc = a};
	char *whole;
	*out = NULL;
	*n_bytes = 0;
	for (size_t i = 0; i < n_sections; i++) {
		if (!s[i].keys) continue;
		put(&t, "%s[%s]\n", i ? "\n" : "", s[i].name);
		for (size_t k = 0; k < s[i].n_keys; k++) put_key(&t, &s[i].keys[k], s[i].to);
	}
	put(&t, "%s", "");
	whole = t.failed ? NULL : cx_realloc(a, t.p, t.cap, t.n + 1);
	if (!whole) {
		cx_free(a, t.p, t.cap);
		return CX_FAIL(err, CX_ERR_MEMORY, "out of memory for a configuration");
	}
	*out = whole;
	*n_bytes = t.n;
	return CX_OK;
}
