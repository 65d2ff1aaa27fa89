/* pre.c - the pre-tokenizers that GGUF files name (spec/llm.md 4.3, 4.5, 4.9), as lists of split
 * patterns.
 *
 * `default` is llama.cpp's, for files whose converter knew no better. */
#include "models/text/text_impl.h"

#include <string.h>

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?"
#define LLAMA3 HEAD "\\p{L}+|\\p{N}{1,3}" TAIL
#define QWEN2 HEAD "\\p{L}+|\\p{N}" TAIL
#define QWEN35                                                                                     \
	HEAD "[\\p{L}\\p{M}]+|\\p{N}| "                                                                \
		 "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const cx_pre table[] = {
	{"gpt-2", 1, {GPT2}, false, false, false},
	{"phi-2", 1, {GPT2}, false, false, false},
	{"mpt", 1, {GPT2}, false, false, false},
	{"olmo", 1, {GPT2}, false, false, false},
	{"llama-bpe", 1, {LLAMA3}, false, true, true},
	{"llama3", 1, {LLAMA3}, false, true, true},
	{"llama-v3", 1, {LLAMA3}, false, true, true},
	{"smaug-bpe", 1, {LLAMA3}, false, false, false},
	{"dbrx", 1, {LLAMA3}, false, false, false},
	{"qwen2", 1, {QWEN2}, true, false, false},
	{"deepseek-r1-qwen", 1, {QWEN2}, true, false, false},
	{"qwen35", 1, {QWEN35}, true, false, false},
	{"starcoder", 2, {"\\p{N}", GPT2}, false, false, false},
	{"refact", 2, {"\\p{N}", GPT2}, false, false, false},
	{"smollm", 2, {"\\p{N}", GPT2}, false, false, false},
	{"falcon", 3, {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}, false, false, false},
	{"default", 4, {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}, false, false, false},
};

bool cx_pre_find(const char *name, size_t len, cx_pre *out)
{
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		if (strlen(table[i].name) != len || memcmp(table[i].name, name, len) != 0) continue;
		*out = table[i];
		return true;
	}
	return false;
}

uint32_t cx__pre_steps(const cx_pre *pre, cx_split_step *steps)
{
	for (uint32_t i = 0; i < pre->n_split; i++)
		steps[i] = (cx_split_step){.kind = CX_SPLIT_REGEX,
			.how = CX_SPLIT_ISOLATED,
			.pattern = {pre->split[i], strlen(pre->split[i])}};
	return pre->n_split;
}

uint32_t cx__bert_norm(cx_norm_step *steps, bool clean, bool cjk, bool accents, bool lower)
{
	uint32_t n = 0;
	if (clean) steps[n++] = (cx_norm_step){.kind = CX_NORM_BERT_CLEAN};
	if (cjk) steps[n++] = (cx_norm_step){.kind = CX_NORM_BERT_CJK};
	if (accents) { /* exactly BERT's: decompose, then drop what is a mark */
		steps[n++] = (cx_norm_step){.kind = CX_NORM_NFD};
		steps[n++] = (cx_norm_step){.kind = CX_NORM_STRIP_ACCENTS};
	}
	if (lower) steps[n++] = (cx_norm_step){.kind = CX_NORM_LOWER};
	return n;
}

/* Whitespace separates; each punctuation character, and each ASCII symbol, is a piece. */
uint32_t cx__bert_split(cx_split_step *steps)
{
	static const char white[] = "\\s+", punct[] = "[!-/:-@\\[-`{-~\\p{P}]";
	steps[0] = (cx_split_step){
		.kind = CX_SPLIT_REGEX, .how = CX_SPLIT_REMOVED, .pattern = {white, sizeof white - 1}};
	steps[1] = (cx_split_step){
		.kind = CX_SPLIT_REGEX, .how = CX_SPLIT_ISOLATED, .pattern = {punct, sizeof punct - 1}};
	return 2;
}

cx_span cx__gpt2_pattern(void)
{
	return (cx_span){GPT2, sizeof GPT2 - 1};
}
