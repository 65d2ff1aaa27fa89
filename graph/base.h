/* base.h - status, error, allocator, arena, checked arithmetic: what every other file stands on.
 *
 * Rules of the library: nothing here or above exits, prints, reads an environment variable or keeps
 * global state. A fallible function returns cx_status and fills the caller's cx_err (NULL is fine
 * everywhere). */
#ifndef CX_BASE_H
#define CX_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CX_API __attribute__((visibility("default")))
#define CX_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define CX_API
#define CX_PRINTF(fmt, first)
#endif

/* ---- status -------------------------------------------------------------------------------- */

#define CX_STATUS_MAP(X)                                                                           \
	X(ARGUMENT, "caller passed something invalid")                                                 \
	X(SHAPE, "shapes do not fit the op")                                                           \
	X(MEMORY, "host or device memory exhausted")                                                   \
	X(UNSUPPORTED, "no kernel for this op, dtype or layout")                                       \
	X(FORMAT, "file is damaged or not what it claims")                                             \
	X(IO, "file cannot be opened, read or written")                                                \
	X(DEVICE, "driver or device failed")

typedef enum cx_status {
	CX_OK = 0,
#define X(name, text) CX_ERR_##name,
	CX_STATUS_MAP(X)
#undef X
	    CX_STATUS_COUNT
} cx_status;

/* A failure: a code to branch on and a sentence to read. The caller's storage; fixed size, so that
 * "out of memory" can be reported. The first failure wins: cx__fail() leaves an err that is already
 * set alone. */
typedef struct cx_err {
	cx_status code;
	const char *file; /* of the library's source, for bug reports; static storage */
	int line;
	char msg[240]; /* one sentence, no newline, names the file/op/field and the offending value */
} cx_err;

/* Sets *err (may be NULL) and returns code. */
#define CX_FAIL(err, code, ...) cx__fail((err), (code), __FILE__, __LINE__, __VA_ARGS__)
CX_API cx_status cx__fail(
	cx_err *err, cx_status code, const char *file, int line, const char *fmt, ...) CX_PRINTF(5, 6);
/* "SHAPE" and "shapes do not fit the op". Static storage. */
CX_API const char *cx_status_name(cx_status st);
CX_API const char *cx_status_text(cx_status st);

/* For what only our own bug can cause; on in release outside inner loops. Never for user input. */
#define CX_ASSERT(cond) ((cond) ? (void)0 : cx__assert_failed(#cond, __FILE__, __LINE__))
CX_API void cx__assert_failed(const char *cond, const char *file, int line)
#if defined(__GNUC__)
	__attribute__((noreturn, cold))
#endif
	;

/* ---- allocator ----------------------------------------------------------------------------- */

/* Where host memory comes from. realloc(NULL, n) allocates; n == 0 frees and gives NULL. Returned
 * pointers are aligned to 16 bytes. Must be thread-safe. `old` is the size given before (0 for
 * NULL). */
typedef struct cx_alloc {
	void *(*realloc)(void *ctx, void *ptr, size_t old, size_t size);
	void *ctx;
} cx_alloc;

/* malloc/realloc/free. */
CX_API cx_alloc cx_alloc_default(void);
/* NULL on failure. A NULL `a` means cx_alloc_default(). */
CX_API void *cx_malloc(const cx_alloc *a, size_t size);
CX_API void *cx_calloc(const cx_alloc *a, size_t n, size_t size); /* zeroed; checks n*size */
CX_API void *cx_realloc(const cx_alloc *a, void *ptr, size_t old, size_t size);
CX_API void cx_free(
	const cx_alloc *a, void *ptr, size_t size); /* NULL ptr is fine; size as allocated */

/* Fault injection for tests: the n-th allocation (0-based) from now fails, all others pass through.
 */
typedef struct cx_fault {
	long countdown; /* in: which allocation fails; negative: none */
	bool fired;     /* out */
	long n_live;    /* out: blocks not yet freed */
	long n_calls;   /* out: allocations asked for */
} cx_fault;
CX_API cx_alloc cx_alloc_fault(
	cx_fault *fault); /* not thread-safe: for single-threaded test bodies */

/* ---- arena --------------------------------------------------------------------------------- */

/* Grows in blocks, freed whole. Not thread-safe. Memory is zeroed. Zero-initialised is valid and
 * empty. */
typedef struct cx_arena_block cx_arena_block;
typedef struct cx_arena {
	cx_alloc alloc; /* realloc == NULL means the default */
	cx_arena_block *head;
	size_t used, total; /* bytes handed out; bytes held */
} cx_arena;

CX_API void cx_arena_init(
	cx_arena *a, const cx_alloc *alloc); /* allocates nothing; alloc NULL: default */
CX_API void *cx_arena_alloc(
	cx_arena *a, size_t size); /* zeroed, 16-byte aligned; NULL on failure; 0 is legal */
CX_API void *cx_arena_array(cx_arena *a, size_t n, size_t size); /* checks n*size */
CX_API char *cx_arena_strdup(cx_arena *a, const char *s);
CX_API void *cx_arena_memdup(cx_arena *a, const void *p, size_t size);
CX_API void cx_arena_reset(
	cx_arena *a); /* invalidates everything handed out; keeps the largest block */
CX_API void cx_arena_deinit(cx_arena *a);

/* ---- checked arithmetic: every size that comes from a file or a caller goes through these -- */

static inline bool cx_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}
static inline bool cx_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}
static inline bool cx_add_i64(int64_t a, int64_t b, int64_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}
static inline bool cx_mul_i64(int64_t a, int64_t b, int64_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}
/* Rounds up to a power of two; false on overflow. */
static inline bool cx_align_u64(uint64_t x, uint64_t align, uint64_t *out)
{
	if (!cx_add_u64(x, align - 1, out)) return false;
	*out &= ~(align - 1);
	return true;
}

/* ---- log ----------------------------------------------------------------------------------- */

typedef enum cx_log_level { CX_LOG_DEBUG, CX_LOG_INFO, CX_LOG_WARN, CX_LOG_ERROR } cx_log_level;
/* `where` is a short subsystem name ("plan", "gguf"); msg has no newline. NULL is silence, the
 * default. */
typedef void (*cx_log_fn)(void *ctx, cx_log_level level, const char *where, const char *msg);

#ifdef __cplusplus
}
#endif
#endif
