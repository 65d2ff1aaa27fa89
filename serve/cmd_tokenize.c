/* cmd_tokenize.c - `cortex tokenize`: text on stdin to token ids on stdout, and back. */
#include "models/files/gguf.h"
#include "models/text/tokenizer.h"
#include "serve/command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char help_text[] =
	"usage: cortex tokenize -m FILE.gguf|DIR|tokenizer.json [OPTIONS]\n"
	"\n"
	"Reads text from stdin, every byte of it, and writes its token ids on one line, separated by\n"
	"blanks. With --detokenize reads ids and writes their text, with nothing added.\n"
	"\n"
	"  -m, --model PATH   a GGUF file, a folder with a tokenizer.json, or a tokenizer.json\n"
	"  -d, --detokenize   ids on stdin, text on stdout\n"
	"  -s, --special      text that spells a control token becomes that token; with --detokenize:\n"
	"                     control tokens are shown\n"
	"  -b, --bos          add what the model wants around a text (BOS, EOS, CLS, SEP)\n"
	"  -h, --help         this text\n";

typedef struct options {
	const char *model;
	bool detokenize, special, bos;
} options;

/* 0: go on. 1: failed and said so. 2: --help was answered. */
static int read_options(int argc, char **argv, options *o)
{
	static const struct option longs[] = {
		{"model", required_argument, NULL, 'm'},
		{"detokenize", no_argument, NULL, 'd'},
		{"special", no_argument, NULL, 's'},
		{"bos", no_argument, NULL, 'b'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;
	optind = 1;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":m:dsbh", longs, NULL)) != -1) {
		switch (c) {
		case 'm':
			o->model = optarg;
			break;
		case 'd':
			o->detokenize = true;
			break;
		case 's':
			o->special = true;
			break;
		case 'b':
			o->bos = true;
			break;
		case 'h':
			fputs(help_text, stdout);
			return 2;
		case ':':
			return cx__cmd_usage("tokenize", "%s wants a value", argv[optind - 1]);
		default:
			return cx__cmd_usage("tokenize", "there is no option '%s'", argv[optind - 1]);
		}
	}
	if (optind < argc) return cx__cmd_usage("tokenize", "'%s' is not an option", argv[optind]);
	if (!o->model) return cx__cmd_usage("tokenize", "-m is missing: which model's tokenizer?");
	return 0;
}

static bool is_hf(const char *path)
{
	struct stat sb;
	size_t n = strlen(path);
	if (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) return true;
	return n > 5 && strcmp(path + n - 5, ".json") == 0;
}

static cx_status open_tokenizer(const char *path, cx_tokenizer **out, cx_err *err)
{
	cx_gguf *file = NULL;
	cx_status st;
	if (is_hf(path)) return cx_tokenizer_from_hf(path, NULL, out, err);
	if ((st = cx_gguf_open(NULL, path, &file, err)) != CX_OK) return st;
	st = cx_tokenizer_from_gguf(file, NULL, out, err);
	cx_gguf_close(file);
	return st;
}

static cx_status read_stdin(cx_text *out, cx_err *err)
{
	char buf[1 << 16];
	size_t n;
	cx_status st = CX_OK;
	while (st == CX_OK && (n = fread(buf, 1, sizeof buf, stdin)) > 0)
		st = cx_text_append(out, buf, n, err);
	if (st == CX_OK && ferror(stdin)) st = CX_FAIL(err, CX_ERR_IO, "stdin: %s", strerror(errno));
	return st;
}

static cx_status tokenize(const cx_tokenizer *tok, const options *o, const cx_text *in, cx_err *err)
{
	unsigned flags =
		(o->special ? CX_ENCODE_PARSE_SPECIAL : 0u) | (o->bos ? CX_ENCODE_ADD_SPECIAL : 0u);
	cx_ids ids = {0};
	cx_status st = cx_tokenizer_encode(tok, in->v, in->n, flags, &ids, err);
	for (size_t i = 0; st == CX_OK && i < ids.n; i++) printf(i ? " %d" : "%d", ids.v[i]);
	if (st == CX_OK) putchar('\n');
	cx_ids_deinit(&ids);
	return st;
}

/* The text comes as the ids go in, as it would from a model. */
static cx_status detokenize(
	const cx_tokenizer *tok, const options *o, const cx_text *in, cx_err *err)
{
	const char *p = in->n ? in->v : "", *end = p + in->n;
	cx_text text = {0};
	cx_detok d;
	cx_status st = CX_OK;
	cx_detok_init(&d, tok, o->special ? CX_DECODE_SPECIAL : 0u);
	for (;;) {
		char *stop;
		long id;
		int shown;
		p += strspn(p, " \t\r\n");
		if (p == end) break;
		shown = (int)strcspn(p, " \t\r\n");
		if (shown > 20) shown = 20;
		errno = 0;
		id = strtol(p, &stop, 10);
		if (stop == p || errno || id < INT32_MIN || id > INT32_MAX || !strchr(" \t\r\n", *stop) ||
			(*stop == 0 && stop != end)) {
			st = CX_FAIL(err, CX_ERR_FORMAT, "stdin: '%.*s' at byte %zu is not a token id", shown,
				p, (size_t)(p - in->v));
			break;
		}
		if ((st = cx_detok_push(&d, (int32_t)id, &text, err)) != CX_OK) break;
		fwrite(text.v ? text.v : "", 1, text.n, stdout);
		text.n = 0;
		p = stop;
	}
	if (st == CX_OK) st = cx_detok_flush(&d, &text, err);
	if (st == CX_OK) fwrite(text.v ? text.v : "", 1, text.n, stdout);
	cx_text_deinit(&text);
	return st;
}

int cx__cmd_tokenize(int argc, char **argv)
{
	options o = {0};
	cx_err err = {0};
	cx_tokenizer *tok = NULL;
	cx_text in = {0};
	cx_status st;
	int rc = read_options(argc, argv, &o);
	if (rc) return rc == 2 ? 0 : 1;
	st = open_tokenizer(o.model, &tok, &err);
	if (st == CX_OK) st = read_stdin(&in, &err);
	if (st == CX_OK)
		st = o.detokenize ? detokenize(tok, &o, &in, &err) : tokenize(tok, &o, &in, &err);
	if (st == CX_OK && fflush(stdout) != 0)
		st = CX_FAIL(&err, CX_ERR_IO, "stdout: %s", strerror(errno));
	cx_text_deinit(&in);
	cx_tokenizer_free(tok);
	return st == CX_OK ? 0 : cx__cmd_fail("tokenize", &err);
}
