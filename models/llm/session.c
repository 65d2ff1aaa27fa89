/* session.c - one sequence of a language model on one device: pages, buckets, chunked prefill. See
 * llm.h.
 *
 * The sequence owns all pages: block i of the table is page i. A run of n tokens takes the smallest
 * bucket that holds them; what is left of the bucket is padding (slot -1, outside q_off). */
#include "models/llm/llm_impl.h"

#include <string.h>

enum { PAGE = 16, MAX_LOG2 = 12, MAX_CHUNK = 1 << MAX_LOG2 };

typedef struct bucket {
	cx_graph *graph;
	cx_plan *plan;
	cx_exec *exec;
	int tokens, pos, slot, table, q_off, kv_len, rows, logits;
} bucket;

struct cx_llm_session {
	cx_alloc alloc;
	const cx_llm *m;
	cx_runtime *rt;
	cx_device *devs[2]; /* the second may be NULL */
	cx_store *store;
	int64_t n_ctx, n_slots, chunk, length;
	cx_dtype kv;
	bucket last[MAX_LOG2 + 1]; /* logits of the last row; index is log2 of the tokens */
	bucket all[MAX_LOG2 + 1];  /* logits of all rows */
	int32_t *table;            /* [n_slots / PAGE] */
	int32_t *ints;             /* [4 * chunk]: tokens, pos, slot, rows */
	float *rows;               /* [chunk, vocab] of an `all` bucket; made when first needed */
};

cx_status cx_llm_session_create(const cx_llm *m, cx_runtime *rt, cx_device *dev,
	const cx_llm_session_opts *opts, cx_llm_session **out, cx_err *err)
{
	cx_llm_session_opts o = opts ? *opts : (cx_llm_session_opts){0};
	cx_llm_session *s;
	cx_status st;
	*out = NULL;
	if (o.n_ctx == 0) o.n_ctx = m->config.context;
	if (o.chunk == 0) o.chunk = 256;
	if (o.n_ctx < 1 || o.n_ctx > INT32_MAX - PAGE)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "a context of %lld tokens", (long long)o.n_ctx);
	if (o.chunk < 1 || o.chunk > MAX_CHUNK || (o.chunk & (o.chunk - 1)) != 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"a chunk of %lld tokens; a power of two up to %d is wanted", (long long)o.chunk,
			MAX_CHUNK);
	if (o.kv != CX_F32 && o.kv != CX_F16 && o.kv != CX_BF16)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "a key/value cache of %s; f32, f16 or bf16 is wanted",
			cx_dtype_get(o.kv)->name);
	if (!(s = cx_calloc(&m->alloc, 1, sizeof *s)))
		return CX_FAIL(err, CX_ERR_MEMORY, "session: out of memory");
	s->alloc = m->alloc;
	s->m = m;
	s->rt = rt;
	s->devs[0] = dev;
	s->devs[1] = o.fallback;
	s->n_ctx = o.n_ctx;
	s->n_slots = (o.n_ctx + PAGE - 1) / PAGE * PAGE;
	s->chunk = o.chunk;
	s->kv = o.kv;
	s->table = cx_calloc(&s->alloc, (size_t)(s->n_slots / PAGE), sizeof *s->table);
	s->ints = cx_calloc(&s->alloc, (size_t)(4 * s->chunk), sizeof *s->ints);
	if (!s->table || !s->ints) st = CX_FAIL(err, CX_ERR_MEMORY, "session: out of memory");
	else if ((st = cx_store_create(rt, &s->store, err)) == CX_OK)
		st = cx_llm_bind(m, s->store, err);
	for (int64_t i = 0; s->table && i < s->n_slots / PAGE; i++) s->table[i] = (int32_t)i;
	if (st == CX_OK) *out = s;
	else cx_llm_session_free(s);
	return st;
}

static void bucket_deinit(bucket *b)
{
	cx_exec_free(b->exec);
	cx_plan_free(b->plan);
	cx_graph_free(b->graph);
	memset(b, 0, sizeof *b);
}

void cx_llm_session_free(cx_llm_session *s)
{
	cx_alloc alloc;
	if (!s) return;
	alloc = s->alloc;
	for (int i = 0; i <= MAX_LOG2; i++) {
		bucket_deinit(&s->last[i]);
		bucket_deinit(&s->all[i]);
	}
	cx_store_free(s->store);
	cx_free(&alloc, s->table, (size_t)(s->n_slots / PAGE) * sizeof *s->table);
	cx_free(&alloc, s->ints, (size_t)(4 * s->chunk) * sizeof *s->ints);
	cx_free(&alloc, s->rows, (size_t)(s->chunk * s->m->config.vocab) * sizeof *s->rows);
	cx_free(&alloc, s, sizeof *s);
}

static int log2_of(int64_t n)
{
	int l = 0;
	while ((int64_t)1 << l < n) l++;
	return l;
}

static cx_status bucket_init(cx_llm_session *s, bucket *b, int64_t n_tokens, bool all, cx_err *err)
{
	cx_llm_bucket shape = {.n_tokens = n_tokens,
		.n_logits = all ? n_tokens : 1,
		.n_slots = s->n_slots,
		.n_seqs = 1,
		.n_blocks = s->n_slots / PAGE,
		.page = PAGE,
		.kv = s->kv};
	cx_plan_opts opts = {.devices = s->devs,
		.n_devices = s->devs[1] ? 2 : 1,
		.allow_fallback = s->devs[1] != NULL};
	cx_status st;
	if ((st = cx_graph_create(&s->alloc, &b->graph, err)) != CX_OK) return st;
	cx_llm_build(s->m, &shape, b->graph);
	if ((st = cx_graph_finish(b->graph, err)) != CX_OK) return st;
	if ((st = cx_plan_build(b->graph, &opts, &b->plan, err)) != CX_OK) return st;
	if ((st = cx_exec_create(b->plan, s->store, &b->exec, err)) != CX_OK) return st;
	b->tokens = cx_exec_input(b->exec, "tokens");
	b->pos = cx_exec_input(b->exec, "pos");
	b->slot = cx_exec_input(b->exec, "slot");
	b->table = cx_exec_input(b->exec, "table");
	b->q_off = cx_exec_input(b->exec, "q_off");
	b->kv_len = cx_exec_input(b->exec, "kv_len");
	b->rows = cx_exec_input(b->exec, "rows");
	b->logits = cx_exec_output(b->exec, "logits");
	return cx_exec_set_input(
		b->exec, b->table, s->table, (uint64_t)(s->n_slots / PAGE) * sizeof *s->table, err);
}

static cx_status get_bucket(cx_llm_session *s, int64_t n, bool all, bucket **out, cx_err *err)
{
	int l = log2_of(n);
	bucket *b = all ? &s->all[l] : &s->last[l];
	*out = b;
	if (!b->exec) {
		cx_status st = bucket_init(s, b, (int64_t)1 << l, all, err);
		if (st != CX_OK) {
			bucket_deinit(b);
			return st;
		}
	}
	return CX_OK;
}

/* One run of n <= chunk tokens. logits as in cx_llm_session_eval; NULL: not wanted. */
static cx_status run(
	cx_llm_session *s, const int32_t *ids, int64_t n, bool all, float *logits, cx_err *err)
{
	int64_t size = (int64_t)1 << log2_of(n), vocab = s->m->config.vocab;
	int32_t *tokens = s->ints, *pos = tokens + size, *slot = pos + size, *rows = slot + size;
	int32_t q_off[2] = {0, (int32_t)n}, kv_len = (int32_t)(s->length + n);
	uint64_t bytes = (uint64_t)size * sizeof *tokens;
	bucket *b;
	cx_status st;
	if ((st = get_bucket(s, n, all, &b, err)) != CX_OK) return st;
	for (int64_t i = 0; i < size; i++) {
		tokens[i] = i < n ? ids[i] : 0;
		pos[i] = i < n ? (int32_t)(s->length + i) : 0;
		slot[i] = i < n ? (int32_t)(s->length + i) : -1;
		rows[i] = (int32_t)(all ? i : n - 1);
	}
	if ((st = cx_exec_set_input(b->exec, b->tokens, tokens, bytes, err)) != CX_OK ||
		(st = cx_exec_set_input(b->exec, b->pos, pos, bytes, err)) != CX_OK ||
		(st = cx_exec_set_input(b->exec, b->slot, slot, bytes, err)) != CX_OK ||
		(st = cx_exec_set_input(b->exec, b->q_off, q_off, sizeof q_off, err)) != CX_OK ||
		(st = cx_exec_set_input(b->exec, b->kv_len, &kv_len, sizeof kv_len, err)) != CX_OK ||
		(st = cx_exec_set_input(b->exec, b->rows, rows, all ? bytes : sizeof *rows, err)) !=
			CX_OK ||
		(st = cx_exec_run(b->exec, err)) != CX_OK)
		return st;
	s->length += n;
	if (!logits) return CX_OK;
	if (!all)
		return cx_exec_get_output(
			b->exec, b->logits, logits, (uint64_t)vocab * sizeof *logits, err);
	st = cx_exec_get_output(
		b->exec, b->logits, s->rows, (uint64_t)(size * vocab) * sizeof *logits, err);
	if (st == CX_OK) memcpy(logits, s->rows, (size_t)(n * vocab) * sizeof *logits);
	return st;
}

cx_status cx_llm_session_eval(
	cx_llm_session *s, const int32_t *ids, size_t n, bool all, float *logits, cx_err *err)
{
	int64_t vocab = s->m->config.vocab;
	cx_status st;
	if (n < 1) return CX_FAIL(err, CX_ERR_ARGUMENT, "there are no tokens to run");
	if (n > (uint64_t)(s->n_ctx - s->length))
		return CX_FAIL(err, CX_ERR_ARGUMENT, "%zu more tokens do not fit: %lld of %lld are used", n,
			(long long)s->length, (long long)s->n_ctx);
	for (size_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= vocab)
			return CX_FAIL(err, CX_ERR_ARGUMENT, "token %d is outside the vocabulary of %lld",
				(int)ids[i], (long long)vocab);
	if (all && !s->rows &&
		!(s->rows = cx_calloc(&s->alloc, (size_t)(s->chunk * vocab), sizeof *s->rows)))
		return CX_FAIL(err, CX_ERR_MEMORY, "session: out of memory");
	for (size_t done = 0; done < n;) {
		int64_t part = (int64_t)(n - done) < s->chunk ? (int64_t)(n - done) : s->chunk;
		bool last = done + (size_t)part == n;
		float *to = all ? logits + done * (size_t)vocab : last ? logits : NULL;
		if ((st = run(s, ids + done, part, all, to, err)) != CX_OK) return st;
		done += (size_t)part;
	}
	return CX_OK;
}

cx_status cx_llm_session_warm(cx_llm_session *s, size_t n, cx_err *err)
{
	bucket *b;
	cx_status st;
	if (n >= (size_t)s->chunk && (st = get_bucket(s, s->chunk, false, &b, err)) != CX_OK) return st;
	if (n % (size_t)s->chunk &&
		(st = get_bucket(s, (int64_t)(n % (size_t)s->chunk), false, &b, err)) != CX_OK)
		return st;
	return get_bucket(s, 1, false, &b, err);
}

int64_t cx_llm_session_length(const cx_llm_session *s)
{
	return s->length;
}

void cx_llm_session_reset(cx_llm_session *s)
{
	s->length = 0; /* what the pages still hold is never read: kv_len says how much is valid */
}

const cx_plan *cx_llm_session_plan(const cx_llm_session *s)
{
	for (int i = 0; i <= MAX_LOG2; i++) {
		if (s->last[i].plan) return s->last[i].plan;
		if (s->all[i].plan) return s->all[i].plan;
	}
	return NULL;
}
