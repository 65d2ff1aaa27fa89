/* pool.c - threads, generations and a barrier.
 *
 * `word` holds the generation and, in its low 16 bits, how many threads take part; a worker that is
 * not among them reads nothing else, so that the owner may set up the next run while it looks. */
#include "backends/cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

/* About 30 us and 2 us of pauses: longer than the gap between two steps, shorter than a time slice.
 */
enum { SPIN_IDLE = 1500, SPIN_BARRIER = 4000 };

typedef struct {
	cx_pool *pool;
	uint32_t index;
	pthread_t thread;
} worker;

struct cx_pool {
	cx_alloc alloc;
	size_t bytes;
	uint32_t n, n_started, spin_idle;
	cx_pool_fn fn; /* of the run under way */
	void *ctx;
	uint32_t n_run;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	_Alignas(64) atomic_uint_fast64_t word;
	atomic_uint sleepers;
	atomic_bool stop;
	_Alignas(64) atomic_uint left;    /* threads that still run */
	_Alignas(64) atomic_uint arrived; /* at the barrier */
	_Alignas(64) atomic_uint turn;    /* of the barrier */
	worker workers[];
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

uint32_t cx__pool_n_cpus(void)
{
	long n = 0;
#if defined(__linux__)
	cpu_set_t set;
	CPU_ZERO(&set);
	if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
	if (n < 1) n = sysconf(_SC_NPROCESSORS_ONLN);
	return n < 1 ? 1 : n > CX_POOL_MAX ? CX_POOL_MAX : (uint32_t)n;
}

static void pin_thread(pthread_t thread, uint32_t index)
{
#if defined(__linux__)
	cpu_set_t all, one;
	int n, k;
	CPU_ZERO(&all);
	if (sched_getaffinity(0, sizeof all, &all) != 0 || (n = CPU_COUNT(&all)) < 1) return;
	k = (int)(index % (uint32_t)n);
	for (int c = 0; c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, &all) && k-- == 0) {
			CPU_ZERO(&one);
			CPU_SET(c, &one);
			(void)pthread_setaffinity_np(
				thread, sizeof one, &one); /* a wish: without it the result is the same */
			return;
		}
#else
	(void)thread;
	(void)index;
#endif
}

/* The word when it is no longer `seen`: spins, then sleeps. */
static uint64_t next_word(cx_pool *p, uint64_t seen)
{
	uint64_t w;
	for (uint32_t i = 0; i < p->spin_idle; i++) {
		if ((w = atomic_load_explicit(&p->word, memory_order_acquire)) != seen) return w;
		relax();
	}
	pthread_mutex_lock(&p->lock);
	atomic_fetch_add(
		&p->sleepers, 1); /* before the look below; the owner looks at it after changing the word */
	while ((w = atomic_load(&p->word)) == seen) pthread_cond_wait(&p->wake, &p->lock);
	atomic_fetch_sub(&p->sleepers, 1);
	pthread_mutex_unlock(&p->lock);
	return w;
}

static void *work(void *arg)
{
	worker *w = arg;
	cx_pool *p = w->pool;
	uint64_t seen = 0;
	for (;;) {
		seen = next_word(p, seen);
		if (atomic_load_explicit(&p->stop, memory_order_acquire)) return NULL;
		if (w->index >= (seen & 0xffff)) continue;
		p->fn(p->ctx, w->index, p->n_run);
		atomic_fetch_sub_explicit(&p->left, 1, memory_order_release);
	}
}

static void publish(cx_pool *p, uint32_t n)
{
	uint64_t gen = atomic_load_explicit(&p->word, memory_order_relaxed) >> 16;
	atomic_store(&p->word, (gen + 1) << 16 | n);
	if (atomic_load(&p->sleepers) > 0) {
		pthread_mutex_lock(&p->lock);
		pthread_cond_broadcast(&p->wake);
		pthread_mutex_unlock(&p->lock);
	}
}

cx_status cx__pool_create(
	const cx_alloc *alloc, uint32_t n_threads, bool pin, cx_pool **out, cx_err *err)
{
	cx_alloc a = alloc ? *alloc : cx_alloc_default();
	uint32_t cpus = cx__pool_n_cpus();
	size_t bytes;
	cx_pool *p, *raw;
	*out = NULL;
	if (n_threads == 0) n_threads = cpus;
	if (n_threads > CX_POOL_MAX)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "n_threads is %u, at most %d", n_threads, CX_POOL_MAX);
	bytes = sizeof *p + n_threads * sizeof *p->workers + 64;
	if (!(raw = cx_calloc(&a, 1, bytes)))
		return CX_FAIL(err, CX_ERR_MEMORY, "no memory for %u threads", n_threads);
	/* the allocator aligns to 16; the struct wants 64, and remembers where its block began */
	p = (cx_pool *)(void *)(((uintptr_t)raw + 63) & ~(uintptr_t)63);
	p->alloc = a;
	p->bytes = bytes | (size_t)((char *)p - (char *)raw) << 56;
	p->n = n_threads;
	p->n_run = 1;
	p->spin_idle = n_threads <= cpus ? SPIN_IDLE : 1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	for (uint32_t i = 1; i < n_threads; i++) {
		worker *w = &p->workers[i];
		w->pool = p;
		w->index = i;
		if (pthread_create(&w->thread, NULL, work, w) != 0) {
			cx__pool_free(p);
			return CX_FAIL(err, CX_ERR_DEVICE, "cannot start thread %u of %u", i + 1, n_threads);
		}
		p->n_started = i;
		if (pin) pin_thread(w->thread, i);
	}
	*out = p;
	return CX_OK;
}

void cx__pool_free(cx_pool *p)
{
	cx_alloc a;
	if (!p) return;
	atomic_store(&p->stop, true);
	publish(p, 0);
	for (uint32_t i = 1; i <= p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	a = p->alloc;
	cx_free(&a, (char *)p - (p->bytes >> 56), p->bytes & (((size_t)1 << 56) - 1));
}

uint32_t cx__pool_size(const cx_pool *p)
{
	return p->n;
}

void cx__pool_run(cx_pool *p, uint32_t n, cx_pool_fn fn, void *ctx)
{
	if (n == 0 || n > p->n) n = p->n;
	p->n_run = n;
	if (n > 1) {
		p->fn = fn;
		p->ctx = ctx;
		atomic_store_explicit(&p->left, n - 1, memory_order_relaxed);
		publish(p, n);
	}
	fn(ctx, 0, n);
	for (uint32_t i = 0; n > 1 && atomic_load_explicit(&p->left, memory_order_acquire) > 0; i++) {
		if (i < SPIN_BARRIER) relax();
		else sched_yield();
	}
}

void cx__pool_barrier(cx_pool *p)
{
	uint32_t turn;
	if (!p || p->n_run == 1) return;
	turn = atomic_load_explicit(&p->turn, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) + 1 == p->n_run) {
		atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
		atomic_store_explicit(&p->turn, turn + 1, memory_order_release);
		return;
	}
	for (uint32_t i = 0; atomic_load_explicit(&p->turn, memory_order_acquire) == turn; i++) {
		if (i < SPIN_BARRIER && p->spin_idle > 1) relax();
		else sched_yield();
	}
}
