/* config.c - reads and checks a model's geometry. See config.h. */
#include "models/llm/config.h"

#include <math.h>
#include <string.h>

static const struct family {
	const char *gguf, *hf;
	bool qkv_bias, qk_norm, gguf_pairs;
} families[] = {
#define CX_LLM(id, gguf, hf, qkv_bias, qk_norm, gguf_pairs, doc)                                   \
	{gguf, hf, qkv_bias, qk_norm, gguf_pairs},
#include "models/llm/models.def"
#undef CX_LLM
};

static const double two_pi = 6.283185307179586;

static double frequency(const cx_llm_config *c, int64_t j)
{
	return pow((double)c->rope_theta, -2.0 * (double)j / (double)c->n_rot);
}

void cx__llm_rope_divide(cx_llm_config *c, const float *divisors)
{
	for (int64_t j = 0; j < c->n_rot / 2; j++)
		c->rope_freqs[j] = (float)(frequency(c, j) / divisors[j]);
	c->rope_scaled = true;
}

static double llama3_frequency(double f, const cx_rope_scaling *s)
{
	double wave = two_pi / f, t;
	if (wave < s->original / s->high) return f;
	if (wave > s->original / s->low) return f / s->factor;
	t = (s->original / wave - s->low) / (s->high - s->low);
	return (1 - t) * f / s->factor + t * f;
}

/* The dim at which a wave turns n times within the original context. */
static double yarn_dim(const cx_llm_config *c, const cx_rope_scaling *s, double n)
{
	return (double)c->n_rot * log(s->original / (two_pi * n)) / (2 * log((double)c->rope_theta));
}

static void yarn(cx_llm_config *c, const cx_rope_scaling *s)
{
	double low = fmax(floor(yarn_dim(c, s, s->beta_fast)), 0);
	double high = fmin(ceil(yarn_dim(c, s, s->beta_slow)), (double)c->n_rot - 1);
	double amplitude = s->attention_factor;
	if (high <= low) high = low + 0.001;
	for (int64_t j = 0; j < c->n_rot / 2; j++) {
		double f = frequency(c, j), t = ((double)j - low) / (high - low), e;
		e = 1 - (t < 0 ? 0 : t > 1 ? 1 : t);
		c->rope_freqs[j] = (float)(f / s->factor * (1 - e) + f * e);
	}
	if (amplitude == 0 && s->mscale > 0 && s->mscale_all_dim > 0)
		amplitude =
			(0.1 * s->mscale * log(s->factor) + 1) / (0.1 * s->mscale_all_dim * log(s->factor) + 1);
	else if (amplitude == 0) amplitude = s->factor > 1 ? 0.1 * log(s->factor) + 1 : 1;
	c->rope_amplitude = (float)amplitude;
}

cx_status cx__llm_rope_scale(
	cx_llm_config *c, const cx_rope_scaling *s, const char *file, cx_err *err)
{
	bool llama3 = !strcmp(s->type, "llama3"), linear = !strcmp(s->type, "linear");
	if (!strcmp(s->type, "default") || !strcmp(s->type, "none")) return CX_OK;
	if (!llama3 && !linear && strcmp(s->type, "yarn") != 0)
		return CX_FAIL(
			err, CX_ERR_UNSUPPORTED, "%.80s: rope scaling '%.40s' is not known", file, s->type);
	if (!(s->factor >= 1 && s->factor <= 1e6) || !(linear || s->original >= 1) ||
		(llama3 && !(s->low > 0 && s->high > s->low)))
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%.80s: rope scaling '%s' has factors that make no sense", file, s->type);
	c->rope_scaled = true;
	if (!llama3 && !linear) {
		yarn(c, s);
		return CX_OK;
	}
	for (int64_t j = 0; j < c->n_rot / 2; j++) {
		double f = frequency(c, j);
		c->rope_freqs[j] = (float)(linear ? f / s->factor : llama3_frequency(f, s));
	}
	return CX_OK;
}

/* What both sources must satisfy. */
static cx_status check(const cx_llm_config *c, const char *file, cx_err *err)
{
	if (c->n_heads % c->n_kv_heads != 0)
		return CX_FAIL(err, CX_ERR_FORMAT,
			"%.80s: %lld query heads are no multiple of %lld key heads", file,
			(long long)c->n_heads, (long long)c->n_kv_heads);
	if (c->n_rot % 2 != 0 || c->n_rot > c->head_dim)
		return CX_FAIL(err, CX_ERR_FORMAT, "%.80s: rope width %lld does not fit a head of %lld",
			file, (long long)c->n_rot, (long long)c->head_dim);
	return CX_OK;
}

/* ---- GGUF ---- */

static cx_status gguf_scaling(const cx_gguf *g, cx_llm_config *c, cx_err *err)
{
	cx_rope_scaling s = {.type = "none", .factor = 1, .beta_fast = 32, .beta_slow = 1};
	cx_status st;
	if ((st = cx_gguf_string(g, "{a}.rope.scaling.type", CX_OPTIONAL, &s.type, err)) != CX_OK)
		return st;
	s.original = (double)c->context;
	if ((st = cx_gguf_f64(g, "{a}.rope.scaling.factor", CX_OPTIONAL, 1e-6, 1e6, &s.factor, err)) !=
			CX_OK ||
		(st = cx_gguf_f64(g, "{a}.rope.scaling.original_context_length", CX_OPTIONAL, 1, 1e12,
			 &s.original, err)) != CX_OK ||
		(st = cx_gguf_f64(g, "{a}.rope.scaling.attn_factor", CX_OPTIONAL, 0, 1e6,
			 &s.attention_factor, err)) != CX_OK)
		return st;
	return cx__llm_rope_scale(c, &s, cx_gguf_label(g), err);
}

static cx_status gguf_sizes(const cx_gguf *g, cx_llm_config *c, cx_err *err)
{
	const int64_t big = 1 << 24;
	int64_t value_dim;
	cx_status st;
	if ((st = cx_gguf_i64(g, "{a}.block_count", CX_REQUIRED, 1, 4096, &c->n_layers, err)) !=
			CX_OK ||
		(st = cx_gguf_i64(g, "{a}.context_length", CX_REQUIRED, 1, 1 << 30, &c->context, err)) !=
			CX_OK ||
		(st = cx_gguf_i64(g, "{a}.embedding_length", CX_REQUIRED, 1, big, &c->hidden, err)) !=
			CX_OK ||
		(st = cx_gguf_i64(g, "{a}.feed_forward_length", CX_REQUIRED, 1, big, &c->ffn, err)) !=
			CX_OK ||
		(st = cx_gguf_i64(
			 g, "{a}.attention.head_count", CX_REQUIRED, 1, 65536, &c->n_heads, err)) != CX_OK)
		return st;
	c->n_kv_heads = c->n_heads;
	c->head_dim = c->hidden / c->n_heads;
	if ((st = cx_gguf_i64(g, "{a}.attention.head_count_kv", CX_OPTIONAL, 1, 65536, &c->n_kv_heads,
			 err)) != CX_OK ||
		(st = cx_gguf_i64(g, "{a}.attention.key_length", CX_OPTIONAL, 1, CX_LLM_MAX_HEAD,
			 &c->head_dim, err)) != CX_OK)
		return st;
	value_dim = c->head_dim;
	if ((st = cx_gguf_i64(g, "{a}.attention.value_length", CX_OPTIONAL, 1, CX_LLM_MAX_HEAD,
			 &value_dim, err)) != CX_OK)
		return st;
	if (value_dim != c->head_dim || c->head_dim < 1 || c->head_dim > CX_LLM_MAX_HEAD)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED, "%.80s: heads of %lld for keys and %lld for values",
			cx_gguf_label(g), (long long)c->head_dim, (long long)value_dim);
	c->n_rot = c->head_dim;
	return cx_gguf_i64(
		g, "{a}.rope.dimension_count", CX_OPTIONAL, 2, CX_LLM_MAX_HEAD, &c->n_rot, err);
}

cx_status cx_llm_config_gguf(const cx_gguf *g, cx_llm_config *c, cx_err *err)
{
	double eps = 1e-5, theta = 10000;
	const char *arch = NULL;
	cx_status st;
	size_t i;
	memset(c, 0, sizeof *c);
	if ((st = cx_gguf_string(g, "general.architecture", CX_REQUIRED, &arch, err)) != CX_OK)
		return st;
	for (i = 0; i < CX_LLM_COUNT && strcmp(arch, families[i].gguf) != 0; i++) {
	}
	if (i == CX_LLM_COUNT)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%.80s: architecture '%.60s' is not known (llama, qwen2, qwen3)", cx_gguf_label(g),
			arch);
	c->arch = (cx_llm_arch)i;
	c->qkv_bias = families[i].qkv_bias;
	c->qk_norm = families[i].qk_norm;
	c->rope_pairs = families[i].gguf_pairs;
	c->rope_amplitude = 1;
	if ((st = gguf_sizes(g, c, err)) != CX_OK) return st;
	if ((st = cx_gguf_f64(
			 g, "{a}.attention.layer_norm_rms_epsilon", CX_REQUIRED, 0, 1, &eps, err)) != CX_OK ||
		(st = cx_gguf_f64(g, "{a}.rope.freq_base", CX_OPTIONAL, 1, 1e12, &theta, err)) != CX_OK)
		return st;
	c->eps = (float)eps;
	c->rope_theta = (float)theta;
	if ((st = check(c, cx_gguf_label(g), err)) != CX_OK) return st;
	return gguf_scaling(g, c, err);
}

/* ---- config.json ---- */

static cx_status json_scaling(const cx_json_at *at, cx_llm_config *c, cx_err *err)
{
	cx_rope_scaling s = {
		.type = "default", .factor = 1, .low = 1, .high = 4, .beta_fast = 32, .beta_slow = 1};
	cx_json_at o;
	double theta = (double)c->rope_theta;
	cx_status st;
	s.original = (double)c->context;
	if ((st = cx_json_object(at, "rope_scaling", CX_OPTIONAL, &o, err)) != CX_OK) return st;
	if (!o.obj && (st = cx_json_object(at, "rope_parameters", CX_OPTIONAL, &o, err)) != CX_OK)
		return st;
	if (!o.obj) return CX_OK;
	if ((st = cx_json_string(&o, "type", CX_OPTIONAL, &s.type, err)) != CX_OK ||
		(st = cx_json_string(&o, "rope_type", CX_OPTIONAL, &s.type, err)) != CX_OK ||
		(st = cx_json_f64(&o, "rope_theta", CX_OPTIONAL, 1, 1e12, &theta, err)) != CX_OK ||
		(st = cx_json_f64(&o, "factor", CX_OPTIONAL, 1e-6, 1e6, &s.factor, err)) != CX_OK ||
		(st = cx_json_f64(&o, "low_freq_factor", CX_OPTIONAL, 1e-6, 1e6, &s.low, err)) != CX_OK ||
		(st = cx_json_f64(&o, "high_freq_factor", CX_OPTIONAL, 1e-6, 1e6, &s.high, err)) != CX_OK ||
		(st = cx_json_f64(&o, "original_max_position_embeddings", CX_OPTIONAL, 1, 1e12, &s.original,
			 err)) != CX_OK ||
		(st = cx_json_f64(&o, "beta_fast", CX_OPTIONAL, 1e-6, 1e6, &s.beta_fast, err)) != CX_OK ||
		(st = cx_json_f64(&o, "beta_slow", CX_OPTIONAL, 1e-6, 1e6, &s.beta_slow, err)) != CX_OK ||
		(st = cx_json_f64(&o, "attention_factor", CX_OPTIONAL, 0, 1e6, &s.attention_factor, err)) !=
			CX_OK ||
		(st = cx_json_f64(&o, "mscale", CX_OPTIONAL, 0, 1e6, &s.mscale, err)) != CX_OK ||
		(st = cx_json_f64(&o, "mscale_all_dim", CX_OPTIONAL, 0, 1e6, &s.mscale_all_dim, err)) !=
			CX_OK)
		return st;
	c->rope_theta = (float)theta;
	return cx__llm_rope_scale(c, &s, at->file, err);
}

static cx_status json_family(const cx_json_at *root, cx_llm_config *c, cx_err *err)
{
	const json_t *archs = NULL;
	const char *name = NULL;
	cx_status st;
	size_t i;
	if ((st = cx_json_array(root, "architectures", CX_REQUIRED, &archs, err)) != CX_OK) return st;
	name = json_string_value(json_array_get(archs, 0));
	if (!name)
		return CX_FAIL(err, CX_ERR_FORMAT, "%.80s: architectures[0] is no string", root->file);
	for (i = 0; i < CX_LLM_COUNT && strcmp(name, families[i].hf) != 0; i++) {
	}
	if (i == CX_LLM_COUNT)
		return CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%.80s: architecture '%.60s' is not known (LlamaForCausalLM, Qwen2ForCausalLM, "
			"Qwen3ForCausalLM)",
			root->file, name);
	c->arch = (cx_llm_arch)i;
	c->qkv_bias = families[i].qkv_bias;
	c->qk_norm = families[i].qk_norm;
	return CX_OK;
}

static cx_status json_sizes(const cx_json_at *at, cx_llm_config *c, cx_err *err)
{
	const int64_t big = 1 << 24;
	double eps = c->arch == CX_LLM_llama ? 1e-5 : 1e-6, theta = 10000;
	bool attention_bias = false, sliding = false;
	const char *act = "silu";
	cx_status st;
	if ((st = cx_json_i64(at, "hidden_size", CX_REQUIRED, 1, big, &c->hidden, err)) != CX_OK ||
		(st = cx_json_i64(at, "intermediate_size", CX_REQUIRED, 1, big, &c->ffn, err)) != CX_OK ||
		(st = cx_json_i64(at, "num_hidden_layers", CX_REQUIRED, 1, 4096, &c->n_layers, err)) !=
			CX_OK ||
		(st = cx_json_i64(at, "num_attention_heads", CX_REQUIRED, 1, 65536, &c->n_heads, err)) !=
			CX_OK ||
		(st = cx_json_i64(
			 at, "max_position_embeddings", CX_REQUIRED, 1, 1 << 30, &c->context, err)) != CX_OK)
		return st;
	c->n_kv_heads = c->n_heads;
	c->head_dim = c->hidden / c->n_heads;
	if ((st = cx_json_i64(at, "num_key_value_heads", CX_OPTIONAL, 1, 65536, &c->n_kv_heads, err)) !=
			CX_OK ||
		(st = cx_json_i64(at, "head_dim", CX_OPTIONAL, 1, CX_LLM_MAX_HEAD, &c->head_dim, err)) !=
			CX_OK ||
		(st = cx_json_f64(at, "rms_norm_eps", CX_OPTIONAL, 0, 1, &eps, err)) != CX_OK ||
		(st = cx_json_f64(at, "rope_theta", CX_OPTIONAL, 1, 1e12, &theta, err)) != CX_OK ||
		(st = cx_json_bool(at, "attention_bias", CX_OPTIONAL, &attention_bias, err)) != CX_OK ||
		(st = cx_json_bool(at, "mlp_bias", CX_OPTIONAL, &c->mlp_bias, err)) != CX_OK ||
		(st = cx_json_bool(at, "use_sliding_window", CX_OPTIONAL, &sliding, err)) != CX_OK ||
		(st = cx_json_string(at, "hidden_act", CX_OPTIONAL, &act, err)) != CX_OK ||
		(st = cx_json_bool(at, "tie_word_embeddings", CX_OPTIONAL, &c->tied, err)) != CX_OK)
		return st;
	if (strcmp(act, "silu") != 0)
		return CX_FAIL(
			err, CX_ERR_UNSUPPORTED, "%.80s: hidden_act '%.40s' is not silu", at->file, act);
	if (sliding)
		return CX_FAIL(
			err, CX_ERR_UNSUPPORTED, "%.80s: use_sliding_window is not supported", at->file);
	if (c->head_dim < 1 || c->head_dim > CX_LLM_MAX_HEAD)
		return CX_FAIL(
			err, CX_ERR_FORMAT, "%.80s: heads of %lld", at->file, (long long)c->head_dim);
	c->qkv_bias |= attention_bias;
	c->o_bias = attention_bias;
	c->n_rot = c->head_dim;
	c->eps = (float)eps;
	c->rope_theta = (float)theta;
	c->rope_amplitude = 1;
	return CX_OK;
}

cx_status cx_llm_config_json(const char *path, const cx_alloc *alloc, cx_llm_config *c, cx_err *err)
{
	json_t *json = NULL;
	cx_json_at root, text, at;
	cx_status st;
	memset(c, 0, sizeof *c);
	if ((st = cx_json_load(alloc, path, &json, err)) != CX_OK) return st;
	if ((st = cx_json_root(path, json, &root, err)) != CX_OK) goto done;
	if ((st = json_family(&root, c, err)) != CX_OK) goto done;
	if ((st = cx_json_object(&root, "quantization_config", CX_OPTIONAL, &at, err)) != CX_OK)
		goto done;
	if (at.obj) {
		const char *method = "?";
		cx_json_string(&at, "quant_method", CX_OPTIONAL, &method, NULL);
		st = CX_FAIL(err, CX_ERR_UNSUPPORTED,
			"%.80s: quantization_config: '%.40s' is not supported", path, method);
		goto done;
	}
	/* Multimodal wrappers put the text model's fields inside. */
	if ((st = cx_json_object(&root, "text_config", CX_OPTIONAL, &text, err)) != CX_OK) goto done;
	at = text.obj ? text : root;
	if ((st = json_sizes(&at, c, err)) != CX_OK || (st = check(c, path, err)) != CX_OK) goto done;
	st = json_scaling(&at, c, err);
done:
	json_decref(json);
	return st;
}
