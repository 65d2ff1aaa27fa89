/* test_shapes.c - the shape rule of every op: calls that must be taken, with what they give, and
 * calls that must be refused, with what the message must say. Written in the text form. An op
 * without a row here fails. */
#include "graph/graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char leaves[] = "cortex-graph 1\n"
							 "%0 = input \"x\" : f32[4,6]\n"
							 "%1 = input \"y\" : f32[3,5]\n"
							 "%2 = input \"i\" : i32[4]\n"
							 "%3 = input \"b\" : bool[4,6]\n"
							 "%4 = input \"s\" : f32[]\n"
							 "%5 = input \"t\" : f32[2,4,3,6]\n"
							 "%6 = input \"q\" : f32[4,2,6]\n"
							 "%7 = input \"k\" : f32[5,1,6]\n"
							 "%8 = weight \"wq\" : q8_0[8,64]\n"
							 "%9 = input \"h\" : f16[4,6]\n"
							 "%10 = input \"off\" : i32[3]\n"
							 "%11 = state \"conv\" : f32[2,3,6]\n"
							 "%12 = input \"taps\" : f32[6,4]\n"
							 "%13 = input \"one\" : f32[1]\n"
							 "%14 = input \"z\" : f32[0,6]\n"
							 "%15 = input \"n\" : f32[2,4,6]\n"
							 "%16 = input \"h0\" : f32[2,6]\n"
							 "%17 = input \"r\" : bool[2,4]\n"
							 "%18 = state \"cache\" : f32[9,2,6]\n"
							 "%19 = state \"delta\" : f32[2,2,6,6]\n"
							 "%20 = input \"table\" : i32[2,3]\n"
							 "%21 = input \"len\" : i32[2]\n"
							 "%22 = input \"g\" : f32[4,2]\n"
							 "%23 = input \"p\" : f32[6]\n"
							 "%24 = input \"x64\" : f32[4,64]\n"
							 "%25 = weight \"w8\" : i8c[8,64]\n";
enum { FIRST = 26 };

/* gives: types of the outputs, or "! words of the message". */
typedef struct shape_case {
	const char *op, *call, *gives;
} shape_case;

static const shape_case cases[] = {
	/* views */
	{"reshape", "(%0) {dims=[-1,8]}", "f32[3,8]"},
	{"reshape", "(%4) {dims=[1,1]}", "f32[1,1]"},
	{"reshape", "(%14) {dims=[6,0]}", "f32[6,0]"},
	{"reshape", "(%4)", "f32[]"},
	{"reshape", "(%0) {dims=[5,5]}", "! 24 elements, dims ask for 25"},
	{"reshape", "(%0) {dims=[-1,5]}", "! do not divide"},
	{"reshape", "(%0) {dims=[-1,-1]}", "! dims[1] is -1"},
	{"reshape", "(%14) {dims=[-1,0]}", "! -1"},
	{"reshape", "(%8) {dims=[2,4,64]}", "q8_0[2,4,64]"},
	{"reshape", "(%8) {dims=[4,128]}", "! rows of a block format"},
	{"reshape", "(%25) {dims=[2,4,64]}", "! i8c has no views"},
	{"reshape", "(%0) {dims=[9223372036854775807,4]}", "! out of range"},
	{"reshape", "(%14) {dims=[2147483647,2147483647,2147483647,0]}", "! too many"},
	{"permute", "(%5) {perm=[3,-4,1,2]}", "f32[6,2,4,3]"},
	{"permute", "(%0) {perm=[0]}", "! perm has 1 entries"},
	{"permute", "(%0) {perm=[0,0]}", "! axis 0 twice"},
	{"permute", "(%0) {perm=[0,2]}", "! axis is 2"},
	{"permute", "(%8) {perm=[1,0]}", "! stays last"},
	{"slice", "(%0) {begin=[1,0], size=[2,3], step=[2,2]}", "f32[2,3]"},
	{"slice", "(%0) {begin=[4,0], size=[0,6]}", "f32[0,6]"},
	{"slice", "(%0) {begin=[1,0], size=[4,6]}", "! axis 0 of [4,6]"},
	{"slice", "(%0) {begin=[0,0], size=[2,2], step=[0,1]}", "! step 0"},
	{"slice", "(%0) {begin=[0,0], size=[2,2], step=[1,9223372036854775807]}", "! axis 1"},
	{"slice", "(%0) {begin=[0], size=[2,2]}", "! begin has 1"},
	{"slice", "(%8) {begin=[2,0], size=[3,64]}", "q8_0[3,64]"},
	{"slice", "(%8) {begin=[0,32], size=[8,32]}", "! not sliced"},
	{"broadcast", "(%23) {dims=[3,4,6]}", "f32[3,4,6]"},
	{"broadcast", "(%13) {dims=[0]}", "f32[0]"},
	{"broadcast", "(%0) {dims=[4,7]}", "! x is [4,6], dims ask for [4,7]"},
	{"broadcast", "(%0) {dims=[6]}", "! rank 1"},
	{"broadcast", "(%4) {dims=[2147483647,2147483647,2147483647]}", "! too many"},
	/* elementwise */
	{"not", "(%3)", "bool[4,6]"},
	{"not", "(%0)", "! must be bool"},
	{"clamp", "(%2) {lo=1, hi=3}", "i32[4]"},
	{"clamp", "(%3)", "! bool, not a float or integer"},
	{"cast", "(%0) {dtype=i8}", "i8[4,6]"},
	{"cast", "(%8) {dtype=f16}", "f16[8,64]"},
	{"cast", "(%0) {dtype=q4_0}", "! plain types"},
	{"cast", "(%8) {dtype=i32}", "! from q8_0 to i32"},
	{"and", "(%3, %3)", "bool[4,6]"},
	{"and", "(%3, %0)", "! operand 1 (b) is f32"},
	{"or", "(%3, %17)", "! do not broadcast"},
	{"or", "(%3, %3)", "bool[4,6]"},
	{"xor", "(%3, %3)", "bool[4,6]"},
	{"xor", "(%0, %3)", "! operand 0 (a)"},
	{"where", "(%3, %0, %4)", "f32[4,6]"},
	{"where", "(%0, %0, %0)", "! operand 0 (c) is f32"},
	{"where", "(%3, %0, %9)", "! a is f32, b is f16"},
	/* reductions and rows */
	{"sum", "(%5) {axes=[0,2]}", "f32[4,6]"},
	{"sum", "(%5) {axes=[-1,0,1,2], keep=true}", "f32[1,1,1,1]"},
	{"sum", "(%2)", "i32[]"},
	{"sum", "(%5) {axes=[1,-3]}", "! axis 1 is listed twice"},
	{"sum", "(%5) {axes=[4]}", "! axis is 4, but the rank is 4"},
	{"sum", "(%3)", "! bool"},
	{"mean", "(%0)", "f32[]"},
	{"mean", "(%2)", "! i32, not a float"},
	{"amax", "(%2)", "i32[]"},
	{"amax", "(%8)", "! q8_0"},
	{"amin", "(%14) {axes=[0]}", "f32[6]"},
	{"amin", "(%0) {axes=[-3]}", "! -3"},
	{"argmax", "(%5) {axis=1}", "i32[2,3,6]"},
	{"argmax", "(%0) {keep=true}", "i32[4,1]"},
	{"argmax", "(%14) {axis=0}", "! is empty"},
	{"argmax", "(%4)", "! rank is 0"},
	{"cumsum", "(%2)", "i32[4]"},
	{"cumsum", "(%0) {axis=2}", "! axis is 2"},
	{"softmax", "(%9) {axis=0}", "f16[4,6]"},
	{"softmax", "(%2)", "! i32"},
	{"softmax", "(%4)", "! rank is 0"},
	{"log_softmax", "(%0)", "f32[4,6]"},
	{"log_softmax", "(%0) {axis=-3}", "! axis is -3"},
	{"topk", "(%0) {k=2}", "f32[4,2], i32[4,2]"},
	{"topk", "(%0) {k=7}", "! k is 7, but axis 1 has 6"},
	{"topk", "(%0) {k=0}", "! k is 0"},
	{"layernorm", "(%0, _, %23)", "f32[4,6]"},
	{"layernorm", "(%9, %23, %23)", "f16[4,6]"},
	{"layernorm", "(%0, %13)", "! (w) is [1], must be [6]"},
	{"rmsnorm", "(%0, %23)", "f32[4,6]"},
	{"rmsnorm", "(%4)", "! rank 1 or more"},
	{"l2norm", "(%0)", "f32[4,6]"},
	{"l2norm", "(%2)", "! i32"},
	{"groupnorm", "(%0, %23, %23) {groups=3}", "f32[4,6]"},
	{"groupnorm", "(%0) {groups=4}", "! groups is 4"},
	{"groupnorm", "(%0) {groups=0}", "! 0"},
	/* products */
	{"matmul", "(%0, %12)", "f32[4,4]"},
	{"matmul", "(%5, %15) {trans_b=true}", "! do not broadcast"},
	{"matmul", "(%0, %0) {trans_a=true}", "f32[6,6]"},
	{"matmul", "(%0, %0)", "! a [4,6] has k=6, b [4,6] has k=4"},
	{"matmul", "(%24, %8) {trans_b=true}", "f32[4,8]"},
	{"matmul", "(%24, %25) {trans_b=true}", "f32[4,8]"},
	{"matmul", "(%24, %8)", "! with trans_b"},
	{"matmul", "(%8, %24)", "! operand 0 (a) is q8_0"},
	{"matmul", "(%0, %23)", "! rank 2 or more"},
	{"rope", "(%6, %2) {n_rot=4}", "f32[4,2,6]"},
	{"rope", "(%6, %2) {n_rot=5}", "! rotated width is 5"},
	{"rope", "(%6, %2) {n_rot=8}", "! 8"},
	{"rope", "(%6, %10)", "! operand 1 (pos) is [3], must be [4]"},
	{"rope", "(%6, %2, _, %1, %1)", "! must be [3,3]"},
	{"rope", "(%6, %2, %13, %0, %0) {n_rot=2}", "! exclude each other"},
	{"rope", "(%6, %2, _, %1)", "! (cos)"},
	{"attention", "(%6, %7, %7)", "f32[4,2,6]"},
	{"attention", "(%5, %5, %5, _, _, _, %4)", "f32[2,4,3,6]"},
	{"attention", "(%6, %7, %7, %10, %10)", "f32[4,2,6]"},
	{"attention", "(%6, %7, %7, %10)", "! come together"},
	{"attention", "(%7, %6, %6)", "! 1 query heads are no multiple of 2"},
	{"attention", "(%5, %5, %5, %10, %10)", "! ragged"},
	{"attention", "(%6, %7, %6)", "! k is [5,1,6], v is [4,2,6]"},
	{"attention", "(%6, %7, %7, _, _, %3)", "! mask [4,6] does not broadcast"},
	{"attention", "(%6, %7, %7) {window=-1}", "! window is -1"},
	{"attention", "(%6, %15, %15)", "! 2 query heads"},
	{"paged_attention", "(%6, %18, %18, %20, %10, %21)", "f32[4,2,6]"},
	{"paged_attention", "(%6, %18, %18, %20, %21, %21)", "! (q_off) is [2], must be [3]"},
	{"paged_attention", "(%6, %18, %18, %20, %10, %21) {page=0}", "! page is 0"},
	{"paged_attention", "(%6, %7, %7, %20, %10, %10)", "! (kv_len)"},
	/* moving data */
	{"copy", "(%3)", "bool[4,6]"},
	{"copy", "(%8)", "! q8_0"},
	{"barrier", "(%3, %0)", "bool[4,6]"},
	{"barrier", "(%8, %0)", "! q8_0"},
	{"gather", "(%5, %20) {axis=1}", "f32[2,2,3,3,6]"},
	{"gather", "(%8, %2) {axis=0}", "f32[4,64]"},
	{"gather", "(%8, %2)", "! axis 0"},
	{"gather", "(%0, %0)", "! (idx) is f32, must be i32"},
	{"gather", "(%4, %2)", "! rank 1"},
	{"scatter", "(%0, %2, %0)", "f32[4,6]"},
	{"scatter", "(%0, %10, %0)", "! (src) is [4,6], must be [3,6]"},
	{"scatter", "(%0, %20, %0)", "! rank 1"},
	{"scatter", "(%3, %2, %3) {add=true}", "! bool"},
	{"scatter", "(%0, %2, %9)", "! f16, must be f32"},
	{"assign", "(%18, %18)", "f32[9,2,6]"},
	{"assign", "(%0, %9)", "! f16, must be f32"},
	{"assign", "(%0, %1)", "! [3,5], must be [4,6]"},
	{"concat", "(%0, %0, %0) {axis=0}", "f32[12,6]"},
	{"concat", "(%0, %1)", "! [3,5], must be [4,5]"},
	{"concat", "(%0, %23)", "! rank 2"},
	{"concat", "()", "! 0 operands"},
	{"pad", "(%0) {before=[1,0], after=[0,2], value=1}", "f32[5,8]"},
	{"pad", "(%0) {before=[-1,0], after=[0,0]}", "! before -1"},
	{"pad", "(%0) {before=[1], after=[0,2]}", "! before has 1"},
	{"pad", "(%0) {before=[2147483647,0], after=[0,0]}", "! too large"},
	{"embed_sum", "(%0, %2, %12, %2)", "! [6,4], must be [6,6]"},
	{"embed_sum", "(%0, %2, %16, %2)", "f32[4,6]"},
	{"embed_sum", "(%0, %2, %0)", "! 3 operands"},
	/* sequences */
	{"conv1d", "(%0, %12, _, %11)", "f32[4,6], f32[2,3,6]"},
	{"conv1d", "(%0, %12, %23, %11, %10, %21)", "f32[4,6], f32[2,3,6]"},
	{"conv1d", "(%0, %12, _, %18)", "! (state) is [9,2,6], must be [9,3,6]"},
	{"conv1d", "(%0, %12, _, %11, %2)", "! 3 sequences, but 2 rows"},
	{"conv1d", "(%0, %12, %13, %11)", "! (bias)"},
	{"conv1d", "(%0, %12, _, %11, %10, %10)", "! (slot) is [3], must be [2]"},
	{"delta_rule", "(%6, %6, %6, %22, %22, %19)", "f32[4,2,6], f32[2,2,6,6]"},
	{"delta_rule", "(%6, %6, %6, %22, %22, %19, %10)", "f32[4,2,6], f32[2,2,6,6]"},
	{"delta_rule", "(%6, %6, %6, %22, %0, %19)", "! (beta)"},
	{"delta_rule", "(%6, %6, %6, %22, %22, %5)", "! (state)"},
	{"delta_rule", "(%6, %6, %6, %22, %22, %19) {chunk=-1}", "! chunk is -1"},
	/* backward ops */
	{"norm_grad", "(%0, %0, %23)", "f32[4,6], f32[6]"},
	{"norm_grad", "(%0, %0) {layer=true}", "f32[4,6], f32[6], f32[6]"},
	{"norm_grad", "(%0, %15)", "! (dy) is [2,4,6], must be [4,6]"},
	{"attention_grad", "(%6, %7, %7, %6, %6)", "f32[4,2,6], f32[5,1,6], f32[5,1,6]"},
	{"attention_grad", "(%5, %5, %5, %5, %5) {dbias=true}",
		"f32[2,4,3,6], f32[2,4,3,6], f32[2,4,3,6], f32[2,3,4,4]"},
	{"attention_grad", "(%6, %7, %7, %6, %7)", "! (dy) is [5,1,6], must be [4,2,6]"},
	{"conv1d_grad", "(%0, %12, %11, %0)", "f32[4,6], f32[6,4], f32[6], f32[2,3,6]"},
	{"conv1d_grad", "(%0, %12, %11, %14)", "! (dy) is [0,6], must be [4,6]"},
	{"delta_grad", "(%6, %6, %6, %22, %22, %19, %6)",
		"f32[2,4,2,6], f32[4,2,6], f32[2,4,2], f32[2,2,6,6]"},
	{"delta_grad", "(%6, %6, %6, %22, %22, %19, %7)", "! (dy) is [5,1,6], must be [4,2,6]"},
	{"scan", "(%15, %15, %16, %17)", "f32[2,4,6], f32[2,6]"},
	{"scan", "(%15, %15, %0)", "! (h0) is [4,6], must be [2,6]"},
	{"scan", "(%0, %0, %0)", "! rank 3"},
	{"cscan", "(%15, %15, %15, %15, %16, %16)", "f32[2,4,6], f32[2,4,6], f32[2,6], f32[2,6]"},
	{"cscan", "(%15, %15, %15, %15, %16, %16, %3)", "! (reset)"},
	/* losses, updates, generators */
	{"cross_entropy", "(%0, %2)", "f32[]"},
	{"cross_entropy", "(%0, %2) {reduction=0}", "f32[4]"},
	{"cross_entropy", "(%0, %10)", "! (target)"},
	{"mse", "(%0, %0) {reduction=0}", "f32[4,6]"},
	{"mse", "(%0, %0)", "f32[]"},
	{"mse", "(%0, %23)", "! (y)"},
	{"mse", "(%0, %0) {reduction=3}", "! reduction is 3"},
	{"poisson_nll", "(%0, %0) {rate=true}", "f32[]"},
	{"poisson_nll", "(%0, %9)", "! f16"},
	{"adamw", "(%0, %0, %0, %0, %13, %13)", "f32[4,6], f32[4,6], f32[4,6]"},
	{"adamw", "(%0, %0, %0, %0, %4, %13)", "! (lr) is [], must be [1]"},
	{"adamw", "(%9, %9, %9, %9, %13, %13)", "! (m) is f16"},
	{"random", "(%2) {dims=[3,0], kind=2}", "i32[3,0]"},
	{"random", "(%10)", "! (key)"},
	{"random", "(%2) {kind=3}", "! kind is 3"},
	{"iota", "() {dims=[2,3], axis=-1, dtype=f16}", "f16[2,3]"},
	{"iota", "()", "i32[]"},
	{"iota", "() {dims=[2], dtype=bool}", "! bool"},
	{"iota", "() {dims=[2], axis=1}", "! axis is 1"},
	/* fused */
	{"linear", "(%24, %8, %25) {n_w=2, act=silu, glu=true}", "f32[4,8]"},
	{"linear", "(%24, %8, %25, _, _) {n_w=2, bias=true}", "f32[4,8], f32[4,8]"},
	{"linear", "(%24, %8) {n_w=2}", "! 2 operands, the attributes ask for 3"},
	{"linear", "(%24, %8) {act=add}", "! act is add"},
	{"linear", "(%24, %8) {act=softmax}", "! act is softmax"},
	{"linear", "(%0, %8)", "! must be [8,6]"},
	{"linear", "(%24, %8) {n_w=4}", "! n_w is 4"},
	{"linear", "(%24, _)", "! missing"},
	{"linear", "(%24, %8) {norm=1, norm_in=2}", "! norm is 1 with 2"},
	{"rope_kv", "(%6, %6, %2, %2, %18, %18)", "! same version"},
	{"rope_kv", "(%6, %6, %2, %2, %6, %6)", "f32[4,2,6], f32[4,2,6]"},
	{"rope_kv", "(%6, %6, %2, %10, %18, %6)", "! (slot)"},
	{"add_norm", "(%0, %0, %23) {norm=1, norm_in=1}", "f32[4,6], f32[4,6]"},
	{"add_norm", "(%0, %0)", "! norm is 0"},
	{"add_norm", "(%0, %23) {norm=1}", "! (b)"},
	{"map", "(%0, %23) {prog=\"r2=add r0 r1;out r2:f32 r2:bf16\", reduce=3}", "f32[4], bf16[4]"},
	{"map", "(%0, %23) {prog=\"r2=add r0 r1;out r2:f32\", reduce=5}", "! reduce is 5"},
	{"map", "(%4) {prog=\"out r0:f32\", reduce=1}", "! no last axis"},
	{"map", "(%0, %1) {prog=\"out r0:f32\"}", "! do not broadcast"},
};

static bool n_good[CX_OP_COUNT], n_bad[CX_OP_COUNT];

static void run_case(const char *op, const char *call, const char *gives)
{
	bool bad = gives[0] == '!';
	char text[4096];
	cx_graph *g;
	cx_err e = {0};
	cx_op id;
	int n = snprintf(text, sizeof text, "%s%%%d = %s%s : %s\noutput \"out\" %%0\n", leaves, FIRST,
		op, call, bad ? "f32[]" : gives);
	cx_status st = cx_graph_parse(text, (size_t)n, NULL, &g, &e);
	assert_true(cx__op_by_name(op, strlen(op), &id));
	cx_graph_free(g);
	if (!bad) {
		n_good[id] = true;
		if (st != CX_OK) fail_msg("%s%s: %s", op, call, e.msg);
		return;
	}
	n_bad[id] = true;
	if (st == CX_OK || !strstr(e.msg, gives + 2))
		fail_msg("%s%s gives: %s\n\twanted: %s", op, call, e.msg, gives + 2);
	if (!strstr(e.msg, op)) fail_msg("the op is not named in: %s", e.msg);
	assert_true(st == CX_ERR_SHAPE || st == CX_ERR_ARGUMENT);
}

static void every_row(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		run_case(cases[i].op, cases[i].call, cases[i].gives);
}

/* Elementwise ops by what scalar.def says of them. */
static void elementwise(void **state)
{
	static const char *const no_int[] = {"exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh", "erf",
		"sigmoid", "silu", "gelu", "gelu_tanh", "softplus", "pow"};
	(void)state;
	for (int op = 0; op < CX_OP_COUNT; op++) {
		const cx_op_info *info = &cx__ops[op];
		bool unary = info->n_max == 1 && info->kind == CX_KIND_MAP && op != CX_OP_not &&
					 op != CX_OP_cast && op != CX_OP_clamp;
		bool binary = info->n_max == 2 && info->kind == CX_KIND_MAP && op != CX_OP_and &&
					  op != CX_OP_or && op != CX_OP_xor;
		bool compare = op >= CX_OP_eq && op <= CX_OP_ge, ints = true;
		for (size_t i = 0; i < sizeof no_int / sizeof no_int[0]; i++)
			ints &= strcmp(info->name, no_int[i]) != 0;
		if (unary) {
			run_case(info->name, "(%9)", "f16[4,6]");
			run_case(info->name, "(%2)", ints ? "i32[4]" : "! i32, not a float");
			run_case(info->name, "(%3)", "! bool");
			run_case(info->name, "(%8)", "! q8_0");
		}
		if (binary) {
			run_case(info->name, "(%0, %23)", compare ? "bool[4,6]" : "f32[4,6]");
			run_case(info->name, "(%4, %14)", compare ? "bool[0,6]" : "f32[0,6]");
			run_case(info->name, "(%2, %2)",
				compare ? "bool[4]"
				: ints  ? "i32[4]"
						: "! i32, not a float");
			run_case(info->name, "(%3, %3)", compare ? "bool[4,6]" : "! bool");
			run_case(info->name, "(%0, %9)", "! a is f32, b is f16: cast");
			run_case(info->name, "(%0, %1)", "! a and b do not broadcast: [4,6] and [3,5]");
			run_case(info->name, "(%14, %0)", "! [0,6] and [4,6]");
		}
	}
}

static void no_op_is_left_out(void **state)
{
	(void)state;
	for (int op = 0; op < CX_OP_COUNT; op++) {
		cx_kind kind = cx__ops[op].kind;
		if (kind == CX_KIND_LEAF || kind == CX_KIND_META) continue; /* test_graph.c */
		if (!n_good[op] || !n_bad[op]) fail_msg("%s has no good or no bad case", cx__ops[op].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(every_row), cmocka_unit_test(elementwise),
		cmocka_unit_test(no_op_is_left_out)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
