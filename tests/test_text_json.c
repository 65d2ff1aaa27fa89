/* test_text_json.c - the sections of tokenizer.json on vocabularies that the test makes: added
 * tokens, pre-tokenizers, WordPiece, templates, the config files beside it; a tokenizer shared by
 * threads. Needs no fixtures. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/text_make.h"

static void check_cut(const cx_tokenizer *tok, const char *text, const char *want)
{
	cx_text got = {0};
	cut(tok, text, strlen(text), '|', &got);
	assert_string_equal(got.v, want);
	cx_text_deinit(&got);
}

/* ---- tokenizer.json: added tokens ---- */

#define BYTES_PRE "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"

/* Letters a-z, A-Z, U+0120 (space) and the added tokens; no merges. */
static cx_tokenizer *with_added(const char *added, const char *normalizer)
{
	char json[8192], vocab[1024], *p = vocab;
	for (int i = 0; i < 26; i++)
		p += sprintf(p, "\"%c\":%d,\"%c\":%d,", 'a' + i, i, 'A' + i, i + 26);
	sprintf(p, "\"\xC4\xA0\":52,\"!\":53");
	snprintf(json, sizeof json,
		"{\"added_tokens\":[%s],\"normalizer\":%s,\"pre_tokenizer\":" BYTES_PRE
		",\"post_processor\":null,"
		"\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{%s},"
		"\"merges\":[]}}",
		added, normalizer, vocab);
	return tok_from_text(json);
}

static void check_pieces(
	const cx_tokenizer *tok, const char *text, unsigned flags, const char *want)
{
	char *got = pieces_of(tok, text, flags);
	assert_string_equal(got, want);
	free(got);
}

static void test_added(void **state)
{
	cx_tokenizer *tok = with_added(
		"{\"id\":60,\"content\":\"<x>\",\"special\":true},{\"id\":61,\"content\":\"<x>y\","
		"\"special\":true},"
		"{\"id\":62,\"content\":\"[u]\",\"special\":false,\"normalized\":false},"
		"{\"id\":63,\"content\":\"[l]\",\"special\":false,\"normalized\":false,\"lstrip\":true},"
		"{\"id\":64,\"content\":\"[r]\",\"special\":false,\"normalized\":false,\"rstrip\":true},"
		"{\"id\":65,\"content\":\"cat\",\"special\":false,\"normalized\":false,\"single_word\":"
		"true},"
		"{\"id\":66,\"content\":\"Dog\",\"special\":false,\"normalized\":true}",
		"{\"type\":\"Lowercase\"}");
	(void)state;
	assert_non_null(tok);
	check_pieces(tok, "a<x>b", CX_ENCODE_PARSE_SPECIAL, "a|<x>|b");
	check_pieces(tok, "a<x>yb", CX_ENCODE_PARSE_SPECIAL, "a|<x>y|b"); /* the longest */
	check_pieces(tok, "a<x>b", 0, "a|x|b"); /* not asked for: plain text, and < has no token here */
	check_pieces(tok, "a[u]b", 0, "a|[u]|b");
	check_pieces(tok, "a  [l]  b", 0, "a|[l]| | |b");
	check_pieces(tok, "a  [r]  b", 0, "a| | |[r]|b");
	check_pieces(tok, "a cat!cat catb", 0, "a| |cat|!|cat| |c|a|t|b");
	check_pieces(tok, "aDOG dog", 0, "a|Dog| |Dog"); /* both sides are lower-cased first */
	check_pieces(tok, "CAT", 0, "c|a|t");            /* not normalized: the raw text has no "cat" */
	assert_int_equal(cx_tokenizer_token_type(tok, 60), CX_TOKEN_CONTROL);
	assert_int_equal(cx_tokenizer_token_type(tok, 62), CX_TOKEN_USER);
	assert_int_equal(cx_tokenizer_token_type(tok, 55), CX_TOKEN_UNUSED);
	cx_tokenizer_free(tok);
}

/* ---- tokenizer.json: pre-tokenizers ---- */

static void check_pre(const char *pre_tokenizer, const char *text, const char *want)
{
	char json[4096];
	cx_tokenizer *tok;
	snprintf(json, sizeof json,
		"{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":%s,\"post_processor\":null,"
		"\"decoder\":null,"
		"\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
		pre_tokenizer);
	tok = tok_from_text(json);
	assert_non_null(tok);
	check_cut(tok, text, want);
	cx_tokenizer_free(tok);
}

#define SPLIT(how)                                                                                 \
	"{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},\"behavior\":\"" how "\",\"invert\":"      \
	"false}"
#define M "\xE2\x96\x81"

static void test_pre_tokenizers(void **state)
{
	(void)state;
	check_pre(SPLIT("Removed"), "the-final--countdown", "the|final|countdown");
	check_pre(SPLIT("Isolated"), "the-final--countdown", "the|-|final|-|-|countdown");
	check_pre(SPLIT("MergedWithPrevious"), "the-final--countdown", "the-|final-|-|countdown");
	check_pre(SPLIT("MergedWithNext"), "the-final--countdown", "the|-final|-|-countdown");
	check_pre(SPLIT("Contiguous"), "the-final--countdown", "the|-|final|--|countdown");
	check_pre("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a-z]+\"},\"behavior\":\"Removed\","
			  "\"invert\":true}",
		"ab1c-d", "ab|c|d");
	check_pre("{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x*\"},\"behavior\":\"Isolated\"}",
		"axxb", "a|xx|b");
	check_pre("{\"type\":\"Whitespace\"}", "Hey, friend!  ok\xCC\x81", "Hey|,|friend|!|ok\xCC\x81");
	check_pre("{\"type\":\"WhitespaceSplit\"}", " Hey, friend! ", "Hey,|friend!");
	check_pre(
		"{\"type\":\"BertPreTokenizer\"}", "Hey, $5 ok\xE3\x80\x82", "Hey|,|$|5|ok|\xE3\x80\x82");
	check_pre("{\"type\":\"Punctuation\"}", "a?!b", "a|?|!|b");
	check_pre("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "a?!b", "a|?!|b");
	check_pre("{\"type\":\"Digits\",\"individual_digits\":true}", "a123b", "a|1|2|3|b");
	check_pre("{\"type\":\"Digits\",\"individual_digits\":false}", "a123b", "a|123|b");
	check_pre("{\"type\":\"Metaspace\",\"replacement\":\"" M "\",\"prepend_scheme\":\"always\"}",
		"Hey  you", M "Hey|" M "|" M "you");
	check_pre("{\"type\":\"Metaspace\",\"replacement\":\"" M
			  "\",\"prepend_scheme\":\"never\",\"split\":false}",
		"Hey you", "Hey" M "you");
	check_pre("{\"type\":\"Metaspace\",\"replacement\":\"" M "\",\"add_prefix_space\":true}",
		" Hey", M "Hey");
	/* after a byte-level step the others see its alphabet: falcon's own file does this */
	check_pre("{\"type\":\"Sequence\",\"pretokenizers\":[" BYTES_PRE
			  ",{\"type\":\"Split\",\"pattern\":{\"Regex\":"
			  "\"[0-9][0-9][0-9]\"},\"behavior\":\"Isolated\"}]}",
		" 12345", "\xC4\xA0|123|45");
	check_pre("{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}", "Hey you",
		" Hey| you");
}

/* ---- WordPiece, post-processors, config files ---- */

static const char bert_json[] =
	"{\"added_tokens\":[{\"id\":0,\"content\":\"[UNK]\",\"special\":true,\"normalized\":false},"
	"{\"id\":1,\"content\":\"[CLS]\",\"special\":true},{\"id\":2,\"content\":\"[SEP]\",\"special\":"
	"true}],"
	"\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,"
	"\"strip_accents\":null,\"lowercase\":true},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
	"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"["
	"CLS]\",\"type_id\":0}},"
	"{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"[SEP]\",\"type_id\":0}"
	"}],\"pair\":[],"
	"\"special_tokens\":{\"[CLS]\":{\"id\":\"[CLS]\",\"ids\":[1],\"tokens\":[\"[CLS]\"]},"
	"\"[SEP]\":{\"id\":\"[SEP]\",\"ids\":[2],\"tokens\":[\"[SEP]\"]}}},"
	"\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},"
	"\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##"
	"\","
	"\"max_input_chars_per_word\":9,\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,\"[SEP]\":2,\"un\":3,\"##"
	"aff\":4,\"##able\":5,"
	"\"cafe\":6,\"!\":7,\"\xE4\xB8\xAD\":8,\"##a\":9,\"a\":10}}}";

static void check_ids(const cx_tokenizer *tok, const char *text, unsigned flags, const char *want)
{
	char *got = ids_of_text(tok, text, flags);
	assert_string_equal(got, want);
	free(got);
}

static void test_wordpiece(void **state)
{
	cx_tokenizer *tok = tok_from_text(bert_json);
	cx_ids ids = {0};
	(void)state;
	assert_non_null(tok);
	check_ids(tok, "unaffable", 0, " 3 4 5");
	check_ids(tok, "UNAFFABLE!", CX_ENCODE_ADD_SPECIAL, " 1 3 4 5 7 2");
	check_ids(tok, "Caf\xC3\xA9 cafe\xCC\x81", 0, " 6 6");
	check_ids(tok,
		"a\xE4\xB8\xAD"
		"a",
		0, " 10 8 10");                  /* an ideograph stands alone */
	check_ids(tok, "unx a", 0, " 0 10"); /* what was found of a word is dropped */
	check_ids(tok, "aaaaaaaaa", 0, " 10 9 9 9 9 9 9 9 9");
	check_ids(tok, "aaaaaaaaaa", 0, " 0"); /* over max_input_chars_per_word */
	check_ids(tok, "", CX_ENCODE_ADD_SPECIAL, " 1 2");
	assert_int_equal(
		cx_tokenizer_encode(tok, "unaffable a", 11, CX_ENCODE_ADD_SPECIAL, &ids, NULL), CX_OK);
	assert_true(decodes_to(tok, &ids, 0, "unaffable a", 11));
	assert_true(decodes_to(tok, &ids, CX_DECODE_SPECIAL, "[CLS] unaffable a[SEP]", 22));
	assert_true(decodes_to(tok, &ids, CX_DECODE_CONTINUATION, " unaffable a", 12));
	cx_ids_deinit(&ids);
	cx_tokenizer_free(tok);
}

/* A tokenizer is constant: threads share it without a lock. */
static void *encode_often(void *ctx)
{
	static const char text[] = "Unaffable caf\xC3\xA9! \xE4\xB8\xAD a";
	for (int i = 0; i < 300; i++) {
		cx_ids ids = {0};
		cx_status st = cx_tokenizer_encode(ctx, text, sizeof text - 1, 0, &ids, NULL);
		bool good = st == CX_OK && ids.n == 7 && ids.v[0] == 3 && ids.v[6] == 10;
		cx_ids_deinit(&ids);
		if (!good) return ctx;
	}
	return NULL;
}

static void test_threads(void **state)
{
	cx_tokenizer *tok = tok_from_text(bert_json);
	pthread_t t[4];
	void *bad = NULL;
	(void)state;
	assert_non_null(tok);
	for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, encode_often, tok), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(t[i], &bad), 0);
		assert_null(bad);
	}
	cx_tokenizer_free(tok);
}

static void test_configs(void **state)
{
	static const char json[] = "{\"added_tokens\":[{\"id\":3,\"content\":\"<|im_end|>\","
							   "\"special\":true},{\"id\":4,\"content\":\"<s>\","
							   "\"special\":true},{\"id\":5,\"content\":\"<|eot_id|>\",\"special\":"
							   "true}],\"pre_tokenizer\":" BYTES_PRE ","
							   "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},"
							   "\"merges\":[[\"a\",\"b\"]]}}";
	cx_tokenizer *tok = tok_from_text_with(json,
		"{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"<|im_end|>\"},\"add_bos_token\":true,"
		"\"pad_token\":null,"
		"\"model_max_length\":1000000000000000019884624838656}",
		"{\"eos_token_id\":[2,3]}", "{\"text_config\":{\"eos_token_id\":1}}");
	static const int32_t want[] = {1, 2, 3, 5};
	const int32_t *stop;
	size_t n;
	(void)state;
	assert_non_null(tok);
	assert_true(cx_tokenizer_adds_bos(tok));
	check_ids(tok, "ab", CX_ENCODE_ADD_SPECIAL, " 4 2");
	assert_int_equal(cx_tokenizer_special(tok)->eos, 3);
	assert_int_equal(cx_tokenizer_special(tok)->eot, 5);
	assert_int_equal(cx_tokenizer_special(tok)->pad, -1);
	stop = cx_tokenizer_stop_ids(tok, &n);
	assert_int_equal(n, 4);
	assert_memory_equal(stop, want, sizeof want);
	cx_tokenizer_free(tok);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_added),
		cmocka_unit_test(test_pre_tokenizers),
		cmocka_unit_test(test_wordpiece),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_configs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
