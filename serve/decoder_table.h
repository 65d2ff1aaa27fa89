/* decoder_table.h - one table of decoders on one recording, and how its rows are collected.
 *
 * Text, Markdown (docs/ACCURACY.md) or JSON; the linear decoders fill it in decoder_table.c and
 * decoder_trials.c, networks add rows of their own with cx__table_add(). */
#ifndef CX_DECODER_TABLE_H
#define CX_DECODER_TABLE_H

#include "serve/cmd_decoder.h"

enum { CX_TABLE_ROWS = 64, CX_TABLE_COLS = 8 };

typedef enum cx_table_form { CX_TABLE_TEXT, CX_TABLE_MARKDOWN, CX_TABLE_JSON } cx_table_form;

typedef struct cx_table_row {
	char protocol[32], decoder[40], settings[80];
	double r2[CX_TABLE_COLS]; /* per column, NaN: none */
	double sd[CX_TABLE_COLS]; /* over seeds; 0: one run, or exact */
	double seconds;           /* to fit, tuning included */
} cx_table_row;

typedef struct cx_table {
	char title[200], note[400];
	uint32_t n_cols, n_rows;
	char col[CX_TABLE_COLS][16];
	cx_table_row row[CX_TABLE_ROWS];
} cx_table;

/* Copies row, if there is room. */
void cx__table_add(cx_table *t, const cx_table_row *row);
void cx__table_print(const cx_table *t, cx_table_form form);

/* `cortex decoder eval --table`: every protocol that the recording has, or the one of
 * a->protocol. */
cx_status cx__decoder_table(const decoder_args *a, cx_err *err);
/* The trial-aligned and the benchmark's protocol on a recording with trials. */
cx_status cx__decoder_trials(const decoder_args *a, const char *path, cx_table *t, cx_err *err);
/* A row for networks that `cortex decoder train` wrote: list is files or folders with commas
 * between,
 * one training with several seeds; their mean and standard deviation. t has its columns. */
cx_status cx__decoder_net_row(const decoder_args *a, const char *list, const char *data,
	const cx_host *host, cx_table *t, cx_err *err);
double cx__seconds(void); /* of a clock that only goes forward */

#endif
