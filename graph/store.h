/* store.h - the inside of a cx_store, for exec.c: buffers of weights and states on a device. */
#ifndef CX_STORE_H
#define CX_STORE_H

#include "graph/backend.h"

/* The buffer of a weight on dev, made on first use; it must be there and have this dtype and these
 * dims. */
cx_status cx__store_weight_on(cx_store *s, const char *name, const cx_desc *want, cx_device *dev,
	cx_buffer **out, cx_err *err);
/* The buffer of a state, zeros when new. One device per state. */
cx_status cx__store_state_on(cx_store *s, const char *name, const cx_desc *want, cx_device *dev,
	cx_buffer **out, cx_err *err);

#endif
