/* Regular expressions: what they match, where, and what is none; against regexec. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include <regex.h>

#include "unit.h"

static struct arena memory;

/* Where re matches in text, as `0,4 1,2 -`: the match, then each group. */
static const char *
found(const struct regex *re, struct slice text)
{
	static char b[256];
	struct text t = { b, 0, sizeof b - 1, false };
	struct regex_span span[REGEX_GROUPS];

	if (!regex_find(re, text, span))
		return "none";
	for (unsigned i = 0; i <= re->groups && i < REGEX_GROUPS; i++) {
		if (span[i].from < 0)
			text_fmt(&t, "%s-", i > 0 ? " " : "");
		else
			text_fmt(&t, "%s%d,%d", i > 0 ? " " : "", span[i].from, span[i].to);
	}
	b[t.n] = '\0';
	return b;
}

static const struct {
	const char *regex, *text, *want;
} rows[] = {
	{ "", "abc", "0,0" },
	{ "a", "xay", "1,2" },
	{ "a", "xyz", "none" },
	{ "^/api/v([0-9]+)/(.*)$", "/api/v12/users/7", "0,16 6,8 9,16" },
	{ "^/api", "/v1/api", "none" },
	{ "\\.(png|css)$", "/a.png.css", "6,10 7,10" },
	{ "/v([0-9]+)/", "/a/v2/b/v3/", "2,6 4,5" },
	{ "^/(.*)/by/(.*)$", "/a/by/b/by/c", "0,12 1,7 11,12" },
	{ "^/a(/x)?/(.*)$", "/a/c", "0,4 - 3,4" },
	/* the longest, whatever comes first */
	{ "a|ab|abc", "xabcd", "1,4" },
	{ "(a|ab)(c|bcd)(d*)", "abcd", "0,4 0,2 2,3 3,4" },
	{ "(a|ab)(bcd|c)(d*)", "abcd", "0,4 0,2 2,3 3,4" },
	{ "(ab|a)(bcd|c)?(d*)", "abcd", "0,4 0,2 2,3 3,4" },
	{ "(a*)(ab)*(b*)", "abb", "0,3 0,1 - 1,3" },
	{ "(x|xy)*(y?)", "xyxy", "0,4 2,4 4,4" },
	{ "((a)|(b))*", "ab", "0,2 1,2 - 1,2" },
	{ "(a*)*", "b", "0,0 0,0" },
	{ "(a*)+", "b", "0,0 0,0" },
	{ "(a)*", "b", "0,0 -" },
	{ "(a*)*", "aa", "0,2 0,2" },
	{ "(a*){2}", "aa", "0,2 2,2" },
	{ "(a*){1,3}", "aa", "0,2 0,2" },
	{ "(a|b){2,}", "abab", "0,4 3,4" },
	{ "((a)|(b)){2}", "ab", "0,2 1,2 - 1,2" },
	{ "(aa|aaa)*(a?)", "aaaa", "0,4 2,4 4,4" },
	{ "(aa|aaa)*", "aaaaa", "0,5 3,5" },
	/* how often */
	{ "a{2}", "aaaa", "0,2" },
	{ "a{2,}", "baaaa", "1,5" },
	{ "a{2,3}", "aaaa", "0,3" },
	{ "a{,2}b", "aaab", "1,4" },
	{ "a{0}b", "ab", "1,2" },
	{ "(a){0}b", "ab", "1,2 -" },
	{ "a{0,1}b{1}", "ab", "0,2" },
	{ "(ab){2}{2}", "abababab", "0,8 6,8" },
	{ "a**", "aaa", "0,3" },
	{ "x{255}", "xx", "none" },
	/* edges */
	{ "^", "a", "0,0" },
	{ "$", "ab", "2,2" },
	{ "^$", "", "0,0" },
	{ "^$", "a", "none" },
	{ "(^a|b$)+", "aab", "0,1 0,1" },
	{ "a^b", "a^b", "none" },
	{ "a$b", "a$b", "none" },
	{ "(^|/)x(/|$)", "/ax/x", "3,5 3,4 5,5" },
	{ "\\bfoo\\b", "/food/foo/", "6,9" },
	{ "\\<o|o\\>", "foo oo", "2,3" },
	{ "\\Boo\\B", "foo food", "5,7" },
	{ "(a*)$", "baab", "4,4 4,4" },
	/* classes */
	{ "[a-c]+", "xxabcdx", "2,5" },
	{ "[^a-c/]+", "abxyc", "2,4" },
	{ "[]a]+", "x]a]", "1,4" },
	{ "[^]a]+", "]xa", "1,2" },
	{ "[a-]+", "b-a-", "1,4" },
	{ "[-a]+", "b-a-", "1,4" },
	{ "[\\.]+", "a\\.", "1,3" },
	{ "[[:alpha:]_][[:alnum:]_]*", "9a_9-", "1,4" },
	{ "[[:digit:][:space:]-]+", "a1 \t-", "1,5" },
	{ "[[:upper:]]+[[:lower:]]+[[:punct:]]", "ABab,", "0,5" },
	{ "[[:xdigit:]]+", "gAf09", "1,5" },
	{ "[[:blank:]]|[[:cntrl:]]", "a\nb", "1,2" },
	{ "[[:graph:]]+", " ab ", "1,3" },
	{ "[[:print:]]+", "\na b\n", "1,4" },
	{ "[[.-.]-/]+", "a-./", "1,4" },
	{ "[[=a=]]+", "baa", "1,3" },
	{ "\\d+\\D\\w+\\W\\s\\S", "12-ab- x", "0,8" },
	{ ".+", "a\xff\n", "0,3" },
	{ "[\x80-\xff]+", "a\xc3\xa4", "1,3" },
	/* what stands for itself */
	{ "\\^\\.\\[\\$\\(\\)\\|\\*\\+\\?\\{\\\\", "^.[$()|*+?{\\", "0,12" },
	{ "a}b]", "a}b]", "0,4" },
	{ "-/~", "-/~", "0,3" },
	/* branches and groups that are empty */
	{ "a|", "b", "0,0" },
	{ "(|a)b", "ab", "0,2 0,1" },
	{ "()a", "ba", "1,2 1,1" },
	{ "(a||b)+", "ab", "0,2 1,2" },
	/* more groups than can be named */
	{ "(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)", "abcdefghij", "0,10 0,1 1,2 2,3 3,4 4,5 5,6 6,7 7,8 8,9" },
};

static void
test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct regex re;
		struct slice regex = exact(slice_of(rows[i].regex)), text = exact(slice_of(rows[i].text));
		size_t at;
		const char *why = regex_read(&memory, &re, regex, &at);

		if (why) {
			row_bad(rows[i].regex, text, "%s, at byte %zu", why, at);
			continue;
		}
		row_slice(rows[i].regex, text, "found", slice_of(found(&re, text)), slice_of(rows[i].want));
		row_int(rows[i].regex, text, "matches", regex_matches(&re, text), strcmp(rows[i].want, "none") != 0);
		exact_free(regex);
		exact_free(text);
	}
	arena_free(&memory);
	rows_end();
}

static const struct {
	const char *regex;
	size_t at;
	const char *why;
} bad[] = {
	{ "(", 0, "'(' without ')'" },
	{ "a(b(c)", 1, "'(' without ')'" },
	{ "a)", 1, "')' without '('" },
	{ ")", 0, "')' without '('" },
	{ "[a", 0, "'[' without ']'" },
	{ "a[]", 1, "'[' without ']'" },
	{ "[[:alpha:]", 0, "'[' without ']'" },
	{ "[z-a]", 1, "a range that ends before it begins" },
	{ "[[:alpha:]-z]", 1, "a range that ends before it begins" },
	{ "[[:apha:]]", 2, "of classes there are" },
	{ "[[:d:]]", 2, "of classes there are" },
	{ "[[.ab.]]", 2, "of classes there are" },
	{ "[[:", 2, "of classes there are" },
	{ "*a", 0, "there is nothing to repeat" },
	{ "a|+", 2, "there is nothing to repeat" },
	{ "(?:a)", 1, "there is nothing to repeat" },
	{ "{2}", 0, "there is nothing to repeat" },
	{ "a{", 1, "expected {2}, {2,} or {2,5}" },
	{ "a{}", 1, "expected {2}, {2,} or {2,5}" },
	{ "a{x}", 1, "expected {2}, {2,} or {2,5}" },
	{ "a{2", 1, "expected {2}, {2,} or {2,5}" },
	{ "a{3,2}", 1, "expected {2}, {2,} or {2,5}" },
	{ "a{256}", 1, "expected {2}, {2,} or {2,5}" },
	{ "a{99999999999}", 1, "expected {2}, {2,} or {2,5}" },
	{ "a\\", 1, "'\\' stands before what is no letter or digit" },
	{ "(a)\\1", 3, "'\\' stands before what is no letter or digit" },
	{ "\\q", 0, "'\\' stands before what is no letter or digit" },
	{ "((a{200}){200})", 14, "it is too large" },
	{ "(((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((a)))", 64, "too many '(' inside each other" },
};

static void
test_bad(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(bad); i++) {
		struct regex re;
		struct slice regex = exact(slice_of(bad[i].regex));
		size_t at = 0;
		const char *why = regex_read(&memory, &re, regex, &at);

		if (!why || strncmp(why, bad[i].why, strlen(bad[i].why)) != 0 || at != bad[i].at)
			row_bad(bad[i].why, regex, "'%s' at %zu, expected at %zu", why ? why : "nothing", at, bad[i].at);
		exact_free(regex);
	}
	arena_free(&memory);
	rows_end();
}

/* ---- against the words of POSIX, spelled out, and against regexec ---- */

/* An expression as a tree that is tried out, step by step. */
struct tree {
	enum tree_kind { N_BYTE, N_ANY, N_SET, N_START, N_END, N_GROUP, N_ALT, N_SEQ, N_LOOP } kind;
	char c;
	int group, least, most; /* of LOOP; most -1: any */
	struct tree *a, *b;
	unsigned text;              /* the one of which ends() is known, */
	uint32_t known, ends[16];   /* for these places */
};

static char pattern[4096];
static struct text printed;
static int n_groups;
static bool hard, edgy; /* a group is repeated, an edge: glibc is not always right then */

static struct tree *
tree_new(enum tree_kind kind, struct tree *a, struct tree *b)
{
	struct tree *t = arena_alloc(&memory, sizeof *t);

	*t = (struct tree){ .kind = kind, .a = a, .b = b };
	return t;
}

static struct tree *tree_branches(unsigned depth, bool in_loop);

static struct tree *
tree_leaf(bool in_loop)
{
	static const char *const texts[] = { "a", "b", ".", "[^a/]", "^", "$" };
	static const enum tree_kind kinds[] = { N_BYTE, N_BYTE, N_ANY, N_SET, N_START, N_END };
	unsigned k = dice(14);
	struct tree *t;

	k = k < 5 ? 0 : k < 9 ? 1 : k < 10 ? 2 : k < 12 ? 3 : k - 8;
	edgy |= in_loop && k >= 4;
	text_str(&printed, texts[k]);
	t = tree_new(kinds[k], NULL, NULL);
	t->c = texts[k][0];
	return t;
}

/* What is repeated is known behind it: a group is taken to be. */
static struct tree *
tree_part(unsigned depth, bool in_loop)
{
	static const struct { int least, most; const char *text; } loops[] = {
		{ 0, -1, "*" }, { 1, -1, "+" }, { 0, 1, "?" }, { 2, 2, "{2}" }, { 0, 2, "{0,2}" },
		{ 1, 3, "{1,3}" }, { 2, -1, "{2,}" }, { 0, 0, "{0}" }, { 3, 4, "{3,4}" }, { 0, 1, "{,1}" },
	};
	bool loop = dice(3) == 0;
	struct tree *t, *l;
	size_t k = dice(2) ? dice(3) : dice(LEN(loops));

	if (depth > 0 && dice(3) == 0) {
		int group = ++n_groups;
		hard |= in_loop || loop;
		text_char(&printed, '(');
		t = tree_new(N_GROUP, tree_branches(depth - 1, in_loop || loop), NULL);
		t->group = group;
		text_char(&printed, ')');
	} else
		t = tree_leaf(in_loop || loop);
	if (!loop)
		return t;
	text_str(&printed, loops[k].text);
	l = tree_new(N_LOOP, t, NULL);
	l->least = loops[k].least;
	l->most = loops[k].most;
	return l;
}

static struct tree *
tree_branches(unsigned depth, bool in_loop)
{
	struct tree *t = tree_part(depth, in_loop);

	for (unsigned n = dice(3); n > 0; n--)
		t = tree_new(N_SEQ, t, tree_part(depth, in_loop));
	if (dice(3) > 0)
		return t;
	text_char(&printed, '|');
	return tree_new(N_ALT, t, tree_branches(depth, in_loop));
}

static uint32_t ends(struct tree *n, struct slice s, unsigned i);

static uint32_t
ends_found(struct tree *n, struct slice s, unsigned i)
{
	uint32_t one = i < s.n ? 2u << i : 0, here = 1u << i, from, to;

	switch (n->kind) {
	case N_BYTE:
		return one && s.p[i] == n->c ? one : 0;
	case N_ANY:
		return one;
	case N_SET:
		return one && s.p[i] != 'a' && s.p[i] != '/' ? one : 0;
	case N_START:
		return i == 0 ? here : 0;
	case N_END:
		return i == s.n ? here : 0;
	case N_GROUP:
		return ends(n->a, s, i);
	case N_ALT:
		return ends(n->a, s, i) | ends(n->b, s, i);
	case N_SEQ:
		from = ends(n->a, s, i), to = 0;
		for (unsigned k = 0; k <= s.n; k++)
			to |= from >> k & 1 ? ends(n->b, s, k) : 0;
		return to;
	default:
		to = n->least == 0 ? here : 0;
		from = here;
		for (int t = 1; t <= (n->most < 0 ? n->least + (int)s.n : n->most); t++) {
			uint32_t next = 0;
			for (unsigned k = 0; k <= s.n; k++)
				next |= from >> k & 1 ? ends(n->a, s, k) : 0;
			from = next;
			to |= t >= n->least ? from : 0;
		}
		return to;
	}
}

static unsigned text_number;

/* Where n can end if it starts at i, a bit for each place. */
static uint32_t
ends(struct tree *n, struct slice s, unsigned i)
{
	if (n->text != text_number)
		n->known = 0;
	n->text = text_number;
	if (!(n->known >> i & 1))
		n->ends[i] = ends_found(n, s, i);
	n->known |= 1u << i;
	return n->ends[i];
}

/* The farthest of the places. */
static unsigned
farthest(uint32_t places)
{
	unsigned k = 31;

	while (!(places >> k & 1))
		k--;
	return k;
}

static void
groups_drop(struct tree *n, struct regex_span *span)
{
	if (n->kind == N_GROUP && n->group < REGEX_GROUPS)
		span[n->group] = (struct regex_span){ -1, -1 };
	if (n->a)
		groups_drop(n->a, span);
	if (n->b)
		groups_drop(n->b, span);
}

/* The groups of n, which matches i..j: each part as long as can be, the first one first.
 * Nothing is repeated for nothing, unless it must. */
static void
groups(struct tree *n, struct slice s, unsigned i, unsigned j, struct regex_span *span)
{
	unsigned k;

	switch (n->kind) {
	case N_GROUP:
		if (n->group < REGEX_GROUPS)
			span[n->group] = (struct regex_span){ (int)i, (int)j };
		groups(n->a, s, i, j, span);
		return;
	case N_ALT:
		groups(ends(n->a, s, i) >> j & 1 ? n->a : n->b, s, i, j, span);
		return;
	case N_SEQ:
		for (k = j; !(ends(n->a, s, i) >> k & 1 && ends(n->b, s, k) >> j & 1);)
			k--;
		groups(n->a, s, i, k, span);
		groups(n->b, s, k, j, span);
		return;
	case N_LOOP:
		for (int done = 0; n->most < 0 || done < n->most; done++) {
			struct tree rest = *n;
			rest.known = 0;
			if (i == j && done >= n->least && (done > 0 || !(ends(n->a, s, i) >> i & 1)))
				return;
			rest.least = MAX(n->least - done - 1, 0);
			rest.most = n->most < 0 ? -1 : n->most - done - 1;
			for (k = j; !(ends(n->a, s, i) >> k & 1 && ends(&rest, s, k) >> j & 1);)
				k--;
			groups_drop(n->a, span);
			groups(n->a, s, i, k, span);
			i = k;
		}
		return;
	default:
		return;
	}
}

/* The same text as found(). */
static const char *
expected(struct tree *n, struct slice s)
{
	static char b[256];
	struct text t = { b, 0, sizeof b - 1, false };
	struct regex_span span[REGEX_GROUPS];
	unsigned i = 0;

	while (i <= s.n && ends(n, s, i) == 0)
		i++;
	if (i > s.n)
		return "none";
	for (int g = 0; g < REGEX_GROUPS; g++)
		span[g] = (struct regex_span){ -1, -1 };
	span[0] = (struct regex_span){ (int)i, (int)farthest(ends(n, s, i)) };
	groups(n, s, i, (unsigned)span[0].to, span);
	for (int g = 0; g <= n_groups && g < REGEX_GROUPS; g++) {
		if (span[g].from < 0)
			text_fmt(&t, "%s-", g > 0 ? " " : "");
		else
			text_fmt(&t, "%s%d,%d", g > 0 ? " " : "", span[g].from, span[g].to);
	}
	b[t.n] = '\0';
	return b;
}

/* And of regexec. */
static const char *
executed(const regex_t *re, struct slice s)
{
	static char b[256];
	struct text t = { b, 0, sizeof b - 1, false };
	regmatch_t span[REGEX_GROUPS];

	if (regexec(re, s.p, REGEX_GROUPS, span, 0) != 0)
		return "none";
	for (size_t g = 0; g <= re->re_nsub && g < REGEX_GROUPS; g++) {
		if (span[g].rm_so < 0)
			text_fmt(&t, "%s-", g > 0 ? " " : "");
		else
			text_fmt(&t, "%s%d,%d", g > 0 ? " " : "", (int)span[g].rm_so, (int)span[g].rm_eo);
	}
	b[t.n] = '\0';
	return b;
}

enum { PATTERNS = 4000, SUBJECTS = 12, TEXT_BYTES = 9,
	EXECUTED_MAX = 20 /* bytes of an expression: glibc may take minutes beyond */ };

static void
test_random(void **state)
{
	unsigned n = 0, matched = 0, run = 0, same = 0, easy = 0, alike = 0;

	(void)state;
	for (int round = 0; round < PATTERNS && rows_bad < 8; round++) {
		struct regex re;
		struct tree *tree;
		regex_t libc;
		size_t at;
		const char *bad_why;

		printed = (struct text){ pattern, 0, sizeof pattern - 1, false };
		n_groups = 0;
		hard = edgy = false;
		tree = tree_branches(1 + dice(3), false);
		pattern[printed.n] = '\0';
		if (printed.full || regcomp(&libc, pattern, REG_EXTENDED) != 0)
			continue;
		if ((bad_why = regex_read(&memory, &re, text_slice(&printed), &at))) {
			row_bad(bad_why, text_slice(&printed), "at byte %zu", at);
			regfree(&libc);
			continue;
		}
		for (int k = 0; k < SUBJECTS; k++) {
			char b[TEXT_BYTES + 1];
			struct slice text = { b, dice(TEXT_BYTES) };
			char want[256];
			const char *got;

			for (size_t i = 0; i < text.n; i++)
				b[i] = "aaabb/c"[dice(7)];
			b[text.n] = '\0';
			text_number++;
			snprintf(want, sizeof want, "%s", expected(tree, text));
			row_slice(pattern, text, "found", slice_of(found(&re, text)), slice_of(want));
			row_int(pattern, text, "matches", regex_matches(&re, text), strcmp(want, "none") != 0);
			n++;
			matched += strcmp(want, "none") != 0;
			if (printed.n > EXECUTED_MAX)
				continue;
			got = executed(&libc, text);
			run++;
			same += strcmp(got, want) == 0;
			easy += !hard && !edgy;
			alike += !hard && !edgy && strcmp(got, want) == 0;
			if (!edgy && strncmp(got, want, strcspn(want, " ")) != 0)
				row_bad(pattern, text, "regexec says %s, expected %s", got, want);
		}
		regfree(&libc);
		arena_free(&memory);
	}
	printf("%u subjects, %u match; regexec has the same groups in %u of %u, without repeated ones in %u of %u\n",
	    n, matched, same, run, alike, easy);
	assert_true(n > 30000 && matched > n / 3);
	rows_end();
}

/* Time is the text's length times the expression's, and no more; nothing is recursive
 * in the text. */
static void
test_linear(void **state)
{
	static const char *const hostile[] = { "(a*)*b", "((a|aa)+)+$|b", "(a|a?)+c", "(.*)(.*)(.*)(.*)(.*)x",
		"^(([a-z])+.)+[A-Z]([a-z])+$", "(a?){50}a{50}b", "^/(admin|((ab|cd|ef){60}x){20})" };
	static char b[TARGET_MAX];

	(void)state;
	memset(b, 'a', sizeof b);
	b[0] = '/';
	for (size_t i = 0; i < LEN(hostile); i++) {
		struct regex_span span[REGEX_GROUPS];
		struct regex re;
		int64_t from = clock_us();
		size_t at;

		assert_null(regex_read(&memory, &re, slice_of(hostile[i]), &at));
		for (size_t n = TARGET_MAX / 2; n <= TARGET_MAX; n *= 2) {
			regex_matches(&re, (struct slice){ b, n });
			regex_find(&re, (struct slice){ b, n }, span);
		}
		if (clock_us() - from > 5 * 1000000)
			row_bad("time", slice_of(hostile[i]), "%lld us", (long long)(clock_us() - from));
	}
	arena_free(&memory);
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_linear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
