/* text.c - cx_graph_print(): a graph as text. text_parse.c reads it back; docs/GRAPH_TEXT.md is
 *this comment.
 *
 *	cortex-graph 1
 *	%0 = input "x" : f32[4,64]
 *	%1 = weight "w" : q8_0[128,64]
 *	%2 = state "cache" : f16[32,128]
 *	%3 = const x"0000803f" : f32[] @"one"
 *	%4 = matmul(%0, %1) {trans_b=true} : f32[4,128] @"blk.3.q"
 *	%5 = topk(%4) {k=4, axis=1} : f32[4,4], i32[4,4] @"best"
 *	%7 = rmsnorm(%4) : f32[4,128]
 *	%8 = map(%4, %7) {prog="r2=mul r0 r1;r3=cast r2 bf16;out r3:bf16", reduce=1} : bf16[4]
 *	output "y" %7
 *
 * One node per line, in order; the first line says the version. Ids are dense: a line's id is the
 *number of tensors before it. A node of n outputs has n types after the colon and takes n ids
 *(above, %6 is the indices). An absent operand is _. Attributes equal to their defaults (attrs.def)
 *are left out. Floats are printed so that they read back exactly. The bytes of a const
 *(little-endian, dense) are hex, x"..", up to 64 bytes and base64, b"..", above. @ gives a label,
 *scope included. Shapes are there for the reader: they are computed again when the text is parsed,
 *and must agree. Outputs come last, in order. A line that is empty or begins with # is skipped.
 * Names are 1 to 127 bytes of printable ASCII without quotes and backslash. Parsing gives a
 *finished graph. */
#include "graph/attr.h"
#include "graph/prog.h"

#include <stdio.h>
#include <string.h>

enum { HEX_MAX = 64 };

typedef struct text_buf {
	const cx_alloc *alloc;
	char *p;
	size_t n, cap;
	bool failed;
} text_buf;

/* Room for `more` bytes and a NUL; where to write them, or NULL. */
static char *room(text_buf *b, size_t more)
{
	size_t cap = b->cap ? b->cap : 4096;
	char *p;
	if (b->failed) return NULL;
	if (more < b->cap - b->n) return b->p + b->n;
	while (cap - b->n <= more) {
		if (cap > SIZE_MAX / 2) goto fail;
		cap *= 2;
	}
	p = cx_realloc(b->alloc, b->p, b->cap, cap);
	if (!p) goto fail;
	b->p = p;
	b->cap = cap;
	return p + b->n;
fail:
	b->failed = true;
	return NULL;
}

static void put(text_buf *b, const char *s, size_t n)
{
	char *p = room(b, n);
	if (!p) return;
	memcpy(p, s, n);
	b->n += n;
}

static void puts_(text_buf *b, const char *s)
{
	put(b, s, strlen(s));
}

static void put_int(text_buf *b, int64_t x)
{
	char digits[24] = {0};
	size_t at = sizeof digits;
	uint64_t u = x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
	do {
		digits[--at] = (char)('0' + u % 10);
		u /= 10;
	} while (u);
	if (x < 0) digits[--at] = '-';
	put(b, digits + at, sizeof digits - at);
}

static void put_ref(text_buf *b, uint32_t id)
{
	puts_(b, "%");
	put_int(b, id);
}

static void put_quoted(text_buf *b, const char *a, const char *s)
{
	puts_(b, "\"");
	puts_(b, a);
	puts_(b, s);
	puts_(b, "\"");
}

static void put_hex(text_buf *b, const uint8_t *d, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	char *p = room(b, 2 * n);
	if (!p) return;
	for (size_t i = 0; i < n; i++) {
		*p++ = hex[d[i] >> 4];
		*p++ = hex[d[i] & 15];
	}
	b->n += 2 * n;
}

static void put_base64(text_buf *b, const uint8_t *d, size_t n)
{
	static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t len = (n + 2) / 3 * 4;
	char *p = room(b, len);
	if (!p) return;
	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t v = (uint32_t)d[i] << 16 | (left > 1 ? (uint32_t)d[i + 1] << 8 : 0) |
					 (left > 2 ? d[i + 2] : 0u);
		*p++ = set[v >> 18];
		*p++ = set[v >> 12 & 63];
		*p++ = left > 1 ? set[v >> 6 & 63] : '=';
		*p++ = left > 2 ? set[v & 63] : '=';
	}
	b->n += len;
}

static void put_type(text_buf *b, const cx_desc *d)
{
	puts_(b, cx_dtype_get(d->dtype)->name);
	puts_(b, "[");
	for (int32_t i = 0; i < d->rank; i++) {
		if (i) puts_(b, ",");
		put_int(b, d->dim[i]);
	}
	puts_(b, "]");
}

static void put_attr(text_buf *b, const cx_node *n)
{
	const cx_attr_info *info = &cx__attrs[cx__ops[n->op].attr];
	char value[CX_FIELD_TEXT_MAX], prog[CX_PROG_TEXT_MAX];
	const char *open = " {";
	size_t len;
	if (n->prog) {
		puts_(b, " {prog=\"");
		len = cx__prog_print(n->prog, prog, sizeof prog);
		put(b, prog, len);
		puts_(b, "\"");
		open = ", ";
	}
	for (uint16_t i = 0; i < info->n_fields; i++) {
		const cx_field *f = &info->fields[i];
		if (cx__field_equal(f, n->attr, info->defaults)) continue;
		puts_(b, open);
		puts_(b, f->name);
		puts_(b, "=");
		len = cx__field_print(f, n->attr, value, sizeof value);
		put(b, value, len);
		open = ", ";
	}
	if (open[0] == ',') puts_(b, "}");
}

static void put_node(text_buf *b, const cx_graph *g, uint32_t id)
{
	const cx_node *n = &g->nodes[id];
	put_ref(b, id);
	puts_(b, " = ");
	puts_(b, cx__ops[n->op].name);
	if (n->op == CX_OP_const) {
		bool hex = n->data_bytes <= HEX_MAX;
		puts_(b, hex ? " x\"" : " b\"");
		if (hex) put_hex(b, n->data, n->data_bytes);
		else put_base64(b, n->data, n->data_bytes);
		puts_(b, "\"");
	} else if (cx__ops[n->op].kind == CX_KIND_LEAF) {
		puts_(b, " ");
		put_quoted(b, "", n->name);
	} else {
		puts_(b, "(");
		for (uint32_t j = 0; j < n->n_in; j++) {
			if (j) puts_(b, ", ");
			if (n->in[j] == UINT32_MAX) puts_(b, "_");
			else put_ref(b, n->in[j]);
		}
		puts_(b, ")");
		put_attr(b, n);
	}
	puts_(b, " : ");
	for (uint32_t o = 0; o < n->n_out; o++) {
		const cx_node *y = n + o;
		if (o) puts_(b, ", ");
		put_type(b, &y->desc);
		if (!(y->name[0] || y->scope[0]) ||
			(cx__ops[y->op].kind == CX_KIND_LEAF && y->op != CX_OP_const))
			continue;
		puts_(b, " @");
		put_quoted(b, y->scope, y->name);
	}
	puts_(b, "\n");
}

cx_status cx_graph_print(
	const cx_graph *g, const cx_alloc *alloc, char **text, size_t *n_bytes, cx_err *err)
{
	text_buf b = {.alloc = alloc};
	char *fit;
	*text = NULL;
	*n_bytes = 0;
	if (g->first_error.code != CX_OK)
		return cx__fail(err, g->first_error.code, g->first_error.file, g->first_error.line, "%s",
			g->first_error.msg);
	puts_(&b, "cortex-graph 1\n");
	for (uint32_t id = 0; id < g->n_nodes; id += g->nodes[id].n_out) put_node(&b, g, id);
	for (uint32_t o = 0; o < g->n_outputs; o++) {
		puts_(&b, "output ");
		put_quoted(&b, "", g->outputs[o].name);
		puts_(&b, " ");
		put_ref(&b, g->outputs[o].id);
		puts_(&b, "\n");
	}
	fit =
		b.failed ? NULL : cx_realloc(alloc, b.p, b.cap, b.n + 1); /* the caller frees n_bytes + 1 */
	if (!fit) {
		cx_free(alloc, b.p, b.cap);
		return CX_FAIL(err, CX_ERR_MEMORY, "graph text: out of memory");
	}
	fit[b.n] = 0;
	*text = fit;
	*n_bytes = b.n;
	return CX_OK;
}
