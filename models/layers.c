/* layers.c - see layers.h. */
#include "models/layers.h"

cx_tensor cx_layer_linear(cx_graph *g, cx_tensor x, cx_tensor w, cx_tensor bias)
{
	cx_tensor y = cx_matmul(g, x, w, &(cx_attr_matmul){.trans_b = true});
	return cx_is_none(bias) ? y : cx_add(g, y, bias);
}

cx_tensor cx_layer_swiglu(cx_graph *g, cx_tensor gate, cx_tensor up)
{
	return cx_mul(g, cx_silu(g, gate), up);
}
