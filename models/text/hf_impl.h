/* hf_impl.h - what the two halves of the tokenizer.json loader share. Not API. */
#ifndef CX_TEXT_HF_IMPL_H
#define CX_TEXT_HF_IMPL_H

#include "models/files/json.h"
#include "models/text/text_impl.h"

enum { CX__HF_STEPS = 48, CX__HF_AROUND = 16, CX__HF_STOP = 64, CX__HF_DEPTH = 8 };

typedef struct cx__hf {
	const char *label;
	cx_arena arena; /* what the description points to, besides the JSON itself */
	cx_vocab_desc d;
	cx__token_map by_text; /* every token by its text */
	cx_norm_step norm[CX__HF_STEPS];
	cx_split_step split[CX__HF_STEPS];
	int32_t prefix[CX__HF_AROUND], suffix[CX__HF_AROUND], stop[CX__HF_STOP];
	bool pre_bytes,
		decoder_bytes; /* a ByteLevel step was seen in the pre-tokenizer; in the decoder */
	cx_err *err;
} cx__hf;

/* hf_steps.c: each reads one section of tokenizer.json, null among them, into h->d. */
cx_status cx__hf_normalizer(cx__hf *h, const cx_json_at *root);
cx_status cx__hf_pre_tokenizer(cx__hf *h, const cx_json_at *root);
cx_status cx__hf_post_processor(cx__hf *h, const cx_json_at *root);
cx_status cx__hf_decoder(cx__hf *h, const cx_json_at *root);

#endif
