/* svg.h - line charts over time as a self-contained SVG file: what people look at after a run. */
#ifndef CX_SVG_H
#define CX_SVG_H

#include "graph/base.h"

typedef struct cx_svg_line {
	const char *label, *colour;
	const double *y;
	size_t stride;
} cx_svg_line;
typedef struct cx_svg_panel {
	const char *title, *unit;
	cx_svg_line line[4];
	size_t n_lines;
} cx_svg_panel;

/* Panels below each other, n points each (y[i * stride]) at x0 + i * dx; written atomically
 * (temporary, rename). Values that are not finite break the line. */
cx_status cx_svg_write(const char *path, const char *title, const char *subtitle,
	const char *x_label, const cx_svg_panel *panels, size_t n_panels, size_t n, double x0,
	double dx, cx_err *err);

#endif
