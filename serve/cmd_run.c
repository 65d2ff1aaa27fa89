/* cmd_run.c - `cortex run`: a prompt in, text as it is generated. */
#include "models/files/npy.h"
#include "models/files/out.h"
#include "models/llm/llm.h"
#include "models/llm/sampler.h"
#include "serve/command.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: cortex run -m FILE.gguf|DIR -p TEXT [OPTIONS]\n"
	"\n"
	"  -m, --model PATH       GGUF file, or folder with config.json, tokenizer.json and "
	"safetensors\n"
	"  -p, --prompt TEXT      what to continue\n"
	"  -n, --tokens N         how many to generate; default: up to --ctx, or the model's\n"
	"      --start-ids \"1 2\"  start from these ids instead of a prompt\n"
	"      --ids              print ids (the start's too) instead of text\n"
	"      --logits OUT.npy   write the logits of every position, f32 [positions, vocabulary]\n"
	"      --temp T           0 (default) takes the likeliest token\n"
	"      --top-k K          draw among the K likeliest; 0: off\n"
	"      --top-p P          draw among the likeliest that together reach P; 1: off\n"
	"      --min-p P          draw among those at least P times as likely as the likeliest; 0: "
	"off\n"
	"      --seed S           default: from the clock, printed at the end\n"
	"      --ignore-eos       go on after a stop token\n"
	"      --ctx N            room for N tokens; default: what prompt and -n need\n"
	"      --chunk N          most prompt tokens per run, a power of two; default 256\n"
	"      --kv f32|f16|bf16  type of the key/value cache; default f32\n"
	"      --backend B        cpu, ref, ...; default: the best there is\n"
	"      --allow-fallback   what the device has no kernel for runs on the cpu, with copies, and\n"
	"                         is counted at the end; else it is refused by name\n"
	"      --explain          print the plan of a single-token step to stderr\n";

typedef struct run_args {
	const char *model, *prompt, *start_ids, *logits, *backend;
	long n, ctx, chunk;
	bool ids, ignore_eos, explain, fallback, have_seed;
	cx_dtype kv;
	cx_sampler_opts sample;
} run_args;

typedef struct run_state {
	run_args a;
	cx_host host;
	cx_llm *model;
	cx_llm_session *session;
	cx_sampler sampler;
	cx_ids ids;
	cx_detok detok;
	cx_text text;
	float *logits; /* [vocab] */
	float *all;    /* [positions, vocab] with --logits */
	size_t n_all, cap_all, n_prompt;
	double prompt_seconds, seconds;
	size_t n_steps;
	const char *stop;
} run_state;

enum {
	OPT_IDS = 256,
	OPT_START,
	OPT_LOGITS,
	OPT_TEMP,
	OPT_TOP_K,
	OPT_TOP_P,
	OPT_MIN_P,
	OPT_SEED,
	OPT_EOS,
	OPT_CTX,
	OPT_CHUNK,
	OPT_KV,
	OPT_BACKEND,
	OPT_FALLBACK,
	OPT_EXPLAIN
};

static const struct option long_options[] = {{"model", required_argument, NULL, 'm'},
	{"prompt", required_argument, NULL, 'p'}, {"tokens", required_argument, NULL, 'n'},
	{"help", no_argument, NULL, 'h'}, {"ids", no_argument, NULL, OPT_IDS},
	{"start-ids", required_argument, NULL, OPT_START},
	{"logits", required_argument, NULL, OPT_LOGITS}, {"temp", required_argument, NULL, OPT_TEMP},
	{"top-k", required_argument, NULL, OPT_TOP_K}, {"top-p", required_argument, NULL, OPT_TOP_P},
	{"min-p", required_argument, NULL, OPT_MIN_P}, {"seed", required_argument, NULL, OPT_SEED},
	{"ignore-eos", no_argument, NULL, OPT_EOS}, {"ctx", required_argument, NULL, OPT_CTX},
	{"chunk", required_argument, NULL, OPT_CHUNK}, {"kv", required_argument, NULL, OPT_KV},
	{"backend", required_argument, NULL, OPT_BACKEND},
	{"allow-fallback", no_argument, NULL, OPT_FALLBACK},
	{"explain", no_argument, NULL, OPT_EXPLAIN}, {0}};

static bool whole(
	const char *name, const char *text, unsigned long long hi, unsigned long long *out)
{
	char *end;
	errno = 0;
	*out = strtoull(text, &end, 10);
	if (end != text && !*end && errno == 0 && *text != '-' && *text != ' ' && *out <= hi)
		return true;
	cx__cmd_usage("run", "%s '%.40s' is not a whole number in 0..%llu", name, text, hi);
	return false;
}

static bool real(const char *name, const char *text, float *out)
{
	char *end;
	*out = strtof(text, &end);
	if (end != text && !*end && isfinite(*out)) return true;
	cx__cmd_usage("run", "%s '%.40s' is not a number", name, text);
	return false;
}

static bool set_number(run_args *a, int opt)
{
	unsigned long long v;
	const char *name = opt == 'n'         ? "-n"
					   : opt == OPT_CTX   ? "--ctx"
					   : opt == OPT_CHUNK ? "--chunk"
										  : "--top-k";
	if (opt == OPT_SEED) {
		if (!whole("--seed", optarg, UINT64_MAX, &v)) return false;
		a->sample.seed = v;
		a->have_seed = true;
		return true;
	}
	if (!whole(name, optarg, INT32_MAX / 2, &v)) return false;
	if (v == 0 && (opt == OPT_CTX || opt == OPT_CHUNK)) {
		cx__cmd_usage("run", "%s 0 leaves no room for a token", name);
		return false;
	}
	if (opt == 'n') a->n = (long)v;
	else if (opt == OPT_CTX) a->ctx = (long)v;
	else if (opt == OPT_CHUNK) a->chunk = (long)v;
	else a->sample.top_k = (int32_t)v;
	return true;
}

static bool set_option(run_args *a, int opt)
{
	switch (opt) {
	case 'm':
		a->model = optarg;
		return true;
	case 'p':
		a->prompt = optarg;
		return true;
	case OPT_IDS:
		a->ids = true;
		return true;
	case OPT_START:
		a->start_ids = optarg;
		return true;
	case OPT_LOGITS:
		a->logits = optarg;
		return true;
	case OPT_EOS:
		a->ignore_eos = true;
		return true;
	case OPT_BACKEND:
		a->backend = optarg;
		return true;
	case OPT_FALLBACK:
		a->fallback = true;
		return true;
	case OPT_EXPLAIN:
		a->explain = true;
		return true;
	case OPT_TEMP:
		return real("--temp", optarg, &a->sample.temperature);
	case OPT_TOP_P:
		return real("--top-p", optarg, &a->sample.top_p);
	case OPT_MIN_P:
		return real("--min-p", optarg, &a->sample.min_p);
	case OPT_KV:
		if (cx_dtype_parse(optarg, &a->kv)) return true;
		cx__cmd_usage("run", "--kv '%.20s' is no type", optarg);
		return false;
	case 'n':
	case OPT_CTX:
	case OPT_CHUNK:
	case OPT_TOP_K:
	case OPT_SEED:
		return set_number(a, opt);
	}
	return false;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static cx_status parse_ids(const char *text, cx_ids *out, cx_err *err)
{
	const char *c = text;
	while (*c) {
		char *end;
		long v;
		if (*c == ' ' || *c == ',') {
			c++;
			continue;
		}
		errno = 0;
		v = strtol(c, &end, 10);
		if (end == c || errno || v < 0 || v > INT32_MAX)
			return CX_FAIL(err, CX_ERR_ARGUMENT, "--start-ids: '%.20s' is no token id", c);
		if (cx_ids_push(out, (int32_t)v, err) != CX_OK) return CX_ERR_MEMORY;
		c = end;
	}
	return out->n ? CX_OK : CX_FAIL(err, CX_ERR_ARGUMENT, "--start-ids is empty");
}

static cx_status start(run_state *r, cx_err *err)
{
	const cx_tokenizer *tok = cx_llm_tokenizer(r->model);
	if (r->a.start_ids) return parse_ids(r->a.start_ids, &r->ids, err);
	if (!tok)
		return CX_FAIL(
			err, CX_ERR_ARGUMENT, "%.100s has no tokenizer.json: give --start-ids", r->a.model);
	if (cx_tokenizer_encode(tok, r->a.prompt, strlen(r->a.prompt),
			CX_ENCODE_ADD_SPECIAL | CX_ENCODE_PARSE_SPECIAL, &r->ids, err) != CX_OK)
		return err->code;
	return r->ids.n ? CX_OK : CX_FAIL(err, CX_ERR_ARGUMENT, "the prompt is empty");
}

/* Model, device, session, buffers. */
static cx_status prepare(run_state *r, cx_err *err)
{
	cx_llm_session_opts opts = {.chunk = r->a.chunk, .kv = r->a.kv};
	const cx_llm_config *c;
	int64_t room;
	cx_status st;
	if ((st = cx_llm_open(r->a.model, NULL, &r->model, err)) != CX_OK) return st;
	c = cx_llm_get_config(r->model);
	if ((st = start(r, err)) != CX_OK) return st;
	for (size_t i = 0; i < r->ids.n; i++)
		if (r->ids.v[i] < 0 || r->ids.v[i] >= c->vocab)
			return CX_FAIL(err, CX_ERR_ARGUMENT, "token %d is outside the vocabulary of %lld",
				(int)r->ids.v[i], (long long)c->vocab);
	r->n_prompt = r->ids.n;
	room = c->context - (int64_t)r->n_prompt;
	if (r->a.n < 0) r->a.n = (long)(r->a.ctx > 0 ? r->a.ctx - (int64_t)r->n_prompt : room);
	if (r->a.n < 0) r->a.n = 0;
	opts.n_ctx = r->a.ctx > 0 ? r->a.ctx : (int64_t)r->n_prompt + r->a.n;
	/* the last token that is drawn is not run */
	if (opts.n_ctx < (int64_t)r->n_prompt + (r->a.n > 1 ? r->a.n - 1 : 0))
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"a prompt of %zu tokens and -n %ld do not fit in --ctx %lld", r->n_prompt, r->a.n,
			(long long)opts.n_ctx);
	if (r->a.n > room)
		fprintf(stderr, "note: %lld tokens are past the %lld that the model was trained for\n",
			(long long)r->n_prompt + r->a.n, (long long)c->context);
	if ((st = cx__host_open(r->a.backend, &r->host, err)) != CX_OK) return st;
	if (r->a.fallback && (st = cx__host_fallback(&r->host, err)) != CX_OK) return st;
	opts.fallback = r->host.devs[1];
	if ((st = cx_llm_session_create(r->model, r->host.rt, r->host.dev, &opts, &r->session, err)) !=
		CX_OK)
		return st;
	if ((st = cx_sampler_init(&r->sampler, &r->a.sample, (uint32_t)c->vocab, NULL, err)) != CX_OK)
		return st;
	if (!(r->logits = calloc((size_t)c->vocab, sizeof *r->logits)))
		return CX_FAIL(err, CX_ERR_MEMORY, "out of memory");
	if (r->a.logits) { /* not after a long run: can it be written at all? */
		cx_file_out *probe;
		if ((st = cx_file_out_open(NULL, r->a.logits, &probe, err)) != CX_OK) return st;
		cx_file_out_discard(probe);
	}
	return r->a.logits ? CX_OK : cx_llm_session_warm(r->session, r->n_prompt, err);
}

/* Runs ids; r->logits gets the last row, and with --logits r->all gets every row. */
static cx_status eval(run_state *r, const int32_t *ids, size_t n, cx_err *err)
{
	size_t vocab = (size_t)cx_llm_get_config(r->model)->vocab;
	cx_status st;
	if (!r->a.logits) return cx_llm_session_eval(r->session, ids, n, false, r->logits, err);
	if (r->n_all + n > r->cap_all) {
		size_t cap = 2 * (r->n_all + n);
		float *grown = cap > SIZE_MAX / sizeof *grown / vocab
						   ? NULL
						   : realloc(r->all, cap * vocab * sizeof *grown);
		if (!grown) return CX_FAIL(err, CX_ERR_MEMORY, "--logits: out of memory");
		r->all = grown;
		r->cap_all = cap;
	}
	if ((st = cx_llm_session_eval(r->session, ids, n, true, r->all + r->n_all * vocab, err)) !=
		CX_OK)
		return st;
	r->n_all += n;
	memcpy(r->logits, r->all + (r->n_all - 1) * vocab, vocab * sizeof *r->logits);
	return CX_OK;
}

static cx_status show(run_state *r, int32_t id, cx_err *err)
{
	const cx_tokenizer *tok = cx_llm_tokenizer(r->model);
	if (r->a.ids || !tok) {
		printf(" %d", (int)id);
	} else {
		r->text.n = 0;
		if (cx_detok_push(&r->detok, id, &r->text, err) != CX_OK) return err->code;
		if (r->text.n) fwrite(r->text.v, 1, r->text.n, stdout);
	}
	fflush(stdout);
	return CX_OK;
}

static cx_status generate(run_state *r, cx_err *err)
{
	const cx_tokenizer *tok = cx_llm_tokenizer(r->model);
	uint32_t vocab = (uint32_t)cx_llm_get_config(r->model)->vocab, allowed = vocab;
	double start_time = now();
	cx_status st;
	if (tok && cx_tokenizer_n_tokens(tok) < allowed) allowed = cx_tokenizer_n_tokens(tok);
	if ((st = eval(r, r->ids.v, r->ids.n, err)) != CX_OK) return st;
	r->prompt_seconds = now() - start_time;
	start_time = now();
	r->stop = "length";
	for (long i = 0; i < r->a.n; i++) {
		int32_t id;
		if ((st = cx_sampler_next(&r->sampler, r->logits, allowed, (uint64_t)i, &id, err)) != CX_OK)
			return st;
		if (tok && !r->a.ignore_eos && cx_tokenizer_is_stop(tok, id)) {
			r->stop = "stop token";
			break;
		}
		r->n_steps++;
		if ((st = show(r, id, err)) != CX_OK) return st;
		if (i + 1 < r->a.n && (st = eval(r, &id, 1, err)) != CX_OK) return st;
	}
	r->seconds = now() - start_time;
	return CX_OK;
}

static cx_status show_start(run_state *r, cx_err *err)
{
	const cx_tokenizer *tok = cx_llm_tokenizer(r->model);
	cx_status st;
	if (tok) cx_detok_init(&r->detok, tok, 0);
	if (r->a.ids || !tok) {
		for (size_t i = 0; i < r->ids.n; i++) printf("%s%d", i ? " " : "", (int)r->ids.v[i]);
		fflush(stdout);
		return CX_OK;
	}
	for (size_t i = 0; i < r->ids.n; i++)
		if ((st = show(r, r->ids.v[i], err)) != CX_OK) return st;
	return CX_OK;
}

static cx_status finish(run_state *r, cx_err *err)
{
	size_t n = r->n_prompt, vocab = (size_t)cx_llm_get_config(r->model)->vocab;
	cx_status st;
	if (!r->a.ids && cx_llm_tokenizer(r->model)) {
		r->text.n = 0;
		if ((st = cx_detok_flush(&r->detok, &r->text, err)) != CX_OK) return st;
		fwrite(r->text.v ? r->text.v : "", 1, r->text.n, stdout);
	}
	printf("\n");
	fflush(stdout);
	if (r->a.logits) {
		int64_t dims[2] = {(int64_t)r->n_all, (int64_t)vocab};
		if ((st = cx_npy_write(NULL, r->a.logits, CX_NPY_F4, 2, dims, r->all, err)) != CX_OK)
			return st;
	}
	if (r->a.explain && cx_llm_session_plan(r->session)) {
		char *text = NULL;
		size_t bytes = 0;
		st = cx_plan_explain(cx_llm_session_plan(r->session), NULL, &text, &bytes, err);
		if (st != CX_OK) return st;
		fputs(text, stderr);
		cx_free(NULL, text, bytes + 1);
	}
	cx__host_report(&r->host, cx_llm_session_plan(r->session), stderr);
	fprintf(stderr,
		"prompt: %zu tokens, %.1f tokens/s | generated: %zu tokens, %.1f tokens/s, %s | %s, seed "
		"%llu\n",
		n, (double)n / r->prompt_seconds, r->n_steps,
		r->seconds > 0 ? (double)r->n_steps / r->seconds : 0.0, r->stop,
		cx_device_name(r->host.dev), (unsigned long long)r->a.sample.seed);
	return CX_OK;
}

int cx__cmd_run(int argc, char **argv)
{
	run_state r = {.a = {.n = -1, .chunk = 256, .kv = CX_F32, .sample = {.top_p = 1}}};
	cx_err err = {0};
	cx_status st;
	int opt;
	optind = 1;
	while ((opt = getopt_long(argc, argv, "m:p:n:h", long_options, NULL)) != -1) {
		if (opt == 'h') return fputs(usage, stdout) < 0;
		if (opt == '?' || !set_option(&r.a, opt)) return 1;
	}
	if (optind < argc) return cx__cmd_usage("run", "'%.60s' is no option", argv[optind]);
	if (!r.a.model) return cx__cmd_usage("run", "-m MODEL is missing");
	if (!r.a.prompt && !r.a.start_ids) return cx__cmd_usage("run", "-p TEXT is missing");
	if (r.a.prompt && r.a.start_ids)
		return cx__cmd_usage("run", "-p and --start-ids are both given; one of them is the start");
	if (!r.a.have_seed) r.a.sample.seed = (uint64_t)time(NULL);
	if ((st = prepare(&r, &err)) == CX_OK && (st = show_start(&r, &err)) == CX_OK &&
		(st = generate(&r, &err)) == CX_OK)
		st = finish(&r, &err);
	cx__host_advise(&r.host, st, &err);
	cx_llm_session_free(r.session);
	cx_sampler_deinit(&r.sampler);
	cx_llm_close(r.model);
	cx__host_close(&r.host);
	cx_ids_deinit(&r.ids);
	cx_text_deinit(&r.text);
	free(r.logits);
	free(r.all);
	return st == CX_OK ? 0 : cx__cmd_fail("run", &err);
}
