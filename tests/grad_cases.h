/* grad_cases.h - forward graphs of every op with a gradient, for tests/grad_check.h. */
#ifndef CX_TESTS_GRAD_CASES_H
#define CX_TESTS_GRAD_CASES_H

#include "tests/grad_check.h"

extern const grad_row grad_map_rows[], grad_move_rows[], grad_row_rows[], grad_heavy_rows[];
extern const uint32_t grad_n_map_rows, grad_n_move_rows, grad_n_row_rows, grad_n_heavy_rows;

#endif
