/* pool.h - a team of threads that run one function together, and meet at barriers inside it.
 *
 * The caller of cx_pool_run() is thread 0. Idle threads spin for a while (a plan's steps follow
 * each other closely), then sleep; a waiting thread yields, so that more threads than cores are
 * slow but not stuck. Nothing is allocated per run. One run at a time: a pool has one owner. */
#ifndef CX_CPU_POOL_H
#define CX_CPU_POOL_H

#include "graph/base.h"

typedef struct cx_pool cx_pool;
/* thread in 0..n-1. */
typedef void (*cx_pool_fn)(void *ctx, uint32_t thread, uint32_t n);

enum { CX_POOL_MAX = 1024 };

/* Processors that this process may run on, at least 1. */
uint32_t cx__pool_n_cpus(void);
/* n_threads 0: cx__pool_n_cpus(). pin: each thread but the caller's stays on one processor. A
 * thread that cannot be started is CX_ERR_DEVICE. n_threads above CX_POOL_MAX is CX_ERR_ARGUMENT.
 */
cx_status cx__pool_create(
	const cx_alloc *alloc, uint32_t n_threads, bool pin, cx_pool **out, cx_err *err);
void cx__pool_free(cx_pool *p); /* NULL is fine; no run may be under way */
uint32_t cx__pool_size(const cx_pool *p);
/* fn on threads 0..n-1 (n 0 or too large: all of them); returns when all have. What a thread wrote
 * is then visible. */
void cx__pool_run(cx_pool *p, uint32_t n, cx_pool_fn fn, void *ctx);
/* Inside fn, called by every thread of the run. What was written before it is visible after it. p
 * may be NULL: then there is one thread and nothing to wait for. */
void cx__pool_barrier(cx_pool *p);

#endif
