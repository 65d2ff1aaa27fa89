/* svg.c - line charts. See svg.h. */
#include "serve/svg.h"
#include "models/files/out.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { WIDTH = 1000, LEFT = 70, RIGHT = 20, TOP = 70, PANEL = 200, GAP = 46 };

static void text(FILE *f, double x, double y, const char *anchor, int size, const char *s)
{
	fprintf(f, "<text x='%.1f' y='%.1f' text-anchor='%s' font-size='%d'>", x, y, anchor, size);
	for (; *s; s++) {
		if (*s == '<') fputs("&lt;", f);
		else if (*s == '&') fputs("&amp;", f);
		else fputc(*s, f);
	}
	fputs("</text>\n", f);
}

/* A step of 1, 2 or 5 times a power of ten that gives about `want` ticks. */
static double tick_step(double span, int want)
{
	double raw = span / want, p = pow(10, floor(log10(raw))), m = raw / p;
	return (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10) * p;
}

static void range(const cx_svg_panel *p, size_t n, double *lo, double *hi)
{
	*lo = INFINITY;
	*hi = -INFINITY;
	for (size_t l = 0; l < p->n_lines; l++)
		for (size_t i = 0; i < n; i++) {
			double v = p->line[l].y[i * p->line[l].stride];
			if (!isfinite(v)) continue;
			if (v < *lo) *lo = v;
			if (v > *hi) *hi = v;
		}
	if (!(*hi > *lo)) {
		double mid = isfinite(*lo) ? *lo : 0;
		*lo = mid - 1;
		*hi = mid + 1;
	}
}

static void draw_line(FILE *f, const cx_svg_line *line, size_t n, double top, double lo, double hi)
{
	double width = WIDTH - LEFT - RIGHT;
	bool pen = false;
	fprintf(f, "<path fill='none' stroke='%s' stroke-width='1.4' d='", line->colour);
	for (size_t i = 0; i < n; i++) {
		double v = line->y[i * line->stride];
		if (isfinite(v))
			fprintf(f, "%c%.1f %.1f", pen ? 'L' : 'M',
				LEFT + width * (double)i / (double)(n > 1 ? n - 1 : 1),
				top + PANEL * (hi - v) / (hi - lo));
		pen = isfinite(v);
	}
	fputs("'/>\n", f);
}

static void draw_panel(FILE *f, const cx_svg_panel *p, size_t n, double top, double x0, double dx)
{
	double lo, hi, step, width = WIDTH - LEFT - RIGHT, x_end = x0 + dx * (double)(n - 1);
	char label[64];
	range(p, n, &lo, &hi);
	step = tick_step(hi - lo, 5);
	for (double v = ceil(lo / step) * step; v <= hi + step * 1e-9; v += step) {
		double y = top + PANEL * (hi - v) / (hi - lo);
		fprintf(f, "<path stroke='#ddd' d='M%d %.1fH%d'/>\n", LEFT, y, WIDTH - RIGHT);
		snprintf(label, sizeof label, "%.4g", fabs(v) < step * 1e-6 ? 0 : v);
		text(f, LEFT - 6, y + 4, "end", 11, label);
	}
	step = tick_step(x_end - x0 > 0 ? x_end - x0 : 1, 10);
	for (double v = ceil(x0 / step) * step; v <= x_end + step * 1e-9; v += step) {
		snprintf(label, sizeof label, "%.6g", v);
		text(f, LEFT + width * (v - x0) / (x_end > x0 ? x_end - x0 : 1), top + PANEL + 14, "middle",
			11, label);
	}
	for (size_t l = 0; l < p->n_lines; l++) draw_line(f, &p->line[l], n, top, lo, hi);
	snprintf(label, sizeof label, "%.40s (%.16s)", p->title, p->unit);
	text(f, LEFT, top - 8, "start", 13, label);
	for (size_t l = 0; l < p->n_lines; l++) {
		double x = WIDTH - RIGHT - 150.0 * (double)(p->n_lines - l);
		fprintf(f, "<path stroke='%s' stroke-width='2' d='M%.1f %.1fh22'/>\n", p->line[l].colour, x,
			top - 12);
		text(f, x + 28, top - 8, "start", 12, p->line[l].label);
	}
}

cx_status cx_svg_write(const char *path, const char *title, const char *subtitle,
	const char *x_label, const cx_svg_panel *panels, size_t n_panels, size_t n, double x0,
	double dx, cx_err *err)
{
	int height = TOP + (int)n_panels * (PANEL + GAP) + 10;
	cx_file_out *out = NULL;
	char *buf = NULL;
	size_t size = 0;
	cx_status st;
	FILE *f;
	if (n < 1) return CX_FAIL(err, CX_ERR_ARGUMENT, "picture '%.100s': no points", path);
	f = open_memstream(&buf, &size);
	if (!f) return CX_FAIL(err, CX_ERR_MEMORY, "picture '%.100s': out of memory", path);
	fprintf(f,
		"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' font-family='sans-serif' "
		"fill='#222'>\n"
		"<rect width='%d' height='%d' fill='#fff'/>\n",
		WIDTH, height, WIDTH, height);
	text(f, LEFT, 24, "start", 18, title);
	text(f, LEFT, 42, "start", 12, subtitle);
	for (size_t p = 0; p < n_panels; p++)
		draw_panel(f, &panels[p], n, TOP + (double)p * (PANEL + GAP), x0, dx);
	text(f, WIDTH - RIGHT, height - 4, "end", 12, x_label);
	fputs("</svg>\n", f);
	if (fclose(f) != 0) {
		free(buf);
		return CX_FAIL(err, CX_ERR_MEMORY, "picture '%.100s': out of memory", path);
	}
	st = cx_file_out_open(NULL, path, &out, err);
	if (st == CX_OK && (st = cx_file_out_write(out, buf, size, err)) != CX_OK)
		cx_file_out_discard(out);
	else if (st == CX_OK) st = cx_file_out_commit(out, err);
	free(buf);
	return st;
}
