/* run.c - one launch on the host: groups in order, items of a group in order. Where a kernel has
 * barriers its items are coroutines, each run up to the next one; they are made once, and switched
 * by longjmp, which asks nothing of the kernel of the system. A barrier that some items of a
 * group do
 * not reach is a mistake of the kernel. */
#include "tests/cuda_emu/emu.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <ucontext.h>

enum { MAX_ITEMS = 256, STACK = 128 << 10 };

emu_index emu_thread, emu_block, emu_dim;
void emu_barrier(void);

typedef struct item {
	ucontext_t start;
	jmp_buf at;
	char *stack;  /* NULL: not made yet */
	bool started; /* `at` is where it stands */
	bool done;
} item;
static item items[MAX_ITEMS];
static jmp_buf back;
static int current;   /* item that runs; -1: not as a coroutine */
static int n_waiting; /* items that came to a barrier in this pass */
static int n_lost;
static const emu_kernel *kernel;
static void **arguments;

void emu_barrier(void)
{
	if (current < 0) { /* the first item saw no barrier */
		n_lost++;
		return;
	}
	n_waiting++;
	if (_setjmp(items[current].at) == 0) _longjmp(back, 1);
}

static void body(void)
{
	for (;;) { /* a kernel each time */
		kernel->call(arguments);
		items[current].done = true;
		if (_setjmp(items[current].at) == 0) _longjmp(back, 1);
	}
}

static void place(int i)
{
	unsigned n = (unsigned)i;
	emu_thread = (emu_index){n % emu_dim.x, n / emu_dim.x % emu_dim.y, n / emu_dim.x / emu_dim.y};
}

static void step(int i)
{
	current = i;
	place(i);
	if (_setjmp(back) == 0) {
		if (items[i].started) _longjmp(items[i].at, 1);
		items[i].started = true;
		setcontext(&items[i].start);
	}
	current = -1;
}

static void begin(int i)
{
	item *t = &items[i];
	t->done = false;
	if (t->stack) return;
	t->stack = malloc(STACK);
	if (!t->stack) abort();
	getcontext(&t->start);
	t->start.uc_stack.ss_sp = t->stack;
	t->start.uc_stack.ss_size = STACK;
	makecontext(&t->start, body, 0);
}

static void run_group(int n)
{
	n_waiting = 0;
	begin(0);
	step(0);
	if (n_waiting == 0) { /* no barriers: plain calls */
		for (int i = 1; i < n; i++) {
			place(i);
			kernel->call(arguments);
		}
		return;
	}
	for (int i = 1; i < n; i++) {
		begin(i);
		step(i);
	}
	while (n_waiting > 0) {
		if (n_waiting != n) n_lost++;
		n_waiting = 0;
		for (int i = 0; i < n; i++)
			if (!items[i].done) step(i);
	}
}

int emu_run(const emu_kernel *k, emu_index grid, emu_index group, void **args)
{
	int n = (int)(group.x * group.y * group.z);
	if (n > MAX_ITEMS) return 1;
	kernel = k;
	arguments = args;
	emu_dim = group;
	n_lost = 0;
	current = -1;
	for (unsigned z = 0; z < grid.z; z++)
		for (unsigned y = 0; y < grid.y; y++)
			for (unsigned x = 0; x < grid.x; x++) {
				emu_block = (emu_index){x, y, z};
				run_group(n);
			}
	return n_lost;
}
