/* fuzz_graph.c - libFuzzer on the text form of graphs: whatever is accepted passes the check and
 * prints to a text that parses to the same text. The first bytes of an input that does not begin
 * with the head line are taken as its body, so that the fuzzer need not find the head. */
#include "graph/graph.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char head[] = "cortex-graph 1\n";
	char *text, *first, *second;
	size_t n = size, n_first, n_second;
	cx_graph *g, *back;
	bool whole = size >= sizeof head - 2 && memcmp(data, head, sizeof head - 2) == 0;
	if (!whole) n += sizeof head - 1;
	text = malloc(n ? n : 1); /* exact size: a read past the end is seen */
	if (!text) return 0;
	if (!whole) memcpy(text, head, sizeof head - 1);
	memcpy(text + (n - size), data, size);
	if (cx_graph_parse(text, n, NULL, &g, NULL) == CX_OK) {
		require(cx__graph_check(g, NULL) == CX_OK);
		require(cx_graph_print(g, NULL, &first, &n_first, NULL) == CX_OK);
		require(cx_graph_parse(first, n_first, NULL, &back, NULL) == CX_OK);
		require(cx_graph_print(back, NULL, &second, &n_second, NULL) == CX_OK);
		require(n_first == n_second && memcmp(first, second, n_first) == 0);
		cx_free(NULL, first, n_first + 1);
		cx_free(NULL, second, n_second + 1);
		cx_graph_free(back);
	}
	cx_graph_free(g);
	free(text);
	return 0;
}
