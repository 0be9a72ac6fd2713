/* JSON: what RFC 8259 allows is read, the rest is refused; every good row also
 * cut short at every byte. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static const struct {
	struct slice in;
	const char *print; /* canonical; NULL: refused */
	const char *why;
} texts[] = {
	{ T("{}"), "{}", "an empty object" },
	{ T(" [ ] \r\n\t"), "[]", "blanks around" },
	{ T("null"), "null", "null alone" },
	{ T("[true,false,null]"), "[true,false,null]", "the words" },
	{ T("{\"a\":1,\"b\":[2,{\"c\":\"d\"}]}"), "{a=1,b=[2,{c='d'}]}", "nested" },
	{ T("{ \"a\" : 1 , \"b\" : 2 }"), "{a=1,b=2}", "blanks between" },
	{ T("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), "'\"\\/\b\f\n\r\t'", "the short escapes" },
	{ T("\"\\u0041\\u00e9\\u20AC\""), "'A\xc3\xa9\xe2\x82\xac'", "\\u of 1, 2 and 3 bytes" },
	{ T("\"\\ud83d\\ude00\""), "'\xf0\x9f\x98\x80'", "a surrogate pair" },
	{ T("\"\\uD800\\uDC00 \\udbff\\udfff\""), "'\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf'",
	  "the first and the last pair" },
	{ T("\"\xc3\xa9\xf0\x9f\x98\x80\""), "'\xc3\xa9\xf0\x9f\x98\x80'", "UTF-8 as it is" },
	{ T("\"a\\u0000b\""), "'a\1b'", "a NUL in a string (printed as 1)" },
	{ T("{\"\":\"\"}"), "{=''}", "empty name and text" },
	{ T("{\"a\":1,\"a\":2}"), "{a=1,a=2}", "a name twice" },
	{ T("[0,-0,10,-1.5,1e5,1E+5,0.25e-10]"), "[0,-0,10,-1.5,1e5,1E+5,0.25e-10]", "numbers" },
	{ T("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"),
	  "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", "32 deep" },
	{ T("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"), NULL, "33 deep" },
	{ T(""), NULL, "nothing" },
	{ T("  "), NULL, "only blanks" },
	{ T("{} {}"), NULL, "something behind it" },
	{ T("[]\0"), NULL, "a NUL behind it" },
	{ T("\xef\xbb\xbf{}"), NULL, "a byte order mark" },
	{ T("[1,]"), NULL, "a comma too many" },
	{ T("[,1]"), NULL, "a comma in front" },
	{ T("[1 2]"), NULL, "no comma" },
	{ T("{\"a\":1,}"), NULL, "a comma too many in an object" },
	{ T("{\"a\" 1}"), NULL, "no colon" },
	{ T("{a:1}"), NULL, "a name without quotes" },
	{ T("{1:1}"), NULL, "a number as a name" },
	{ T("['a']"), NULL, "single quotes" },
	{ T("[1}"), NULL, "another bracket" },
	{ T("{\"a\"}"), NULL, "a name alone" },
	{ T("nul"), NULL, "half a word" },
	{ T("nullx"), NULL, "more than a word" },
	{ T("True"), NULL, "a capital" },
	{ T("01"), NULL, "a leading zero" },
	{ T("-"), NULL, "only a sign" },
	{ T("+1"), NULL, "a plus" },
	{ T(".5"), NULL, "no digit before the point" },
	{ T("5."), NULL, "no digit behind it" },
	{ T("1e"), NULL, "no exponent" },
	{ T("1e+"), NULL, "only its sign" },
	{ T("0x10"), NULL, "hexadecimal" },
	{ T("NaN"), NULL, "not a number" },
	{ T("\"a\nb\""), NULL, "a line end in a string" },
	{ T("\"a\x1f\""), NULL, "a control character" },
	{ T("\"\\x41\""), NULL, "an escape that is none" },
	{ T("\"\\u12\""), NULL, "too few digits" },
	{ T("\"\\u12g4\""), NULL, "no digit" },
	{ T("\"\\ud83d\""), NULL, "half a pair" },
	{ T("\"\\ud83dx\""), NULL, "half a pair and a letter" },
	{ T("\"\\ud83d\\n\""), NULL, "half a pair and an escape" },
	{ T("\"\\ud83d\\ud83d\""), NULL, "two first halves" },
	{ T("\"\\ude00\""), NULL, "the second half alone" },
	{ T("\"\xff\""), NULL, "not UTF-8" },
	{ T("\"\xc0\x80\""), NULL, "an overlong NUL" },
	{ T("\"\xed\xa0\x80\""), NULL, "a surrogate in UTF-8" },
	{ T("\"\xe2\x82\""), NULL, "a sequence cut by the quote" },
};

static void
print_tree(struct text *t, const struct json *v)
{
	bool object = v->kind == JSON_OBJECT;

	switch (v->kind) {
	case JSON_NULL: text_str(t, "null"); break;
	case JSON_BOOL: text_str(t, v->boolean ? "true" : "false"); break;
	case JSON_NUMBER: text_add(t, v->text); break;
	case JSON_STRING:
		text_char(t, '\'');
		for (size_t i = 0; i < v->text.n; i++)
			text_char(t, v->text.p[i] ? v->text.p[i] : '\1');
		text_char(t, '\'');
		break;
	default:
		text_char(t, object ? '{' : '[');
		for (const struct json *k = v->first; k; k = k->next) {
			text_add(t, k->name);
			text_str(t, object ? "=" : "");
			print_tree(t, k);
			text_str(t, k->next ? "," : "");
		}
		text_char(t, object ? '}' : ']');
	}
}

static void
test_texts(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(texts); i++) {
		struct arena a = { NULL };
		struct slice in = exact(texts[i].in);
		struct json *v = json_parse(&a, in);
		char b[512];
		struct text t = { b, 0, sizeof b, false };

		row_int(texts[i].why, in, "read", v != NULL, texts[i].print != NULL);
		exact_free(in); /* the tree does not point into it */
		if (v && texts[i].print) {
			print_tree(&t, v);
			row_slice(texts[i].why, texts[i].in, "tree", text_slice(&t),
			    slice_of(texts[i].print));
		}
		arena_free(&a);
	}
	rows_end();
}

/* No good row is good without its end; and nothing is read behind one. */
static void
test_cut_short(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(texts); i++) {
		size_t end = texts[i].in.n;

		while (end > 0 && texts[i].in.p[end - 1] <= ' ')
			end--;
		for (size_t n = 0; n < texts[i].in.n; n++) {
			struct arena a = { NULL };
			struct slice in = exact((struct slice){ texts[i].in.p, n });

			if (json_parse(&a, in) && texts[i].print && n < end)
				row_bad(texts[i].why, in, "cut short at %zu", n);
			exact_free(in);
			arena_free(&a);
		}
	}
	rows_end();
}

static void
test_members(void **state)
{
	struct arena a = { NULL };
	const struct json *v = json_parse(&a, S("{\"a\":\"x\",\"n\":5,\"o\":{\"in\":\"y\"},"
	    "\"a\":\"z\",\"l\":[\"p\",\"q\"]}"));

	(void)state;
	assert_non_null(v);
	assert_true(slice_eq(json_text(v, "a"), S("z"))); /* the last one */
	assert_true(slice_eq(json_text(json_get(v, "o"), "in"), S("y")));
	assert_int_equal(json_text(v, "n").n, 0);
	assert_int_equal(json_text(v, "none").n, 0);
	assert_null(json_get(v, "none"));
	assert_null(json_get(NULL, "a"));
	assert_null(json_get(json_get(v, "l"), "p"));
	assert_int_equal(json_text(NULL, "a").n, 0);
	assert_true(slice_eq(json_get(v, "l")->last->text, S("q")));
	assert_int_equal(json_get(v, "l")->last->text.p[1], '\0');
	arena_free(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_members),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
