/* test_docs.c - the pages under docs/ that can be wrong: OPS.md is what `make docs` writes, the
 * example of GRAPH_TEXT.md parses and prints as it stands. Runs in the folder that holds docs/. */
#define CX_GEN_OPS_NO_MAIN
#include "docs/gen_ops.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ops_page_is_current), cmocka_unit_test(text_example_is_true)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
