/* pickle.c - see pickle.h. Opcodes as in CPython's Lib/pickle.py and pickletools.py. */
#include "models/files/pickle.h"

#include <string.h>

typedef struct machine {
	cx_arena *arena;
	const char *label;
	const unsigned char *base, *p, *end;
	cx_pickle **stack; /* NULL entries are marks */
	size_t n_stack, cap_stack;
	cx_pickle **memo;
	size_t n_memo, cap_memo; /* n_memo: one past the highest */
	cx_err *err;
	cx_status st;  /* the first failure */
	cx_pickle dud; /* stands where a value could not be had; the machine has failed then */
} machine;

/* ---- failures ---- */

static void fail(machine *m, const char *what)
{
	if (m->st == CX_OK)
		m->st = CX_FAIL(m->err, CX_ERR_FORMAT, "%s: pickle, byte %zu: %s", m->label,
			(size_t)(m->p - m->base), what);
}

static void no_memory(machine *m)
{
	if (m->st == CX_OK) m->st = CX_FAIL(m->err, CX_ERR_MEMORY, "%s: out of memory", m->label);
}

/* ---- reading ---- */

static const unsigned char *take(machine *m, uint64_t n)
{
	const unsigned char *p = m->p;
	if (n > (uint64_t)(m->end - m->p)) {
		fail(m, "it ends inside an opcode's argument");
		return NULL;
	}
	m->p += n;
	return p;
}

static uint64_t number(machine *m, int n_bytes)
{
	const unsigned char *p = take(m, (uint64_t)n_bytes);
	uint64_t v = 0;
	for (int i = 0; p && i < n_bytes; i++) v |= (uint64_t)p[i] << 8 * i;
	return v;
}

static const char *line(machine *m, size_t *n)
{
	const unsigned char *nl = memchr(m->p, '\n', (size_t)(m->end - m->p));
	const char *s = (const char *)m->p;
	*n = 0;
	if (!nl) {
		fail(m, "it ends inside a line");
		return "";
	}
	*n = (size_t)(nl - m->p);
	m->p = nl + 1;
	return s;
}

/* ---- values ---- */

static cx_pickle *make(machine *m, cx_pickle_kind kind)
{
	cx_pickle *v = cx_arena_alloc(m->arena, sizeof *v);
	if (!v) {
		no_memory(m);
		return &m->dud;
	}
	v->kind = kind;
	return v;
}

static bool grow(machine *m, cx_pickle ***list, size_t n, size_t *cap)
{
	cx_pickle **p;
	if (n < *cap) return true;
	p = cx_arena_array(m->arena, *cap ? 2 * *cap : 8, sizeof *p);
	if (!p) {
		no_memory(m);
		return false;
	}
	if (n) memcpy(p, *list, n * sizeof *p);
	*list = p;
	*cap = *cap ? 2 * *cap : 8;
	return true;
}

static void append(machine *m, cx_pickle *list, cx_pickle *v)
{
	if (list == &m->dud || !grow(m, &list->at, list->n, &list->cap)) return;
	list->at[list->n++] = v;
}

static void push(machine *m, cx_pickle *v)
{
	if (grow(m, &m->stack, m->n_stack, &m->cap_stack)) m->stack[m->n_stack++] = v;
}

static cx_pickle *top(machine *m)
{
	if (m->n_stack && m->stack[m->n_stack - 1]) return m->stack[m->n_stack - 1];
	fail(m, "a value is missing on the stack");
	return &m->dud;
}

static cx_pickle *pop(machine *m)
{
	cx_pickle *v = top(m);
	if (v != &m->dud) m->n_stack--;
	return v;
}

/* Index of the first value above the last mark, which is removed by drop_mark(). */
static size_t above_mark(machine *m)
{
	size_t i = m->n_stack;
	while (i > 0 && m->stack[i - 1]) i--;
	if (i == 0) fail(m, "a mark is missing on the stack");
	return i;
}

static void drop_mark(machine *m, size_t first)
{
	m->n_stack = first ? first - 1 : 0;
}

static void push_text(machine *m, cx_pickle_kind kind, uint64_t n)
{
	const unsigned char *p = take(m, n);
	cx_pickle *v = make(m, kind);
	if (!p || v == &m->dud) return;
	v->s = (const char *)p;
	v->n = (size_t)n;
	push(m, v);
}

static void push_int(machine *m, cx_pickle_kind kind, int64_t i)
{
	cx_pickle *v = make(m, kind);
	if (v == &m->dud) return;
	v->i = i;
	push(m, v);
}

/* LONG1: little-endian two's complement of any length. */
static void push_long(machine *m)
{
	uint64_t n = number(m, 1), bits = 0;
	const unsigned char *p = take(m, n);
	bool minus = p && n && p[n - 1] & 0x80;
	if (!p) return;
	if (n <= 8) {
		for (uint64_t i = 0; i < 8; i++)
			bits |= (uint64_t)(i < n ? p[i] : minus ? 0xff : 0) << 8 * i;
		push_int(m, CX_PICKLE_INT, (int64_t)bits);
		return;
	}
	push_int(m, CX_PICKLE_FLOAT, 0);
	for (uint64_t i = n; i-- > 0 && m->st == CX_OK;)
		top(m)->f = top(m)->f * 256 + (minus ? (double)p[i] - 255 : p[i]);
}

static void push_float(machine *m)
{
	const unsigned char *p = take(m, 8);
	cx_pickle *v = make(m, CX_PICKLE_FLOAT);
	uint64_t bits = 0;
	if (!p || v == &m->dud) return;
	for (int i = 0; i < 8; i++) bits = bits << 8 | p[i]; /* big-endian, alone among them */
	memcpy(&v->f, &bits, sizeof bits);
	push(m, v);
}

static void push_global(machine *m, const char *module, size_t n, const char *name, size_t n_name)
{
	cx_pickle *v = make(m, CX_PICKLE_GLOBAL);
	char *s;
	if (v == &m->dud) return;
	if (!(s = cx_arena_alloc(m->arena, n_name + 1))) {
		no_memory(m);
		return;
	}
	memcpy(s, name, n_name);
	v->s = module;
	v->n = n;
	v->name = s;
	push(m, v);
}

/* ---- opcodes ---- */

static void tuple_of(machine *m, size_t first, size_t n)
{
	cx_pickle *t = make(m, CX_PICKLE_TUPLE);
	for (size_t i = 0; i < n && m->st == CX_OK; i++) append(m, t, m->stack[first + i]);
	if (m->st != CX_OK) return;
	m->n_stack = first;
	push(m, t);
}

static void small_tuple(machine *m, size_t n)
{
	bool there = m->n_stack >= n;
	for (size_t i = 0; there && i < n; i++) there = m->stack[m->n_stack - 1 - i] != NULL;
	if (there) tuple_of(m, m->n_stack - n, n);
	else fail(m, "a value is missing on the stack");
}

static void marked_tuple(machine *m)
{
	size_t first = above_mark(m);
	if (m->st != CX_OK) return;
	memmove(m->stack + first - 1, m->stack + first, (m->n_stack - first) * sizeof *m->stack);
	m->n_stack--;
	tuple_of(m, first - 1, m->n_stack - (first - 1));
}

/* Values above the mark go into what is below it. */
static void extend(machine *m, bool pairs)
{
	size_t first = above_mark(m), n = m->n_stack - first;
	cx_pickle *to;
	if (m->st != CX_OK) return;
	to = first >= 2 ? m->stack[first - 2] : NULL;
	if (!to || (pairs ? to->kind != CX_PICKLE_DICT && to->kind != CX_PICKLE_OBJECT
					  : to->kind != CX_PICKLE_LIST && to->kind != CX_PICKLE_OBJECT)) {
		fail(m, pairs ? "items are set on what is no dict" : "values are appended to no list");
		return;
	}
	if (pairs && n % 2) fail(m, "a key without a value");
	for (size_t i = 0; i < n && m->st == CX_OK; i++) append(m, to, m->stack[first + i]);
	drop_mark(m, first);
}

static void append_one(machine *m)
{
	cx_pickle *v = pop(m), *to = top(m);
	if (m->st != CX_OK) return;
	if (to->kind != CX_PICKLE_LIST && to->kind != CX_PICKLE_OBJECT)
		fail(m, "values are appended to no list");
	else append(m, to, v);
}

static void set_one(machine *m)
{
	cx_pickle *v = pop(m), *key = pop(m), *to = top(m);
	if (m->st != CX_OK) return;
	if (to->kind != CX_PICKLE_DICT && to->kind != CX_PICKLE_OBJECT) {
		fail(m, "an item is set on what is no dict");
		return;
	}
	append(m, to, key);
	append(m, to, v);
}

/* What Python would call is written down. */
static void object(machine *m, bool keywords)
{
	cx_pickle *args, *cls, *v;
	if (keywords) pop(m);
	args = pop(m);
	cls = pop(m);
	v = make(m, CX_PICKLE_OBJECT);
	if (m->st != CX_OK) return;
	v->cls = cls;
	v->args = args;
	push(m, v);
}

static void build(machine *m)
{
	cx_pickle *state = pop(m), *v = top(m);
	if (m->st != CX_OK) return;
	if (v->kind == CX_PICKLE_OBJECT) v->state = state;
	else fail(m, "a state is set on what is no object");
}

static void storage(machine *m)
{
	cx_pickle *id = pop(m), *v = make(m, CX_PICKLE_STORAGE);
	if (m->st != CX_OK) return;
	v->args = id;
	push(m, v);
}

static void put(machine *m, uint64_t i)
{
	cx_pickle *v = top(m);
	if (m->st != CX_OK) return;
	if (i > (uint64_t)(m->end - m->base)) { /* more than there can be values */
		fail(m, "a memo index out of range");
		return;
	}
	while (i >= m->cap_memo)
		if (!grow(m, &m->memo, m->cap_memo, &m->cap_memo)) return;
	m->memo[i] = v;
	if (i >= m->n_memo) m->n_memo = (size_t)i + 1;
}

static void get(machine *m, uint64_t i)
{
	if (i < m->n_memo && m->memo[i]) push(m, m->memo[i]);
	else fail(m, "a memo entry that was never made");
}

static void global_line(machine *m)
{
	size_t n, k;
	const char *module = line(m, &n), *name = line(m, &k);
	if (m->st == CX_OK) push_global(m, module, n, name, k);
}

static void global_stack(machine *m)
{
	cx_pickle *name = pop(m), *module = pop(m);
	if (m->st != CX_OK) return;
	if (name->kind != CX_PICKLE_TEXT || module->kind != CX_PICKLE_TEXT)
		fail(m, "the name of a global is no text");
	else push_global(m, module->s, module->n, name->s, name->n);
}

static void unknown(machine *m, int op)
{
	char what[80] = "opcode 0x00 is not one that data needs; it is not carried out";
	what[9] = "0123456789abcdef"[op >> 4 & 15];
	what[10] = "0123456789abcdef"[op & 15];
	m->p--;
	fail(m, what);
}

/* Texts, numbers, containers; false: not one of these. */
static bool step_data(machine *m, int op)
{
	switch (op) {
	case 'N':
		push_int(m, CX_PICKLE_NONE, 0);
		return true;
	case 0x88:
	case 0x89:
		push_int(m, CX_PICKLE_BOOL, op == 0x88);
		return true;
	case 'J':
		push_int(m, CX_PICKLE_INT, (int32_t)number(m, 4));
		return true;
	case 'K':
	case 'M':
		push_int(m, CX_PICKLE_INT, (int64_t)number(m, op == 'K' ? 1 : 2));
		return true;
	case 0x8a:
		push_long(m);
		return true;
	case 'G':
		push_float(m);
		return true;
	case 'X':
	case 0x8c:
	case 0x8d:
		push_text(m, CX_PICKLE_TEXT, number(m, op == 'X' ? 4 : op == 0x8c ? 1 : 8));
		return true;
	case 'T':
	case 'U': /* Python 2's str */
		push_text(m, CX_PICKLE_TEXT, number(m, op == 'T' ? 4 : 1));
		return true;
	case 'B':
	case 'C':
	case 0x8e:
		push_text(m, CX_PICKLE_BYTES, number(m, op == 'B' ? 4 : op == 'C' ? 1 : 8));
		return true;
	case ']':
	case 0x8f: /* EMPTY_SET */
		push_int(m, CX_PICKLE_LIST, 0);
		return true;
	case '}':
		push_int(m, CX_PICKLE_DICT, 0);
		return true;
	case ')':
		push_int(m, CX_PICKLE_TUPLE, 0);
		return true;
	default:
		return false;
	}
}

static void step(machine *m, int op)
{
	if (step_data(m, op)) return;
	switch (op) {
	case 0x80: /* PROTO */
		if (number(m, 1) > 5) fail(m, "a protocol newer than 5");
		break;
	case 0x95: /* FRAME */
		number(m, 8);
		break;
	case '(':
		push(m, NULL);
		break;
	case '0':
		if (m->n_stack) m->n_stack--;
		else fail(m, "a value is missing on the stack");
		break;
	case 't':
		marked_tuple(m);
		break;
	case 0x85:
	case 0x86:
	case 0x87:
		small_tuple(m, (size_t)(op - 0x84));
		break;
	case 'a':
		append_one(m);
		break;
	case 'e':
	case 0x90: /* ADDITEMS */
		extend(m, false);
		break;
	case 's':
		set_one(m);
		break;
	case 'u':
		extend(m, true);
		break;
	case 'c':
		global_line(m);
		break;
	case 0x93:
		global_stack(m);
		break;
	case 'R':
	case 0x81: /* NEWOBJ */
	case 0x92: /* NEWOBJ_EX */
		object(m, op == 0x92);
		break;
	case 'b':
		build(m);
		break;
	case 'Q':
		storage(m);
		break;
	case 'q':
	case 'r':
		put(m, number(m, op == 'q' ? 1 : 4));
		break;
	case 0x94:
		put(m, m->n_memo);
		break;
	case 'h':
	case 'j':
		get(m, number(m, op == 'h' ? 1 : 4));
		break;
	default:
		unknown(m, op);
	}
}

cx_status cx_pickle_parse(cx_arena *arena, const char *label, const unsigned char *data,
	size_t size, const cx_pickle **out, cx_err *err)
{
	machine m = {
		.arena = arena, .label = label, .base = data, .p = data, .end = data + size, .err = err};
	*out = NULL;
	while (m.st == CX_OK) {
		const unsigned char *op = take(&m, 1);
		if (!op) break;
		if (*op == '.') {
			cx_pickle *v = pop(&m);
			if (m.st == CX_OK) *out = v;
			break;
		}
		step(&m, *op);
	}
	return m.st;
}

/* ---- questions ---- */

bool cx_pickle_is_text(const cx_pickle *v, const char *text)
{
	return v && v->kind == CX_PICKLE_TEXT && strlen(text) == v->n && memcmp(text, v->s, v->n) == 0;
}

bool cx_pickle_is_a(const cx_pickle *v, const char *module, const char *name)
{
	if (v && v->kind == CX_PICKLE_OBJECT) v = v->cls;
	return v && v->kind == CX_PICKLE_GLOBAL && strlen(module) == v->n &&
		   memcmp(module, v->s, v->n) == 0 && strcmp(v->name, name) == 0;
}

const cx_pickle *cx_pickle_get(const cx_pickle *v, const char *key)
{
	if (!v || (v->kind != CX_PICKLE_DICT && v->kind != CX_PICKLE_OBJECT)) return NULL;
	for (size_t i = v->n & ~(size_t)1; i >= 2; i -= 2)
		if (cx_pickle_is_text(v->at[i - 2], key)) return v->at[i - 1];
	if (v->kind != CX_PICKLE_OBJECT || !v->state || v->state->kind != CX_PICKLE_DICT) return NULL;
	return cx_pickle_get(v->state, key);
}
