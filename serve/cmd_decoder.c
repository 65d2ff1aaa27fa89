/* cmd_decoder.c - `cortex decoder`: demo, eval, simulate. */
#include "serve/cmd_decoder.h"
#include "models/decoder/nwb.h"
#include "models/decoder/protocol.h"
#include "serve/decoder_table.h"

#include <errno.h>
#include <getopt.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
	"usage: cortex decoder demo [--model nano|gru|...] [--data DIR|SPIKES.npy,KINEMATICS.npy] "
	"[--out DIR] [OPTIONS]\n"
	"       cortex decoder eval --data PATH | --spikes F.npy --kinematics F.npy [--method "
	"wiener|kalman] [OPTIONS]\n"
	"       cortex decoder eval --data PATH --table [--protocol continuous|trial|nlb|all] "
	"[--markdown]\n"
	"       cortex decoder eval --data PATH --checkpoint DIR|FILE[,...] [OPTIONS]\n"
	"       cortex decoder info --model xs|s|m|nano|FILE [OPTIONS]   (see its --help)\n"
	"       cortex decoder train --model nano --out DIR [OPTIONS]   (see its --help)\n"
	"       cortex decoder simulate --out DIR [--seed N] [--units N[,N...]] [--seconds S] [--bin "
	"S] "
	"[--window N]\n"
	"\n"
	"demo      fits on the first part of a recording (simulated if there is no --data), decodes "
	"the rest\n"
	"          through a planned graph, and draws true against decoded velocity to "
	"DIR/decoded.svg\n"
	"          with --model it trains a network (`train` has more to choose) and draws what that "
	"decodes\n"
	"eval      the same without a picture: R2 per column; with --table every linear decoder, tuned "
	"by\n"
	"          cross-validation, and on NWB files with trials the MC_Maze protocols\n"
	"simulate  writes a reaching session: spikes.npy, kinematics.npy, bayes.npy (the best causal "
	"decoding),\n"
	"          session.nwb; several unit counts make several subjects, each in a folder of its "
	"own\n"
	"\n"
	"PATH is FILE.nwb, FILE.mat, SPIKES.npy,KINEMATICS.npy, or a folder of them\n"
	"\n"
	"  --method M          wiener (default) or kalman\n"
	"  --history N         bins per window, this one and the N-1 before it; default 10\n"
	"  --ridge X           penalty on every weight; default 10\n"
	"  --train-fraction X  default 0.8\n"
	"  --checkpoint LIST   a row of the table for networks from `train`: a file, a folder, or "
	"several\n"
	"                      with commas between, whose mean and deviation count; more than once\n"
	"  --bin S             seconds per bin: of an NWB file's grid (0.05), of NPY files for the "
	"axis\n"
	"  --window N          simulate: bins that the best decoding may see; default: all the past\n"
	"  --backend B         cpu, ref, ...; default: the best there is\n"
	"  --json              one JSON object on stdout\n"
	"  --seed N --units N --seconds S   of the simulated session\n";

enum {
	OPT_DATA = 256,
	OPT_OUT,
	OPT_SPIKES,
	OPT_KIN,
	OPT_METHOD,
	OPT_HISTORY,
	OPT_RIDGE,
	OPT_FRACTION,
	OPT_BIN,
	OPT_BACKEND,
	OPT_JSON,
	OPT_SEED,
	OPT_UNITS,
	OPT_SECONDS,
	OPT_TABLE,
	OPT_MARKDOWN,
	OPT_PROTOCOL,
	OPT_WINDOW,
	OPT_CHECKPOINT,
	OPT_MODEL,
	OPT_HELP
};

static const struct option long_options[] = {{"data", required_argument, NULL, OPT_DATA},
	{"out", required_argument, NULL, OPT_OUT}, {"spikes", required_argument, NULL, OPT_SPIKES},
	{"kinematics", required_argument, NULL, OPT_KIN},
	{"method", required_argument, NULL, OPT_METHOD},
	{"history", required_argument, NULL, OPT_HISTORY},
	{"ridge", required_argument, NULL, OPT_RIDGE},
	{"train-fraction", required_argument, NULL, OPT_FRACTION},
	{"bin", required_argument, NULL, OPT_BIN}, {"backend", required_argument, NULL, OPT_BACKEND},
	{"json", no_argument, NULL, OPT_JSON}, {"seed", required_argument, NULL, OPT_SEED},
	{"units", required_argument, NULL, OPT_UNITS},
	{"seconds", required_argument, NULL, OPT_SECONDS}, {"table", no_argument, NULL, OPT_TABLE},
	{"markdown", no_argument, NULL, OPT_MARKDOWN},
	{"protocol", required_argument, NULL, OPT_PROTOCOL},
	{"window", required_argument, NULL, OPT_WINDOW}, {"model", required_argument, NULL, OPT_MODEL},
	{"checkpoint", required_argument, NULL, OPT_CHECKPOINT}, {"help", no_argument, NULL, OPT_HELP},
	{0}};

/* A whole number or a finite one; anything else is refused with the option's name. */
static bool number(
	const char *name, const char *text, double lo, double hi, bool whole, double *out)
{
	char *end;
	errno = 0;
	*out = strtod(text, &end);
	if (end != text && !*end && errno == 0 && *out >= lo && *out <= hi &&
		(!whole || *out == floor(*out)))
		return true;
	cx__cmd_usage("decoder", "--%s '%.40s' is not %s in %g..%g", name, text,
		whole ? "a whole number" : "a number", lo, hi);
	return false;
}

static const char *const protocols[] = {"continuous", "trial", "nlb", "all"};

static bool set_option(decoder_args *a, int opt)
{
	double v;
	switch (opt) {
	case OPT_DATA:
		a->data = optarg;
		return true;
	case OPT_OUT:
		a->out = optarg;
		return true;
	case OPT_SPIKES:
		a->spikes = optarg;
		return true;
	case OPT_KIN:
		a->kin = optarg;
		return true;
	case OPT_BACKEND:
		a->backend = optarg;
		return true;
	case OPT_JSON:
		a->json = true;
		return true;
	case OPT_METHOD:
		a->fit.method = !strcmp(optarg, "kalman") ? CX_LINEAR_KALMAN : CX_LINEAR_WIENER;
		if (!strcmp(optarg, "kalman") || !strcmp(optarg, "wiener")) return true;
		cx__cmd_usage("decoder", "there is no method '%.40s' (wiener, kalman)", optarg);
		return false;
	case OPT_HISTORY:
		if (!number("history", optarg, 1, 1000, true, &v)) return false;
		a->fit.history = (size_t)v;
		return true;
	case OPT_RIDGE:
		return number("ridge", optarg, 0, 1e12, false, &a->fit.ridge);
	case OPT_FRACTION:
		return number("train-fraction", optarg, 0.01, 0.99, false, &a->fraction);
	case OPT_BIN:
		if (!number("bin", optarg, 1e-4, 10, false, &a->bin)) return false;
		a->sim.bin_seconds = a->bin;
		return true;
	case OPT_SECONDS:
		return number("seconds", optarg, 1, 86400, false, &a->sim.seconds);
	case OPT_SEED:
		if (!number("seed", optarg, 0, 9007199254740992.0, true, &v)) return false;
		a->sim.seed = (uint64_t)v;
		return true;
	case OPT_UNITS:
		a->subjects = optarg; /* a list is for `simulate`, which checks it */
		if (strchr(optarg, ',')) return true;
		if (!number("units", optarg, 1, 1000, true, &v)) return false;
		a->sim.n_units = (size_t)v;
		return true;
	case OPT_WINDOW:
		if (!number("window", optarg, 1, 1024, true, &v)) return false;
		a->sim.window = (size_t)v;
		return true;
	case OPT_MODEL:
		a->model = optarg;
		return true;
	case OPT_CHECKPOINT:
		a->table = true;
		if (a->n_checkpoints < (int)(sizeof a->checkpoint / sizeof *a->checkpoint)) {
			a->checkpoint[a->n_checkpoints++] = optarg;
			return true;
		}
		cx__cmd_usage("decoder", "--checkpoint more than %d times", a->n_checkpoints);
		return false;
	case OPT_TABLE:
		a->table = true;
		return true;
	case OPT_MARKDOWN:
		a->markdown = a->table = true;
		return true;
	case OPT_PROTOCOL:
		a->protocol = optarg;
		a->table = true;
		for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
			if (!strcmp(optarg, protocols[i])) return true;
		cx__cmd_usage(
			"decoder", "there is no protocol '%.40s' (continuous, trial, nlb, all)", optarg);
		return false;
	}
	return false;
}

/* A bar on stderr, where a person watches. */
void cx__progress(void *what, double done)
{
	if (!isatty(STDERR_FILENO)) return;
	fprintf(stderr, "\r%-22s [%-30.*s] %3.0f %%%s", (const char *)what, (int)(done * 30),
		"##############################", done * 100, done >= 1 ? "\n" : "");
}

/* NWB on a grid of bins, 50 ms unless told otherwise. */
static cx_status load_nwb(const decoder_args *a, const char *path, cx_session *s, cx_err *err)
{
	cx_recording r;
	cx_status st = cx_nwb_read(path, NULL, NULL, &r, err);
	if (st == CX_OK) st = cx_session_bin(&r, a->bin > 0 ? a->bin : 0.05, false, NULL, s, err);
	cx_recording_deinit(&r);
	return st;
}

static bool ends(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);
	return n >= k && !strcmp(s + n - k, end);
}

/* DIR with spikes*.npy and kinematics*.npy, the two paths with a comma between, NWB, or MATLAB. */
static cx_status load_data(const decoder_args *args, cx_session *s, cx_err *err)
{
	const char *data = args->data;
	char a[1024], b[1024];
	const char *comma = strchr(data, ',');
	struct stat info;
	glob_t ga = {0}, gb = {0};
	cx_status st;
	if (comma && stat(data, &info) != 0) {
		snprintf(a, sizeof a, "%.*s", (int)(comma - data), data);
		return cx_session_load(a, comma + 1, NULL, s, err);
	}
	if (stat(data, &info) != 0) return CX_FAIL(err, CX_ERR_IO, "%.120s: %s", data, strerror(errno));
	if (ends(data, ".nwb")) return load_nwb(args, data, s, err);
	if (ends(data, ".mat")) return cx_session_load_mat(data, NULL, s, err);
	if (!S_ISDIR(info.st_mode))
		return CX_FAIL(err, CX_ERR_ARGUMENT,
			"%.100s is not a folder; give DIR, FILE.nwb, FILE.mat or SPIKES.npy,KINEMATICS.npy",
			data);
	snprintf(a, sizeof a, "%s/spikes*.npy", data);
	snprintf(b, sizeof b, "%s/kinematics*.npy", data);
	if (glob(a, 0, NULL, &ga) != 0 || glob(b, 0, NULL, &gb) != 0)
		st = CX_FAIL(err, CX_ERR_IO, "%.100s has no spikes*.npy and kinematics*.npy", data);
	else st = cx_session_load(ga.gl_pathv[0], gb.gl_pathv[0], NULL, s, err);
	globfree(&ga);
	globfree(&gb);
	return st;
}

static cx_status cmd_eval(decoder_args *a, bool demo, cx_err *err)
{
	cx_session s = {0};
	cx_status st;
	if (!demo && a->table) return cx__decoder_table(a, err);
	if (demo && !a->out) a->out = ".";
	if (demo && a->model) return cx__decoder_demo(a, err);
	if (a->data) st = load_data(a, &s, err);
	else if (a->spikes && a->kin) st = cx_session_load(a->spikes, a->kin, NULL, &s, err);
	else if (demo && !a->spikes && !a->kin) st = cx__simulate_session(a, 0, &s, err);
	else st = CX_FAIL(err, CX_ERR_ARGUMENT, "eval needs --spikes and --kinematics (or --data)");
	if (st == CX_OK && s.bin_seconds == 0) s.bin_seconds = a->bin;
	if (st == CX_OK && demo) st = cx__make_folder(a->out, err);
	if (st == CX_OK) st = cx__decoder_eval(a, &s, demo, err);
	cx_session_deinit(&s);
	return st;
}

int cx__cmd_decoder(int argc, char **argv)
{
	decoder_args a = {
		.fit = {.history = 10, .ridge = 10}, .fraction = 0.8, .sim = cx_simulate_default()};
	const char *what = argc > 1 ? argv[1] : "";
	cx_err err = {0};
	cx_status st;
	int opt;
	if (!strcmp(what, "--help") || !strcmp(what, "-h")) return fputs(usage, stdout) < 0;
	if (!strcmp(what, "info")) return cx__decoder_info(argc - 1, argv + 1);
	if (!strcmp(what, "train")) return cx__decoder_train(argc - 1, argv + 1);
	optind = 2;
	while (argc > 1 && (opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (opt == OPT_HELP) return fputs(usage, stdout) < 0;
		if (opt == '?' || !set_option(&a, opt)) return 1;
	}
	if (argc > 1 && optind < argc)
		return cx__cmd_usage("decoder", "'%.60s' is no option", argv[optind]);
	if (!strcmp(what, "simulate")) st = cx__decoder_simulate(&a, &err);
	else if (!strcmp(what, "eval")) st = cmd_eval(&a, false, &err);
	else if (!strcmp(what, "demo")) st = cmd_eval(&a, true, &err);
	else
		return cx__cmd_usage(
			"decoder", "'%.40s' is none of demo, eval, info, simulate, train", what);
	return st == CX_OK ? 0 : cx__cmd_fail("decoder", &err);
}
