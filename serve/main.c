/* main.c - the cortex binary: picks the command of commands.def and runs it. */
#include "serve/command.h"

#include "models/files/map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CX_VERSION "0.1.0"

static const struct {
	const char *name, *doc;
	int (*run)(int argc, char **argv);
} commands[] = {
#define CX_CMD(name, doc) {#name, doc, cx__cmd_##name},
#include "serve/commands.def"
#undef CX_CMD
};

int cx__cmd_fail(const char *cmd, const cx_err *err)
{
	fflush(stdout);
	fprintf(stderr, "cortex %s: %s\n", cmd,
		err->msg[0] ? err->msg : cx_status_text(err->code ? err->code : CX_ERR_ARGUMENT));
	return 1;
}

int cx__cmd_usage(const char *cmd, const char *fmt, ...)
{
	va_list ap;
	fflush(stdout);
	fprintf(stderr, "cortex %s: ", cmd);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "; see cortex %s --help\n", cmd);
	return 1;
}

cx_status cx__err_in(const char *path, cx_err *err)
{
	char msg[sizeof err->msg];
	memcpy(msg, err->msg, sizeof msg);
	snprintf(err->msg, sizeof err->msg, "%.80s: %.150s", cx_path_tail(path), msg);
	return err->code;
}

cx_status cx__graph_read(const char *path, cx_graph **out, cx_err *err)
{
	cx_file_map *map;
	cx_status st;
	*out = NULL;
	if ((st = cx_file_map_open(NULL, path, &map, err)) != CX_OK) return st;
	st = cx_graph_parse((const char *)map->data, map->size, NULL, out, err);
	cx_file_map_close(map);
	return st == CX_OK ? st : cx__err_in(path, err);
}

static void help(FILE *to)
{
	fprintf(to,
		"cortex %s: a portable compute-graph runtime\n\nusage: cortex COMMAND [OPTIONS]\n\n",
		CX_VERSION);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].doc);
	fprintf(to, "\ncortex COMMAND --help tells a command's options.\n");
}

/* What a full disk or a closed pipe did not take is an error of the command. */
static int flushed(const char *cmd, int rc)
{
	if ((fflush(stdout) == 0 && !ferror(stdout)) || rc != 0) return rc;
	fprintf(stderr, "cortex %s: stdout: not all of the output could be written\n", cmd);
	return 1;
}

int main(int argc, char **argv)
{
	const char *cmd = argc > 1 ? argv[1] : NULL;
	char name[64];
	if (!cmd) {
		help(stderr);
		return 1;
	}
	if (!strcmp(cmd, "--help") || !strcmp(cmd, "-h") || !strcmp(cmd, "help")) {
		help(stdout);
		return flushed("help", 0);
	}
	if (!strcmp(cmd, "--version") || !strcmp(cmd, "version")) {
		printf("cortex %s\n", CX_VERSION);
		return flushed("version", 0);
	}
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
		if (strcmp(cmd, commands[i].name) != 0) continue;
		snprintf(name, sizeof name, "cortex %s", commands[i].name);
		argv[1] = name; /* getopt begins its messages with it */
		return flushed(commands[i].name, commands[i].run(argc - 1, argv + 1));
	}
	fprintf(stderr, "cortex: there is no command '%s'; see cortex --help\n", cmd);
	return 1;
}
