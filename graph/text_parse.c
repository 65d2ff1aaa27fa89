/* text_parse.c - cx_graph_parse(): reads what cx_graph_print() wrote (text.c), and whatever else a
 * file may hold.
 *
 * One pass, no look-ahead past a line; every node goes through the constructors, so that nothing is
 * trusted. The text need not end in NUL. Errors say line and column. Memory is at most a small
 * multiple of the text's size. */
#include "graph/attr.h"
#include "graph/prog.h"
#include "graph/shape.h"

#include <stdio.h>
#include <string.h>

enum { MAX_LABEL = 254, MAX_NAME_TEXT = 127 };

typedef struct parser {
	const char *p, *end, *line_start;
	int line;
	cx_graph *g;
	cx_alloc alloc;
	cx_err *err;
	cx_tensor *operands; /* [cap_operands], reused by every node */
	size_t cap_operands;
} parser;

static cx_status fail(parser *s, const char *at, const char *what)
{
	return CX_FAIL(s->err, CX_ERR_FORMAT, "graph text, line %d, column %lld: %s", s->line,
		(long long)(at - s->line_start) + 1, what);
}

/* A constructor refused: its reason, with the line. */
static cx_status fail_graph(parser *s)
{
	const cx_err *e = &s->g->first_error;
	return cx__fail(s->err, e->code, e->file, e->line, "graph text, line %d: %s", s->line, e->msg);
}

/* ---- tokens; spaces before each are skipped, line ends are not ------------------------------- */

static void skip(parser *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\r')) s->p++;
}

static bool at_end(const parser *s)
{
	return s->p == s->end || *s->p == '\n';
}

static bool eat(parser *s, char c)
{
	skip(s);
	if (s->p == s->end || *s->p != c) return false;
	s->p++;
	return true;
}

static cx_status expect(parser *s, char c)
{
	char what[32];
	if (eat(s, c)) return CX_OK;
	snprintf(what, sizeof what, "'%c' is missing", c);
	return fail(s, s->p, what);
}

static bool is_ident(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static size_t ident(parser *s, const char **word)
{
	skip(s);
	*word = s->p;
	while (s->p < s->end && is_ident(*s->p)) s->p++;
	return (size_t)(s->p - *word);
}

static cx_status number(parser *s, int64_t *out)
{
	const char *start;
	skip(s);
	start = s->p;
	if (s->p < s->end && *s->p == '-') s->p++;
	while (s->p < s->end && *s->p >= '0' && *s->p <= '9') s->p++;
	if (!cx__int_parse(start, (size_t)(s->p - start), out)) return fail(s, start, "not a number");
	return CX_OK;
}

/* %12, a tensor that exists. */
static cx_status reference(parser *s, cx_tensor *out)
{
	const char *start;
	int64_t id;
	skip(s);
	start = s->p;
	if (!eat(s, '%')) return fail(s, start, "a tensor like %12 is missing");
	if (number(s, &id)) return s->err->code;
	if (id < 0 || id >= s->g->n_nodes) return fail(s, start, "no such tensor so far");
	out->id = (uint32_t)id;
	return CX_OK;
}

/* "..." of printable ASCII, up to max bytes; not copied. */
static cx_status quoted(parser *s, const char **text, size_t *n, size_t max)
{
	const char *start;
	skip(s);
	start = s->p;
	if (!eat(s, '"')) return fail(s, start, "a quoted string is missing");
	*text = s->p;
	while (s->p < s->end && *s->p >= 0x20 && *s->p < 0x7f && *s->p != '"') s->p++;
	*n = (size_t)(s->p - *text);
	if (s->p == s->end || *s->p != '"')
		return fail(s, start, "the string does not end, or is not ASCII");
	if (*n > max) return fail(s, start, "the string is too long");
	s->p++;
	return CX_OK;
}

static cx_status name(parser *s, char out[MAX_NAME_TEXT + 1])
{
	const char *text;
	size_t n;
	if (quoted(s, &text, &n, MAX_NAME_TEXT)) return s->err->code;
	memcpy(out, text, n);
	out[n] = 0;
	return CX_OK;
}

/* f32[4,64] */
static cx_status type(parser *s, cx_desc *out)
{
	char dtype[16];
	const char *word;
	size_t n = ident(s, &word);
	memset(out, 0, sizeof *out);
	if (n >= sizeof dtype) return fail(s, word, "no such dtype");
	memcpy(dtype, word, n);
	dtype[n] = 0;
	if (!cx_dtype_parse(dtype, &out->dtype)) return fail(s, word, "no such dtype");
	if (expect(s, '[')) return s->err->code;
	if (eat(s, ']')) return CX_OK;
	do {
		const char *start = s->p;
		if (out->rank == CX_MAX_RANK) return fail(s, start, "more than 6 dims");
		if (number(s, &out->dim[out->rank])) return s->err->code;
		if (out->dim[out->rank] < 0 || out->dim[out->rank] > CX_MAX_DIM)
			return fail(s, start, "dim out of range");
		out->rank++;
	} while (eat(s, ','));
	return expect(s, ']');
}

/* ---- labels and shapes after the colon ------------------------------------------------------- */

static cx_status label(parser *s, uint32_t id)
{
	const char *text;
	size_t n;
	char *copy;
	if (!eat(s, '@')) return CX_OK;
	if (quoted(s, &text, &n, MAX_LABEL)) return s->err->code;
	if (n == 0 || memchr(text, '\'', n) || memchr(text, '\\', n))
		return fail(s, text, "not a label");
	copy = cx_arena_alloc(&s->g->arena, n + 1);
	if (!copy) return CX_FAIL(s->err, CX_ERR_MEMORY, "graph text: out of memory");
	memcpy(copy, text, n);
	s->g->nodes[id].name = copy;
	return CX_OK;
}

/* : type label, type label ... which must be those of the nodes from id on. */
static cx_status types(parser *s, uint32_t id)
{
	uint32_t n_out = s->g->nodes[id].n_out, o = 0;
	if (expect(s, ':')) return s->err->code;
	do {
		const cx_node *n = &s->g->nodes[id + o];
		char what[160];
		const char *start;
		cx_desc d;
		skip(s);
		start = s->p;
		if (o == n_out) return fail(s, start, "more types than the op has outputs");
		if (type(s, &d)) return s->err->code;
		if (d.dtype != n->desc.dtype || d.rank != n->desc.rank ||
			memcmp(d.dim, n->desc.dim, sizeof d.dim) != 0) {
			snprintf(what, sizeof what, "the op gives %s%s", cx_dtype_get(n->desc.dtype)->name,
				cx__dims_text(&n->desc).s);
			return fail(s, start, what);
		}
		if (label(s, id + o)) return s->err->code;
		o++;
	} while (eat(s, ','));
	return o == n_out ? CX_OK : fail(s, s->p, "fewer types than the op has outputs");
}

/* ---- const bytes ----------------------------------------------------------------------------- */

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z') return c - 'A';
	if (c >= 'a' && c <= 'z') return c - 'a' + 26;
	if (c >= '0' && c <= '9') return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool decode_hex(const char *text, size_t n, uint8_t *out)
{
	if (n % 2) return false;
	for (size_t i = 0; i < n; i += 2) {
		int hi = hex_digit(text[i]), lo = hex_digit(text[i + 1]);
		if (hi < 0 || lo < 0) return false;
		out[i / 2] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

/* Number of bytes, or SIZE_MAX. Only the canonical spelling: padded, and zero bits where nothing
 * is. */
static size_t decode_base64(const char *text, size_t n, uint8_t *out)
{
	size_t at = 0;
	if (n % 4) return SIZE_MAX;
	for (size_t i = 0; i < n; i += 4) {
		size_t pad = i + 4 == n
						 ? (text[n - 1] == '=') + (size_t)(text[n - 1] == '=' && text[n - 2] == '=')
						 : 0;
		uint32_t v = 0;
		for (size_t k = 0; k < 4; k++) {
			int d = k < 4 - pad ? base64_digit(text[i + k]) : 0;
			if (d < 0) return SIZE_MAX;
			v = v << 6 | (uint32_t)d;
		}
		if (v & ((1u << 8 * pad) - 1)) return SIZE_MAX;
		out[at++] = (uint8_t)(v >> 16);
		if (pad < 2) out[at++] = (uint8_t)(v >> 8);
		if (pad < 1) out[at++] = (uint8_t)v;
	}
	return at;
}

static cx_status constant(parser *s)
{
	const char *text, *start;
	size_t n, n_bytes, room;
	uint64_t want;
	uint8_t *bytes;
	cx_desc d;
	cx_tensor t = CX_NONE;
	bool hex;
	skip(s);
	start = s->p;
	hex = eat(s, 'x');
	if (!hex && !eat(s, 'b')) return fail(s, start, "a const's bytes are x\"..\" or b\"..\"");
	if (quoted(s, &text, &n, SIZE_MAX)) return s->err->code;
	room = n + 1;
	bytes = cx_malloc(&s->alloc, room);
	if (!bytes) return CX_FAIL(s->err, CX_ERR_MEMORY, "graph text: out of memory");
	n_bytes = hex ? (decode_hex(text, n, bytes) ? n / 2 : SIZE_MAX) : decode_base64(text, n, bytes);
	if (n_bytes == SIZE_MAX) {
		fail(s, start, hex ? "not hex" : "not base64");
		goto done;
	}
	start = s->p;
	if (expect(s, ':') || type(s, &d)) goto done;
	if (!cx_dtype_bytes(d.dtype, d.rank, d.dim, &want) || want != n_bytes) {
		fail(s, start, "the shape does not fit the number of bytes");
		goto done;
	}
	t = cx_const(s->g, d.dtype, d.rank, d.dim, bytes);
	if (s->g->first_error.code != CX_OK) fail_graph(s);
	else label(s, t.id);
done:
	cx_free(&s->alloc, bytes, room);
	return s->err->code;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static cx_status leaf(parser *s, cx_op op)
{
	char text[MAX_NAME_TEXT + 1];
	cx_desc d;
	if (name(s, text) || expect(s, ':') || type(s, &d)) return s->err->code;
	if (op == CX_OP_input) cx_input(s->g, text, d.dtype, d.rank, d.dim);
	else if (op == CX_OP_weight) cx_weight(s->g, text, d.dtype, d.rank, d.dim);
	else cx_state(s->g, text, d.dtype, d.rank, d.dim);
	return s->g->first_error.code != CX_OK ? fail_graph(s) : CX_OK;
}

static cx_status operands(parser *s, uint32_t *n)
{
	*n = 0;
	if (expect(s, '(')) return s->err->code;
	if (eat(s, ')')) return CX_OK;
	do {
		if (*n == s->cap_operands) {
			size_t cap = s->cap_operands ? s->cap_operands * 2 : 16;
			cx_tensor *p =
				cx_realloc(&s->alloc, s->operands, s->cap_operands * sizeof *p, cap * sizeof *p);
			if (!p) return CX_FAIL(s->err, CX_ERR_MEMORY, "graph text: out of memory");
			s->operands = p;
			s->cap_operands = cap;
		}
		if (eat(s, '_')) s->operands[*n] = CX_NONE;
		else if (reference(s, &s->operands[*n])) return s->err->code;
		++*n;
	} while (eat(s, ','));
	return expect(s, ')');
}

/* {k=4, axis=1}; prog is a field of map alone. */
static cx_status fields(
	parser *s, cx_op op, uint32_t n_in, void *attr, cx_prog *prog, bool *has_prog)
{
	const cx_attr_info *info = &cx__attrs[cx__ops[op].attr];
	uint32_t seen = 0;
	if (!eat(s, '{')) return CX_OK;
	do {
		const char *word, *value;
		size_t n = ident(s, &word), len;
		const cx_field *f = cx__field_by_name(cx__ops[op].attr, word, n);
		if (expect(s, '=')) return s->err->code;
		skip(s);
		if (op == CX_OP_map && n == 4 && memcmp(word, "prog", 4) == 0 && !*has_prog) {
			if (quoted(s, &value, &len, CX_PROG_TEXT_MAX)) return s->err->code;
			if (!cx__prog_parse(value, len, n_in, prog)) return fail(s, value, "not a map program");
			*has_prog = true;
			continue;
		}
		if (!f) return fail(s, word, "the op has no such attribute");
		if (seen & 1u << (f - info->fields)) return fail(s, word, "the attribute is given twice");
		seen |= 1u << (f - info->fields);
		value = s->p;
		while (!at_end(s) && *s->p != '}' && *s->p != ' ' && (*s->p != ',' || *value == '[')) {
			if (*s->p++ == ']') break;
		}
		if (!cx__field_parse(f, attr, value, (size_t)(s->p - value)))
			return fail(s, value, "not a value of the attribute");
	} while (eat(s, ','));
	return expect(s, '}');
}

static cx_status op_node(parser *s, cx_op op)
{
	const cx_attr_info *info = &cx__attrs[cx__ops[op].attr];
	_Alignas(16) char attr[512];
	cx_prog prog;
	bool has_prog = false;
	uint32_t n;
	cx_tensor t;
	CX_ASSERT(info->size <= sizeof attr);
	memcpy(attr, info->defaults, info->size);
	if (operands(s, &n) || fields(s, op, n, attr, &prog, &has_prog)) return s->err->code;
	t = cx__node_add(s->g, op, s->operands, n, attr, has_prog ? &prog : NULL);
	if (s->g->first_error.code != CX_OK) return fail_graph(s);
	return types(s, t.id);
}

static cx_status statement(parser *s)
{
	char text[MAX_NAME_TEXT + 1];
	const char *start = s->p, *word;
	size_t n;
	int64_t id;
	cx_tensor t;
	cx_op op;
	if (!eat(s, '%')) {
		n = ident(s, &word);
		if (n != 6 || memcmp(word, "output", 6) != 0)
			return fail(s, start, "a line is %id = op ..., or output \"name\" %id");
		if (name(s, text) || reference(s, &t)) return s->err->code;
		cx_output(s->g, text, t);
		return s->g->first_error.code != CX_OK ? fail_graph(s) : CX_OK;
	}
	if (number(s, &id)) return s->err->code;
	if (id != s->g->n_nodes) {
		snprintf(text, sizeof text, "the next id is %%%u", s->g->n_nodes);
		return fail(s, start, text);
	}
	if (expect(s, '=')) return s->err->code;
	n = ident(s, &word);
	if (!cx__op_by_name(word, n, &op)) {
		snprintf(text, sizeof text, "no such op '%.*s'", n > 32 ? 32 : (int)n, word);
		return fail(s, word, n ? text : "no such op");
	}
	if (op == CX_OP_const) return constant(s);
	return cx__ops[op].kind == CX_KIND_LEAF ? leaf(s, op) : op_node(s, op);
}

static cx_status parse(parser *s)
{
	static const char head[] = "cortex-graph 1";
	if ((size_t)(s->end - s->p) < sizeof head - 1 || memcmp(s->p, head, sizeof head - 1) != 0)
		return fail(s, s->p, "does not begin with \"cortex-graph 1\"");
	s->p += sizeof head - 1;
	skip(s);
	while (s->p < s->end) {
		if (*s->p != '\n') return fail(s, s->p, "something is left over at the end of the line");
		s->p++;
		s->line++;
		s->line_start = s->p;
		skip(s);
		if (at_end(s)) continue;
		if (*s->p == '#') {
			while (!at_end(s)) s->p++;
			continue;
		}
		if (statement(s)) return s->err->code;
		skip(s);
	}
	if (cx_graph_finish(s->g, s->err)) return s->err->code;
	return cx__graph_check(s->g, s->err);
}

cx_status cx_graph_parse(
	const char *text, size_t n_bytes, const cx_alloc *alloc, cx_graph **out, cx_err *err)
{
	cx_err local = {0};
	parser s = {.p = text, .end = text + n_bytes, .line_start = text, .line = 1, .err = &local};
	cx_status st;
	*out = NULL;
	st = cx_graph_create(alloc, &s.g, &local);
	if (st == CX_OK) {
		s.alloc = s.g->arena.alloc;
		st = parse(&s);
		cx_free(&s.alloc, s.operands, s.cap_operands * sizeof s.operands[0]);
	}
	if (st != CX_OK) {
		cx_graph_free(s.g);
		return cx__fail(err, local.code, local.file, local.line, "%s", local.msg);
	}
	*out = s.g;
	return CX_OK;
}
