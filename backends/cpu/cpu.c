/* cpu.c - the cpu backend: memory, find, and programs that threads walk together.
 *
 * A program is an array of calls with all addresses resolved. submit() wakes the threads once; they
 * go through the calls side by side. A call too small to share runs on thread 0 alone, and several
 * of these follow each other without a barrier; a submit of nothing but small calls wakes nobody.
 */
#include "backends/cpu/cpu.h"

#include "backends/cpu/cpuid.h"

#include <stdio.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum {
	ALIGN = 64,
	/* A call is shared if one thread would need longer. Two barriers of a spinning team cost about
	 * a microsecond, but where other processes want the cores too, a barrier can wait for a time
	 * slice: small calls stay alone. */
	SHARE_NS = 20000
};

typedef struct cpu_buffer {
	cx_buffer base;
	char *data;
	void *block; /* what was allocated, NULL: wrapped host memory */
	size_t block_bytes;
} cpu_buffer;

struct cx_program {
	cx_cpu_device *dev;
	cx_arena arena; /* owns all below */
	cx_cpu_call *calls;
	uint32_t n_calls;
};

static const cx_alloc *alloc_of(const cx_device *dev)
{
	return &cx_runtime_config(dev->rt)->alloc;
}

/* ---- device ---- */

static const cx_cpu_fn *functions(const char *isa)
{
#if defined(__x86_64__)
	if (strcmp(isa, "avx512") == 0) return cx__cpu_fns_avx512;
	if (strcmp(isa, "avx2") == 0) return cx__cpu_fns_avx2;
#endif
	return strcmp(isa, "generic") == 0 ? cx__cpu_fns_generic : NULL;
}

static void cpu_close(cx_device *dev)
{
	cx_cpu_device *d = (cx_cpu_device *)dev;
	if (!d) return;
	cx__pool_free(d->pool);
	cx_free(alloc_of(dev), d, sizeof *d);
}

static cx_status cpu_open(cx_runtime *rt, int index, cx_device **out, cx_err *err);

static void cpu_limits(const cx_device *dev, cx_limits *out)
{
	*out =
		(cx_limits){ALIGN, (uint64_t)INT64_MAX, 0, ((const cx_cpu_device *)dev)->n_threads, true};
}

static const cx_kernel *cpu_find(const cx_device *dev, const cx_kernel_key *key)
{
	uint32_t i = ((const cx_cpu_device *)dev)->first[key->op];
	for (; i < CX_CPU_N_KERNELS && cx__cpu_kernels[i].op == key->op; i++)
		if (cx__cpu_kernels[i].accept(key)) return &cx__cpu_kernels[i].base;
	return NULL;
}

/* ---- memory ---- */

/* Asks for large pages where a buffer has room for some: activations and states of many megabytes
 * are walked row by row, and each row of a head is another small page. Only advice. */
static void advise(char *p, size_t bytes)
{
#ifdef MADV_HUGEPAGE
	const uintptr_t page = 2 << 20;
	uintptr_t lo = ((uintptr_t)p + page - 1) & ~(page - 1),
			  hi = ((uintptr_t)p + bytes) & ~(page - 1);
	if (bytes >= 2 * page && hi > lo)
		(void)madvise(p + (lo - (uintptr_t)p), hi - lo, MADV_HUGEPAGE);
#else
	(void)p;
	(void)bytes;
#endif
}

static cx_status cpu_alloc(
	cx_device *dev, uint64_t bytes, const void *host, cx_buffer **out, cx_err *err)
{
	cpu_buffer *b = cx_calloc(alloc_of(dev), 1, sizeof *b);
	*out = NULL;
	if (!b) return CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for a buffer");
	b->base = (cx_buffer){dev, bytes};
	if (host) {
		b->data = (char *)host;
	} else {
		b->block = bytes < SIZE_MAX - ALIGN
					   ? cx_calloc(alloc_of(dev), 1, b->block_bytes = (size_t)bytes + ALIGN)
					   : NULL;
		if (!b->block) {
			cx_free(alloc_of(dev), b, sizeof *b);
			return CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for a buffer of %llu bytes",
				(unsigned long long)bytes);
		}
		b->data = (char *)(((uintptr_t)b->block + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
		advise(b->data, (size_t)bytes);
	}
	*out = &b->base;
	return CX_OK;
}

static void cpu_free(cx_buffer *buf)
{
	cpu_buffer *b = (cpu_buffer *)buf;
	if (!b) return;
	cx_free(alloc_of(buf->dev), b->block, b->block_bytes);
	cx_free(alloc_of(buf->dev), b, sizeof *b);
}

static cx_status in_range(const cx_buffer *buf, uint64_t off, uint64_t bytes, cx_err *err)
{
	uint64_t end;
	if (cx_add_u64(off, bytes, &end) && end <= buf->bytes) return CX_OK;
	return CX_FAIL(err, CX_ERR_ARGUMENT, "cpu: bytes %llu+%llu of a buffer of %llu",
		(unsigned long long)off, (unsigned long long)bytes, (unsigned long long)buf->bytes);
}

static cx_status cpu_write(
	cx_buffer *buf, uint64_t off, const void *src, uint64_t bytes, cx_err *err)
{
	cx_status st = in_range(buf, off, bytes, err);
	if (st == CX_OK && bytes) memcpy(((cpu_buffer *)buf)->data + off, src, (size_t)bytes);
	return st;
}

static cx_status cpu_read(cx_buffer *buf, uint64_t off, void *dst, uint64_t bytes, cx_err *err)
{
	cx_status st = in_range(buf, off, bytes, err);
	if (st == CX_OK && bytes) memcpy(dst, ((cpu_buffer *)buf)->data + off, (size_t)bytes);
	return st;
}

/* ---- programs ---- */

static char *address(const cx_bindings *binds, uint32_t buf, uint64_t off)
{
	return buf == CX_BUF_NONE ? NULL : ((cpu_buffer *)binds->bufs[buf])->data + off;
}

/* Operands with addresses, and their descriptions again for the functions that only ask about
 * shapes. */
static cx_status resolve(cx_arena *a, const cx_operand *from, uint32_t n, const cx_bindings *binds,
	cx_cpu_arg **args, const cx_desc **descs, cx_err *err)
{
	cx_cpu_arg *to = cx_arena_array(a, n, sizeof *to);
	cx_desc *d = cx_arena_array(a, n, sizeof *d);
	if (!to || !d) return CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for a program");
	for (uint32_t i = 0; i < n; i++) {
		to[i].d = d[i] = from[i].desc;
		to[i].p =
			from[i].desc.dtype == CX_DTYPE_COUNT ? NULL : address(binds, from[i].buf, from[i].off);
	}
	*args = to;
	*descs = d;
	return CX_OK;
}

static cx_status compile_step(
	cx_program *p, const cx_step *s, const cx_bindings *binds, cx_cpu_call *c, cx_err *err)
{
	const cx_cpu_kernel *kernel = (const cx_cpu_kernel *)s->kernel;
	cx_kernel_key key;
	cx_status st;
	size_t attr_bytes = cx__attrs[cx__ops[s->op].attr].size;
	*c = (cx_cpu_call){.op = s->op, .n_in = s->n_in, .n_out = s->n_out, .isa = p->dev->isa};
	if ((st = resolve(&p->arena, s->in, s->n_in, binds, &c->in, &c->desc_in, err)) != CX_OK)
		return st;
	if ((st = resolve(&p->arena, s->out, s->n_out, binds, &c->out, &c->desc_out, err)) != CX_OK)
		return st;
	if (s->attr && !(c->attr = cx_arena_memdup(&p->arena, s->attr, attr_bytes)))
		return CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for a program");
	if (s->prog && !(c->prog = cx_arena_memdup(&p->arena, s->prog, sizeof *s->prog)))
		return CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for a program");
	c->scratch_bytes = s->scratch_bytes;
	if (s->scratch_bytes) c->scratch = address(binds, CX_BUF_SLAB, s->scratch_off);
	c->run = p->dev->fns[kernel - cx__cpu_kernels];
	key = (cx_kernel_key){c->op, c->attr, c->prog, c->desc_in, c->n_in, c->desc_out, c->n_out};
	c->wide =
		p->dev->n_threads > 1 && (p->dev->share_ns == 0 || kernel->work(&key) > p->dev->share_ns);
	return kernel->prepare ? kernel->prepare(c, &p->arena, &c->plan, err) : CX_OK;
}

static void cpu_discard(cx_program *prog)
{
	const cx_alloc *alloc;
	if (!prog) return;
	alloc = alloc_of(&prog->dev->base);
	cx_arena_deinit(&prog->arena);
	cx_free(alloc, prog, sizeof *prog);
}

static cx_status cpu_compile(cx_device *dev, const cx_step *steps, uint32_t n_steps,
	const cx_bindings *binds, cx_program **out, cx_err *err)
{
	cx_program *p = cx_calloc(alloc_of(dev), 1, sizeof *p);
	cx_status st = CX_OK;
	*out = NULL;
	if (!p) return CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for a program");
	p->dev = (cx_cpu_device *)dev;
	p->n_calls = n_steps;
	cx_arena_init(&p->arena, alloc_of(dev));
	p->calls = cx_arena_array(&p->arena, n_steps, sizeof *p->calls);
	if (!p->calls) st = CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for a program");
	for (uint32_t i = 0; st == CX_OK && i < n_steps; i++)
		st = compile_step(p, &steps[i], binds, &p->calls[i], err);
	if (st != CX_OK) {
		cpu_discard(p);
		return st;
	}
	*out = p;
	return CX_OK;
}

typedef struct range {
	const cx_program *p;
	uint32_t first, end;
} range;

static void walk(void *ctx, uint32_t thread, uint32_t n)
{
	const range *r = ctx;
	cx_pool *pool = r->p->dev->pool;
	enum {
		NOTHING,
		ALONE,
		TOGETHER
	} last = NOTHING; /* what ran since the last barrier: the same in every thread */
	for (uint32_t i = r->first; i < r->end; i++) {
		const cx_cpu_call *c = &r->p->calls[i];
		if (c->wide) {
			if (last != NOTHING) cx__pool_barrier(pool);
			c->run(c, &(cx_cpu_team){thread, n, n > 1 ? pool : NULL});
			last = TOGETHER;
		} else {
			if (last == TOGETHER) cx__pool_barrier(pool);
			if (thread == 0) c->run(c, &(cx_cpu_team){0, 1, NULL});
			last = ALONE;
		}
	}
}

static void run_alone(const cx_program *p, uint32_t first, uint32_t end)
{
	for (uint32_t i = first; i < end; i++)
		p->calls[i].run(&p->calls[i], &(cx_cpu_team){0, 1, NULL});
}

/* What comes before the first shared call and after the last runs without the team. */
static cx_status cpu_submit(cx_program *prog, uint32_t first, uint32_t n, cx_err *err)
{
	uint32_t end = first + n;
	range r = {prog, first, end};
	(void)err;
	while (r.first < end && !prog->calls[r.first].wide) r.first++;
	while (r.end > r.first && !prog->calls[r.end - 1].wide) r.end--;
	run_alone(prog, first, r.first);
	if (r.first < r.end) cx__pool_run(prog->dev->pool, 0, walk, &r);
	run_alone(prog, r.end, end);
	return CX_OK;
}

static cx_status cpu_wait(cx_device *dev, cx_err *err)
{
	(void)dev; /* submit() returns when all is done */
	(void)err;
	return CX_OK;
}

/* ---- the twelve ---- */

const cx_backend cx__backend_cpu = {"cpu", cpu_open, cpu_close, cpu_limits, cpu_find, cpu_alloc,
	cpu_free, cpu_write, cpu_read, cpu_compile, cpu_submit, cpu_wait, cpu_discard};

static cx_status cpu_open(cx_runtime *rt, int index, cx_device **out, cx_err *err)
{
	const cx_config *cfg = cx_runtime_config(rt);
	const cx_cpu_isa *isa = cfg->isa ? cx__cpu_isa_named(cfg->isa) : cx__cpu_isa_best();
	cx_cpu_device *d;
	cx_status st;
	*out = NULL;
	if (index != 0)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "cpu: there is one device, index 0, not %d", index);
	if (!isa)
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"cpu: instruction set '%.20s' is not one that this machine runs", cfg->isa);
	if (cfg->n_threads < 0) return CX_FAIL(err, CX_ERR_ARGUMENT, "cpu: %d threads", cfg->n_threads);
	d = cx_calloc(&cfg->alloc, 1, sizeof *d);
	if (!d) return CX_FAIL(err, CX_ERR_MEMORY, "cpu: no memory for the device");
	d->base.backend = &cx__backend_cpu;
	d->base.rt = rt;
	d->isa = isa;
	d->share_ns = SHARE_NS;
	d->fns = functions(isa->name);
	for (int op = 0; op < CX_OP_COUNT; op++) d->first[op] = CX_CPU_N_KERNELS;
	for (uint16_t i = CX_CPU_N_KERNELS; i-- > 0;) d->first[cx__cpu_kernels[i].op] = i;
	st = cx__pool_create(&cfg->alloc, (uint32_t)cfg->n_threads, false, &d->pool, err);
	if (st != CX_OK) {
		cpu_close(&d->base);
		return st;
	}
	d->n_threads = cx__pool_size(d->pool);
	snprintf(d->base.name, sizeof d->base.name, "cpu:0 %s, %u thread%s", isa->name, d->n_threads,
		d->n_threads == 1 ? "" : "s");
	*out = &d->base;
	return CX_OK;
}
