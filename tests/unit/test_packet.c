/* The uwsgi protocol's blocks (each also cut short at every byte), keys, announcements and
 * cache commands; FastCGI's records, in whatever pieces they come. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

/* ---- blocks of variables ---- */

static const struct {
	struct slice in;
	const char *want, *why; /* NAME=VALUE; ...  and ! at the end: malformed */
} blocks[] = {
	{ T(""), "", "nothing" },
	{ T("\1\0a\1\0b"), "a=b;", "one" },
	{ T("\1\0a\0\0"), "a=;", "an empty value, the last one" },
	{ T("\1\0a\0\0\1\0b\1\0c"), "a=;b=c;", "an empty value" },
	{ T("\1\0a\1\0b\1\0a\1\0c"), "a=b;a=c;", "a name twice, in order" },
	{ T("\1\0a\2\0\0\xff"), "a=\\x00\\xff;", "values are bytes" },
	{ T("\0\0\1\0b"), "!", "a name of no length" },
	{ T("\1\0a\1\0b\0\0\0\0"), "a=b;!", "behind a good one" },
	{ T("\1"), "!", "half a length" },
	{ T("\1\0"), "!", "no name" },
	{ T("\1\0a"), "!", "no value" },
	{ T("\1\0a\1"), "!", "half the value's length" },
	{ T("\1\0a\2\0b"), "!", "a byte too few" },
	{ T("\1\0a\0\1b"), "!", "256 bytes, not 1" },
	{ T("\xff\xff""a\1\0b"), "!", "a long name" },
	{ T("\1\0a\xff\xff""b"), "!", "a long value" },
	{ T("\1\0a\1\0bc"), "a=b;!", "a byte too many" },
};

static void
vars_shown(struct slice in, struct text *t)
{
	struct packet_var v;

	while (vars_next(&in, &v))
		text_fmt(t, "%s=%s;", shown(v.name), shown(v.value));
	text_str(t, in.p ? "" : "!");
}

static void
test_blocks(void **state)
{
	struct slice v[ROUTER_VARS];

	(void)state;
	for (size_t i = 0; i < LEN(blocks); i++) {
		struct slice in = exact(blocks[i].in);
		char b[256];
		struct text t = { b, 0, sizeof b, false };
		vars_shown((struct slice){ in.n ? in.p : "", in.n }, &t);
		row_slice(blocks[i].why, in, "it", text_slice(&t), slice_of(blocks[i].want));
		row_int(blocks[i].why, in, "good", router_vars((struct slice){ in.n ? in.p : "", in.n }, v),
		    !strchr(blocks[i].want, '!'));
		exact_free(in);
	}
	for (size_t n = 0; n < 18; n++) { /* three of six bytes */
		struct slice in = exact((struct slice){ "\1\0a\1\0b\1\0c\1\0d\1\0e\1\0f", n });
		row_int("cut short", in, "good", router_vars((struct slice){ n ? in.p : "", n }, v), n % 6 == 0);
		exact_free(in);
	}
	rows_end();
}

static void
test_put(void **state)
{
	static char big[70000], b[70000];
	struct text t = { b, 0, 16, false };
	char head[PACKET_HEAD];
	struct slice v[ROUTER_VARS];

	(void)state;
	var_put(&t, S("ab"), S("c"));
	var_put(&t, S("d"), S(""));
	assert_true(slice_eq(text_slice(&t), S("\2\0ab\1\0c\1\0d\0\0")) && !t.full);
	var_put(&t, S("e"), S("f"));
	assert_true(t.full);
	t = (struct text){ b, 0, sizeof b, false };
	var_put(&t, S("a"), (struct slice){ big, 65535 });
	assert_false(t.full);
	assert_true(router_vars(text_slice(&t), v));
	t.n = 0;
	var_put(&t, S("a"), (struct slice){ big, 65536 });
	assert_true(t.full);
	packet_head(head, 224, 0x1234, 1);
	assert_memory_equal(head, "\xe0\x34\x12\1", 4);
	packet_head(head, 0, 65535, 0);
	assert_memory_equal(head, "\0\xff\xff\0", 4);
}

/* ---- keys ---- */

#define LONG255 "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" \
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" \
	"0123456789012345678901234567890123456789012345678901234"

static const struct {
	const char *vars; /* NAME=VALUE, blanks between */
	const char *want, *why;
} keys[] = {
	{ "", NULL, "no variables" },
	{ "REQUEST_METHOD=GET", NULL, "none of them" },
	{ "SERVER_NAME=s", "s", "the last resort" },
	{ "HTTP_HOST=h:8000 SERVER_NAME=s", "h:8000", "with its port" },
	{ "SERVER_NAME=s HTTP_HOST=h", "h", "in any order" },
	{ "HTTP_HOST=h UWSGI_FASTROUTER_KEY=k SERVER_NAME=s", "k", "the first" },
	{ "UWSGI_FASTROUTER_KEY=k HTTP_HOST=h SERVER_NAME=s", "k", "in any order" },
	{ "UWSGI_FASTROUTER_KEY= HTTP_HOST=h", "h", "empty is absent" },
	{ "HTTP_HOST= SERVER_NAME=s", "s", "so is this" },
	{ "SERVER_NAME=", NULL, "and this" },
	{ "HTTP_HOST=" LONG255 " SERVER_NAME=s", LONG255, "the longest" },
	{ "HTTP_HOST=" LONG255 "x SERVER_NAME=s", "s", "longer is absent" },
	{ "HTTP_HOST=a HTTP_HOST=b", "b", "the last one" },
	{ "UWSGI_FASTROUTER_KEY=a UWSGI_FASTROUTER_KEY=b", "b", "here too" },
	{ "SERVER_NAME=a SERVER_NAME=b", "a", "the first one" },
	{ "HTTP_HOST=Example.COM", "Example.COM", "case is kept" },
	{ "http_host=h HTTP_HOSTS=i HTTP_HOS=j", NULL, "other names" },
};

static struct slice
block_of(const char *vars, char *b, size_t cap)
{
	struct text t = { b, 0, cap, false };
	struct slice rest = slice_of(vars), one, name;

	while (slice_cut(&rest, ' ', &one))
		if (slice_cut(&one, '=', &name) && name.n > 0)
			var_put(&t, name, one);
	assert_false(t.full);
	return text_slice(&t);
}

static void
test_keys(void **state)
{
	char b[1024];

	(void)state;
	for (size_t i = 0; i < LEN(keys); i++) {
		struct slice in = exact(block_of(keys[i].vars, b, sizeof b)), v[ROUTER_VARS], key;
		row_int(keys[i].why, in, "good", router_vars((struct slice){ in.n ? in.p : "", in.n }, v), true);
		key = router_key(v);
		row_int(keys[i].why, in, "found", key.p != NULL, keys[i].want != NULL);
		row_slice(keys[i].why, in, "it", key, slice_of(keys[i].want));
		exact_free(in);
	}
	rows_end();
}

/* ---- announcements ---- */

static const struct {
	const char *vars;
	const char *want, *why; /* NULL: refused */
} announcements[] = {
	{ "key=k address=a", "k a 0,0 0 0 0 '' '' 0 ''", "the least" },
	{ "key=k address=127.0.0.1:3031 modifier1=5 modifier2=1 cores=4 load=2 weight=3 "
	  "notify=/tmp/n sni_key=/k", "k 127.0.0.1:3031 5,1 4 2 3 '/tmp/n' '/k' 0 ''", "all" },
	{ "address=a key=k", "k a 0,0 0 0 0 '' '' 0 ''", "in any order" },
	{ "key=k address=a key=l", "l a 0,0 0 0 0 '' '' 0 ''", "the last one" },
	{ "key=k address=a other=x unix=7", "k a 0,0 0 0 0 '' '' 7 ''", "unknown names" },
	{ "key=k address=a weight=", "k a 0,0 0 0 0 '' '' 0 ''", "an empty number" },
	{ "key=k address=a modifier1=255", "k a 255,0 0 0 0 '' '' 0 ''", "the largest" },
	{ "key=k address=a modifier1=256", NULL, "no modifier" },
	{ "key=k address=a weight=-1", NULL, "no number" },
	{ "key=k address=a load=4294967295", "k a 0,0 0 4294967295 0 '' '' 0 ''", "the largest" },
	{ "key=k address=a load=4294967296", NULL, "one more" },
	{ "key= address=a", NULL, "no key" },
	{ "key=k address=", NULL, "no address" },
	{ "key=k", NULL, "no address at all" },
	{ "address=a", NULL, "no key at all" },
	{ "key=" LONG255 " address=" LONG255, LONG255 " " LONG255 " 0,0 0 0 0 '' '' 0 ''", "the longest" },
	{ "key=" LONG255 "x address=a", NULL, "a long key" },
	{ "key=k address=" LONG255 "x", NULL, "a long address" },
	{ "key=k address=a notify=" LONG255, NULL, "a long path" },
	{ "key=k address=a unix=9 sign=abc", "k a 0,0 0 0 0 '' '' 9 'abc'", "signed" },
	{ "key=k address=a sign=abc unix=9", "k a 0,0 0 0 0 '' '' 9 ''", "in the wrong order" },
	{ "key=k address=a unix=9 sign=abc key=l", "l a 0,0 0 0 0 '' '' 9 ''", "not the last: no signature" },
	{ "key=k address=a sign=abc", "k a 0,0 0 0 0 '' '' 0 ''", "without a time" },
};

static void
announcement_shown(const struct announcement *a, struct text *t)
{
	text_fmt(t, "%.*s %.*s %u,%u %u %u %u '%.*s' '%.*s' %u '%.*s'", (int)a->key.n, a->key.p,
	    (int)a->address.n, a->address.p, a->modifier1, a->modifier2, a->cores, a->load, a->weight,
	    (int)a->notify.n, a->notify.n ? a->notify.p : "", (int)a->sni_key.n,
	    a->sni_key.n ? a->sni_key.p : "", a->unix, (int)a->sign.n, a->sign.n ? a->sign.p : "");
}

static void
test_announcements(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(announcements); i++) {
		char b[1024] = "\xe0\0\0", again[1024], s[1024];
		struct slice block = block_of(announcements[i].vars, b + 4, sizeof b - 4);
		struct slice in = exact((struct slice){ b, 4 + block.n });
		struct text t = { s, 0, sizeof s, false };
		struct announcement a;
		bool good = announcement_parse(in, &a);
		size_t n;

		row_int(announcements[i].why, in, "good", good, announcements[i].want != NULL);
		if (good) {
			announcement_shown(&a, &t);
			row_slice(announcements[i].why, in, "it", text_slice(&t), slice_of(announcements[i].want));
			row_int(announcements[i].why, in, "leaves", a.leaves, false);
			if (a.sign.n > 0)
				row_slice(announcements[i].why, in, "signed text", a.is_signed,
				    (struct slice){ in.p + 4, in.n - 4 - 2 - 4 - 2 - a.sign.n });
			n = announcement_write(again, sizeof again, &a); /* says the same */
			t.n = 0;
			if (!announcement_parse((struct slice){ again, n }, &a))
				row_bad(announcements[i].why, in, "written, it is none");
			announcement_shown(&a, &t);
			row_slice(announcements[i].why, in, "again", text_slice(&t), slice_of(announcements[i].want));
		}
		for (size_t cut = 0; cut < in.n; cut++) { /* never more than was sent */
			struct slice less = exact((struct slice){ in.p, cut });
			announcement_parse(less, &a);
			exact_free(less);
		}
		exact_free(in);
	}
	rows_end();
}

/* Byte for byte. */
static void
test_announcement_bytes(void **state)
{
	const struct announcement a = { .leaves = true, .key = S("example.com"),
		.address = S("127.0.0.1:3031"), .modifier1 = 5 };
	const struct slice want = S("\xe0\x39\0\1\3\0key\x0b\0example.com\7\0address\x0e\0" "127.0.0.1:3031"
	    "\x09\0modifier1\1\0" "5");
	char b[128];
	struct announcement got;

	(void)state;
	row_slice("leaving", want, "it", (struct slice){ b, announcement_write(b, sizeof b, &a) }, want);
	assert_true(announcement_parse(want, &got) && got.leaves && got.modifier1 == 5);
	for (size_t n = 0; n < want.n; n++)
		row_int("no room", want, "bytes", (long long)announcement_write(b, n, &a), 0);
	assert_false(announcement_parse(S(""), &got));
	assert_false(announcement_parse(S("\xe0\0\0\0"), &got));
	rows_end();
}

static void
test_long_announcement(void **state)
{
	static char b[ANNOUNCED_MAX + 8], zeros[ANNOUNCED_MAX];
	struct text t = { b, 4, sizeof b, false };
	struct announcement a;

	(void)state;
	var_put(&t, S("key"), S("k"));
	var_put(&t, S("address"), S("a"));
	var_put(&t, S("x"), (struct slice){ zeros, ANNOUNCED_MAX - t.n - 5 });
	assert_int_equal(t.n, ANNOUNCED_MAX);
	assert_true(announcement_parse(text_slice(&t), &a));
	text_add(&t, S("\1\0a\0\0"));
	assert_false(announcement_parse(text_slice(&t), &a));
}

/* ---- the cache ---- */

static const struct {
	unsigned modifier2;
	struct slice block;
	const char *want, *why; /* verb form key value size expires cache; NULL: refused */
} commands[] = {
	{ 17, T("\3\0cmd\3\0get\3\0key\1\0k"), "get 1 k '' 0 0 ''", "get" },
	{ 17, T("\3\0key\1\0k\3\0cmd\3\0get"), "get 1 k '' 0 0 ''", "in any order" },
	{ 17, T("\3\0cmd\3\0set\3\0key\1\0k\4\0size\1\0" "5\7\0expires\2\0" "60\4\0size\1\0" "5\5\0cache\1\0c"),
	  "set 1 k '' 5 60 'c'", "set, the size twice" },
	{ 17, T("\3\0cmd\6\0update\3\0key\1\0k\4\0size\1\0" "0"), "update 1 k '' 0 0 ''", "an empty value" },
	{ 17, T("\3\0cmd\6\0exists\3\0key\1\0k\4\0size\1\0" "9"), "exists 1 k '' 0 0 ''", "no value belongs here" },
	{ 17, T("\3\0cmd\3\0del\3\0key\1\0k"), "del 1 k '' 0 0 ''", "del" },
	{ 17, T("\3\0cmd\5\0clear"), "clear 1  '' 0 0 ''", "clear" },
	{ 17, T("\3\0cmd\5\0clear\5\0cache\3\0foo"), "clear 1  '' 0 0 'foo'", "another cache" },
	{ 17, T("\3\0cmd\4\0math\3\0key\1\0k"), NULL, "an unknown command" },
	{ 17, T("\3\0key\1\0k"), NULL, "none" },
	{ 17, T("\3\0cmd\3\0get"), NULL, "no key" },
	{ 17, T("\3\0cmd\3\0get\3\0key\0\0"), NULL, "an empty one" },
	{ 17, T("\3\0cmd\3\0set\3\0key\1\0k\4\0size\2\0-1"), NULL, "no size" },
	{ 17, T("\3\0cmd\3\0set\3\0key\1\0k\4\0size\x0a\0" "4294967296"), NULL, "a size of 2^32" },
	{ 17, T("\3\0cmd\3\0set\3\0key\1\0k\7\0expires\1\0x"), NULL, "no time" },
	{ 17, T("\3\0cmd\3\0get\3\0key\2\0k"), NULL, "cut short" },
	{ 17, T(""), NULL, "nothing" },
	{ 0, T("the key"), "get 2 the key '' 0 0 ''", "a get of old" },
	{ 0, T(""), NULL, "without a key" },
	{ 1, T("\1\0k\2\0vw"), "set 0 k 'vw' 0 0 ''", "a set of old" },
	{ 1, T("\1\0k\0\0"), "set 0 k '' 0 0 ''", "of nothing" },
	{ 1, T("\1\0k"), NULL, "without value" },
	{ 1, T("\0\0\2\0vw"), NULL, "without key" },
	{ 1, T("\1\0k\2\0vwx"), NULL, "a byte too many" },
	{ 2, T("k"), "del 0 k '' 0 0 ''", "a del of old" },
	{ 2, T(""), NULL, "of nothing" },
	{ 3, T("\3\0key\1\0k"), "get 4 k '' 0 0 ''", "by variable" },
	{ 4, T("\3\0get\1\0k"), "get 5 k '' 0 0 ''", "as a page" },
	{ 3, T("\3\0foo\1\0k"), NULL, "another variable" },
	{ 3, T("\3\0key\0\0"), NULL, "an empty one" },
	{ 3, T("\3\0key\1\0k\1"), NULL, "malformed" },
	{ 5, T("k"), "get 3 k '' 0 0 ''", "with a flag" },
	{ 6, T("k"), NULL, "dump" },
	{ 10, T("\1\0k\1\0v\x0a\0" "1700000000"), "update 0 k 'v' 0 1700000000 ''", "from another cache" },
	{ 10, T("\1\0k\1\0v"), "update 0 k 'v' 0 0 ''", "for ever" },
	{ 10, T("\1\0k\1\0v\1\0x"), NULL, "no time" },
	{ 11, T("\1\0k"), "del 0 k '' 0 0 ''", "deleted there" },
	{ 11, T("\1\0k\1"), NULL, "malformed" },
	{ 255, T("k"), NULL, "an unknown form" },
};

static void
test_commands(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(commands); i++) {
		struct slice in = exact(commands[i].block);
		struct cache_command c;
		bool good = cache_command_parse(in, commands[i].modifier2, &c);
		char b[256];
		struct text t = { b, 0, sizeof b, false };

		row_int(commands[i].why, in, "good", good, commands[i].want != NULL);
		if (good) {
			text_fmt(&t, "%s %d %.*s '%.*s' %u %u '%.*s'", cache_verbs[c.verb], c.form, (int)c.key.n,
			    c.key.n ? c.key.p : "", (int)c.value.n, c.value.n ? c.value.p : "", c.size, c.expires,
			    (int)c.cache.n, c.cache.n ? c.cache.p : "");
			row_slice(commands[i].why, in, "it", text_slice(&t), slice_of(commands[i].want));
			row_int(commands[i].why, in, "absolute", c.absolute, commands[i].modifier2 == 1 ||
			    commands[i].modifier2 == 10 || commands[i].modifier2 == 11);
		}
		exact_free(in);
	}
	rows_end();
}

static const struct {
	enum cache_verb verb;
	enum cache_form form;
	bool good;
	uint32_t expires;
	struct slice want;
	const char *why;
} replies[] = {
	{ CACHE_GET, CACHE_VARS, true, 0, T("\x6f\x15\0\x11\6\0status\2\0ok\4\0size\1\0" "3val"), "get" },
	{ CACHE_GET, CACHE_VARS, true, 99, T("\x6f\x22\0\x11\6\0status\2\0ok\4\0size\1\0" "3\7\0expires\2\0" "99val"),
	  "get of what expires" },
	{ CACHE_GET, CACHE_VARS, false, 0, T(""), "a miss is a close" },
	{ CACHE_SET, CACHE_VARS, true, 0, T("\x6f\x0c\0\x11\6\0status\2\0ok"), "set" },
	{ CACHE_SET, CACHE_VARS, false, 0, T(""), "refused" },
	{ CACHE_EXISTS, CACHE_VARS, true, 9, T("\x6f\x0c\0\x11\6\0status\2\0ok"), "exists" },
	{ CACHE_GET, CACHE_HEAD, true, 0, T("\x6f\3\0\0val"), "of old" },
	{ CACHE_GET, CACHE_HEAD, false, 0, T(""), "of old, a miss" },
	{ CACHE_GET, CACHE_FLAG, true, 0, T("\x6f\0\0\1val"), "with a flag" },
	{ CACHE_GET, CACHE_FLAG, false, 0, T("\x6f\0\0\0"), "with a flag, a miss" },
	{ CACHE_GET, CACHE_BARE, true, 0, T("val"), "the value" },
	{ CACHE_GET, CACHE_BARE, false, 0, T(""), "nothing" },
	{ CACHE_GET, CACHE_PAGE, true, 0, T("val"), "the value" },
	{ CACHE_GET, CACHE_PAGE, false, 0, T("HTTP/1.0 404 Not Found\r\n\r\n"), "a page" },
	{ CACHE_SET, CACHE_MUTE, true, 0, T(""), "no answer" },
	{ CACHE_DEL, CACHE_MUTE, false, 0, T(""), "none at all" },
};

static void
test_cache_replies(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(replies); i++)
		for (size_t cap = 0; cap <= CACHE_REPLY_MAX + 3; cap++) {
			const struct cache_command c = { .verb = replies[i].verb, .form = replies[i].form };
			struct text t = { malloc(cap), 0, cap, false };
			cache_reply(&t, &c, replies[i].good, S("val"), replies[i].expires);
			row_int(replies[i].why, replies[i].want, "full", t.full, cap < replies[i].want.n);
			if (!t.full)
				row_slice(replies[i].why, replies[i].want, "it", text_slice(&t), replies[i].want);
			free(t.p);
		}
	rows_end();
}

/* ---- FastCGI ---- */

static void
test_fcgi_written(void **state)
{
	static char big[70000], b[2 * sizeof big];
	struct text t = { b, 0, 128, false };

	(void)state;
	fcgi_begin(&t, FCGI_RESPONDER, true);
	assert_true(slice_eq(text_slice(&t), S("\1\1\0\1\0\x08\0\0\0\1\1\0\0\0\0\0")));
	t.n = 0;
	fcgi_put(&t, S("ab"), S("c"));
	fcgi_put(&t, S("d"), S(""));
	assert_true(slice_eq(text_slice(&t), S("\2\1abc\1\0d")));
	t.n = 0;
	fcgi_put(&t, S("k"), (struct slice){ big, 127 });
	assert_true(t.full);
	t = (struct text){ b, 0, sizeof b, false };
	fcgi_put(&t, S("k"), (struct slice){ big, 127 });
	assert_int_equal(t.n, 2 + 1 + 127);
	t.n = 0;
	fcgi_put(&t, S("k"), (struct slice){ big, 0x1234 });
	assert_memory_equal(b, "\1\x80\0\x12\x34k", 6);
	assert_int_equal(t.n, 5 + 1 + 0x1234);
}

static const struct {
	struct slice in;
	const char *out, *err;
	int state; /* -1: malformed; 0: goes on; 1: ended */
	unsigned app, protocol;
	size_t left; /* bytes behind the end */
	const char *why;
} records[] = {
	{ T("\1\6\0\1\0\2\0\0hi\1\6\0\1\0\0\0\0\1\3\0\1\0\x08\0\0\0\0\0\0\0\0\0\0"), "hi", "", 1, 0, 0, 0, "a whole answer" },
	{ T("\1\6\0\1\0\2\0\0hi\1\6\0\1\0\3\0\0you"), "hiyou", "", 0, 0, 0, 0, "two pieces" },
	{ T("\1\6\0\1\0\2\6\0hixxxxxx\1\6\0\1\0\1\7\0!xxxxxxx"), "hi!", "", 0, 0, 0, 0, "padding" },
	{ T("\1\7\0\1\0\3\0\0bad\1\6\0\1\0\2\0\0hi\1\7\0\1\0\2\0\0++"), "hi", "bad++", 0, 0, 0, 0, "the log between" },
	{ T("\1\7\0\1\0\x0a\0\0" "0123456789\1\7\0\1\0\4\0\0abcd"), "", "0123456789ab", 0, 0, 0, 0, "more than it takes" },
	{ T("\1\3\0\1\0\x08\0\0\1\2\3\4\2\0\0\0next"), "", "", 1, 0x1020304, 2, 4, "overloaded; and bytes behind it" },
	{ T("\1\3\0\1\0\x08\2\0\0\0\0\7\0\0\0\0xx"), "", "", 1, 7, 0, 0, "padding behind the end" },
	{ T("\1\x0b\0\0\0\x08\0\0\x63\0\0\0\0\0\0\0\1\6\0\1\0\1\0\0a"), "a", "", 0, 0, 0, 0, "a record of no request" },
	{ T("\1\6\0\0\0\1\0\0a"), "", "", 0, 0, 0, 0, "output of no request" },
	{ T("\2\6\0\1\0\1\0\0a"), "", "", -1, 0, 0, 0, "another version" },
	{ T("HTTP/1.1 200 OK\r\n\r\n"), "", "", -1, 0, 0, 0, "another protocol" },
	{ T("\1\6\0\2\0\1\0\0a"), "", "", -1, 0, 0, 0, "another request" },
	{ T("\1\6\1\1\0\1\0\0a"), "", "", -1, 0, 0, 0, "of 257" },
	{ T("\1\3\0\1\0\7\0\0\0\0\0\0\0\0\0"), "", "", -1, 0, 0, 0, "a short end" },
	{ T("\1\3\0\1\0\x09\0\0\0\0\0\0\0\0\0\0\0"), "", "", -1, 0, 0, 0, "a long end" },
	{ T("\1\3\0\0\0\x08\0\0\0\0\0\0\0\0\0\0"), "", "", -1, 0, 0, 0, "an end of nothing" },
};

static void
test_fcgi_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(records); i++)
		for (size_t cut = 0; cut <= records[i].in.n; cut++) {
			struct slice in = records[i].in;
			struct fcgi_reader r = { .left = 0 };
			char out[128], log[12];
			struct text o = { out, 0, sizeof out, false }, err = { log, 0, sizeof log, false };
			size_t used = 0, n = 0;
			ssize_t got = 0;

			for (int half = 0; half < 2 && got >= 0 && !r.ended; half++) {
				struct slice piece = exact(half ? slice_from(in, cut) : (struct slice){ in.p, cut });
				got = fcgi_decode(&r, (char *)(uintptr_t)piece.p, piece.n, &n, &err);
				text_add(&o, (struct slice){ piece.p, got < 0 ? 0 : n });
				used += got < 0 ? 0 : (size_t)got;
				exact_free(piece);
			}
			row_int(records[i].why, in, "state", got < 0 ? -1 : r.ended, records[i].state);
			if (got < 0)
				continue;
			row_slice(records[i].why, in, "out", text_slice(&o), slice_of(records[i].out));
			row_slice(records[i].why, in, "log", text_slice(&err), slice_of(records[i].err));
			row_int(records[i].why, in, "left", (long long)(in.n - used), (long long)records[i].left);
			row_int(records[i].why, in, "app", r.app_status, records[i].app);
			row_int(records[i].why, in, "protocol", r.protocol_status, records[i].protocol);
		}
	rows_end();
}

/* ---- heads of answers ---- */

static const struct {
	struct slice in;
	int status; /* 0: malformed */
	const char *why;
} answers[] = {
	{ T("HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"), 200, "as of a server" },
	{ T("HTTP/1.0 204\n\n"), 204, "with bare line feeds" },
	{ T("HTTP/2.0 200 OK\r\nA: 1\r\n\r\n"), 200, "of another version" },
	{ T("HTTP/9.9 404 \r\n\r\n"), 404, "of one that is none" },
	{ T("Status: 404 Not Found\r\n\r\n"), 404, "a field says it" },
	{ T("Location: /a\n\n"), 302, "sent on" },
	{ T("HTML: 1\r\n\r\n"), 200, "almost the protocol's name" },
	{ T("HTTP/2\n\n"), 0, "too short" },
	{ T("Status: 1\r\n\r\n"), 0, "no status" },
};

/* What has come so far is only part of a head, at whatever byte it is cut. */
static void
test_answers(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(answers); i++)
		for (size_t n = 1; n <= answers[i].in.n; n++) {
			struct slice in = exact((struct slice){ answers[i].in.p, n });
			struct head h;
			int got = cgi_parse(&h, in);
			bool whole = n == answers[i].in.n;

			if (answers[i].status > 0) {
				row_int(answers[i].why, in, "cgi_parse", got, whole ? (int)n : 0);
				row_int(answers[i].why, in, "status", whole && got > 0 ? h.status : answers[i].status,
				    answers[i].status);
			} else if (whole)
				row_int(answers[i].why, in, "cgi_parse", got, -502);
			exact_free(in);
		}
	rows_end();
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blocks),
		cmocka_unit_test(test_put),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_announcements),
		cmocka_unit_test(test_announcement_bytes),
		cmocka_unit_test(test_long_announcement),
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_cache_replies),
		cmocka_unit_test(test_fcgi_written),
		cmocka_unit_test(test_fcgi_read),
		cmocka_unit_test(test_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
