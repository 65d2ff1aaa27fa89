/* decoder_train.c - `cortex decoder train`: options to a configuration, then a run. */
#include "serve/decoder_run.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"usage: cortex decoder train --model xs|s|m|nano|gru|transformer --out DIR [OPTIONS]\n"
	"       cortex decoder train --config FILE --out DIR [OPTIONS]\n"
	"       cortex decoder train --resume --out DIR\n"
	"       cortex decoder train [--model M] --print-config\n"
	"\n"
	"Trains a decoder. DIR gets best.safetensors (by the val part), final.safetensors,\n"
	"last.safetensors (to go on from), train.tsv and train.svg.\n"
	"\n"
	"  --config FILE      sections [train] [data] [model] [baseline] [simulate], key = value\n"
	"  --model M          the defaults of a model; what a --config says comes after it\n"
	"  --data PATH        FILE.nwb, FILE.mat, SPIKES.npy,KINEMATICS.npy, or a folder of them;\n"
	"                     without it, and without one in FILE, a session is simulated\n"
	"  --set KEY=VALUE    one key, for example train.lr=1e-3; as often as wanted, comes last\n"
	"  --seed N           train.seed\n"
	"  --backend B        cpu, ref, ...; default: the best there is\n"
	"  --resume           goes on from DIR/last.safetensors, to the same bits as if never stopped\n"
	"  --print-config     the configuration as a file, every key with its meaning and default\n";

enum { MAX_SET = 64 };
typedef struct options {
	const char *config, *model, *data, *set[MAX_SET], *seed;
	int n_set;
	bool print, help;
	cx_run_args run;
} options;

static const struct option long_options[] = {{"config", required_argument, NULL, 'c'},
	{"model", required_argument, NULL, 'm'}, {"data", required_argument, NULL, 'd'},
	{"set", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'n'},
	{"out", required_argument, NULL, 'o'}, {"backend", required_argument, NULL, 'b'},
	{"resume", no_argument, NULL, 'r'}, {"print-config", no_argument, NULL, 'p'},
	{"help", no_argument, NULL, 'h'}, {0}};

static bool parse(int argc, char **argv, options *o)
{
	int opt;
	optind = 1;
	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			o->config = optarg;
			break;
		case 'm':
			o->model = optarg;
			break;
		case 'd':
			o->data = optarg;
			break;
		case 'n':
			o->seed = optarg;
			break;
		case 'o':
			o->run.out = optarg;
			break;
		case 'b':
			o->run.backend = optarg;
			break;
		case 'r':
			o->run.resume = true;
			break;
		case 'p':
			o->print = true;
			break;
		case 'h':
			o->help = true;
			break;
		case 's':
			if (o->n_set == MAX_SET) {
				cx__cmd_usage("decoder", "--set more than %d times", MAX_SET);
				return false;
			}
			o->set[o->n_set++] = optarg;
			break;
		default:
			return false;
		}
	}
	if (optind == argc) return true;
	cx__cmd_usage("decoder", "'%.60s' is no option", argv[optind]);
	return false;
}

/* Defaults, the model's, the file's, the command line's; each over the one before. */
static cx_status configure(const options *o, cx_train_config *c, cx_err *err)
{
	cx_conf_section s[CX_TRAIN_SECTIONS];
	cx_status st = CX_OK;
	char seed[64];
	if (o->run.resume) {
		if (o->config || o->model || o->n_set || o->seed)
			return CX_FAIL(err, CX_ERR_ARGUMENT,
				"--resume goes on with the run's own configuration: no --config, --model, --set, "
				"--seed");
		st = cx__run_config(o->run.out, c, err);
	} else {
		cx_train_defaults(c);
		if (o->model) st = cx_train_preset(c, o->model, err);
	}
	cx_train_sections(c, s);
	if (st == CX_OK && o->config) st = cx_conf_read(NULL, o->config, s, CX_TRAIN_SECTIONS, err);
	if (st == CX_OK && o->data &&
		snprintf(c->data.path, sizeof c->data.path, "%s", o->data) >= (int)sizeof c->data.path)
		st = CX_FAIL(err, CX_ERR_ARGUMENT, "--data: the path is too long");
	if (st == CX_OK && o->seed) {
		snprintf(seed, sizeof seed, "train.seed=%.40s", o->seed);
		st = cx_conf_set(s, CX_TRAIN_SECTIONS, seed, err);
	}
	for (int i = 0; i < o->n_set && st == CX_OK; i++)
		st = cx_conf_set(s, CX_TRAIN_SECTIONS, o->set[i], err);
	return st;
}

static cx_status print_config(cx_train_config *c, cx_err *err)
{
	cx_conf_section s[CX_TRAIN_SECTIONS];
	char *text;
	size_t bytes;
	cx_status st;
	cx_train_sections(c, s);
	if ((st = cx_conf_print(s, CX_TRAIN_SECTIONS, NULL, &text, &bytes, err)) != CX_OK) return st;
	fputs(text, stdout);
	cx_free(NULL, text, bytes + 1);
	return CX_OK;
}

static cx_status train(const options *o, cx_err *err)
{
	static cx_train_config c;
	cx_dataset *data = NULL;
	cx_status st;
	if (!o->run.out && !o->print)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "train needs --out DIR (see --help)");
	if (!o->run.resume && !o->config && !o->model && !o->print)
		return CX_FAIL(err, CX_ERR_ARGUMENT, "train needs --model or --config (see --help)");
	if ((st = configure(o, &c, err)) != CX_OK) return st;
	if (o->print) return print_config(&c, err);
	if ((st = cx_train_config_open(&c, NULL, &data, err)) == CX_OK)
		st = cx__run_train(&o->run, &c, data, err);
	cx_dataset_free(data);
	return st;
}

int cx__decoder_train(int argc, char **argv)
{
	options o = {0};
	cx_err err = {0};
	cx_status st;
	if (!parse(argc, argv, &o)) return 1;
	if (o.help) return fputs(usage, stdout) < 0;
	st = train(&o, &err);
	return st == CX_OK ? 0 : cx__cmd_fail("decoder", &err);
}
