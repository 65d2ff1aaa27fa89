/* test_train_cli.c - `cortex decoder train` as its users meet it: killed at any moment its folder
 * holds a whole checkpoint or none, and what goes on from it ends in the same bytes; its files are
 * decodable by `eval`; bad input is one sentence and exit code 1. */
#include "models/decoder/train_config.h"
#include "tests/file_make.h"
#include "tests/rng.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char binary[1100];
enum { MAX_ARGS = 64, MAX_TEXT = 1 << 16 };
typedef struct ran {
	int code; /* exit code; -1: ended by a signal */
	char out[MAX_TEXT], err[MAX_TEXT];
} ran;

static void load(const char *path, char *text)
{
	bytes b = bytes_load(path);
	size_t n = b.n < MAX_TEXT - 1 ? b.n : MAX_TEXT - 1;
	if (n) memcpy(text, b.p, n);
	text[n] = 0;
	bytes_free(&b);
}

/* Runs `cortex decoder line`; "@x" is file x of the temporary folder. kill_ms >= 0: SIGKILL after
 * so many milliseconds. */
static void run(const char *line, int kill_ms, ran *r)
{
	char text[2000], *argv[MAX_ARGS + 1] = {binary, "decoder"}, out[1100], err[1100];
	int n = 2, status;
	pid_t pid;
	snprintf(text, sizeof text, "%s", line);
	for (char *w = strtok(text, " "); w; w = strtok(NULL, " ")) {
		assert_true(n < MAX_ARGS);
		argv[n++] = strdup(*w == '@' ? temp_path(w + 1) : w);
	}
	snprintf(out, sizeof out, "%s", temp_path("stdout"));
	snprintf(err, sizeof err, "%s", temp_path("stderr"));
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int o = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0666),
			e = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0666);
		if (o < 0 || e < 0 || dup2(o, 1) < 0 || dup2(e, 2) < 0) _exit(99);
		alarm(120);
		execv(binary, argv);
		_exit(98);
	}
	if (kill_ms >= 0) {
		struct timespec t = {kill_ms / 1000, kill_ms % 1000 * 1000000L};
		nanosleep(&t, NULL);
		kill(pid, SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	r->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	load(out, r->out);
	load(err, r->err);
	for (int i = 2; i < n; i++) free(argv[i]);
}

static void refused(const char *line, const char *says)
{
	static ran r;
	const char *end;
	run(line, -1, &r);
	end = strchr(r.err, '\n');
	if (r.code != 1 || strncmp(r.err, "cortex", 6) != 0 || !end || end[1] || !strstr(r.err, says))
		fail_msg("%s: exit code %d, stderr '%s'; wanted '%s'", line, r.code, r.err, says);
}

static void answers(const char *line, const char *says)
{
	static ran r;
	run(line, -1, &r);
	if (r.code != 0 || !strstr(r.out, says))
		fail_msg("%s: exit code %d, stdout '%s', stderr '%s'; wanted '%s'", line, r.code, r.out,
			r.err, says);
}

/* A network of 16 latents' width on 40 s of 8 units: thirty steps take a moment. */
#define TINY                                                                                       \
	"--model nano --backend cpu --set model.hidden_dim=16 --set model.num_heads=2 --set "          \
	"model.head_dim=8 --set model.cross_attn_heads=2 --set model.num_layers=1 --set "              \
	"model.num_latents=4 --set simulate.units=8 --set simulate.seconds=40 --set data.window=5 "    \
	"--set train.steps=30 --set train.warmup=3 --set train.batch=8 --set train.eval_every=4 "      \
	"--set train.checkpoint_every=3 --set train.log_every=2 --set train.drop_units=0.1 "           \
	"--set model.dropout=0.1 "

static bytes file(const char *folder, const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	return bytes_load(temp_path(path));
}

static bool there(const char *folder, const char *name)
{
	char path[64];
	struct stat info;
	snprintf(path, sizeof path, "%s/%s", folder, name);
	return stat(temp_path(path), &info) == 0;
}

static void same(const char *a, const char *b, const char *name)
{
	bytes x = file(a, name), y = file(b, name);
	if (x.n == 0 || x.n != y.n || memcmp(x.p, y.p, x.n) != 0)
		fail_msg("%s/%s and %s/%s differ", a, name, b, name);
	bytes_free(&x);
	bytes_free(&y);
}

static const char *const files[] = {
	"last.safetensors", "best.safetensors", "final.safetensors", "train.tsv"};

static void killed_and_resumed_is_the_same_bytes(void **state)
{
	static ran r;
	cx_rng rng = cx__rng_make((uint64_t)time(NULL), 0);
	struct timespec a, b;
	int whole_ms, kills = 0, resumed = 0;
	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &a);
	answers("train " TINY "--out @whole", "on 160 test windows: R2 vel_x");
	clock_gettime(CLOCK_MONOTONIC, &b);
	whole_ms = (int)((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000);
	for (int i = 0; i < 8; i++) {
		cx_train_meta meta;
		cx_err err = {0};
		bool resume = there("killed", "last.safetensors");
		run(resume ? "train --resume --backend cpu --out @killed" : "train " TINY "--out @killed",
			(int)cx__rng_int(&rng, 1, whole_ms * 9 / 10), &r);
		if (r.code == 0) break;
		assert_int_equal(r.code, -1);
		kills++;
		resumed += resume;
		if (!there("killed", "last.safetensors")) continue;
		if (cx_train_meta_read(temp_path("killed/last.safetensors"), NULL, &meta, &err) != CX_OK)
			fail_msg("after kill %d: %s", kills, err.msg);
	}
	if (r.code != 0) {
		bool resume = there("killed", "last.safetensors");
		answers(
			resume ? "train --resume --backend cpu --out @killed" : "train " TINY "--out @killed",
			"on 160 test windows");
	}
	print_message("  # killed %d times, %d of them a resumed run\n", kills, resumed);
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) same("whole", "killed", files[i]);
	assert_true(there("killed", "train.svg"));
	answers("train --resume --backend cpu --out @whole", "goes on from step 30");
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) same("whole", "killed", files[i]);
}

static void interrupted_says_how_to_go_on(void **state)
{
	char text[1300];
	int status;
	pid_t pid;
	struct timespec t = {2, 0};
	(void)state;
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int e = open(temp_path("stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
		if (e < 0 || dup2(e, 2) < 0 || dup2(e, 1) < 0) _exit(99);
		alarm(120);
		execl(binary, binary, "decoder", "train", "--model", "nano", "--backend", "cpu", "--set",
			"simulate.seconds=60", "--set", "data.window=5", "--set", "simulate.units=8", "--out",
			temp_path("stopped"), (char *)NULL);
		_exit(98);
	}
	nanosleep(&t, NULL);
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status)) { /* a slow machine: it had not begun to train */
		assert_int_equal(WTERMSIG(status), SIGTERM);
		print_message("  # ended before the first step\n");
		return;
	}
	assert_int_equal(WEXITSTATUS(status), 1);
	load(temp_path("stderr"), text);
	assert_non_null(strstr(text, "--resume goes on from there"));
	assert_true(there("stopped", "last.safetensors"));
}

static void files_are_decoded_by_eval(void **state)
{
	(void)state;
	answers("simulate --out @sim --units 8 --seconds 40", "simulated 8 units");
	answers("train " TINY "--data @sim --out @net", "files: ");
	answers("train " TINY "--data @sim --seed 3 --out @net3", "files: ");
	answers("eval --data @sim --checkpoint @net", "cortex");
	answers("eval --data @sim --markdown --checkpoint @net/final.safetensors", "| cortex |");
	answers("simulate --out @other --units 9 --seconds 40", "simulated 9 units");
	refused("eval --data @other --checkpoint @net", "was trained on 8 units, the data has 9");
	refused("eval --data @sim --checkpoint @nowhere", "nowhere");
	refused("eval --data @sim --checkpoint @sim/spikes.npy", "spikes.npy");
	refused("eval --data @sim --train-fraction 0.5 --checkpoint @net", "trained on 0.8");
}

static void put(const char *name, const char *text)
{
	bytes b = {0};
	bytes_text(&b, text);
	bytes_save(&b, temp_path(name));
	bytes_free(&b);
}

static void bad_input_is_one_sentence(void **state)
{
	(void)state;
	refused("train --model nano", "needs --out");
	refused("train --out @x", "needs --model or --config");
	refused("train --model giant --out @x", "there is no model 'giant'");
	refused("train --model nano --out @x more", "'more' is no option");
	refused("train --model nano --out /proc/nothing", "/proc/nothing");
	refused("train --resume --out @x", "x/last.safetensors");
	refused("train --resume --model nano --out @x", "own configuration");
	refused("train --model nano --set train.nonsense=1 --out @x", "nonsense");
	refused("train --model nano --set train.batch=0 --out @x", "batch");
	refused("train --model nano --seed -1 --out @x", "seed");
	refused("train --model nano --data @x/nothing --out @x", "nothing");
	refused("train --model nano --backend nonsense --out @x", "nonsense");
	put("a.conf", "[train]\nsteps = 5\nsteps = 6\n");
	refused("train --config @a.conf --out @x", "steps");
	put("a.conf", "[trian]\n");
	refused("train --config @a.conf --out @x", "trian");
	refused("train --model nano --set model.max_neurons=7 --set simulate.units=8 --out @x",
		"exceeds max_neurons = 7");
	refused("train --model nano --set model.max_time_bins=7 --out @x", "exceeds max_time_bins = 7");
	refused("train --model nano --set train.batch=60000 --set simulate.seconds=30 --out @x",
		"a batch of 60000 windows");
	answers("train --print-config", "\nsteps = 50000");
	answers("train --model nano --print-config", "\nsize = nano");
}

/* NaN in a recording: those bins have no movement, and none at all is an error. */
static void nan_kinematics(void **state)
{
	bytes b;
	(void)state;
	answers("simulate --out @nan --units 8 --seconds 40", "simulated");
	b = bytes_load(temp_path("nan/kinematics.npy"));
	memset(b.p + b.n - 64, 0xff, 64);
	bytes_save(&b, temp_path("nan/kinematics.npy"));
	bytes_free(&b);
	refused("train " TINY "--data @nan --out @x", "kinematics.npy");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(killed_and_resumed_is_the_same_bytes),
		cmocka_unit_test(interrupted_says_how_to_go_on),
		cmocka_unit_test(files_are_decoded_by_eval), cmocka_unit_test(bad_input_is_one_sentence),
		cmocka_unit_test(nan_kinematics)};
	const char *slash = strrchr(argv[0], '/');
	(void)argc;
	if (!slash) return 1;
	snprintf(binary, sizeof binary, "%.*s/../cortex", (int)(slash - argv[0]), argv[0]);
	if (access(binary, X_OK) != 0) {
		fprintf(stderr, "test_train_cli: %s is missing\n", binary);
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
