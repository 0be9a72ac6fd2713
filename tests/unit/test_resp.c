/* What is said to Redis, and what it says: URLs, requests, replies (each also cut short at
 * every byte), keys and values. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

/* ---- replies ---- */

enum { BULK_MAX = 20 };

/* Events as text: "+OK." "-ERR x." ":-5." "nil." "$3(abc)." "*2[" and "!" for refused; a dot
 * ends a whole reply. */
static const struct {
	struct slice in;
	const char *want, *why;
} replies[] = {
	{ T("+OK\r\n"), "+OK.", "a text" },
	{ T("+\r\n"), "+.", "an empty one" },
	{ T("-ERR no\r\n"), "-ERR no.", "an error" },
	{ T("-OOM a\rb\r\n"), "-OOM a\rb.", "a lone CR inside is text" },
	{ T(":0\r\n"), ":0.", "zero" },
	{ T(":-12\r\n"), ":-12.", "below zero" },
	{ T(":9223372036854775807\r\n"), ":9223372036854775807.", "the largest" },
	{ T(":9223372036854775808\r\n"), "!", "one more" },
	{ T(":99999999999999999999999999\r\n"), "!", "many digits" },
	{ T(":\r\n"), "!", "no digit" },
	{ T(":-\r\n"), "!", "only a minus" },
	{ T(":--1\r\n"), "!", "two" },
	{ T(":+1\r\n"), "!", "a plus" },
	{ T(": 1\r\n"), "!", "a blank" },
	{ T(":1 \r\n"), "!", "a blank behind" },
	{ T(":0x1\r\n"), "!", "hexadecimal" },
	{ T("$5\r\nhello\r\n"), "$5(hello).", "a string" },
	{ T("$0\r\n\r\n"), "$0().", "an empty string is no miss" },
	{ T("$-1\r\n"), "nil.", "a miss" },
	{ T("$-2\r\n"), "!", "a length below that" },
	{ T("$-0\r\n"), "!", "minus nothing" },
	{ T("$05\r\nhello\r\n"), "$5(hello).", "a zero in front" },
	{ T("$4\r\n\r\n\r\n\r\n"), "$4(\r\n\r\n).", "line ends in a string" },
	{ T("$20\r\n01234567890123456789\r\n"), "$20(01234567890123456789).", "the longest" },
	{ T("$21\r\n"), "!", "one byte too long" },
	{ T("$18446744073709551616\r\n"), "!", "a length of 2^64" },
	{ T("$9223372036854775807\r\n"), "!", "of 2^63 - 1" },
	{ T("$3\r\nabcd\r\n"), "$3(abc)!", "no CRLF behind it" },
	{ T("$3\r\nabc\n\n"), "$3(abc)!", "a LF for a CR" },
	{ T("$3\r\nabc\rx"), "$3(abc)!", "a CR alone" },
	{ T("$3\n"), "!", "a line without CR" },
	{ T("+OK\n"), "!", "a text without CR" },
	{ T("\r\n"), "!", "an empty line" },
	{ T("\n"), "!", "a LF" },
	{ T("*0\r\n"), "*0.", "an empty array" },
	{ T("*-1\r\n"), "nil.", "no array" },
	{ T("*-5\r\n"), "!", "less than that" },
	{ T("*2\r\n:1\r\n+a\r\n"), "*2[:1+a.", "an array" },
	{ T("*2\r\n$1\r\n0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"), "*2[$1(0)*2[$1(a)$1(b).", "as SCAN answers" },
	{ T("*2\r\n$1\r\n0\r\n*0\r\n+x\r\n"), "*2[$1(0)*0.+x.", "the last array is empty" },
	{ T("*2\r\n*1\r\n*1\r\n:1\r\n:2\r\n:3\r\n"), "*2[*1[*1[:1:2.:3.", "arrays that end together" },
	{ T("*1\r\n*0\r\n*1\r\n$-1\r\n"), "*1[*0.*1[nil.", "and then others" },
	{ T("*65536\r\n"), "*65536[", "as many as may be" },
	{ T("*65537\r\n"), "!", "one more" },
	{ T("*65536\r\n*1\r\n"), "*65536[!", "all elements count" },
	{ T("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:7\r\n"),
	    "*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[:7.", "sixteen arrays" },
	{ T("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"),
	    "*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[*1[!", "seventeen" },
	{ T("+a\r\n-b\r\n:3\r\n$1\r\nd\r\n*1\r\n+e\r\n"), "+a.-b.:3.$1(d).*1[+e.", "one after another" },
	{ T("%1\r\n"), "!", "a map of RESP3" },
	{ T("_\r\n"), "!", "its null" },
	{ T("HTTP/1.1 400 Bad Request\r\n"), "!", "another server" },
	{ T("\x15\x03\x01\r\n"), "!", "TLS" },
	{ T("\0\r\n"), "!", "a NUL" },
};

/* The events of in, fed up to cut, then on. */
static void
events(struct slice in, size_t cut, struct text *t)
{
	struct resp r = { .max = BULK_MAX };
	enum resp_event e = RESP_MORE;

	for (int half = 0; half < 2; half++) {
		struct slice rest = exact(half ? slice_from(in, cut) : (struct slice){ in.p, cut }), all = rest;
		while (rest.n > 0 && e != RESP_BAD) {
			e = resp_next(&r, &rest);
			if (e == RESP_TEXT || e == RESP_ERROR)
				text_char(t, e == RESP_TEXT ? '+' : '-');
			if (e == RESP_TEXT || e == RESP_ERROR || e == RESP_PIECE)
				text_add(t, r.text);
			if (e == RESP_INTEGER)
				text_fmt(t, ":%lld", (long long)r.n);
			if (e == RESP_BULK || e == RESP_ARRAY)
				text_fmt(t, e == RESP_BULK ? "$%lld(" : r.n ? "*%lld[" : "*%lld", (long long)r.n);
			text_str(t, e == RESP_NIL ? "nil" : e == RESP_END ? ")" : e == RESP_BAD ? "!" : "");
			if (e != RESP_MORE && e != RESP_BAD && r.whole)
				text_char(t, '.');
		}
		exact_free(all);
	}
}

static void
test_replies(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(replies); i++)
		for (size_t cut = 0; cut <= replies[i].in.n; cut++) {
			char b[256];
			struct text t = { b, 0, sizeof b, false };
			events(replies[i].in, cut, &t);
			/* "$3(abc" and "!" follow each other without ")" */
			struct slice want = slice_of(replies[i].want);
			char w[256];
			size_t n = 0;
			for (size_t k = 0; k < want.n; k++)
				if (!(want.p[k] == ')' && k + 1 < want.n && want.p[k + 1] == '!'))
					w[n++] = want.p[k];
			row_slice(replies[i].why, replies[i].in, "it", text_slice(&t), (struct slice){ w, n });
		}
	rows_end();
}

/* Long lines: what is kept, what is refused. */
static void
test_lines(void **state)
{
	static char line[RESP_LINE_MAX + 8];
	struct resp r = { .max = 1 };
	struct slice in;

	(void)state;
	memset(line, 'x', sizeof line);
	line[0] = '-';
	memcpy(line + RESP_LINE_MAX - 1, "\r\n", 2);
	in = (struct slice){ line, RESP_LINE_MAX + 1 };
	assert_int_equal(resp_next(&r, &in), RESP_ERROR);
	assert_true(r.whole && in.n == 0);
	assert_int_equal(r.text.n, RESP_KEPT - 1);
	in = (struct slice){ line, 3 };
	assert_int_equal(resp_next(&r, &in), RESP_MORE); /* the next one begins afresh */
	line[RESP_LINE_MAX - 1] = 'x';
	in = (struct slice){ line, RESP_LINE_MAX - 3 };
	assert_int_equal(resp_next(&r, &in), RESP_MORE);
	in = S("xx");
	assert_int_equal(resp_next(&r, &in), RESP_BAD);
	in = S("+OK\r\n");
	assert_int_equal(resp_next(&r, &in), RESP_BAD);

	r = (struct resp){ .max = 1 }; /* digits beyond what is kept */
	memset(line, '0', 200);
	line[0] = ':';
	memcpy(line + 200, "5\r\n", 3);
	in = (struct slice){ line, 203 };
	assert_int_equal(resp_next(&r, &in), RESP_BAD);
	for (size_t n = RESP_KEPT - 3; n < RESP_KEPT + 3; n++) { /* around what is kept */
		r = (struct resp){ .max = 1 };
		memset(line, 'y', 200);
		line[0] = '+';
		memcpy(line + n, "\r\n", 2);
		in = (struct slice){ line, n + 2 };
		assert_int_equal(resp_next(&r, &in), RESP_TEXT);
		assert_int_equal(r.text.n, MIN(n - 1, RESP_KEPT - 1));
		for (size_t i = 0; i < r.text.n; i++)
			assert_int_equal(r.text.p[i], 'y');
	}
}

static void
test_requests(void **state)
{
	char b[128];
	struct text t = { b, 0, sizeof b, false };

	(void)state;
	resp_write(&t, 0, "PING");
	resp_write(&t, 0, "GET %", S("a\r\n\0b"));
	resp_write(&t, 2, "SET % %", S(""), S("%"));
	assert_true(slice_eq(text_slice(&t), S("*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$5\r\na\r\n\0b\r\n"
	    "*5\r\n$3\r\nSET\r\n$0\r\n\r\n$1\r\n%\r\n")));
	t = (struct text){ b, 0, 10, false };
	resp_bulk(&t, S("hello"));
	assert_true(t.full);
	t = (struct text){ b, 0, 11, false };
	resp_bulk(&t, S("hello"));
	assert_false(t.full);
}

/* ---- URLs ---- */

static const struct {
	const char *url, *want, *why;
} urls[] = {
	{ "redis://localhost", "localhost:6379 '' '' 0", "complete" },
	{ "redis://localhost/", "localhost:6379 '' '' 0", "a slash" },
	{ "redis://127.0.0.1:7000/3", "127.0.0.1:7000 '' '' 3", "port and database" },
	{ "redis://[::1]:7000/3", "[::1]:7000 '' '' 3", "IPv6" },
	{ "redis://[::1]", "[::1]:6379 '' '' 0", "IPv6, without port" },
	{ "redis://:pw@h", "h:6379 '' 'pw' 0", "a password" },
	{ "redis://:@h", "h:6379 '' '' 0", "an empty one" },
	{ "redis://@h", "h:6379 '' '' 0", "nobody" },
	{ "redis://me:pw@h:1/2", "h:1 'me' 'pw' 2", "all" },
	{ "redis://me:p%40s%2fs%3A%25@h", "h:6379 'me' 'p@s/s:%' 0", "percent-encoded" },
	{ "redis://a%3Ab:c@h", "h:6379 'a:b' 'c' 0", "in the user too" },
	{ "redis://me:p@w:d@h", "h:6379 'me' 'p@w:d' 0", "the last @ counts, the first colon" },
	{ "rediss://:pw@redis.example.com:6380/1", "tls redis.example.com:6380 '' 'pw' 1", "TLS" },
	{ "unix:/run/redis.sock", "unix:/run/redis.sock '' '' 0", "a socket" },
	{ "unix:///run/redis.sock", "unix:/run/redis.sock '' '' 0", "written like a URL" },
	{ "redis://me:pw@%2Frun%2Fredis.sock/4", "unix:/run/redis.sock 'me' 'pw' 4", "a socket with a password" },
	{ "redis://h/2147483647", "h:6379 '' '' 2147483647", "the last database" },
	{ "redis://h/2147483648", NULL, "only the number of a database" },
	{ "redis://h/x", NULL, "only the number of a database" },
	{ "redis://h/1/2", NULL, "only the number of a database" },
	{ "redis://h/-1", NULL, "only the number of a database" },
	{ "redis://h?db=2", NULL, "only the number of a database" },
	{ "redis://h/2?timeout=5", NULL, "only the number of a database" },
	{ "redis://", NULL, "host:port" },
	{ "redis:///1", NULL, "host:port" },
	{ "redis://:6379", NULL, "names its host" },
	{ "redis://h:0", NULL, "port above 0" },
	{ "redis://h:65536", NULL, "port" },
	{ "redis://h:x", NULL, "port" },
	{ "redis://me@h", NULL, "expected user:password@" },
	{ "redis://me:@h", NULL, "expected user:password@" },
	{ "redis://:a%0@h", NULL, "expected %25" },
	{ "redis://:a%00b@h", NULL, "expected %25" },
	{ "redis://:a%zzb@h", NULL, "expected %25" },
	{ "redis://a b", NULL, "host name" },
	{ "http://localhost", NULL, "expected redis://" },
	{ "localhost:6379", NULL, "expected redis://" },
	{ "", NULL, "expected redis://" },
	{ "unix:/", "unix:/ '' '' 0", "a path, if a bad one" },
};

static void
test_urls(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(urls); i++) {
		struct arena a = { NULL };
		struct slice in = exact(slice_of(urls[i].url));
		struct redis_url u;
		const char *why = "";
		char b[256];
		bool good = redis_url_parse(&a, in, &u, &why);

		if (good != (urls[i].want != NULL) || (!good && !strstr(why, urls[i].why)))
			row_bad(urls[i].why, in, "good: %d, %s", good, why);
		else if (good) {
			snprintf(b, sizeof b, "%s%s '%.*s' '%.*s' %u", u.tls ? "tls " : "", u.addr.text,
			    (int)u.user.n, u.user.p ? u.user.p : "", (int)u.password.n,
			    u.password.p ? u.password.p : "", u.db);
			row_slice(urls[i].why, in, "it", slice_of(b), slice_of(urls[i].want));
		}
		exact_free(in);
		arena_free(&a);
	}
	rows_end();
}

static void
test_long_secret(void **state)
{
	static char url[REDIS_SECRET_MAX + 32] = "redis://:";
	struct arena a = { NULL };
	struct redis_url u;
	const char *why;

	(void)state;
	memset(url + 9, 'p', REDIS_SECRET_MAX);
	strcpy(url + 9 + REDIS_SECRET_MAX, "@h");
	assert_true(redis_url_parse(&a, slice_of(url), &u, &why));
	strcpy(url + 9 + REDIS_SECRET_MAX, "p@h");
	assert_false(redis_url_parse(&a, slice_of(url), &u, &why));
	arena_free(&a);
}

/* ---- keys and values ---- */

static struct slice
name_of(struct slice key, size_t path_n, char out[REDIS_KEY_MAX + 1])
{
	struct text t = { out, 0, REDIS_KEY_MAX + 1, false };

	redis_key(&t, key, path_n);
	assert_false(t.full);
	return text_slice(&t);
}

static void
test_keys(void **state)
{
	static char long_key[2000] = "http://example.com/a/path?";
	static const size_t path_n = sizeof "http://example.com/a/path" - 1;
	const size_t fits = REDIS_KEY_MAX - (sizeof REDIS_PREFIX - 1);
	char a[REDIS_KEY_MAX + 1], b[REDIS_KEY_MAX + 1];
	struct slice x, y;

	(void)state;
	assert_true(slice_eq(name_of(S("http://h/p?q"), 10, a), S("warp:1:http://h/p?q")));
	memset(long_key + path_n + 1, 'q', sizeof long_key - path_n - 1);
	x = name_of((struct slice){ long_key, fits }, path_n, a);
	assert_int_equal(x.n, REDIS_KEY_MAX);
	assert_true(slice_ends(x, S("qqqq")));
	x = name_of((struct slice){ long_key, fits + 1 }, path_n, a);
	assert_true(slice_starts(x, S("warp:1:http://example.com/a/path#")));
	assert_int_equal(x.n, 7 + path_n + 1 + 64);
	y = name_of((struct slice){ long_key, fits + 2 }, path_n, b);
	assert_int_equal(y.n, x.n);
	assert_false(slice_eq(x, y));
	long_key[1500] = 'x'; /* a long path is cut */
	x = name_of((struct slice){ long_key, sizeof long_key }, sizeof long_key, a);
	assert_int_equal(x.n, REDIS_KEY_MAX);
	long_key[1500] = 'y';
	y = name_of((struct slice){ long_key, sizeof long_key }, sizeof long_key, b);
	assert_true(memcmp(x.p, y.p, REDIS_KEY_MAX - 64) == 0);
	assert_false(slice_eq(x, y));
}

static void
test_values(void **state)
{
	static const struct stored s = { .stored_s = 1700000000,
		.facts = { 200, 0, UINT32_MAX, 4, 5, 6, 7, 8 }, .head = T("Head: x\r\n"),
		.body = { NULL, 4 } };
	const struct slice key = S("the key");
	char all[STORED_BYTES + 20] = "front";
	struct text t = { all, 5, sizeof all, false };
	struct slice value;
	struct stored got;

	(void)state;
	stored_begin(&t, &s);
	text_str(&t, "bo"); /* a body comes in pieces */
	text_str(&t, "dy");
	stored_end(&t, 5, key);
	assert_false(t.full);
	t = (struct text){ all + 5, t.n - 5, t.n - 5, false };
	assert_int_equal(t.n, STORED_BYTES + s.head.n + s.body.n);
	assert_memory_equal(t.p, "WARP\0\0\0\1\0\0\0\x09\0\0\0\4\0\0\0\0\x65\x53\xf1\0\0\0\0\xc8", 28);
	value = exact(text_slice(&t));
	assert_true(stored_read(&got, value, key));
	assert_true(slice_eq(got.head, s.head) && slice_eq(got.body, S("body")));
	assert_memory_equal(got.facts, s.facts, sizeof s.facts);
	assert_int_equal(got.stored_s, s.stored_s);
	assert_false(stored_read(&got, value, S("the kez"))); /* of another key */
	exact_free(value);
	for (size_t n = 0; n < t.n; n++) { /* cut short */
		value = exact((struct slice){ t.p, n });
		assert_false(stored_read(&got, value, key));
		exact_free(value);
	}
	for (size_t i = 0; i < t.n * 8; i++) { /* one bit is wrong */
		t.p[i / 8] = (char)(t.p[i / 8] ^ 1 << i % 8);
		assert_false(stored_read(&got, text_slice(&t), key));
		t.p[i / 8] = (char)(t.p[i / 8] ^ 1 << i % 8);
	}
	assert_true(stored_read(&got, text_slice(&t), key));
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_urls),
		cmocka_unit_test(test_long_secret),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
