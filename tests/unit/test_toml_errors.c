/* TOML: what is read, what is refused and where, and that no cut text makes
 * the parser read on. The suite in tests/toml has the breadth; here are the
 * places of errors, how the parser goes on after them, and what it once got
 * wrong. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include <setjmp.h>

#include <cmocka.h>

#define WANTS_MAX 5

/* A text with its NULs. */
#define T(lit) { lit, sizeof(lit) - 1 }

struct parsed {
	struct arena arena;
	struct diags diags;
	struct toml *root;
	char *copy; /* exactly as long as the text, for the sanitizer */
};

static void
parse(struct parsed *p, struct slice in)
{
	memset(p, 0, sizeof *p);
	p->copy = malloc(in.n);
	assert_non_null(p->copy);
	memcpy(p->copy, in.p, in.n);
	p->diags = (struct diags){ .arena = &p->arena, .file = "test",
		.source = { p->copy, in.n } };
	p->root = toml_parse(&p->arena, p->diags.source, &p->diags);
	assert_non_null(p->root);
}

static void
parsed_free(struct parsed *p)
{
	arena_free(&p->arena);
	free(p->copy);
}

/* ---- the tree as a text ---- */

/* Strings in quotes, with anything unusual as \xHH. */
static void
show_text(struct text *t, struct slice s)
{
	for (size_t i = 0; i < s.n; i++) {
		if ((unsigned char)s.p[i] > ' ' && (unsigned char)s.p[i] < 0x7f)
			text_char(t, s.p[i]);
		else
			text_fmt(t, s.p[i] == ' ' ? " " : "\\x%02x", (unsigned)(unsigned char)s.p[i]);
	}
}

static void
show_scalar(struct text *t, const struct toml *v)
{
	switch (v->kind) {
	case TOML_STRING:
		text_char(t, '"');
		show_text(t, v->text);
		text_char(t, '"');
		assert_int_equal(v->text.p[v->text.n], '\0');
		break;
	case TOML_INTEGER:
		text_fmt(t, "%lld", (long long)v->integer);
		break;
	case TOML_FLOAT:
		text_fmt(t, "float %g", v->real);
		break;
	case TOML_BOOLEAN:
		text_str(t, v->boolean ? "true" : "false");
		break;
	default:
		text_fmt(t, "<%d ", (int)v->kind);
		show_text(t, v->text);
		text_char(t, '>');
	}
}

static void
show(struct text *t, const struct toml *v)
{
	bool table = v->kind == TOML_TABLE;
	size_t n = 0;

	if (!table && v->kind != TOML_ARRAY) {
		show_scalar(t, v);
		return;
	}
	text_char(t, table ? '{' : '[');
	for (const struct toml *k = v->first; k; k = k->next, n++) {
		if (n > 0)
			text_char(t, ',');
		if (table) {
			show_text(t, k->key);
			text_char(t, '=');
			assert_int_equal(k->key.p[k->key.n], '\0');
		}
		show(t, k);
		assert_true(k->line > 0 && k->col > 0 && k->vline > 0 && k->vcol > 0);
		assert_true(k->next || k == v->last);
	}
	assert_int_equal(n, v->count);
	text_char(t, table ? '}' : ']');
}

/* Every start of it: nothing may be read beyond, nor go wrong otherwise. */
static void
cut_short(struct slice in)
{
	struct parsed p;

	for (size_t n = 0; n < in.n; n++) {
		parse(&p, (struct slice){ in.p, n });
		assert_in_range(p.diags.errors, 0, TOML_ERRORS_MAX);
		parsed_free(&p);
	}
}

/* ---- what is TOML ---- */

struct good_row {
	struct slice in;
	const char *want, *why;
};

static const struct good_row good_rows[] = {
	{ T(""), "{}", "nothing" },
	{ T("\xef\xbb\xbf" "a = 1"), "{a=1}", "byte order mark" },
	{ T("a = 1 # \xc3\xa9\r\n\r\n# x\r\nb=2\r\n"), "{a=1,b=2}", "comments, CRLF" },
	{ T("\t a\t=\t1\t\n"), "{a=1}", "tabs" },

	{ T("a-b_C9 = 1\n1234 = 2\n- = 3\n"), "{a-b_C9=1,1234=2,-=3}", "bare keys" },
	{ T("\"\" = 1\n'a b' = 2\n\"\\u00e9.x\" = 3"), "{=1,a b=2,\\xc3\\xa9.x=3}", "quoted keys" },
	{ T("a . 'b' .c = 1\na.d = 2"), "{a={b={c=1},d=2}}", "dotted keys, blanks around dots" },
	{ T("3.14 = 1"), "{3={14=1}}", "a number as key is a dotted key" },
	{ T("a.b = 1\nc = 2\na.d = 3"), "{a={b=1,d=3},c=2}", "dotted keys apart" },

	{ T("a = \"x\\b\\t\\n\\f\\r\\\"\\\\\""), "{a=\"x\\x08\\x09\\x0a\\x0c\\x0d\"\\\"}", "escapes" },
	{ T("a = \"\\u0000\\u00E9\\u20ac\\U0001F600\\uD7FF\\uE000\\U0010ffff\""),
	    "{a=\"\\x00\\xc3\\xa9\\xe2\\x82\\xac\\xf0\\x9f\\x98\\x80\\xed\\x9f\\xbf\\xee\\x80\\x80\\xf4\\x8f\\xbf\\xbf\"}",
	    "Unicode, NUL among it" },
	{ T("a = 'C:\\x\t\"'"), "{a=\"C:\\x\\x09\"\"}", "literal" },
	{ T("a = ''\nb = \"\""), "{a=\"\",b=\"\"}", "empty texts" },
	{ T("a = \"\"\"\r\nx\r\ny\"\"\""), "{a=\"x\\x0ay\"}", "first line end goes, CRLF is LF" },
	{ T("a = \"\"\"x \\  \n\n \t y \\\r\n\"\"\""), "{a=\"x y \"}", "lines joined" },
	{ T("a = \"\"\"\"\"x\"\"\"\"\""), "{a=\"\"\"x\"\"\"}", "two quotes at both ends" },
	{ T("a = \"\"\"\"\"\"\nb = ''''''\nc = ''''x'''''"), "{a=\"\",b=\"\",c=\"'x''\"}", "quotes" },
	{ T("a = \"\"\"\\\"\"\"\\\"\"\"\""), "{a=\"\"\"\"\"\"}", "escaped quotes" },
	{ T("a = '''\n\\\n# no comment\n'''"), "{a=\"\\\\x0a# no comment\\x0a\"}", "long literal" },

	{ T("a=[0,+0,-0,-1_000,+99]"), "{a=[0,0,0,-1000,99]}", "integers" },
	{ T("a=[0xDEAD_beef,0o17,0b1_01,0x00]"), "{a=[3735928559,15,5,0]}", "bases" },
	{ T("a=[9223372036854775807,-9223372036854775808,0x7fffffffffffffff]"),
	    "{a=[9223372036854775807,-9223372036854775808,9223372036854775807]}", "bounds" },
	{ T("a=[1.5,-0.0,1e3,1E+2,6.5e-1,1_0.2_5,0e0]"),
	    "{a=[float 1.5,float -0,float 1000,float 100,float 0.65,float 10.25,float 0]}", "floats" },
	{ T("a=[1.5e-10,100e-2,1234e-2,12.5e-1]"),
	    "{a=[float 1.5e-10,float 1,float 12.34,float 1.25]}", "once taken for dates" },
	{ T("a=[inf,+inf,-inf]"), "{a=[float inf,float inf,float -inf]}", "infinities" },
	{ T("a=0.00000000000000000000000000000000000000000000000000000000000000000000000000001"),
	    "{a=float 1e-77}", "many digits" },
	{ T("a=[true,false]"), "{a=[true,false]}", "booleans" },

	{ T("a=1979-05-27T07:32:00Z"), "{a=<4 1979-05-27T07:32:00Z>}", "with offset" },
	{ T("a=1979-05-27 07:32:00.999-23:59"), "{a=<4 1979-05-27 07:32:00.999-23:59>}", "blank" },
	{ T("a=1979-05-27t07:32:60z"), "{a=<4 1979-05-27t07:32:60z>}", "lower case, leap second" },
	{ T("a=1979-05-27T00:00:00.5"), "{a=<5 1979-05-27T00:00:00.5>}", "local" },
	{ T("a=[2000-02-29,2024-02-29 ,1979-05-27 ]"), "{a=[<6 2000-02-29>,<6 2024-02-29>,<6 1979-05-27>]}", "leap" },
	{ T("a=23:59:59.123456"), "{a=<7 23:59:59.123456>}", "time" },

	{ T("a=[]\nb=[ 1 , ]\nc=[[1],['x',{}]]"), "{a=[],b=[1],c=[[1],[\"x\",{}]]}", "arrays" },
	{ T("a = [ # x\n\n 1 # y\r\n , # z\n 2 # w\n]"), "{a=[1,2]}", "arrays over lines" },
	{ T("a={}\nb={ }\nc = { x.y = 1, x.z = [\n1\n], 'w'={}}"),
	    "{a={},b={},c={x={y=1,z=[1]},w={}}}", "inline tables" },

	{ T("[a]\nx=1\n[b]#c\n[ c . 'd' ]\ny=2"), "{a={x=1},b={},c={d={y=2}}}", "headers" },
	{ T("[a.b]\n[a]\nx=1"), "{a={b={},x=1}}", "super-table later" },
	{ T("[[a]]\nx=1\n[[a]]\n[a.b]\ny=2\n[[a.c]]\n[[a.c]]"), "{a=[{x=1},{b={y=2},c=[{},{}]}]}", "lists" },
	{ T("[a]\nb.c=1\n[a.b.d]\ne=2"), "{a={b={c=1,d={e=2}}}}", "header below a dotted key" },
	{ T("[[a.b]]\n[a]\nx=1"), "{a={b=[{}],x=1}}", "super-table of a list" },
};

static void
good_texts(void **state)
{
	char b[1024];
	struct parsed p;
	int failed = 0;

	(void)state;
	for (size_t i = 0; i < LEN(good_rows); i++) {
		const struct good_row *row = &good_rows[i];
		struct text t = { b, 0, sizeof b - 1, false };

		parse(&p, row->in);
		show(&t, p.root);
		b[t.n] = '\0';
		if (p.diags.errors > 0 || strcmp(b, row->want) != 0) {
			print_error("--- %s: wanted %s, got %s\n", row->why, row->want, b);
			diags_print(&p.diags, stderr);
			failed++;
		}
		parsed_free(&p);
		cut_short(row->in);
	}
	assert_int_equal(failed, 0);
}

static void
nan_is_read(void **state)
{
	struct parsed p;

	(void)state;
	parse(&p, S("a = [nan, +nan, -nan]"));
	assert_int_equal(p.diags.errors, 0);
	assert_int_equal(p.root->first->count, 3);
	for (const struct toml *v = p.root->first->first; v; v = v->next)
		assert_true(v->kind == TOML_FLOAT && isnan(v->real));
	parsed_free(&p);
}

/* ---- what is not, and where ---- */

/* All that is told, in the order told: line:col and a part of the text. */
struct bad_row {
	struct slice in;
	const char *why;
	struct want {
		unsigned line, col;
		const char *part;
	} want[WANTS_MAX];
};

static const struct bad_row bad_rows[] = {
	/* keys and lines */
	{ T("a"), "no value", { { 1, 2, "expected '=' behind the key" } } },
	{ T("a b = 1"), "two keys", { { 1, 3, "expected '='" } } },
	{ T("= 1"), "no key", { { 1, 1, "expected a key" } } },
	{ T("a. = 1"), "dot at the end", { { 1, 4, "expected a key" } } },
	{ T("\xc3\xa9 = 1"), "bare keys are ASCII", { { 1, 1, "expected a key" } } },
	{ T("\"\"\"a\"\"\" = 1"), "key of lines", { { 1, 1, "a key cannot span lines" } } },
	{ T("a ="), "end", { { 1, 4, "expected a value after '='" } } },
	{ T("a = # x\nb =\r\n"), "comment, line end",
	    { { 1, 5, "expected a value after '='" }, { 2, 4, "expected a value after '='" } } },
	{ T("a = 1 b = 2"), "two pairs", { { 1, 7, "expected the end of the line" } } },
	{ T("a = 1\rb = 2"), "CR alone", { { 1, 6, "expected the end of the line" } } },
	{ T("a = 1 # x\x01\nb = 2 # \x7f\n"), "control characters in comments",
	    { { 1, 10, "a comment holds a control" }, { 2, 9, "a comment holds a control" } } },
	{ T("a = 1\0"), "NUL", { { 1, 6, "expected the end of the line" } } },

	/* columns are characters */
	{ T("a = \"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\" x"), "columns", { { 1, 11, "expected the end" } } },
	{ T("\xef\xbb\xbf" "a = x"), "not the byte order mark", { { 1, 5, "text needs quotes: \"x\"" } } },

	/* encoding */
	{ T("a = 1 # \xff\xfe\nb = x\nc = '\x80'"), "each line's first, and the rest is read",
	    { { 1, 9, "not UTF-8" }, { 3, 6, "not UTF-8" }, { 2, 5, "text needs quotes" } } },
	{ T("# \xc0\x80\n# \xed\xa0\x80\n# \xf4\x90\x80\x80\n# \xe0\x9f\xbf\n# \xf0\x8f\xbf\xbf"),
	    "overlong, surrogate, beyond", { { 1, 3, "UTF-8" }, { 2, 3, "UTF-8" }, { 3, 3, "UTF-8" },
	    { 4, 3, "UTF-8" }, { 5, 3, "UTF-8" } } },
	{ T("# \xe2\x82"), "sequence cut", { { 1, 3, "not UTF-8" } } },

	/* texts */
	{ T("a = \"x"), "no end", { { 1, 5, "no closing quote" } } },
	{ T("a = \"x\nb = 'y\r\n"), "end of line",
	    { { 1, 7, "must end on its line" }, { 2, 7, "must end on its line" } } },
	{ T("b = 1\na = \"\"\"x\ny\n"), "no end of lines", { { 2, 5, "no closing quotes" } } },
	{ T("a = \"\\q\\x\"\nb = \"\\ \""), "unknown escapes",
	    { { 1, 6, "unknown escape" }, { 1, 8, "unknown escape" }, { 2, 6, "unknown escape" } } },
	{ T("a = \"\"\"\n\\q\nb = x\n\"\"\"\nc = y"), "the text goes on after it",
	    { { 2, 1, "unknown escape" }, { 5, 5, "needs quotes: \"y\"" } } },
	{ T("a = \"\\u12\"\nb = \"\\U0000123\""), "digits missing",
	    { { 1, 6, "expected 4 hexadecimal digits" }, { 2, 6, "expected 8 hexadecimal" } } },
	{ T("a = \"\\ud800\"\nb = \"\\U00110000\"\nc = \"\\UFFFFFFFF\""), "no characters",
	    { { 1, 6, "no Unicode character" }, { 2, 6, "no Unicode" }, { 3, 6, "no Unicode" } } },
	{ T("a = \"x\x01y\"\nb = '\x7f'\nc = \"\0\""), "control characters",
	    { { 1, 7, "control character" }, { 2, 6, "control character" }, { 3, 6, "control" } } },
	{ T("a = '''\nx\ry'''"), "CR alone in lines", { { 2, 2, "control character" } } },
	{ T("a = \"\"\"x\"\"\"\"\"\""), "six quotes", { { 1, 14, "" } } },

	/* numbers */
	{ T("a = 01\nb = -00\nc = +0x1\nd = 0X1\n"), "integers' fronts", { { 1, 5, "'01' is no number" },
	    { 2, 5, "'-00' is no" }, { 3, 5, "no number" }, { 4, 5, "no number" } } },
	{ T("a = 1__0\nb = _1\nc = 1_\nd = 0x_1\ne = 0x\n"), "underscores", { { 1, 5, "no number" },
	    { 2, 5, "no number" }, { 3, 5, "no number" }, { 4, 5, "no number" }, { 5, 5, "no number" } } },
	{ T("a = 9223372036854775808\nb = -9223372036854775809\nc = 0xffffffffffffffff"), "overflow",
	    { { 1, 5, "out of range" }, { 2, 5, "out of range" }, { 3, 5, "out of range" } } },
	{ T("a = 0b2\nb = 0o8\nc = 0xg\nd = 1a"), "digits of other bases", { { 1, 5, "no number" },
	    { 2, 5, "no number" }, { 3, 5, "no number" }, { 4, 5, "no number" } } },
	{ T("a = 1.\nb = .5\nc = 1.e5\nd = 1e\ne = 1e1.5\n"), "floats' ends", { { 1, 5, "no number" },
	    { 2, 5, "no number" }, { 3, 5, "no number" }, { 4, 5, "no number" }, { 5, 5, "no number" } } },
	{ T("a = 01.5\nb = 1_.5\nc = 1._5\nd = 1e_5\ne = +"), "floats", { { 1, 5, "no number" },
	    { 2, 5, "no number" }, { 3, 5, "no number" }, { 4, 5, "no number" }, { 5, 5, "no number" } } },
	{ T("a = 1e999\nb = -1e999\nc = 1e-999x"), "infinite by mistake",
	    { { 1, 5, "out of range" }, { 2, 5, "out of range" }, { 3, 5, "no number" } } },
	{ T("a = True\nb = Inf\nc = on"), "words", { { 1, 5, "text needs quotes: \"True\"" },
	    { 2, 5, "text needs quotes: \"Inf\"" }, { 3, 5, "text needs quotes: \"on\"" } } },

	/* dates */
	{ T("a = 2023-02-29\nb = 1900-02-29\nc = 2024-04-31\nd = 2024-13-01\ne = 2024-00-01"),
	    "no such day", { { 1, 5, "'2023-02-29' is no date" }, { 2, 5, "no date" }, { 3, 5, "no date" },
	    { 4, 5, "no date" }, { 5, 5, "no date" } } },
	{ T("a = 24:00:00\nb = 00:60:00\nc = 00:00:61\nd = 07:32\ne = 07:32:00."), "no such time",
	    { { 1, 5, "no date or time" }, { 2, 5, "no date or" }, { 3, 5, "no date or" },
	    { 4, 5, "no date or" }, { 5, 5, "no date or" } } },
	{ T("a = 2024-01-01T00:00:00+24:00\nb = 2024-01-01T00:00:00+01\nc = 2024-01-01T\n"
	    "d = 2024-1-1\ne = 2024-01-01x"), "offsets and the rest", { { 1, 5, "no date" }, { 2, 5, "no date" },
	    { 3, 5, "no date" }, { 4, 5, "no date" }, { 5, 5, "no date" } } },
	{ T("a = 2024-01-00\nb = 2024-01-01  00:00:00"), "day 0, two blanks",
	    { { 1, 5, "no date" }, { 2, 17, "expected the end of the line" } } },

	/* arrays and inline tables */
	{ T("a = [1 2]\nb = x"), "no comma",
	    { { 1, 8, "expected ',' or ']' in the array begun in line 1" }, { 2, 5, "needs quotes" } } },
	{ T("a = [,]\nb = [1,,2]"), "commas", { { 1, 6, "expected a value" }, { 2, 8, "expected a value" } } },
	{ T("a = [1, 2"), "no end", { { 1, 10, "expected ',' or ']'" } } },
	{ T("a = [\n  \"x\",\n  y,\n  \"z\",\n  [1],\n]\nb ="), "one error for one array",
	    { { 3, 3, "text needs quotes: \"y\"" }, { 7, 4, "expected a value after" } } },
	{ T("a = [ x, \"]\", '[', # ]\n \"\\\"]\" ]\nb y"), "brackets that are none",
	    { { 1, 7, "needs quotes: \"x\"" }, { 3, 3, "expected '='" } } },
	{ T("a = [1, 2\n[b]\nx = 1\n[c]\nx = y"), "array without end, then a header",
	    { { 2, 1, "expected ',' or ']' in the array begun in line 1" }, { 5, 5, "needs quotes: \"y\"" } } },
	{ T("a = [\n 1,\nb.c = z\nd = w"), "array without end, then keys", { { 3, 1, "needs quotes: \"b.c\"" },
	    { 3, 7, "needs quotes: \"z\"" }, { 4, 5, "needs quotes: \"w\"" } } },
	{ T("a = {x = 1,}\nb = {x = 1 y = 2}\nc = {,}"), "commas in inline tables", { { 1, 12, "expected a key" },
	    { 2, 12, "expected ',' or '}'" }, { 3, 6, "expected a key" } } },
	{ T("a = {x = 1,\n}\nb = {\n}\nc = {x = 1"), "inline tables and lines", { { 1, 12, "must end on its line" },
	    { 3, 6, "must end on its line" }, { 5, 11, "expected ',' or '}'" } } },

	/* twice */
	{ T("a = 1\n\na = 2"), "key", { { 3, 1, "'a' is defined twice, first in line 1" } } },
	{ T("a = 1\n\"\\u0061\" = [\n 'x',\n]\nb = y"), "the second is read to its end",
	    { { 2, 1, "'a' is defined twice" }, { 5, 5, "needs quotes" } } },
	{ T("a.b = 1\na.b.c = [\n2]\na.b = 3"), "dotted into a value",
	    { { 2, 3, "'b' was defined in line 1 and cannot be added to" }, { 4, 3, "'b' is defined twice" } } },
	{ T("a = {b = 1, b = 2, c.d = 3, c = 4}"), "in an inline table", { { 1, 13, "'b' is defined twice" } } },
	{ T("a = {b.c = 1}\na.d = 2\n[a.b]\n[a]"), "inline tables are closed", { { 2, 1, "cannot be added to" },
	    { 3, 2, "'a' was defined in line 1 as an inline table" }, { 4, 2, "'a' is defined twice" } } },
	{ T("[a]\nx = 1\n\n[a]\nx = 2\ny = z"), "header; its lines are beside the tree",
	    { { 4, 2, "'a' is defined twice, first in line 1" }, { 6, 5, "needs quotes" } } },
	{ T("[a.b]\n[a]\n[a.b]"), "header, made before", { { 3, 4, "'b' is defined twice, first in line 1" } } },
	{ T("[a]\nb.c = 1\n[a.b]"), "header of a dotted key", { { 3, 4, "'b' is defined twice" } } },
	{ T("[a.b.c]\n[a]\nb.d = 1"), "dotted into a header's", { { 3, 1, "'b' was defined in line 1" } } },
	{ T("a = [{}]\n[[a]]\n[a.b]"), "arrays are closed", { { 2, 3, "'a' is defined twice" },
	    { 3, 2, "'a' was defined in line 1 as an array" } } },
	{ T("[[a]]\n[a]\n[b]\n[[b]]"), "table and list", { { 2, 2, "'a' is defined" }, { 4, 3, "'b' is defined" } } },
	{ T("a = 1\n[a.b]\nx ="), "header below a value", { { 2, 2, "'a' was defined in line 1 as an integer" },
	    { 3, 4, "expected a value after" } } },
	{ T("\"a\\u001b[m\" = 1\n\"a\\u001b[m\" = 2"), "control characters are not told", { { 2, 1, "'a?[m' is" } } },

	/* headers */
	{ T("[]\n[a\n[a]]\n[[b]\n[[c] ]"), "brackets", { { 1, 2, "expected a key" }, { 2, 3, "expected ']'" },
	    { 3, 4, "expected the end of the line" }, { 4, 4, "expected ']]'" }, { 5, 4, "expected ']]'" } } },
	{ T("[ [a]]\n[b.]\n[.c]\n[d] e = 1\n[f"), "names", { { 1, 3, "expected a key" }, { 2, 4, "expected a key" },
	    { 3, 2, "expected a key" }, { 4, 5, "expected the end of the line" }, { 5, 3, "expected ']'" } } },
};

static bool
as_wanted(const struct diags *ds, const struct want *want)
{
	const struct diag *d = ds->first;

	for (size_t i = 0; i < WANTS_MAX && want[i].line > 0; i++, d = d->next)
		if (!d || d->line != want[i].line || d->col != want[i].col ||
		    !strstr(d->text, want[i].part))
			return false;
	return !d;
}

static void
bad_texts(void **state)
{
	struct parsed p;
	int failed = 0;

	(void)state;
	for (size_t i = 0; i < LEN(bad_rows); i++) {
		parse(&p, bad_rows[i].in);
		if (!as_wanted(&p.diags, bad_rows[i].want)) {
			print_error("--- %s: not as wanted:\n", bad_rows[i].why);
			diags_print(&p.diags, stderr);
			failed++;
		}
		parsed_free(&p);
		cut_short(bad_rows[i].in);
	}
	assert_int_equal(failed, 0);
}

/* ---- places, bounds ---- */

/* Where keys and values are, for what the configuration says about them. */
static void
places(void **state)
{
	static const struct { const char *path[3]; unsigned line, col, vline, vcol; } rows[] = {
		{ { "a" }, 1, 1, 1, 5 },
		{ { "t" }, 3, 2, 3, 2 },
		{ { "t", "\xc3\xa9" }, 4, 1, 4, 7 },
		{ { "t", "b" }, 5, 1, 5, 1 },
		{ { "t", "b", "c" }, 5, 3, 5, 7 },
		{ { "t", "d" }, 6, 3, 6, 7 },
		{ { "t", "e" }, 8, 2, 8, 6 },
	};
	struct parsed p;

	(void)state;
	parse(&p, S("a = 1\n\n[t]\n\"\xc3\xa9\" = 2\nb.c = 'x'\n  d = [\n]\n e = {}\n"));
	assert_int_equal(p.diags.errors, 0);
	for (size_t i = 0; i < LEN(rows); i++) {
		const struct toml *v = p.root;

		for (size_t k = 0; k < LEN(rows[i].path) && rows[i].path[k]; k++)
			v = toml_get(v, rows[i].path[k]);
		assert_non_null(v);
		assert_int_equal(v->line, rows[i].line);
		assert_int_equal(v->col, rows[i].col);
		assert_int_equal(v->vline, rows[i].vline);
		assert_int_equal(v->vcol, rows[i].vcol);
	}
	assert_null(toml_get(p.root, "none"));
	assert_null(toml_get(toml_get(p.root, "a"), "a"));
	assert_null(toml_get(NULL, "a"));
	parsed_free(&p);
	for (size_t i = 0; i < TOML_KINDS; i++)
		assert_non_null(toml_kind_names[i]);
}

/* before, then n times piece, then after. */
static int
errors_of(const char *before, size_t n, const char *piece, const char *after, const char *part)
{
	size_t cap = strlen(before) + n * strlen(piece) + strlen(after);
	struct text t = { malloc(cap), 0, cap, false };
	struct parsed p;
	int errors;

	assert_non_null(t.p);
	text_str(&t, before);
	while (n-- > 0)
		text_str(&t, piece);
	text_str(&t, after);
	assert_false(t.full);
	parse(&p, text_slice(&t));
	errors = p.diags.errors;
	if (errors > 0 && part && !strstr(p.diags.first->text, part))
		fail_msg("wanted: %s, got: %s", part, p.diags.first->text);
	parsed_free(&p);
	free(t.p);
	return errors;
}

/* The tree is never deeper than callers can walk, however it is written. */
static void
depth(void **state)
{
	static const struct { const char *before, *piece, *after; unsigned less; } rows[] = {
		{ "a = ", "[", "", 0 },
		{ "a = [", "[", "", 1 },
		{ "", "a.", "b = 1", 0 },
		{ "a = ", "{a = ", "1", 0 },
		{ "[t]\n", "a.", "b = 1", 1 },
		{ "[[t]]\n", "a.", "b = 1", 1 },
		{ "[", "a.", "b]\n", 1 },
		{ "[[", "a.", "b]]\n", 1 },
		{ "[", "a.", "b]\nc.d.e = 1\n", 3 },
		{ "[t]\na.b = [{ c = ", "[", "", 4 },
	};

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		size_t most = TOML_DEPTH_MAX - rows[i].less;
		const char *part = strpbrk(rows[i].piece, "[{") ? "expected" : "none";

		if (part[0] == 'n')
			assert_int_equal(errors_of(rows[i].before, most, rows[i].piece, rows[i].after, part), 0);
		else
			assert_int_equal(errors_of(rows[i].before, most, rows[i].piece, rows[i].after, part), 1);
		assert_true(errors_of(rows[i].before, most + 1, rows[i].piece, rows[i].after,
		    "nested deeper than 64 levels") > 0);
		assert_true(errors_of(rows[i].before, 100000, rows[i].piece, rows[i].after,
		    "nested deeper than 64 levels") > 0);
	}
}

static void
errors_are_bounded(void **state)
{
	(void)state;
	assert_int_equal(errors_of("", 19, "a\n", "", NULL), 19);
	assert_int_equal(errors_of("", 1000, "a\n", "", NULL), TOML_ERRORS_MAX);
	assert_int_equal(errors_of("", 1000, "#\xff\n", "", NULL), TOML_ERRORS_MAX);
	assert_int_equal(errors_of("a = \"", 1000, "\\q", "\"", NULL), TOML_ERRORS_MAX);
}

/* The largest file, all in one line: places are counted on, not anew. Were
 * they, this would take hours. */
static void
long_lines(void **state)
{
	const size_t n = CONFIG_FILE_MAX / 16;

	(void)state;
	assert_int_equal(errors_of("a = [", n, "1, ", "1]", NULL), 0);
	assert_int_equal(errors_of("a = [", n, "'x', ", "''] x", "expected the end of the line"), 1);
	assert_int_equal(errors_of("a = [", n, "{a.b={c=1}}, ", "{}]", NULL), 0);
	assert_int_equal(errors_of("a = '", n, "\xc3\xa9", "'", NULL), 0);
	assert_int_equal(errors_of("a = \"\"\"", n, "\\\n ", "\"\"\"", NULL), 0);
	assert_int_equal(errors_of("a = 0.", n, "0", "1", NULL), 0);
	assert_int_equal(errors_of("", n, "[[a.b]]\n", "", NULL), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_texts),
		cmocka_unit_test(nan_is_read),
		cmocka_unit_test(bad_texts),
		cmocka_unit_test(places),
		cmocka_unit_test(depth),
		cmocka_unit_test(errors_are_bounded),
		cmocka_unit_test(long_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
