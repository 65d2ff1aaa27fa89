/* test_grid.c - one grid for all backends: op x dtype x layout x sizes x data x backend, each
 * against `ref` within the tolerance of the op's row; then whole graphs, fused and unfused.
 *
 * Cases come from the rows of ops.def (a new row is in the grid by being a row) and devices from
 * backends/list.def (a new backend is a column by being a row; cpu has one per instruction set, and
 * these must agree bit for bit). Every backend runs in a child process of its own, so that a crash
 * of a driver is a FAIL of one case, and two can run at once. Sizes: 1, primes, one off a tile, 0.
 * Layouts: dense, strided, broadcast. Data: tame, NaN and infinities, denormals, large magnitudes.
 *
 *   CX_GRID_BACKENDS=cpu,vulkan  only these           CX_GRID_OPS=softmax,sum  only these
 *   CX_GRID_CASES=17 or 0-53     only these, per op   CX_GRID_SECONDS=60  ends there, and says so
 *   CX_GRID_FIRST=matmul         these before others  CX_GRID_STOP=1  ends at the first failure
 *   CX_GRID_SEED=5               other cases          CX_GRID_MODELS=0  no whole graphs
 *   CX_GRID_VALIDATE=1           vulkan under the validation layer with its synchronization
 *                                checks: a message is a FAIL (LP_NATIVE_VECTOR_WIDTH=128, 256,
 *                                512: lavapipe's subgroups of 4, 8, 16)
 *
 * A failing case prints the line that runs it alone. A cell of the table is `pass`, `plan` (no
 * kernel: legalised and planned), `none` (neither), FAIL, or - (no such device here). Do kernels
 * that are wrong fail here? `make mutants` (tests/mutate.py) makes some. */
#include "tests/grid.h"
#include "tests/vulkan_env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_MODELS = 100, MAX_MESSAGES = 60, LEAST_CASES = 20000 };

/* ---- what the children tell ---- */

typedef struct cell {
	int count[4]; /* by grid_verdict */
} cell;
typedef struct column {
	char label[24], name[112];
	bool open;
	char why_not[240];
	cell op[CX_OP_COUNT], model[MAX_MODELS][2];
} column;
typedef struct board {
	column col[GRID_MAX_COLUMNS];
	/* of the child that ran last over these: where it is, for messages if it dies */
	int op[GRID_MAX_COLUMNS], at[GRID_MAX_COLUMNS], model[GRID_MAX_COLUMNS];
	bool out_of_time[GRID_MAX_COLUMNS], stopped;
	double seconds[GRID_MAX_COLUMNS];
	int n_messages;
} board;
static board *shared; /* with the children */

/* A child: a backend, and the columns that are its devices. */
typedef struct group {
	const char *backend;
	int first, n;
	pid_t pid;
} group;
static group groups[GRID_MAX_COLUMNS];
static int n_groups, n_columns;

/* ---- choices ---- */

static uint64_t seed;
static double limit;
static bool stop_early;
static int validate;
static int case_lo, case_hi = GRID_CASES - 1, case_step = 1;

/* name is one of the comma-separated words of list; an empty list has none. */
static bool in_list(const char *list, const char *name)
{
	size_t n = strlen(name);
	for (const char *s = list; s && *s; s += *s == ',') {
		size_t len = strcspn(s, ",");
		if (len == n && memcmp(s, name, n) == 0) return true;
		s += len;
	}
	return false;
}

static bool chosen(const char *variable, const char *name)
{
	const char *list = getenv(variable);
	return !list || !*list || in_list(list, name);
}

static void read_choices(void)
{
	const char *s = getenv("CX_GRID_CASES"), *dash;
	if (s && *s) {
		case_lo = case_hi = atoi(s);
		if ((dash = strchr(s, '-')) != NULL) case_hi = atoi(dash + 1);
	}
	if ((s = getenv("CX_GRID_SEED")) != NULL) seed = strtoull(s, NULL, 10);
	if ((s = getenv("CX_GRID_SECONDS")) != NULL) limit = atof(s);
	stop_early = (s = getenv("CX_GRID_STOP")) != NULL && strcmp(s, "1") == 0;
	if ((s = getenv("CX_GRID_VALIDATE")) != NULL) validate = atoi(s);
#if defined(__SANITIZE_ADDRESS__)
	case_step = 5; /* host code is what it looks at: a fifth of the cases */
#endif
}

static bool everything(void)
{
	static const char *const limits[] = {
		"CX_GRID_BACKENDS", "CX_GRID_OPS", "CX_GRID_CASES", "CX_GRID_SECONDS", "CX_GRID_STOP"};
	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
		if (getenv(limits[i]) && *getenv(limits[i])) return false;
	return case_step == 1;
}

/* ---- one backend, in its child ---- */

static void message(const group *g, const char *label, const char *what, const char *why,
	const char *again, int index)
{
	char word[48] = "";
	if (__atomic_fetch_add(&shared->n_messages, 1, __ATOMIC_RELAXED) >= MAX_MESSAGES) return;
	if (index >= 0) snprintf(word, sizeof word, " CX_GRID_CASES=%d", index);
	if (seed)
		snprintf(word + strlen(word), sizeof word - strlen(word), " CX_GRID_SEED=%llu",
			(unsigned long long)seed);
	printf("FAIL %s: %s\n     %s\n     again: CX_GRID_BACKENDS=%s %s%s test_grid\n", label, what,
		why, g->backend, again, word);
	fflush(stdout);
}

static bool out_of_time(int col, double start)
{
	if (limit > 0 && vulkan_seconds() - start > limit) shared->out_of_time[col] = true;
	return shared->out_of_time[col] || (stop_early && shared->stopped);
}

/* What passed is a FAIL all the same if the device warned of something meanwhile. */
static grid_verdict unless_warned(
	const grid_device *dev, uint32_t before, grid_verdict v, char *why, size_t why_size)
{
	if (v == GRID_FAIL || dev->n_warnings == before) return v;
	snprintf(why, why_size, "%u warnings of the device", dev->n_warnings - before);
	return GRID_FAIL;
}

static void run_case(const group *g, grid_device *dev, const grid_case *c)
{
	grid_bits first = {0}, bits;
	char why[400], what[160], again[80];
	for (int i = 0; i < g->n; i++) {
		column *col = &shared->col[g->first + i];
		uint32_t warned = dev[i].n_warnings;
		grid_verdict v;
		if (!dev[i].dev) continue;
		bits = (grid_bits){0};
		v = grid_case_run(&dev[i], c, g->n > 1 ? &bits : NULL, why, sizeof why);
		v = unless_warned(&dev[i], warned, v, why, sizeof why);
		if (v == GRID_PASS && first.n_out && !grid_bits_same(c, &first, &bits, why, sizeof why))
			v = GRID_FAIL;
		col->op[c->op].count[v]++;
		if (v == GRID_FAIL || (v == GRID_NONE && col->op[c->op].count[v] == 1)) {
			snprintf(what, sizeof what, "%s%s, %s", v == GRID_NONE ? "no kernel for " : "",
				cx__ops[c->op].name, c->what);
			snprintf(again, sizeof again, "CX_GRID_OPS=%s", cx__ops[c->op].name);
			message(g, dev[i].label, what, why, again, c->index);
			shared->stopped |= v == GRID_FAIL;
		}
		if (v == GRID_PASS && g->n > 1 && !first.n_out) first = bits;
		else grid_bits_free(&bits);
	}
	grid_bits_free(&first);
}

static void run_op(const group *g, grid_device *dev, cx_op op, double start)
{
	grid_case c = {0};
	cx_err err = {0};
	int step = case_step > 1 ? case_step : 1;
	for (int i = case_lo; i <= case_hi && i < GRID_CASES && !out_of_time(g->first, start);
		 i += step) {
		shared->op[g->first] = op;
		shared->at[g->first] = i;
		if (grid_case_make(&c, op, i, seed, &err) != CX_OK) {
			message(g, "generator", cx__ops[op].name, err.msg, "", i);
			shared->col[g->first].op[op].count[GRID_FAIL]++;
			break;
		}
		if (c.node != UINT32_MAX) run_case(g, dev, &c);
	}
	grid_case_free(&c);
}

static void run_ops(const group *g, grid_device *dev, double start)
{
	const char *first = getenv("CX_GRID_FIRST");
	for (int pass = 0; pass < 2; pass++)
		for (int op = 0; op < CX_OP_COUNT; op++) {
			double t0 = vulkan_seconds();
			if (!grid_is_run((cx_op)op) || !chosen("CX_GRID_OPS", cx__ops[op].name)) continue;
			if (in_list(first, cx__ops[op].name) != (pass == 0)) continue;
			run_op(g, dev, (cx_op)op, start);
			if (getenv("CX_GRID_TIMES"))
				printf("%s %s %.2f s\n", g->backend, cx__ops[op].name, vulkan_seconds() - t0);
		}
}

static void run_models(const group *g, grid_device *dev, double start)
{
	char why[400], what[100];
	shared->op[g->first] = -1;
	for (int m = 0; m < MAX_MODELS && grid_models[m].name; m++)
		for (int i = 0; i < 2 * g->n && !out_of_time(g->first, start); i++) {
			uint32_t warned = dev[i / 2].n_warnings;
			grid_verdict v;
			if (!dev[i / 2].dev) continue;
			shared->model[g->first] = m;
			v = grid_model_run(&dev[i / 2], &grid_models[m], i % 2, why, sizeof why);
			v = unless_warned(&dev[i / 2], warned, v, why, sizeof why);
			shared->col[g->first + i / 2].model[m][i % 2].count[v]++;
			if (v == GRID_PASS) continue;
			snprintf(what, sizeof what, "%s, %s", grid_models[m].name, i % 2 ? "unfused" : "fused");
			message(g, dev[i / 2].label, what, why, "CX_GRID_OPS=none", -1);
			shared->stopped |= v == GRID_FAIL;
		}
}

static void run_group(const group *g)
{
	static const char *const isas[] = {"generic", "avx2", "avx512"};
	grid_device dev[GRID_MAX_COLUMNS] = {{0}};
	const char *models = getenv("CX_GRID_MODELS");
	double start = vulkan_seconds();
	bool any = false;
	for (int i = 0; i < g->n; i++) {
		column *col = &shared->col[g->first + i];
		cx_err err = {0};
		col->open = grid_device_open(&dev[i], g->backend, g->n > 1 ? isas[i] : NULL,
						g->n > 1 ? i + 1 : 0, validate, &err) == CX_OK;
		if (col->open) snprintf(col->name, sizeof col->name, "%s", cx_device_name(dev[i].dev));
		else snprintf(col->why_not, sizeof col->why_not, "%s", err.msg);
		any |= col->open;
	}
	if (any) run_ops(g, dev, start);
	if (any && !(models && strcmp(models, "0") == 0) && chosen("CX_GRID_OPS", "none"))
		run_models(g, dev, start);
	shared->seconds[g->first] = vulkan_seconds() - start;
	for (int i = 0; i < g->n; i++) grid_device_close(&dev[i]);
}

/* ---- the tests ---- */

static int make_groups(void **state)
{
	(void)state;
	vulkan_env();
	read_choices();
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) return -1;
	for (const char *const *b = cx_backend_names(); *b; b++) {
		group *g = &groups[n_groups];
		if (strcmp(*b, "ref") == 0 || strcmp(*b, "null") == 0) continue;
		if (!chosen("CX_GRID_BACKENDS", *b)) continue;
		*g = (group){.backend = *b, .first = n_columns, .n = strcmp(*b, "cpu") == 0 ? 3 : 1};
		if (g->first + g->n > GRID_MAX_COLUMNS) return -1;
		for (int i = 0; i < g->n; i++)
			snprintf(shared->col[g->first + i].label, sizeof shared->col[0].label, "%s%s", *b,
				g->n == 1 ? "" : (const char *[]){" generic", " avx2", " avx512"}[i]);
		n_columns += g->n;
		n_groups++;
	}
	return n_groups > 0 ? 0 : -1;
}

/* How a child ended; a case that killed it is a FAIL of its op. */
static void bury(const group *g, int status)
{
	int op = shared->op[g->first];
	char why[80], again[80];
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
	snprintf(why, sizeof why, "the process died of %s %d",
		WIFSIGNALED(status) ? "signal" : "exit status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	shared->stopped = true;
	if (op < 0) {
		shared->col[g->first].model[shared->model[g->first]][0].count[GRID_FAIL]++;
		message(
			g, g->backend, grid_models[shared->model[g->first]].name, why, "CX_GRID_OPS=none", -1);
		return;
	}
	shared->col[g->first].op[op].count[GRID_FAIL]++;
	snprintf(again, sizeof again, "CX_GRID_OPS=%s", cx__ops[op].name);
	message(g, g->backend, cx__ops[op].name, why, again, shared->at[g->first]);
}

static void test_run(void **state)
{
	int status;
	(void)state;
	fflush(NULL);
	for (int i = 0; i < n_groups; i++) {
		groups[i].pid = fork();
		assert_true(groups[i].pid >= 0);
		if (groups[i].pid == 0) {
			run_group(&groups[i]);
			fflush(NULL);
			_exit(0);
		}
	}
	for (int i = 0; i < n_groups; i++) {
		assert_true(waitpid(groups[i].pid, &status, 0) == groups[i].pid);
		bury(&groups[i], status);
	}
}

static const char *word_of(const column *col, const cell *c)
{
	if (c->count[GRID_FAIL]) return "FAIL";
	if (!col->open) return "-";
	if (c->count[GRID_NONE]) return "none";
	if (c->count[GRID_PASS]) return "pass";
	return c->count[GRID_PLAN] ? "plan" : "?";
}

static bool is_bad(const char *word)
{
	return strcmp(word, "FAIL") == 0 || strcmp(word, "none") == 0 || strcmp(word, "?") == 0;
}

static void head_of_table(const char *first)
{
	printf("%-26s", first);
	for (int i = 0; i < n_columns; i++) printf(" %16s", shared->col[i].label);
	printf("\n");
}

static void test_ops(void **state)
{
	int bad = 0, rows = 0, cells = 0, total[4] = {0}, all = 0;
	(void)state;
	head_of_table("op");
	for (int op = 0; op < CX_OP_COUNT; op++) {
		if (!grid_is_run((cx_op)op) || !chosen("CX_GRID_OPS", cx__ops[op].name)) continue;
		printf("%-26s", cx__ops[op].name);
		for (int i = 0; i < n_columns; i++) {
			const cell *c = &shared->col[i].op[op];
			const char *word = word_of(&shared->col[i], c);
			char text[40];
			snprintf(text, sizeof text, c->count[GRID_FAIL] ? "%s %d of %d" : "%s %d", word,
				c->count[GRID_FAIL] ? c->count[GRID_FAIL]
									: c->count[GRID_PASS] + c->count[GRID_PLAN],
				c->count[GRID_PASS] + c->count[GRID_PLAN] + c->count[GRID_FAIL]);
			printf(" %16s", text);
			bad += is_bad(word) && !shared->out_of_time[i] && !(stop_early && shared->stopped);
			bad += strcmp(word, "FAIL") == 0;
			cells += strcmp(word, "-") != 0;
			for (int v = 0; v < 4; v++) all += c->count[v], total[v] += c->count[v];
		}
		rows++;
		printf("\n");
	}
	for (int i = 0; i < n_groups; i++)
		printf("# %s: %s, %.0f s%s\n", groups[i].backend,
			shared->col[groups[i].first].open ? shared->col[groups[i].first].name
											  : shared->col[groups[i].first].why_not,
			shared->seconds[groups[i].first],
			shared->out_of_time[groups[i].first] ? "; ended by CX_GRID_SECONDS" : "");
	printf("# %d ops, %d cells: %d comparisons, %d pass, %d of them planned, %d none, %d FAIL\n",
		rows, cells, all, total[GRID_PASS] + total[GRID_PLAN], total[GRID_PLAN], total[GRID_NONE],
		total[GRID_FAIL]);
	if (bad) fail_msg("the table is not clean");
}

static void test_models(void **state)
{
	int bad = 0, n = 0;
	const char *models = getenv("CX_GRID_MODELS");
	(void)state;
	if ((models && strcmp(models, "0") == 0) || !chosen("CX_GRID_OPS", "none")) skip();
	head_of_table("whole graph, fused/unfused");
	for (int m = 0; m < MAX_MODELS && grid_models[m].name; m++) {
		printf("%-26s", grid_models[m].name);
		for (int i = 0; i < n_columns; i++) {
			const column *col = &shared->col[i];
			const char *a = word_of(col, &col->model[m][0]), *b = word_of(col, &col->model[m][1]);
			char text[24];
			snprintf(text, sizeof text, "%s/%s", a, b);
			printf(" %16s", text);
			bad += is_bad(a) + is_bad(b);
			n += col->open ? 2 : 0;
		}
		printf("\n");
	}
	printf("# %d plans of whole graphs, %d not right\n", n, bad);
	if (bad && limit == 0 && !stop_early) fail_msg("%d plans of whole graphs", bad);
}

/* So that the grid cannot shrink unseen. Instruction sets of a cpu count once. */
static void test_enough(void **state)
{
	int n = 0, missing = 0;
	(void)state;
	if (!everything()) skip();
	for (int i = 0; i < n_groups; i++) {
		missing += !shared->col[groups[i].first].open;
		for (int op = 0; op < CX_OP_COUNT; op++)
			n += shared->col[groups[i].first].op[op].count[GRID_PASS] +
				 shared->col[groups[i].first].op[op].count[GRID_PLAN];
	}
	printf("# %d cases, each instruction set but the first left out\n", n);
	if (n >= LEAST_CASES) return;
	if (!missing) fail_msg("%d cases are fewer than %d", n, LEAST_CASES);
	print_message("# fewer than %d, for %d backends are not here\n", LEAST_CASES, missing);
	skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_run),
		cmocka_unit_test(test_ops),
		cmocka_unit_test(test_models),
		cmocka_unit_test(test_enough),
	};
	return cmocka_run_group_tests_name("grid", tests, make_groups, NULL);
}
