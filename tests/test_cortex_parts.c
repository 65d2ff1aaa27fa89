/* test_cortex_parts.c - the Cortex decoder without a device: geometry and configuration files,
 * first values, what events are refused, masking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "models/decoder/mask.h"
#include "tests/cortex_make.h"

#define OK(call)                                                                                   \
	do {                                                                                           \
		cx_err err_ = {0}, *err = &err_;                                                           \
		cx_status st_ = (call);                                                                    \
		if (st_ != CX_OK) fail_msg("%s: %s", #call, err_.msg);                                     \
	} while (0)

/* ---- geometry ---- */

static void sizes(void **state)
{
	static const struct {
		cx_cortex_size size;
		uint64_t n_elems;
		size_t n_tensors;
		double gflop; /* spec/decoder.md 1.2, E = 512 */
	} want[] = {{CX_CORTEX_XS, 4828936, 61, 1.36}, {CX_CORTEX_S, 24800776, 77, 13.56},
		{CX_CORTEX_M, 83514632, 109, 68.41}};
	cx_cortex_config nano = cx_cortex_config_size(CX_CORTEX_NANO);
	cx_cortex_param p;
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		cx_cortex_config c = cx_cortex_config_size(want[i].size);
		OK(cx_cortex_config_check(&c, err));
		assert_int_equal(cx_cortex_n_elems(&c), want[i].n_elems);
		assert_int_equal(cx_cortex_n_params(&c), want[i].n_tensors);
		assert_true(fabs(cx_cortex_count_flops(&c, 512).total / 1e9 - want[i].gflop) < 0.005);
		assert_string_equal(cx_cortex_config_name(&c), cx_cortex_size_name(want[i].size));
	}
	assert_true(cx_cortex_n_elems(&nano) < 1000000);
	nano.norm = CX_CORTEX_RMSNORM;
	nano.use_masked_spike_head = false;
	assert_int_equal(cx_cortex_n_params(&nano), 21 + 8 * 3 - 4 - 2 * 3 - 2);
	cx_cortex_param_get(&nano, cx_cortex_n_params(&nano) - 1, &p);
	assert_string_equal(p.name, "behavior_head.norm.weight");
	for (size_t i = 0; i < cx_cortex_n_params(&nano); i++) { /* every index finds itself */
		long block = -1;
		const char *rest = p.name;
		cx_cortex_param_get(&nano, i, &p);
		if (strncmp(p.name, "encoder.self_attn_blocks.", 25) == 0) {
			char *end;
			block = strtol(p.name + 25, &end, 10);
			rest = end + 1;
		}
		assert_int_equal(cx__cortex_param_index(&nano, block, rest), i);
	}
}

static void refused_configs(void **state)
{
	cx_cortex_config base = cx_cortex_config_size(CX_CORTEX_XS);
	const struct {
		size_t at;
		int64_t value;
		const char *want;
	} cases[] = {{offsetof(cx_cortex_config, num_heads), 3, "num_heads 3 does not divide"},
		{offsetof(cx_cortex_config, head_dim), 32, "must equal hidden_dim"},
		{offsetof(cx_cortex_config, cross_attn_heads), 5, "cross_attn_heads 5 does not divide"},
		{offsetof(cx_cortex_config, latent_dim), 128, "latent_dim"},
		{offsetof(cx_cortex_config, max_neurons), 0, "max_neurons is 0"},
		{offsetof(cx_cortex_config, num_layers), 1 << 20, "num_layers"},
		{offsetof(cx_cortex_config, behavior_dim), -1, "behavior_dim is -1"}};
	cx_err err;
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cx_cortex_config c = base;
		memcpy((char *)&c + cases[i].at, &cases[i].value, sizeof(int64_t));
		err = (cx_err){0};
		assert_int_equal(cx_cortex_config_check(&c, &err), CX_ERR_ARGUMENT);
		if (!strstr(err.msg, cases[i].want)) fail_msg("'%s' for '%s'", err.msg, cases[i].want);
	}
	base.mlp_ratio = NAN;
	assert_int_equal(cx_cortex_config_check(&base, NULL), CX_ERR_ARGUMENT);
	base.mlp_ratio = 4;
	base.dropout = NAN;
	assert_int_equal(cx_cortex_config_check(&base, NULL), CX_ERR_ARGUMENT);
}

/* ---- configuration files ---- */

static cx_status parse(const char *text, cx_cortex_config *out, cx_err *err)
{
	const char *path = temp_path("model.conf");
	bytes b = {0};
	bytes_text(&b, text);
	bytes_save(&b, path);
	bytes_free(&b);
	*err = (cx_err){0};
	return cx_cortex_config_read(NULL, path, out, err);
}

static void conf_files(void **state)
{
	static const struct {
		const char *text, *want;
	} bad[] = {{"[model]\nsize = xs\nhiden_dim = 3\n", ":3: [model] has no key 'hiden_dim'"},
		{"[modle]\n", ":1: there is no section [modle]"},
		{"size = xs\n", ":1: key 'size' comes before"},
		{"[model]\n\nsize = xl\n", ":3: key 'size': 'xl' is none of: xs s m nano"},
		{"[model]\nnum_layers = 2.5\n", ":2: key 'num_layers': '2.5' is not a whole number"},
		{"[model]\nnum_layers = 300\n", "300 is not in 0..255"},
		{"[model]\ndropout = nan\n", "'nan' is not a number"},
		{"[model]\ndropout = 0x1p-2\n", "is not a number"},
		{"[model]\nuse_masked_spike_head = yes\n", "neither true nor false"},
		{"[model]\nnum_layers = 2\nnum_layers = 3\n", ":3: key 'num_layers' is in line 2 already"},
		{"[model]\nnum_layers\n", ":2: neither [section] nor key = value"},
		{"[model\n", ":1: ']' is missing"}, {"[model] x\n", ":1: text behind ']'"},
		{"[model]\nsize = \"xs\n", ":2: a quote is not closed"},
		{"[model]\nsize = \"xs\" s\n", ":2: text behind the closing quote"},
		{"[model]\nhead_dim = 32\n", "must equal hidden_dim"}};
	cx_cortex_config c, want = cx_cortex_config_size(CX_CORTEX_S);
	cx_cortex_conf conf = {0}, again = {0};
	cx_conf_section s = cx_cortex_conf_section(&conf), t = cx_cortex_conf_section(&again);
	cx_err err;
	char *text;
	size_t n;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_not_equal(parse(bad[i].text, &c, &err), CX_OK);
		if (!strstr(err.msg, bad[i].want)) fail_msg("'%s' for '%s'", err.msg, bad[i].want);
	}
	if (parse("# a comment\r\n[train]\nanything = 3 = 4\n[model]\n size=s # small\n\tnum_layers = "
			  "\"3\"\ndropout = 1e-1\nnorm = rmsnorm",
			&c, &err) != CX_OK)
		fail_msg("%s", err.msg);
	want.num_layers = 3;
	want.dropout = 0.1;
	want.norm = CX_CORTEX_RMSNORM;
	assert_memory_equal(&c, &want, sizeof c);
	cx_conf_defaults(&s, 1);
	cx_conf_defaults(&t, 1);
	OK(cx_conf_set(&s, 1, "model.size=m", err));
	OK(cx_conf_set(&s, 1, "dropout=0.07", err));
	OK(cx_conf_set(&s, 1, "use_masked_spike_head=false", err));
	assert_int_equal(cx_conf_set(&s, 1, "train.size=m", NULL), CX_ERR_ARGUMENT);
	assert_int_equal(cx_conf_set(&s, 1, "size", NULL), CX_ERR_ARGUMENT);
	OK(cx_conf_print(&s, 1, NULL, &text, &n, err));
	for (size_t i = 0; i < cx_cortex_conf_n_keys; i++) { /* each documented, with its default */
		char head[200];
		snprintf(head, sizeof head, "# %s", cx_cortex_conf_keys[i].doc);
		assert_non_null(strstr(text, head));
	}
	{
		bytes b = {0};
		bytes_put(&b, text, n);
		bytes_save(&b, temp_path("printed.conf"));
		bytes_free(&b);
	}
	OK(cx_conf_read(NULL, temp_path("printed.conf"), &t, 1, err));
	assert_memory_equal(&conf, &again, sizeof conf);
	cx_free(NULL, text, n + 1);
}

/* ---- first values ---- */

static void first_values(void **state)
{
	cx_cortex_config c = cx_cortex_config_size(CX_CORTEX_XS);
	(void)state;
	for (size_t i = 0; i < cx_cortex_n_params(&c); i++) {
		cx_cortex_param p;
		double sum = 0, square = 0, top = 0, n, sd = 0;
		float *v, *w, *x;
		cx_cortex_param_get(&c, i, &p);
		n = (double)cx_cortex_param_elems(&p);
		v = malloc((size_t)n * 4);
		w = malloc((size_t)n * 4);
		x = malloc((size_t)n * 4);
		cx_cortex_param_init(&p, 7, v);
		cx_cortex_param_init(&p, 7, w);
		cx_cortex_param_init(&p, 8, x);
		assert_memory_equal(v, w, (size_t)n * 4);
		for (size_t k = 0; k < (size_t)n; k++) {
			sum += v[k];
			square += (double)v[k] * v[k];
			top = fmax(top, fabs(v[k]));
		}
		if (p.init == CX_CORTEX_NORMAL) sd = 0.02;
		if (p.init == CX_CORTEX_UNIFORM) {
			sd = 1 / sqrt(3.0 * (double)p.fan_in);
			assert_true(top <= 1 / sqrt((double)p.fan_in));
		}
		if (sd > 0) { /* four standard errors */
			assert_true(fabs(sum / n) < 4 * sd / sqrt(n));
			assert_true(fabs(sqrt(square / n) / sd - 1) < 4 / sqrt(n));
			assert_true(memcmp(v, x, (size_t)n * 4) != 0);
		} else {
			assert_true(square == (p.init == CX_CORTEX_ONES ? n : 0));
		}
		free(v);
		free(w);
		free(x);
	}
}

/* ---- input ---- */

static void refused_events(void **state)
{
	cx_cortex_config c = cx_cortex_config_size(CX_CORTEX_NANO);
	static const struct {
		int at, value; /* of off, neuron, time, value one after another */
		const char *want;
	} bad[] = {{0, 1, "begins at 1"}, {2, 1, "window 1 ends at 1, must be in 2..3"},
		{3, 4, "window 2 ends at 4, must be in 2..3"},
		{5, -1, "window 0, event 1: neuron is -1, must be in 0..255"},
		{6, 256, "window 2, event 0: neuron is 256"},
		{7, 128, "window 0, event 0: time is 128, must be in 0..127"},
		{12, 8, "window 2, event 0: value is 8, must be in 0..7"}};
	int32_t v[13] = {0, 2, 2, 3, 255, 0, 9, 127, 0, 3, 7, 0, 1};
	(void)state;
	OK(cx_cortex_check_events(&c, v, 3, v + 4, v + 7, v + 10, 3, err));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		int32_t was = v[bad[i].at];
		cx_err err = {0};
		v[bad[i].at] = bad[i].value;
		assert_int_equal(
			cx_cortex_check_events(&c, v, 3, v + 4, v + 7, v + 10, 3, &err), CX_ERR_ARGUMENT);
		if (!strstr(err.msg, bad[i].want)) fail_msg("'%s' for '%s'", err.msg, bad[i].want);
		v[bad[i].at] = was;
	}
}

/* ---- masking ---- */

enum { MASK_WINDOWS = 40, MASK_EVENTS = 50, MASK_ALL = MASK_WINDOWS * MASK_EVENTS };
typedef struct masked {
	int32_t off[MASK_WINDOWS + 1], neuron[MASK_ALL], time[MASK_ALL], value[MASK_ALL];
	int32_t q_off[MASK_WINDOWS + 1], q_neuron[3 * MASK_ALL], q_time[3 * MASK_ALL],
		q_target[3 * MASK_ALL];
} masked;

/* Window w: the cells (i * 7 + w) % 400 of 20 neurons and 20 bins. Windows [from, to). */
static void mask_windows(masked *m, const cx_mask_opts *o, int from, int to)
{
	uint64_t id[MASK_WINDOWS];
	cx_mask_batch b = {.n_windows = (uint32_t)(to - from),
		.off = m->off,
		.neuron = m->neuron,
		.time = m->time,
		.value = m->value,
		.id = id};
	cx_mask_queries q = {3 * MASK_ALL, m->q_off, m->q_neuron, m->q_time, m->q_target};
	int n = 0;
	memset(m, 0, sizeof *m);
	for (int w = from; w < to; w++) {
		id[w - from] = (uint64_t)w;
		for (int i = 0; i < MASK_EVENTS; i++, n++) {
			m->neuron[n] = (i * 7 + w) % 400 / 20;
			m->time[n] = (i * 7 + w) % 400 % 20;
			m->value[n] = 1 + i % 7;
		}
		m->off[w - from + 1] = n;
	}
	OK(cx_mask_apply(o, &b, &q, err));
}

static void masking(void **state)
{
	cx_mask_opts o = cx_mask_default();
	masked *m = malloc(sizeof *m), *part = malloc(sizeof *part);
	int dropped = 0, silent = 0;
	cx_mask_batch none = {.n_windows = 0, .off = m->off};
	cx_mask_queries q = {0, m->q_off, m->q_neuron, m->q_time, m->q_target};
	(void)state;
	o.n_time = o.n_neurons = 20;
	o.silent = 1.5;
	o.seed = 3;
	mask_windows(m, &o, 0, MASK_WINDOWS);
	for (int w = 0; w < MASK_WINDOWS; w++) {
		int kept = m->off[w + 1] - m->off[w], gone = 0;
		for (int i = m->q_off[w]; i < m->q_off[w + 1]; i++) {
			int cell = m->q_neuron[i] * 20 + m->q_time[i], at = -1;
			for (int e = 0; e < MASK_EVENTS; e++)
				if ((e * 7 + w) % 400 == cell) at = e;
			assert_int_equal(m->q_target[i], at < 0 ? 0 : 1 + at % 7);
			gone += at >= 0;
			silent += at < 0;
			for (int e = m->off[w]; e < m->off[w + 1]; e++) /* not in the input any more */
				assert_false(m->neuron[e] * 20 + m->time[e] == cell);
		}
		assert_int_equal(kept + gone, MASK_EVENTS);
		dropped += gone;
	}
	print_message("# %d of %d events dropped, %d silent cells\n", dropped, MASK_ALL, silent);
	assert_true(abs(dropped - (int)(0.15 * MASK_ALL)) < 4 * 16); /* four standard deviations */
	assert_true(silent <= dropped * 1.5 && silent > dropped * 1.5 - MASK_WINDOWS);
	mask_windows(part, &o, 10, 20); /* a window's draw does not depend on its batch */
	assert_int_equal(part->off[10], m->off[20] - m->off[10]);
	assert_memory_equal(part->neuron, m->neuron + m->off[10], 4 * (size_t)part->off[10]);
	assert_int_equal(part->q_off[10], m->q_off[20] - m->q_off[10]);
	assert_memory_equal(part->q_target, m->q_target + m->q_off[10], 4 * (size_t)part->q_off[10]);
	o.fraction = 0;
	mask_windows(part, &o, 0, 5);
	assert_int_equal(part->off[5], 5 * MASK_EVENTS);
	assert_int_equal(part->q_off[5], 0);
	o.fraction = 1;
	mask_windows(part, &o, 0, 5);
	assert_true(part->off[5] <= 1); /* 2^32 - 1 of 2^32 draws drop */
	o.fraction = NAN;
	assert_int_equal(cx_mask_apply(&o, &none, &q, NULL), CX_ERR_ARGUMENT);
	o.fraction = 0.5;
	none.n_windows = 5;
	mask_windows(m, &o, 0, 5);
	assert_int_equal(cx_mask_apply(&o, &none, &q, NULL), CX_ERR_ARGUMENT); /* no room */
	free(m);
	free(part);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(refused_configs),
		cmocka_unit_test(conf_files), cmocka_unit_test(first_values),
		cmocka_unit_test(refused_events), cmocka_unit_test(masking)};
	return cmocka_run_group_tests_name("cortex parts", tests, NULL, NULL);
}
