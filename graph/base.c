/* base.c - status texts, allocators, arena. See base.h. */
#include "graph/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const status_names[] = {"OK",
#define X(name, text) #name,
	CX_STATUS_MAP(X)
#undef X
};
static const char *const status_texts[] = {"no error",
#define X(name, text) text,
	CX_STATUS_MAP(X)
#undef X
};

const char *cx_status_name(cx_status st)
{
	return (unsigned)st < CX_STATUS_COUNT ? status_names[st] : "?";
}
const char *cx_status_text(cx_status st)
{
	return (unsigned)st < CX_STATUS_COUNT ? status_texts[st] : "?";
}

cx_status cx__fail(cx_err *err, cx_status code, const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	if (!err || err->code != CX_OK) return code;
	err->code = code;
	err->file = file;
	err->line = line;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	va_end(ap);
	for (char *c = err->msg; *c; c++) /* the text may quote a file: keep it one printable line */
		if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
	return code;
}

/* The one place that prints: the process is about to die of our own bug. */
void cx__assert_failed(const char *cond, const char *file, int line)
{
	fprintf(stderr, "cortex: internal error: %s:%d: %s\n", file, line, cond);
	abort();
}

static void *default_realloc(void *ctx, void *ptr, size_t old, size_t size)
{
	(void)ctx;
	(void)old;
	if (size == 0) {
		free(ptr);
		return NULL;
	}
	return realloc(ptr, size);
}

cx_alloc cx_alloc_default(void)
{
	return (cx_alloc){default_realloc, NULL};
}

void *cx_realloc(const cx_alloc *a, void *ptr, size_t old, size_t size)
{
	if (!a || !a->realloc) return default_realloc(NULL, ptr, old, size);
	return a->realloc(a->ctx, ptr, old, size);
}

void *cx_malloc(const cx_alloc *a, size_t size)
{
	return cx_realloc(a, NULL, 0, size ? size : 1);
}

void *cx_calloc(const cx_alloc *a, size_t n, size_t size)
{
	size_t bytes;
	void *p;
	if (__builtin_mul_overflow(n, size, &bytes)) return NULL;
	p = cx_malloc(a, bytes);
	if (p) memset(p, 0, bytes);
	return p;
}

void cx_free(const cx_alloc *a, void *ptr, size_t size)
{
	if (ptr) cx_realloc(a, ptr, size, 0);
}

static void *fault_realloc(void *ctx, void *ptr, size_t old, size_t size)
{
	cx_fault *f = ctx;
	void *p;
	if (size == 0) {
		if (ptr) f->n_live--;
		return default_realloc(NULL, ptr, old, 0);
	}
	f->n_calls++;
	if (f->countdown >= 0 && f->countdown-- == 0) {
		f->fired = true;
		return NULL;
	}
	p = default_realloc(NULL, ptr, old, size);
	if (p && !ptr) f->n_live++;
	return p;
}

cx_alloc cx_alloc_fault(cx_fault *fault)
{
	return (cx_alloc){fault_realloc, fault};
}

/* ---- arena ---- */

enum { ARENA_ALIGN = 16, ARENA_MIN_BLOCK = 16 * 1024, ARENA_MAX_BLOCK = 4 * 1024 * 1024 };

struct cx_arena_block {
	cx_arena_block *next;
	size_t size, used; /* payload bytes */
	_Alignas(ARENA_ALIGN) unsigned char data[];
};

void cx_arena_init(cx_arena *a, const cx_alloc *alloc)
{
	memset(a, 0, sizeof *a);
	a->alloc = alloc && alloc->realloc ? *alloc : cx_alloc_default();
}

static cx_arena_block *arena_grow(cx_arena *a, size_t need)
{
	size_t size = a->head ? a->head->size * 2 : ARENA_MIN_BLOCK;
	cx_arena_block *b;
	if (size > ARENA_MAX_BLOCK) size = ARENA_MAX_BLOCK;
	if (size < need) size = need;
	if (size > SIZE_MAX - sizeof *b) return NULL;
	b = cx_malloc(&a->alloc, sizeof *b + size);
	if (!b) return NULL;
	b->next = a->head;
	b->size = size;
	b->used = 0;
	a->head = b;
	a->total += size;
	return b;
}

void *cx_arena_alloc(cx_arena *a, size_t size)
{
	cx_arena_block *b = a->head;
	size_t need;
	void *p;
	if (size > SIZE_MAX / 2) return NULL;
	need = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
	if (need == 0) need = ARENA_ALIGN;
	if (!b || b->size - b->used < need) b = arena_grow(a, need);
	if (!b) return NULL;
	p = b->data + b->used;
	b->used += need;
	a->used += need;
	memset(p, 0, need);
	return p;
}

void *cx_arena_array(cx_arena *a, size_t n, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(n, size, &bytes)) return NULL;
	return cx_arena_alloc(a, bytes);
}

void *cx_arena_memdup(cx_arena *a, const void *p, size_t size)
{
	void *d = cx_arena_alloc(a, size);
	if (d && size) memcpy(d, p, size);
	return d;
}

char *cx_arena_strdup(cx_arena *a, const char *s)
{
	return s ? cx_arena_memdup(a, s, strlen(s) + 1) : NULL;
}

void cx_arena_reset(cx_arena *a)
{
	cx_arena_block *keep = NULL, *b, *next;
	for (b = a->head; b; b = b->next)
		if (!keep || b->size > keep->size) keep = b;
	for (b = a->head; b; b = next) {
		next = b->next;
		if (b != keep) cx_free(&a->alloc, b, sizeof *b + b->size);
	}
	a->head = keep;
	a->used = 0;
	a->total = keep ? keep->size : 0;
	if (keep) {
		keep->next = NULL;
		keep->used = 0;
	}
}

void cx_arena_deinit(cx_arena *a)
{
	cx_arena_block *b, *next;
	for (b = a->head; b; b = next) {
		next = b->next;
		cx_free(&a->alloc, b, sizeof *b + b->size);
	}
	a->head = NULL;
	a->used = a->total = 0;
}
