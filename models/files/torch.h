/* torch.h - tensors of a file that PyTorch wrote, without running anything that is in it.
 *
 *	FILE.pt         zip of data.pkl and data/<key> (torch.save). Its map of tensors is the value of
 *	                "model_state_dict", "model" or "state_dict", else the file's own top level;
 *	                everything else in it (configuration objects, optimizer, counters) is left alone
 *	DIR, DIR/shards distributed checkpoint: .metadata and *.distcp; names lose their "model." and
 *	                what does not begin with it is left alone. Tensors of several pieces are joined
 *
 * Bytes are used where they lie. Everything is checked when the file is opened. */
#ifndef CX_FILES_TORCH_H
#define CX_FILES_TORCH_H

#include "models/files/map.h"
#include "models/files/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cx_torch cx_torch;

/* *out is NULL on failure. Owned by the caller: cx_torch_close(). */
CX_API cx_status cx_torch_open(const cx_alloc *a, const char *path, cx_torch **out, cx_err *err);
/* A single file from a map, which is taken over, on failure too. */
CX_API cx_status cx_torch_open_map(
	const cx_alloc *a, cx_file_map *map, cx_torch **out, cx_err *err);
CX_API void cx_torch_close(cx_torch *t); /* NULL is fine */
CX_API const char *cx_torch_label(const cx_torch *t);
/* dtype_name is PyTorch's storage ("FloatStorage"). Types that the graph lacks are listed with
 * usable = false. */
CX_API const cx_tensor_list *cx_torch_tensors(const cx_torch *t);

#ifdef __cplusplus
}
#endif
#endif
