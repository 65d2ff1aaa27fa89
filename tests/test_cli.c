/* test_cli.c - the binary as its users meet it: what is wrong gets one sentence on stderr that
 * names it, nothing on stdout, exit code 1, and never a signal; what is right gets an answer;
 * output that cannot be written is an error. */
#include "tests/file_make.h"
#include "tests/llm_ref.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char binary[1100], faulty_binary[1100];
enum { MAX_ARGS = 24, MAX_TEXT = 1 << 16 };
typedef struct ran {
	int code; /* exit code; -1: ended by a signal */
	size_t n_out, n_err;
	char out[MAX_TEXT], err[MAX_TEXT];
} ran;

static size_t load(const char *path, char *text)
{
	bytes b = bytes_load(path);
	size_t n = b.n < MAX_TEXT - 1 ? b.n : MAX_TEXT - 1;
	if (n) memcpy(text, b.p, n);
	text[n] = 0;
	bytes_free(&b);
	return n;
}

/* Runs `cortex line`, or cortex-faulty if the line names its backend; a word is what stands between
 * blanks, '' an empty one. "@x" is file x of the temporary folder. to: where stdout goes, or NULL
 * for r->out. */
static void run(const char *line, const char *to, ran *r)
{
	char *program = strstr(line, "faulty") ? faulty_binary : binary;
	char text[2000], *argv[MAX_ARGS + 1] = {program}, out[1100], err[1100];
	int n = 1, status;
	pid_t pid;
	snprintf(text, sizeof text, "%s", line);
	for (char *w = strtok(text, " "); w; w = strtok(NULL, " ")) {
		assert_true(n < MAX_ARGS);
		if (*w == '@') argv[n++] = strdup(temp_path(w + 1));
		else argv[n++] = strdup(strcmp(w, "''") == 0 ? "" : w);
	}
	snprintf(out, sizeof out, "%s", to ? to : temp_path("stdout"));
	snprintf(err, sizeof err, "%s", temp_path("stderr"));
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int o = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0666),
			e = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0666), i = open("/dev/null", O_RDONLY);
		if (o < 0 || e < 0 || i < 0 || dup2(i, 0) < 0 || dup2(o, 1) < 0 || dup2(e, 2) < 0)
			_exit(99);
		/* graphics drivers keep memory of their own, which is not ours to count */
		if (strncmp(line, "devices", 7) == 0 || strstr(line, "vulkan") || strstr(line, "opencl"))
			setenv("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1", 1);
		alarm(60);
		execv(program, argv);
		_exit(98);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	r->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	r->n_out = to ? 0 : load(out, r->out);
	r->n_err = load(err, r->err);
	for (int i = 1; i < n; i++) free(argv[i]);
}

static void refused(const char *line, const char *says)
{
	static ran r;
	const char *end;
	run(line, NULL, &r);
	end = strchr(r.err, '\n');
	if (r.code != 1 || r.n_out != 0 || strncmp(r.err, "cortex", 6) != 0 || !end || end[1] ||
		!strstr(r.err, says))
		fail_msg("cortex %s: exit code %d, %zu bytes on stdout, stderr '%s'; wanted '%s'", line,
			r.code, r.n_out, r.err, says);
}

static void answers(const char *line, const char *says)
{
	static ran r;
	run(line, NULL, &r);
	if (r.code != 0 || !strstr(r.out, says))
		fail_msg("cortex %s: exit code %d, stdout '%s', stderr '%s'; wanted '%s'", line, r.code,
			r.out, r.err, says);
}

static void put(const char *name, const char *text)
{
	bytes b = {0};
	bytes_text(&b, text);
	bytes_save(&b, temp_path(name));
	bytes_free(&b);
}

static int make_files(void **state)
{
	llm_ref ref;
	bytes b = gguf_good();
	(void)state;
	bytes_save(&b, temp_path("odd.gguf"));
	b.n = 40;
	bytes_save(&b, temp_path("cut.gguf"));
	bytes_free(&b);
	put("text", "not a model\n");
	put("two.csv", "id,lower,upper,size\n0,0,2,1000\n1,1,3,1000\n");
	put("bad.csv", "id,lower,upper,size\n0,0,2,many\n");
	put("inside-out.csv", "id,lower,upper,size\n0,2,1,1000\n");
	put("bad.graph", "cortex-graph 1\nnonsense\n");
	put("nothing", "");
	put("op.cxg", "cortex-graph 1\n%0 = input \"x\" : f32[4]\n%1 = frobnicate(%0) : f32[4]\n"
				  "output \"y\" %1\n");
	put("huge.cxg", "cortex-graph 1\n%0 = input \"x\" : f32[999999999999]\n");
	put("bytes.cxg", "cortex-graph 1\n\xff\xfe\x80\n");
	put("good.cxg", "cortex-graph 1\n%0 = input \"x\" : f32[4,8]\n"
					"%1 = rmsnorm(%0) : f32[4,8] @\"norm\"\n%2 = cumsum(%1) {axis=1} : f32[4,8]\n"
					"%3 = exp(%2) : f32[4,8]\noutput \"y\" %3\n");
	mkdir(temp_path("inputs"), 0777);
	put("inputs/x.npy", "not an array\n");
	put("bad.nwb", "no HDF5 at all\n");
	mkdir(temp_path("empty"), 0777);
	mkdir(temp_path("hf"), 0777);
	llm_ref_random(&ref, "llama", false, false, 3);
	llm_ref_write_hf(&ref, "llama", false, 1, temp_path("hf"));
	llm_ref_free(&ref);
	return 0;
}

#define TELLS "; cortex devices tells what there is\n"

static void bad_commands(void **state)
{
	(void)state;
	refused("''", "no command ''");
	refused("frobnicate", "no command 'frobnicate'");
	refused("run", "-m MODEL is missing");
	refused("run -m", "requires an argument");
	refused("run --frobnicate", "--frobnicate");
	refused("run -m @hf", "-p TEXT is missing");
	refused("run -m @hf -p x extra", "'extra'");
	refused("run -m @hf -p x --start-ids 1", "--start-ids");
	refused("run -m @hf -p x", "tokenizer.json");
	refused("tokenize", "-m is missing");
	refused("devices x", "'x'");
	refused("plan", "graph");
	refused("pack", "CSV");
	refused("pack @two.csv --budget nan", "'nan'");
	refused("pack @two.csv --frobnicate", "--frobnicate");
	refused("decoder", "is none of demo, eval");
	refused("decoder eval", "--spikes");
	refused("decoder eval --method tarot", "'tarot'");
	refused("decoder eval --train-fraction nan", "'nan'");
	refused("decoder eval --history 0", "'0'");
	refused("decoder eval --ridge -1", "'-1'");
	refused("decoder eval --protocol tarot", "'tarot'");
	refused("decoder eval --table", "--data");
	refused("decoder simulate --out @empty --units 3,,4", "'3,,4'");
	refused("decoder simulate --out @empty --window 0", "'0'");
}

static void bad_files(void **state)
{
	(void)state;
	refused("run -m @none -p x", "none: No such file");
	refused("run -m @empty -p x", "config.json: there is no such file");
	refused("run -m @text -p x", "text: is not a GGUF file");
	refused("run -m @cut.gguf -p x", "cut.gguf: ");
	refused("run -m @odd.gguf -p x", "odd.gguf: ");
	refused("run -m /dev/null -p x", "/dev/null: is not a regular file");
	refused("run -m '' -p x", "cortex run: ");
	refused("tokenize -m @text", "text: is not a GGUF file");
	refused("tokenize -m @empty", "tokenizer.json");
	refused("plan @bad.graph", "bad.graph: graph text, line 2");
	refused("plan @empty", "is a folder, not a file");
	refused("pack @bad.csv", "line 2: column 'size': 'many' is not an integer");
	refused("pack @inside-out.csv", "inside-out.csv: pack: item 0 lives from 2 to 1");
	refused("pack @none", "there is no such file");
	refused("pack @empty", "is a folder, not a file");
	refused("decoder eval --spikes @text --kinematics @text", "text: ");
	refused("decoder demo --data @empty", "spikes*.npy");
	refused("decoder eval --data @empty --table", "nor *.nwb");
	refused("decoder eval --data @text --table", "text is no recording");
	refused("decoder eval --data @none --table", "none: ");
	refused("decoder eval --data @bad.nwb", "HDF5");
}

static void bad_graphs(void **state)
{
	static const char *const cmds[] = {"dump --graph", "profile --graph", "plan"};
	static const struct {
		const char *file, *says;
	} bad[] = {{"none", "none: there is no such file"}, {"empty", "is a folder, not a file"},
		{"nothing", "nothing: the file is empty"},
		{"text", "line 1, column 1: does not begin with"},
		{"bad.graph", "bad.graph: graph text, line 2"}, {"op.cxg", "line 3"},
		{"op.cxg", "frobnicate"}, {"huge.cxg", "line 2"}, {"bytes.cxg", "line 2"}};
	char line[200];
	(void)state;
	for (size_t i = 0; i < sizeof cmds / sizeof *cmds; i++)
		for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
			snprintf(line, sizeof line, "%s @%s", cmds[i], bad[k].file);
			refused(line, bad[k].says);
		}
	for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
		snprintf(line, sizeof line, "diff --backends cpu --graph @%s", bad[k].file);
		refused(line, bad[k].says);
	}
	for (size_t i = 0; i < 2; i++) {
		const char *c = i ? "profile" : "dump";
		snprintf(line, sizeof line, "%s", c);
		refused(line, "one of -m MODEL and --graph FILE.cxg is wanted");
		snprintf(line, sizeof line, "%s -m @hf --graph @good.cxg", c);
		refused(line, "both given");
		snprintf(line, sizeof line, "%s -m @none", c);
		refused(line, "none: No such file");
		snprintf(line, sizeof line, "%s --graph @good.cxg --bucket 4", c);
		refused(line, "--bucket is for models");
		snprintf(line, sizeof line, "%s -m @hf --bucket 0", c);
		refused(line, "--bucket '0' is not a whole number in 1..4096");
		snprintf(line, sizeof line, "%s -m @hf --bucket nan", c);
		refused(line, "--bucket 'nan'");
		snprintf(line, sizeof line, "%s -m @hf --bucket 99999999999999999999", c);
		refused(line, "--bucket '9999");
		snprintf(line, sizeof line, "%s --graph @good.cxg --seed -1", c);
		refused(line, "--seed '-1'");
	}
	refused("dump --graph @good.cxg --stage ripe", "--stage 'ripe' is none of built, simplified");
	refused("dump --graph @good.cxg --format png", "--format 'png' is none of text, json, dot");
	refused("dump --graph @good.cxg --profile", "--profile has no place in text");
	refused("dump --graph @good.cxg --profile --stage fused --format json", "--stage planned");
	refused("dump --graph @good.cxg -o @empty", "cannot be written: it is a folder");
	refused("dump --graph @good.cxg -o /no/such/x", "cannot be written");
	refused("profile --graph @good.cxg --runs 0", "--runs '0'");
	refused("profile --graph @good.cxg --trace /no/such/x", "cannot be written");
}

static void bad_diffs(void **state)
{
	(void)state;
	refused("diff", "--backends is missing");
	refused("diff --backends cpu", "one of -m MODEL and --graph FILE is wanted");
	refused("diff --backends cpu -m @hf --graph @good.cxg", "both given");
	refused("diff --backends cpu --graph @good.cxg --prompt x", "--prompt is for models");
	refused("diff --backends cpu --graph @good.cxg --tol nan", "--tol 'nan'");
	refused("diff --backends cpu --graph @good.cxg --tol 0", "--tol '0' is not a number above 0");
	refused("diff --backends cpu --graph @good.cxg --tol -1", "--tol '-1'");
	refused("diff --backends cpu --graph @good.cxg --tol inf", "--tol 'inf'");
	refused("diff --backends cpu --graph @good.cxg --tol 1e999", "--tol '1e999'");
	refused("diff --backends cpu --graph @good.cxg --tol ''", "--tol ''");
	refused("diff --backends cpu --graph @good.cxg --seed -1", "--seed '-1'");
	refused("diff --backends cpu --graph @good.cxg --top x", "--top 'x'");
	refused("diff --backends cpu --graph @good.cxg --reduce @empty", "it is a folder");
	refused("diff --backends cpu --graph @good.cxg --reduce /no/such/x", "cannot be written");
	refused("diff --backends cpu --graph @good.cxg --inputs @none", "no readable folder");
	refused("diff --backends cpu --graph @good.cxg --inputs @text", "no readable folder");
	refused("diff --backends cpu --graph @good.cxg --inputs @inputs", "x.npy: ");
	refused("diff --backends cpu -m @hf --prompt x", "tokenizer");
	refused("diff --backends a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a --graph @good.cxg",
		"more than 16 names");
}

static void bad_numbers(void **state)
{
	(void)state;
	refused("run -m @hf --start-ids 1 -n 2 --ctx 0", "--ctx 0");
	refused("run -m @hf --start-ids 1 -n 2 --chunk 0", "--chunk 0");
	refused("run -m @hf --start-ids 1 -n 2 --ctx 1000000000", TELLS);
	refused("run -m @hf --start-ids 1 -n -1", "-n '-1'");
	refused("run -m @hf --start-ids 1 -n 2x", "-n '2x'");
	refused("run -m @hf --start-ids 999999", "999999");
	refused("run -m @hf --start-ids -1", "'-1' is no token id");
	refused("run -m @hf --start-ids ''", "--start-ids is empty");
	refused("run -m @hf --start-ids 1 -n 9 --ctx 4", "--ctx 4");
	refused("run -m @hf --start-ids 1 -n 2 --chunk 3", "chunk of 3");
	refused("run -m @hf --start-ids 1 -n 2 --kv i32", "i32");
	refused("run -m @hf --start-ids 1 -n 2 --temp nan", "'nan'");
	refused("run -m @hf --start-ids 1 -n 2 --temp -1", "temperature -1");
	refused("run -m @hf --start-ids 1 -n 2 --top-p 2", "top_p 2");
	refused("run -m @hf --start-ids 1 -n 2 --backend abacus", "'abacus'");
	refused("run -m @hf --start-ids 1 -n 2 --backend cpu:7", "not 7");
	refused("run -m @hf --start-ids 1 -n 2 --logits @empty", "empty: cannot be written");
	refused("run -m @hf --start-ids 1 -n 2 --logits /no/such/folder/x", "cannot be written");
}

/* ---- devices: there are none, they fail, they lack an op ---- */

static void bad_devices(void **state)
{
	static const char *const cmds[] = {"plan @good.cxg --backend",
		"dump --graph @good.cxg --backend", "profile --graph @good.cxg --backend",
		"diff --graph @good.cxg --backends", "run -m @hf --start-ids 1 -n 2 --backend"};
	char line[200];
	(void)state;
	for (size_t i = 0; i < sizeof cmds / sizeof *cmds; i++) {
		snprintf(line, sizeof line, "%s abacus", cmds[i]);
		refused(line, "no backend 'abacus' in this build; there is cpu");
		refused(line, TELLS);
		snprintf(line, sizeof line, "%s cpu:7", cmds[i]);
		refused(line, "not 7" TELLS);
		snprintf(line, sizeof line, "%s ref:99999999999999999999", cmds[i]);
		refused(line, "no index" TELLS);
		snprintf(line, sizeof line, "%s cpu:", cmds[i]);
		refused(line, "no index");
		snprintf(line, sizeof line, "%s :0", cmds[i]);
		refused(line, "no backend ':0'");
	}
	refused("plan @good.cxg --backend ''", "there is no backend ''" TELLS);
	refused("diff --graph @good.cxg --backends cpu,,ref", "no list of backends");
	refused("diff --graph @good.cxg --backends ''", "--backends is empty");
}

static void failing_devices(void **state)
{
	(void)state;
	setenv("CORTEX_LOST", "2", 1);
	refused("profile --graph @good.cxg --backend faulty", "the device is lost" TELLS);
	refused("diff --graph @good.cxg --backends faulty", "the device is lost" TELLS);
	setenv("CORTEX_LOST", "1", 1);
	refused("dump --graph @good.cxg --backend faulty --profile --format json",
		"the device is lost" TELLS);
	refused("profile --graph @good.cxg --backend faulty", "the device is lost" TELLS);
	unsetenv("CORTEX_LOST");
	setenv("CORTEX_MEMORY", "100", 1);
	refused("run -m @hf --start-ids 1 -n 2 --backend faulty", "no memory for a buffer of ");
	refused("run -m @hf --start-ids 1 -n 2 --backend faulty", TELLS);
	refused("profile --graph @good.cxg --backend faulty", TELLS);
	refused("diff --graph @good.cxg --backends faulty", TELLS);
	unsetenv("CORTEX_MEMORY");
	answers("plan @good.cxg --backend faulty", "faulty:0");
}

/* A driver that is not there is told about; a damaged cache of compiled shaders is made anew. */
static void drivers(void **state)
{
	static ran r;
	static const char *const run_it = "profile --graph @good.cxg --backend vulkan --runs 1";
	char command[1200];
	(void)state;
	setenv("VK_DRIVER_FILES", "/no/such/driver", 1);
	setenv("VK_ICD_FILENAMES", "/no/such/driver", 1);
	setenv("OCL_ICD_VENDORS", "/no/such/folder", 1);
	refused("plan @good.cxg --backend vulkan", TELLS);
	refused("plan @good.cxg --backend opencl", TELLS);
	answers("devices --quick", "cpu:0");
	answers("devices --quick --json", "\"cpu\"");
	unsetenv("VK_DRIVER_FILES");
	unsetenv("VK_ICD_FILENAMES");
	unsetenv("OCL_ICD_VENDORS");
	mkdir(temp_path("cache"), 0777);
	setenv("XDG_CACHE_HOME", temp_path("cache"), 1);
	run(run_it, NULL, &r);
	if (r.code == 0) {
		snprintf(command, sizeof command,
			"for f in '%s'/cortex/*; do echo damaged >\"$f\"; done; exec test -f \"$f\"",
			temp_path("cache"));
		assert_int_equal(system(command), 0);
		run(run_it, NULL, &r);
		assert_int_equal(r.code, 0);
	} else {
		print_message("# no vulkan device here: %s", r.err);
		assert_non_null(strstr(r.err, TELLS));
	}
	unsetenv("XDG_CACHE_HOME");
}

/* What a device lacks is refused by name, or runs elsewhere, listed and counted. */
static void fallback(void **state)
{
	static const char *const cmds[] = {
		"plan @good.cxg", "dump --graph @good.cxg", "profile --graph @good.cxg"};
	static ran a, b;
	char line[200];
	(void)state;
	setenv("CORTEX_LACKS", "cumsum", 1);
	for (size_t i = 0; i < sizeof cmds / sizeof *cmds; i++) {
		snprintf(line, sizeof line, "%s --backend faulty", cmds[i]);
		refused(
			line, "faulty has no kernel for cumsum(f32[4,8]): %2 cumsum; --allow-fallback runs");
		snprintf(line, sizeof line, "%s --backend faulty --allow-fallback", cmds[i]);
		answers(line, "cumsum");
	}
	run("plan @good.cxg --backend faulty --allow-fallback", NULL, &a);
	assert_non_null(strstr(a.out, "why: fallback: no kernel on the first device"));
	assert_non_null(strstr(a.out, "why: copy between devices"));
	assert_non_null(strstr(a.out, "fallback to cpu:0"));
	assert_non_null(strstr(a.out, "2 copies between devices, 1 fallbacks"));
	assert_non_null(strstr(a.out, "1 of 3 steps on cpu:0"));
	assert_non_null(strstr(a.out, "by --allow-fallback: 1 cumsum; 2 copies between devices"));
	run("diff --graph @good.cxg --backends faulty", NULL, &a);
	assert_true(a.code == 1 && strstr(a.out, "faulty: no kernel for %2 cumsum; --allow-fallback"));
	run("diff --graph @good.cxg --backends faulty --allow-fallback", NULL, &a);
	assert_true(a.code == 0 && strstr(a.out, "cumsum; in the whole run it was on cpu:0"));
	assert_non_null(strstr(a.out, "first diverging node: none"));

	setenv("CORTEX_LACKS", "paged_attention scatter", 1);
	refused("run -m @hf --start-ids 1,2 -n 9 --temp 1 --seed 5 --backend faulty",
		"faulty has no kernel for scatter(");
	run("run -m @hf --start-ids 1,2 -n 9 --temp 1 --seed 5 --backend faulty --allow-fallback", NULL,
		&a);
	run("run -m @hf --start-ids 1,2 -n 9 --temp 1 --seed 5", NULL, &b);
	assert_true(a.code == 0 && b.code == 0);
	assert_string_equal(a.out, b.out);
	assert_non_null(strstr(a.err, " steps on cpu:0"));
	assert_non_null(strstr(a.err, "by --allow-fallback: "));
	assert_non_null(strstr(a.err, " scatter"));
	assert_non_null(strstr(a.err, " paged_attention"));
	assert_null(strstr(b.err, "fallback"));
	unsetenv("CORTEX_LACKS");
	run("run -m @hf --start-ids 1,2 -n 2 --backend faulty --allow-fallback", NULL, &a);
	assert_non_null(strstr(a.err, "0 of ")); /* asked for, not needed */
}

/* A broken kernel is found, reduced, found again in what is left, and not on a sound device. */
static void broken_kernel(void **state)
{
	static ran r;
	(void)state;
	setenv("CORTEX_FAULT", "cumsum scale", 1);
	run("diff --graph @good.cxg --backends ref,faulty --reduce @small.cxg", NULL, &r);
	assert_int_equal(r.code, 1);
	assert_non_null(strstr(r.out, "first diverging node: %2 cumsum on faulty (alone"));
	assert_non_null(strstr(r.err, "small.cxg: "));
	run("diff --graph @small.cxg --backends faulty", NULL, &r);
	assert_int_equal(r.code, 1);
	assert_non_null(strstr(r.out, "cumsum"));
	assert_non_null(strstr(r.out, " on faulty (alone"));
	run("diff --graph @good.cxg --backends faulty --json", NULL, &r);
	assert_int_equal(r.code, 1);
	assert_non_null(strstr(r.out, "\"first\": {\"backend\": \"faulty\""));
	unsetenv("CORTEX_FAULT");
	run("diff --graph @small.cxg --backends faulty,cpu", NULL, &r);
	assert_int_equal(r.code, 0);
	assert_non_null(strstr(r.out, "first diverging node: none"));
	run("diff --graph @good.cxg --backends cpu --reduce @none.cxg", NULL, &r);
	assert_true(r.code == 0 && strstr(r.err, "none.cxg: not written"));
	assert_int_not_equal(access(temp_path("none.cxg"), F_OK), 0);
	setenv("CORTEX_FAULT", "cumsum frobnicate", 1);
	refused("plan @good.cxg --backend faulty", "CORTEX_FAULT 'cumsum frobnicate'");
	unsetenv("CORTEX_FAULT");
}

static void good_ones(void **state)
{
	static ran a, b;
	(void)state;
	answers("--help", "usage: cortex");
	answers("--version", "cortex ");
	answers("run --help", "usage: cortex run");
	answers("decoder --help", "usage: cortex decoder");
	answers("devices", "cpu");
	answers("pack @two.csv", "2000");
	answers("run -m @hf --start-ids 1 -n 0", "1\n");
	run("run -m @hf --start-ids 1,2 -n 9 --temp 1 --seed 5", NULL, &a);
	run("run -m @hf --start-ids 1,2 -n 9 --temp 1 --seed 5 --backend ref", NULL, &b);
	assert_int_equal(a.code, 0);
	assert_true(a.n_out > 20 && a.n_out == b.n_out && memcmp(a.out, b.out, a.n_out) == 0);
}

static void nowhere_to_write(void **state)
{
	static const char *const lines[] = {"--help", "devices", "run --help", "pack @two.csv",
		"run -m @hf --start-ids 1 -n 3", "tokenize --help", "decoder --help"};
	static ran r;
	(void)state;
	if (access("/dev/full", W_OK) != 0) skip();
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		run(lines[i], "/dev/full", &r);
		if (r.code != 1 || !strstr(r.err, "stdout"))
			fail_msg("cortex %s >/dev/full: exit code %d, stderr '%s'", lines[i], r.code, r.err);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_commands),
		cmocka_unit_test(bad_files),
		cmocka_unit_test(bad_graphs),
		cmocka_unit_test(bad_diffs),
		cmocka_unit_test(bad_numbers),
		cmocka_unit_test(bad_devices),
		cmocka_unit_test(failing_devices),
		cmocka_unit_test(drivers),
		cmocka_unit_test(fallback),
		cmocka_unit_test(broken_kernel),
		cmocka_unit_test(good_ones),
		cmocka_unit_test(nowhere_to_write),
	};
	char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	if (!slash || slash - argv[0] > 1000) {
		fprintf(stderr, "test_cli: run it by its path, <build>/tests/test_cli\n");
		return 1;
	}
	snprintf(binary, sizeof binary, "%.*s/../cortex", (int)(slash - argv[0]), argv[0]);
	snprintf(
		faulty_binary, sizeof faulty_binary, "%.*s/cortex-faulty", (int)(slash - argv[0]), argv[0]);
	if (access(binary, X_OK) != 0 || access(faulty_binary, X_OK) != 0) {
		fprintf(stderr, "test_cli: %s or %s is missing\n", binary, faulty_binary);
		return 1;
	}
	return cmocka_run_group_tests(tests, make_files, NULL);
}
