/* test_docs.c - the pages under docs/ that can be wrong: OPS.md is what `make docs` writes, the
 * example of GRAPH_TEXT.md parses and prints as it stands, the commands of DEBUGGING.md exist and
 * print what the page shows. Runs in the folder that holds docs/. */
#define CX_GEN_OPS_NO_MAIN
#include "docs/gen_ops.c"
#include "tests/file_make.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Whole file, NUL-terminated; the caller frees it. NULL if there is none. */
static char *read_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	char *text = NULL;
	long n;
	if (!f) return NULL;
	if (fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0 &&
		(text = malloc((size_t)n + 1)) != NULL)
		text[fread(text, 1, (size_t)n, f)] = 0;
	fclose(f);
	return text;
}

static void ops_page_is_current(void **state)
{
	char *page = read_file("docs/OPS.md"), *want = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&want, &n);
	(void)state;
	assert_non_null(page);
	assert_non_null(f);
	write_ops(f);
	fclose(f);
	if (strcmp(page, want) != 0) fail_msg("docs/OPS.md is out of date: make docs");
	for (int i = 0; i < CX_OP_COUNT; i++) { /* and holds every op, once */
		char row[40];
		const char *at;
		snprintf(row, sizeof row, "\n| `%s` |", cx__ops[i].name);
		at = strstr(page, row);
		assert_non_null(at);
		assert_null(strstr(at + 1, row));
	}
	free(page);
	free(want);
}

static void text_example_is_true(void **state)
{
	static const char head[] = "```\ncortex-graph 1\n",
					  note[] = "# comments and empty lines are skipped\n";
	char *page = read_file("docs/GRAPH_TEXT.md"), *text, *end, *cut, *again;
	cx_graph *g;
	cx_err e = {0};
	size_t n;
	(void)state;
	assert_non_null(page);
	text = strstr(page, head);
	assert_non_null(text);
	text += 4;
	end = strstr(text, "```");
	assert_non_null(end);
	if (cx_graph_parse(text, (size_t)(end - text), NULL, &g, &e) != CX_OK) fail_msg("%s", e.msg);
	*end = 0;
	cut = strstr(text, note); /* the comment is all that is not printed */
	assert_non_null(cut);
	memmove(cut, cut + sizeof note - 1, strlen(cut + sizeof note - 1) + 1);
	assert_int_equal(cx_graph_print(g, NULL, &again, &n, &e), CX_OK);
	assert_string_equal(text, again);
	cx_free(NULL, again, n + 1);
	cx_graph_free(g);
	free(page);
}

/* ---- DEBUGGING.md ---- */

static char build[1024]; /* the build folder, absolute */

enum { MAX_COMMANDS = 64 };
typedef struct shown {
	char *command, *output; /* "$ " is skipped; output: until the next command or the fence */
	char *end;              /* of the output */
} shown;

/* The commands in the fences of a page; a here-document belongs to its command. */
static int read_commands(char *page, shown *out)
{
	bool fence = false;
	int n = 0;
	for (char *line = page, *next; *line; line = next) {
		next = strchr(line, '\n') ? strchr(line, '\n') + 1 : line + strlen(line);
		if (strncmp(line, "```", 3) == 0) {
			fence = !fence;
			if (!fence && n > 0 && !out[n - 1].end) out[n - 1].end = line;
			continue;
		}
		if (!fence || strncmp(line, "$ ", 2) != 0) continue;
		if (n > 0 && !out[n - 1].end) out[n - 1].end = line;
		assert_true(n < MAX_COMMANDS);
		out[n] = (shown){.command = line + 2, .output = next};
		if (next - line > 8 && memcmp(next - 8, "<<'END'\n", 8) == 0) {
			char *end = strstr(next, "\nEND\n");
			assert_non_null(end);
			out[n].output = next = end + 5;
		}
		n++;
	}
	return n;
}

/* Every `cortex COMMAND --option` of a line is one that COMMAND --help tells. */
static int check_options(char *line)
{
	int n_options = 0;
	char name[40], command[1200], *help = NULL, *word, *save;
	size_t n;
	FILE *f;
	if (strncmp(line, "cortex", 6) != 0) return 0;
	word = strtok_r(line, " ", &save);
	word = strtok_r(NULL, " ", &save);
	assert_non_null(word);
	snprintf(name, sizeof name, "%s", word);
	snprintf(command, sizeof command, "'%s/cortex' %s --help 2>&1", build, name);
	assert_non_null(f = popen(command, "r"));
	help = calloc(1, 1 << 16);
	n = fread(help, 1, (1 << 16) - 1, f);
	if (pclose(f) != 0 || n == 0) fail_msg("DEBUGGING.md: there is no cortex %s", name);
	while ((word = strtok_r(NULL, " \n", &save)) != NULL) {
		if (strncmp(word, "--", 2) != 0) continue;
		if (!strstr(help, word)) fail_msg("DEBUGGING.md: cortex %s has no %s", name, word);
		n_options++;
	}
	free(help);
	return n_options;
}

static void debugging_commands_exist(void **state)
{
	char *page = read_file("docs/DEBUGGING.md"), *makefile = read_file("Makefile");
	shown c[MAX_COMMANDS];
	int n, n_options = 0;
	(void)state;
	assert_non_null(page);
	assert_non_null(makefile);
	n = read_commands(page, c);
	assert_true(n > 20);
	assert_non_null(strstr(makefile, "\nfaulty:"));
	for (int i = 0; i < n; i++) c[i].output[-1] = 0;
	for (int i = 0; i < n; i++) n_options += check_options(c[i].command);
	assert_true(n_options > 40);
	free(page);
	free(makefile);
}

/* One line to compare by: no blanks at the end, what differs between machines and runs replaced by
 * #: numbers with a fraction, sizes of buffers, the instruction set, the number of threads. */
static void normalise(const char *line, size_t n, char *out)
{
	bool loose = false;
	char text[1024];
	const char *c = text;
	snprintf(text, sizeof text, "%.*s", (int)n, line);
	for (size_t k = strlen(text); k > 0 && text[k - 1] == ' '; k--) text[k - 1] = 0;
	loose = strstr(text, "slab") || strstr(text, "scratch");
	while (*c) {
		static const char *const isas[] = {"avx512", "avx2", "generic"};
		char *end;
		size_t digits = strspn(c, "0123456789"), i = 0;
		while (i < 3 && strncmp(c, isas[i], strlen(isas[i])) != 0) i++;
		if (i < 3) {
			*out++ = '#';
			c += strlen(isas[i]);
		} else if (!digits) {
			if (*c == ' ' && c[1] == ' ') c++; /* columns move */
			else *out++ = *c++;
		} else if (c[digits] == '.' && isdigit((unsigned char)c[digits + 1])) {
			strtod(c, &end);
			if (out[-1] == '-') out--;
			*out++ = '#';
			c = end;
		} else if (loose || strncmp(c + digits, " thread", 7) == 0) {
			*out++ = '#';
			c += digits + (strncmp(c + digits, " threads", 8) == 0 ? 8 : 0);
		} else {
			memcpy(out, c, digits);
			out += digits;
			c += digits;
		}
	}
	*out = 0;
}

static bool same_line(const char *want, size_t n_want, const char *got, size_t n_got)
{
	char a[1100] = "", b[1100] = "";
	bool open = n_want > 3 && memcmp(want + n_want - 3, "...", 3) == 0;
	normalise(want, open ? n_want - 3 : n_want, a + 1);
	normalise(got, n_got, b + 1);
	return open ? strncmp(a + 1, b + 1, strlen(a + 1)) == 0 : strcmp(a + 1, b + 1) == 0;
}

static size_t line_length(const char *s, const char *end)
{
	const char *nl = memchr(s, '\n', (size_t)(end - s));
	return nl ? (size_t)(nl - s) : (size_t)(end - s);
}

/* The lines shown, in order; "..." stands for any number of them. Tables of times are in the order
 * of the times: there each line must be somewhere. */
static void compare(const shown *c, const char *got, const char *end)
{
	const char *want = c->output, *start = got;
	bool skip = false, sorted = strncmp(strchr(c->command, ' '), " profile", 8) == 0;
	while (want < c->end) {
		size_t n = line_length(want, c->end), m;
		if (n == 3 && memcmp(want, "...", 3) == 0) {
			skip = true;
			want += n + 1;
			continue;
		}
		for (;; got += m + 1) {
			m = got < end ? line_length(got, end) : 0;
			if (got < end && same_line(want, n, got, m)) break;
			if (got >= end || !(skip || sorted))
				fail_msg("DEBUGGING.md, %.60s\n  shows  %.*s\n  prints %.*s", c->command, (int)n,
					want, (int)m, got < end ? got : "");
		}
		got = sorted ? start : got + m + 1;
		want += n + 1;
		skip = false;
	}
	if (got < end && !skip && !sorted)
		fail_msg("DEBUGGING.md, %.60s\n  prints more: %.300s", c->command, got);
}

static void debugging_is_true(void **state)
{
	const char *model = fixture("llm/stories260K/stories260K.gguf");
	char *page = read_file("docs/DEBUGGING.md"), *log, command[1200], cwd[1024];
	shown c[MAX_COMMANDS];
	int n, status, n_compared = 0;
	FILE *f;
	(void)state;
	if (!model) {
		free(page);
		skip();
	}
	assert_non_null(getcwd(cwd, sizeof cwd));
	assert_non_null(page);
	n = read_commands(page, c);
	snprintf(command, sizeof command, "%s", temp_path("build"));
	assert_int_equal(symlink(build, command), 0);
	if (model[0] == '/') snprintf(command, sizeof command, "%s", model);
	else snprintf(command, sizeof command, "%s/%s", cwd, model);
	assert_int_equal(symlink(command, temp_path("stories260K.gguf")), 0);
	assert_non_null(f = fopen(temp_path("walk.sh"), "wb"));
	fprintf(f, "exec 2>&1 </dev/null\ncd '%s'\n", temp_path("."));
	for (int i = 0; i < n; i++) {
		fprintf(f, "echo '@@@ %d'\n", i);
		if (strncmp(c[i].command, "make ", 5) == 0) fprintf(f, ":\n");
		else fprintf(f, "%.*s", (int)(c[i].output - c[i].command), c[i].command);
		fprintf(f, "[ $? -lt 2 ] || echo '@@@ crash'\n"); /* 0 or 1, never a signal */
	}
	fprintf(f, "echo '@@@ %d'\n", n);
	fclose(f);
	snprintf(command, sizeof command, "sh '%s' >'%s'", temp_path("walk.sh"), temp_path("log"));
	status = system(command);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_non_null(log = read_file(temp_path("log")));
	assert_null(strstr(log, "@@@ crash"));
	for (int i = 0; i < n; i++) {
		char mark[2][20];
		const char *from, *to;
		snprintf(mark[0], sizeof mark[0], "@@@ %d\n", i);
		snprintf(mark[1], sizeof mark[1], "@@@ %d\n", i + 1);
		from = strstr(log, mark[0]);
		to = strstr(log, mark[1]);
		assert_true(from && to);
		/* scores of decoders are their own tests' to check */
		if (strstr(c[i].command, "decoder demo") < c[i].output &&
			strstr(c[i].command, "decoder demo"))
			continue;
		compare(&c[i], from + strlen(mark[0]), to);
		n_compared++;
	}
	print_message("# %d commands of DEBUGGING.md, %d of them compared\n", n, n_compared);
	free(log);
	free(page);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(ops_page_is_current),
		cmocka_unit_test(text_example_is_true), cmocka_unit_test(debugging_commands_exist),
		cmocka_unit_test(debugging_is_true)};
	char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL, folder[1000];
	snprintf(folder, sizeof folder, "%.*s/..", slash ? (int)(slash - argv[0]) : 1,
		slash ? argv[0] : ".");
	if (!realpath(folder, build)) return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
