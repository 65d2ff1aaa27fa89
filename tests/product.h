/* product.h - one matrix product y = x w' with a weight of any dtype, on a device through the
 * public calls: for tests that compare devices, or shapes of work on one. */
#ifndef CX_TESTS_PRODUCT_H
#define CX_TESTS_PRODUCT_H

#include "graph/backend.h"

typedef struct product {
	cx_dtype dtype, x_dtype; /* of w; of x and y */
	int64_t m, n, k;
	void *w; /* [n,k] */
	uint64_t w_bytes;
	float *x; /* [m,k] */
} product;

/* Noise in [-1,1), the same every time; x is f32. Fails the test where memory ends. */
product product_make(cx_dtype t, int64_t m, int64_t n, int64_t k);
void product_free(product *p);
/* y [rows,n] in f32, of the first rows of x; the caller frees. kernel: NULL, or the name of the
 * kernel of the product, static. */
float *product_run(cx_runtime *rt, cx_device *on, const product *p, int64_t rows);
/* Profiles it a few times and fails the test unless the device's own clock serves, no step took
 * less than nothing, and all of them more than nothing but no more than the host saw go by. */
void product_check_times(cx_runtime *rt, cx_device *on, const product *p);
const char *product_kernel(cx_device *on, const product *p, int64_t rows);

#endif
