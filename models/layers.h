/* layers.h - what models are made of: small functions over graph constructors. They name no backend
 * and fuse nothing; the planner does. */
#ifndef CX_LAYERS_H
#define CX_LAYERS_H

#include "graph/cx.h"

/* y = x w' + bias: x [.., in], w [out, in] of any float or block format, bias [out] or CX_NONE;
 * gives [.., out]. */
cx_tensor cx_layer_linear(cx_graph *g, cx_tensor x, cx_tensor w, cx_tensor bias);

/* silu(gate) * up (Shazeer 2020), both of one shape. */
cx_tensor cx_layer_swiglu(cx_graph *g, cx_tensor gate, cx_tensor up);

#endif
