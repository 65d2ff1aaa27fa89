/* gen_ops.c - writes docs/OPS.md from graph/ops.def and graph/attrs.def: `make docs`.
 * tests/test_docs.c includes this file to see that the committed page is current. */
#include "graph/attr.h"

#include <stdio.h>
#include <string.h>

static const struct {
	cx_kind kind;
	const char *title;
} parts[] = {
	{CX_KIND_LEAF, "Leaves"},
	{CX_KIND_VIEW, "Views"},
	{CX_KIND_MAP, "Elementwise, and updates"},
	{CX_KIND_ROW, "Reductions and row ops"},
	{CX_KIND_TILE, "Products"},
	{CX_KIND_ATTN, "Attention"},
	{CX_KIND_MOVE, "Moving data"},
	{CX_KIND_SCAN, "Sequences"},
	{CX_KIND_LOSS, "Losses"},
	{CX_KIND_GEN, "Generators"},
	{CX_KIND_FUSED, "Made by the planner"},
	{CX_KIND_META, "Outputs of nodes with several"},
};

/* A table cell: no bars, no bare markup. */
static void cell(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '|' || *s == '*' || *s == '_' || *s == '<') fputc('\\', f);
		fputc(*s, f);
	}
}

static void write_op(FILE *f, const cx_op_info *op)
{
	const cx_attr_info *attr = &cx__attrs[op->attr];
	char value[CX_FIELD_TEXT_MAX];
	fprintf(f, "| `%s` | ", op->name);
	cell(f, op->inputs);
	if (op->n_max == 255) fprintf(f, " (%d or more)", op->n_min);
	else if (op->n_min != op->n_max) fprintf(f, " (%d to %d)", op->n_min, op->n_max);
	fputs(" | ", f);
	for (uint16_t i = 0; i < attr->n_fields; i++) {
		cx__field_print(&attr->fields[i], attr->defaults, value, sizeof value);
		fprintf(f, "%s`%s=%s` ", i ? "<br>" : "", attr->fields[i].name, value);
		cell(f, attr->fields[i].doc);
	}
	fprintf(f, " | %s%d | ", op->n_out > 1 && (op->kind == CX_KIND_FUSED) ? "to " : "", op->n_out);
	if (op->tol.f32 == 0) fputs("same bits", f);
	else fprintf(f, "%g %g %g", op->tol.f32, op->tol.f16, op->tol.bf16);
	fprintf(f, " | %s | ", op->grad_name);
	cell(f, op->doc);
	for (int o = 0; o < op->n_out; o++)
		if (op->alias[o] >= 0) fprintf(f, "; output %d is operand %d, updated", o, op->alias[o]);
	fputs(" |\n", f);
}

static void write_dtypes(FILE *f)
{
	fputs("\n## Element types\n\n| name | elements | bytes | GGUF id | layout "
		  "|\n|---|---|---|---|---|\n",
		f);
	for (int i = 0; i < CX_DTYPE_COUNT; i++) {
		const cx_dtype_info *d = cx_dtype_get((cx_dtype)i);
		fprintf(f, "| `%s` | %d | %d | ", d->name, d->block_elems, d->block_bytes);
		if (d->gguf_id >= 0) fprintf(f, "%d", d->gguf_id);
		fputs(" | ", f);
		cell(f, d->doc);
		fputs(" |\n", f);
	}
}

static void write_ops(FILE *f)
{
	fputs("# Ops\n\nWritten by `make docs` from `graph/ops.def`; do not edit.\n\n"
		  "The constructor of op `softmax` is `cx_softmax(graph, operands..., &attributes or "
		  "NULL)`; in text it is\n"
		  "`softmax(%0) {scale=0.125}` (see GRAPH_TEXT.md). Operands past the least number may be "
		  "absent (`CX_NONE`, `_`).\n"
		  "Attributes are shown with their defaults. Tolerance: how near a backend must be to the "
		  "reference, as normalised\n"
		  "mean square error for f32, f16 and bf16 results. Gradient: the rule in graph/grad_*.c; "
		  "`zero`: 0 wherever\nit exists; `stop`: none, the meaning says why.\n",
		f);
	for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
		fprintf(f,
			"\n## %s\n\n| op | operands | attributes | outputs | tolerance | gradient | meaning "
			"|\n",
			parts[p].title);
		fputs("|---|---|---|---|---|---|---|\n", f);
		for (int i = 0; i < CX_OP_COUNT; i++)
			if (cx__ops[i].kind == parts[p].kind) write_op(f, &cx__ops[i]);
	}
	write_dtypes(f);
}

#ifndef CX_GEN_OPS_NO_MAIN
int main(void)
{
	write_ops(stdout);
	return ferror(stdout) != 0;
}
#endif
