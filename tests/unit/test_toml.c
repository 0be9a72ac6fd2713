/* TOML: what tests/toml leaves out. Each error has its line and column, the
 * parser goes on behind it, and no text makes it read on. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static struct arena arena;
static struct diags diags;

static struct toml *
parse(struct slice text)
{
	arena_free(&arena);
	diags = (struct diags){ .arena = &arena, .file = "x", .source = text };
	return toml_parse(&arena, text, &diags);
}

/* clang-format off */
static const struct {
	struct slice in;
	unsigned line, col;
	const char *says;
} errors[] = {
	/* values */
	{ T("a = \n"), 1, 5, "expected a value" },
	{ T("a ="), 1, 4, "expected a value" },
	{ T("a = = 1\n"), 1, 5, "expected a value" },
	{ T("\n\n  a = x\n"), 3, 7, "a text needs quotes" },
	{ T("a = 1 2\n"), 1, 7, "expected the end of the line" },
	{ T("a = 1 b = 2\n"), 1, 7, "expected the end of the line" },
	{ T("a = 01\n"), 1, 5, "'01' is no number" },
	{ T("a = 1__0\n"), 1, 5, "'1__0' is no number" },
	{ T("a = 9223372036854775808\n"), 1, 5, "out of range" },
	{ T("a = -9223372036854775809\n"), 1, 5, "out of range" },
	{ T("a = 0x8000000000000000\n"), 1, 5, "out of range" },
	{ T("a = .5\n"), 1, 5, "" },
	{ T("a = 5.\n"), 1, 5, "'5.' is no number" },
	{ T("a = True\n"), 1, 5, "a text needs quotes" },
	{ T("a = 2024-13-01\n"), 1, 5, "no date or time" },
	{ T("a = 2024-02-30\n"), 1, 5, "no date or time" },
	{ T("a = 25:00:00\n"), 1, 5, "no date or time" },

	/* texts */
	{ T("a = \"b\n"), 1, 7, "" },
	{ T("a = \"b"), 1, 5, "no closing quote" },
	{ T("a = 'b"), 1, 5, "no closing quote" },
	{ T("\na = \"\"\"b\n\nc"), 2, 5, "no closing quote" },
	{ T("a = \"x\\q\"\n"), 1, 7, "unknown escape" },
	{ T("a = \"\\u12\"\n"), 1, 6, "4 hexadecimal digits" },
	{ T("a = \"\\ud800\"\n"), 1, 6, "no Unicode character" },
	{ T("a = \"\\U00110000\"\n"), 1, 6, "no Unicode character" },
	{ T("a = \"x\x01\"\n"), 1, 7, "" },
	{ T("a = 'x\0'\n"), 1, 7, "" },
	{ T("a = \"\"\"\n\n x\\q\"\"\"\n"), 3, 3, "unknown escape" },
	{ T("a = \"\xc3\xa4\xc3\xa4\\q\"\n"), 1, 8, "unknown escape" }, /* columns are characters */
	{ T("a = \"\xff\"\n"), 1, 6, "not UTF-8" },
	{ T("a = 1\nb = \"\xc3\"\n"), 2, 6, "not UTF-8" },
	{ T("# \xed\xa0\x80\n"), 1, 3, "not UTF-8" },

	/* keys */
	{ T("= 1\n"), 1, 1, "expected a key" },
	{ T("a\n"), 1, 2, "expected '='" },
	{ T("a b = 1\n"), 1, 3, "expected '='" },
	{ T("a. = 1\n"), 1, 4, "expected a key" },
	{ T(".a = 1\n"), 1, 1, "expected a key" },
	{ T("\"\"\"a\"\"\" = 1\n"), 1, 1, "a key cannot span lines" },
	{ T("\xc3\xa4 = 1\n"), 1, 1, "expected a key" },
	{ T("a = 1\na = 2\n"), 2, 1, "'a' is defined twice, first in line 1" },
	{ T("a = 1\n\"a\" = 2\n"), 2, 1, "defined twice" },
	{ T("a.b = 1\na.b = 2\n"), 2, 3, "'b' is defined twice, first in line 1" },
	{ T("a = 1\na.b = 2\n"), 2, 1, "was defined in line 1" },

	/* tables */
	{ T("[a\n"), 1, 3, "expected ']'" },
	{ T("[]\n"), 1, 2, "expected a key" },
	{ T("[[a]\n"), 1, 4, "expected ']]'" },
	{ T("[ [a]]\n"), 1, 3, "expected a key" },
	{ T("[a] b\n"), 1, 5, "expected the end of the line" },
	{ T("[a]\n[a]\n"), 2, 2, "'a' is defined twice, first in line 1" },
	{ T("[[a]]\n[a]\n"), 2, 2, "" },
	{ T("[a]\n[[a]]\n"), 2, 3, "" },
	{ T("a = []\n[[a]]\n"), 2, 3, "" },
	{ T("a = {}\n[a.b]\n"), 2, 2, "'a' was defined in line 1" },
	{ T("a = 1\n[a.b]\n"), 2, 2, "'a' was defined in line 1" },
	{ T("a.b = 1\n[a]\n"), 2, 2, "" },
	{ T("[a.b]\nc = 1\n[a]\nb.d = 2\n"), 4, 1, "" },

	/* arrays and inline tables */
	{ T("a = [1 2]\n"), 1, 8, "expected ',' or ']'" },
	{ T("a = [\n  1,\n  2 3\n]\n"), 3, 5, "expected ',' or ']'" },
	{ T("a = [,]\n"), 1, 6, "expected a value" },
	{ T("a = [1,,2]\n"), 1, 8, "expected a value" },
	{ T("a = [1"), 1, 7, "expected ',' or ']'" },
	{ T("a = {b = 1 c = 2}\n"), 1, 12, "expected ',' or '}'" },
	{ T("a = {b = 1,}\n"), 1, 12, "expected a key" },
	{ T("a = {b = 1\n}\n"), 1, 11, "expected ',' or '}'" },
	{ T("a = {b = 1, b = 2}\n"), 1, 13, "'b' is defined twice" },
	{ T("a = {b = 1}\na.c = 2\n"), 2, 1, "" },

	/* lines */
	{ T("a = 1\rb = 2\n"), 1, 6, "expected the end of the line" },
	{ T("# a\x01\n"), 1, 4, "control character" },
	{ T("# a\rb\n"), 1, 4, "control character" },
	{ T("\xef\xbb\xbf" "a = x\n"), 1, 5, "a text needs quotes" }, /* a BOM has no column */
};
/* clang-format on */

static void
test_errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(errors); i++) {
		struct slice in = exact(errors[i].in);
		const struct diag *d;

		parse(in);
		d = diags.first;
		if (diags.errors == 0)
			row_bad("error", in, "none, expected %u:%u %s", errors[i].line, errors[i].col,
			    errors[i].says);
		else if (d->line != errors[i].line || d->col != errors[i].col ||
		    !strstr(d->text, errors[i].says))
			row_bad("error", in, "%u:%u %s; expected %u:%u %s", d->line, d->col, d->text,
			    errors[i].line, errors[i].col, errors[i].says);
		exact_free(in);
	}
	rows_end();
}

static const char good[] =
    "\xef\xbb\xbf# a comment\r\n"
    "a = 1\r\n"
    "b.c = \"t\\u00e4\\n\\\"\"\n"
    "'d e' = 'x\\y'\n"
    "[t]\n"
    "x = [ 1, [ 2.5, true ], { y = \"\"\"\n"
    "long \\\n"
    "   line\"\"\" }, ] # behind\n"
    "z = 1979-05-27T07:32:00.5Z\n"
    "w = '''\n"
    "a'b'''\n"
    "[[l]]\n"
    "n = 0xdead_beef\n"
    "[l.m]\n"
    "[[l]]\n"
    "n = -1e-3\n"
    "o = inf\n";

/* Values and where they stand; slices outlive the text. */
static void
test_good(void **state)
{
	struct slice in = exact(slice_of(good));
	const struct toml *root = parse(in), *v, *x;

	(void)state;
	exact_free(in);
	assert_int_equal(diags.errors, 0);
	assert_int_equal(root->count, 5);
	v = toml_get(root, "a");
	assert_int_equal(v->integer, 1);
	assert_int_equal(v->line, 2);
	assert_int_equal(v->col, 1);
	assert_int_equal(v->vcol, 5);
	v = toml_get(toml_get(root, "b"), "c");
	assert_true(slice_eq(v->text, S("t\xc3\xa4\n\"")));
	assert_int_equal(v->text.p[v->text.n], '\0');
	assert_int_equal(v->line, 3);
	assert_int_equal(v->col, 3);
	assert_true(slice_eq(toml_get(root, "d e")->text, S("x\\y")));
	x = toml_get(toml_get(root, "t"), "x");
	assert_int_equal(x->kind, TOML_ARRAY);
	assert_int_equal(x->count, 3);
	assert_true(x->first->next->first->real == 2.5);
	assert_true(x->first->next->first->next->boolean);
	v = toml_get(x->last, "y");
	assert_true(slice_eq(v->text, S("long line")));
	assert_int_equal(v->vline, 6);
	v = toml_get(toml_get(root, "t"), "z");
	assert_int_equal(v->kind, TOML_DATETIME);
	assert_true(slice_eq(v->text, S("1979-05-27T07:32:00.5Z")));
	assert_int_equal(v->line, 9);
	assert_true(slice_eq(toml_get(toml_get(root, "t"), "w")->text, S("a'b")));
	x = toml_get(root, "l");
	assert_int_equal(x->count, 2);
	assert_int_equal(toml_get(x->first, "n")->integer, 0xdeadbeef);
	assert_int_equal(toml_get(x->first, "m")->kind, TOML_TABLE);
	assert_true(toml_get(x->last, "n")->real == -1e-3);
	assert_true(isinf(toml_get(x->last, "o")->real));
}

/* No text is read beyond its end, and errors are where the text is. */
static void
cut_short(struct slice text)
{
	for (size_t n = 0; n <= text.n; n++) {
		struct slice in = exact((struct slice){ text.p, n });
		unsigned lines = 1;

		parse(in);
		for (size_t i = 0; i < n; i++)
			lines += in.p[i] == '\n';
		for (const struct diag *d = diags.first; d; d = d->next)
			if (d->line < 1 || d->line > lines || d->col < 1 || d->col > n + 1)
				row_bad("cut short", in, "an error at %u:%u", d->line, d->col);
		exact_free(in);
	}
}

static void
test_cut_short(void **state)
{
	(void)state;
	cut_short(slice_of(good));
	for (size_t i = 0; i < LEN(errors); i++)
		cut_short(errors[i].in);
	rows_end();
}

/* One line's error does not hide the next one's. */
static void
test_all_errors(void **state)
{
	static const unsigned lines[] = { 1, 3, 5, 6 };
	const struct diag *d;
	const struct toml *root =
	    parse(S("a = x\nb = 1\nc = \"\n[d]\ne = [1 2]\n[f\ng = 1\n"));
	size_t i = 0;

	(void)state;
	assert_int_equal(diags.errors, LEN(lines));
	for (d = diags.first; d; d = d->next)
		assert_int_equal(d->line, lines[i++]);
	assert_int_equal(toml_get(root, "b")->integer, 1);
	assert_non_null(toml_get(root, "d"));
}

static void
test_bounds(void **state)
{
	static char b[64 * 1024];
	struct text t = { b, 0, sizeof b, false };

	(void)state;
	text_str(&t, "a = ");
	for (int i = 0; i < TOML_DEPTH_MAX; i++)
		text_char(&t, '[');
	for (int i = 0; i < TOML_DEPTH_MAX; i++)
		text_char(&t, ']');
	parse(text_slice(&t));
	assert_int_equal(diags.errors, 0);
	t.n = 0;
	text_str(&t, "a = ");
	while (!t.full)
		text_char(&t, '[');
	parse(text_slice(&t));
	assert_int_equal(diags.errors, 1);
	assert_non_null(strstr(diags.first->text, "nested deeper"));
	assert_int_equal(diags.first->col, 5 + TOML_DEPTH_MAX);
	t = (struct text){ b, 0, sizeof b, false };
	while (!t.full)
		text_str(&t, "{a=");
	parse(text_slice(&t));
	assert_true(diags.errors > 0);
	t = (struct text){ b, 0, sizeof b, false };
	text_str(&t, "a=");
	while (!t.full)
		text_str(&t, "{a=");
	parse(text_slice(&t));
	assert_non_null(strstr(diags.first->text, "nested deeper"));
	t = (struct text){ b, 0, sizeof b, false };
	while (!t.full)
		text_str(&t, "x\n");
	parse(text_slice(&t));
	assert_int_equal(diags.errors, TOML_ERRORS_MAX);
	t = (struct text){ b, 0, sizeof b, false };
	while (!t.full)
		text_str(&t, "a.");
	parse(text_slice(&t));
	assert_int_equal(diags.errors, 1);
}

static int
teardown(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_all_errors),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
