/* PostgreSQL's URL, messages and proofs of a password; the proof against the
 * example of RFC 7677. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

/* ---- the URL ---- */

/* clang-format off */
static const struct {
	struct slice url;
	const char *at; /* its address */
	const char *user, *password, *database;
	enum ssl_mode mode;
} urls[] = {
	{ T("postgres://db"), "db:5432", "", "", "", SSL_PREFER },
	{ T("postgresql://db/"), "db:5432", "", "", "", SSL_PREFER },
	{ T("postgres://joe:pw@db:1/web"), "db:1", "joe", "pw", "web", SSL_PREFER },
	{ T("postgres://joe@127.0.0.1/web"), "127.0.0.1:5432", "joe", "", "web", SSL_PREFER },
	{ T("postgres://joe:@[::1]:6543/w"), "[::1]:6543", "joe", "", "w", SSL_PREFER },
	{ T("postgres://j%6Fe:p%40%3a%2f%25@db/a%20b"), "db:5432", "joe", "p@:/%", "a b", SSL_PREFER },
	{ T("postgres://joe:a@b@db/web"), "db:5432", "joe", "a@b", "web", SSL_PREFER },
	{ T("postgres://%2frun%2Fpg/web"), "unix:/run/pg/.s.PGSQL.5432", "", "", "web", SSL_PREFER },
	{ T("postgres://joe@%2Frun:7/web"), "unix:/run/.s.PGSQL.7", "joe", "", "web", SSL_PREFER },
	{ T("postgres:///web?host=/run/pg&port=5433"), "unix:/run/pg/.s.PGSQL.5433", "", "", "web", SSL_PREFER },
	{ T("postgres://?host=::1&user=a&password=b&dbname=c"), "[::1]:5432", "a", "b", "c", SSL_PREFER },
	{ T("postgres://db?"), "db:5432", "", "", "", SSL_PREFER },
	{ T("postgres://db?sslmode=disable"), "db:5432", "", "", "", SSL_DISABLE },
	{ T("postgres://db/x?connect_timeout=3&sslmode=require"), "db:5432", "", "", "x", SSL_REQUIRE },
	{ T("postgres://db/x?sslmode=require&sslrootcert=ca.pem"), "db:5432", "", "", "x", SSL_VERIFY_CA },
	{ T("postgres://db/x?sslmode=verify-ca"), "db:5432", "", "", "x", SSL_VERIFY_CA },
	{ T("postgres://db/x?sslmode=verify-full"), "db:5432", "", "", "x", SSL_VERIFY_FULL },
};

static const struct {
	struct slice url;
	const char *why;
} bad_urls[] = {
	{ T(""), "expected postgres://" },
	{ T("postgres:/"), "expected postgres://" },
	{ T("mysql://db"), "expected postgres://" },
	{ T("postgres://"), "names its host" },
	{ T("postgres:///web"), "names its host" },
	{ T("postgres://joe@/web"), "names its host" },
	{ T("postgres://*/web"), "names its host" },
	{ T("postgres://db:0/"), "a port from 1" },
	{ T("postgres://db:65536/"), "a port from 1" },
	{ T("postgres://db:x/"), "a port from 1" },
	{ T("postgres://%2frun:..%2f/"), "a port from 1" },
	{ T("postgres://joe:50%@db/"), "expected %25" },
	{ T("postgres://joe:a%00b@db/"), "expected %25" },
	{ T("postgres://db/%zz"), "expected %25" },
	{ T("postgres://[::1/x"), "expected %25" },
	{ T("postgres://a b/x"), "host name" },
	{ T("postgres://a,b/x"), "host name" },
	{ T("postgres://1.2.3/x"), "host name" },
	{ T("postgres://db/x?sslmode=allow"), "sslmode" },
	{ T("postgres://db/x?sslmode"), "sslmode" },
	{ T("postgres://db/x?sslmod=require"), "parameter" },
	{ T("postgres://db/x?sslmode=%"), "expected %25" },
};
/* clang-format on */

static void
url_test(void **state)
{
	struct arena a = { NULL };
	struct pgurl u;
	const char *why;

	(void)state;
	for (size_t i = 0; i < LEN(urls); i++) {
		struct slice in = exact(urls[i].url);
		if (!pgurl_parse(&a, in, &u, &why)) {
			row_bad("refused", in, "%s", why);
		} else {
			row_slice("address", in, "it", slice_of(u.addr.text), slice_of(urls[i].at));
			row_slice("user", in, "it", u.said[PGURL_USER], slice_of(urls[i].user));
			row_slice("password", in, "it", u.said[PGURL_PASSWORD], slice_of(urls[i].password));
			row_slice("database", in, "it", u.said[PGURL_DATABASE], slice_of(urls[i].database));
			row_int("sslmode", in, "it", u.mode, urls[i].mode);
		}
		for (size_t n = 0; n < in.n; n++) {
			struct slice cut = exact((struct slice){ in.p, n });
			pgurl_parse(&a, cut, &u, &why);
			exact_free(cut);
		}
		exact_free(in);
	}
	for (size_t i = 0; i < LEN(bad_urls); i++) {
		struct slice in = exact(bad_urls[i].url);
		if (pgurl_parse(&a, in, &u, &why))
			row_bad("taken", in, "%s", u.addr.text);
		else if (!strstr(why, bad_urls[i].why))
			row_bad("another reason", in, "%s", why);
		exact_free(in);
	}
	arena_free(&a);
	rows_end();
}

/* ---- messages ---- */

#define MD5_ANSWER "850be429f1fe77df3f603ac424abb440" /* of Python's hashlib */

static const struct {
	struct slice in;
	int n;
	const char *why;
} messages[] = {
	{ T("Z\0\0\0\5I"), 6, "ready" },
	{ T("Z\0\0\0\5IZ\0"), 6, "more behind it" },
	{ T("1\0\0\0\4"), 5, "an empty body" },
	{ T("1\0\0\0\3"), -1, "the length counts itself" },
	{ T("1\0\0\0\0"), -1, "no length" },
	{ T("1\0\1\0\0"), 0, "64 KB are allowed" },
	{ T("1\0\1\0\1"), -1, "one byte more is not" },
	{ T("1\xff\xff\xff\xff"), -1, "a negative length" },
	{ T("HTTP/1.1 400"), -1, "another protocol" },
};

static void
message_test(void **state)
{
	struct pgmsg msg;

	(void)state;
	for (size_t i = 0; i < LEN(messages); i++) {
		struct slice in = exact(messages[i].in);
		row_int(messages[i].why, in, "its length", pgmsg_parse(in, &msg), messages[i].n);
		if (messages[i].n > 0)
			row_int(messages[i].why, in, "its body", (long long)msg.body.n, messages[i].n - 5);
		for (int n = 0; n < messages[i].n; n++) {
			struct slice cut = exact((struct slice){ in.p, (size_t)n });
			row_int("cut short", cut, "its length", pgmsg_parse(cut, &msg), 0);
			exact_free(cut);
		}
		exact_free(in);
	}
	rows_end();
}

static void
bell_test(void **state)
{
	const struct slice whole = T("\0\0\1\2warp\0/a/b\0"), empty = T("\0\0\1\2warp\0\0");
	const struct slice fault = T("SFATAL\0VFATAL\0C28P01\0Mno \"x\"\0Fauth.c\0L1\0\0");
	struct slice channel, payload, code, text;

	(void)state;
	assert_true(pgmsg_bell(whole, &channel, &payload));
	row_slice("bell", whole, "channel", channel, S("warp"));
	row_slice("bell", whole, "payload", payload, S("/a/b"));
	assert_true(pgmsg_bell(empty, &channel, &payload) && payload.n == 0);
	for (size_t n = 0; n < whole.n; n++) {
		struct slice cut = exact((struct slice){ whole.p, n });
		assert_false(pgmsg_bell(cut, &channel, &payload));
		exact_free(cut);
	}
	pgmsg_error(fault, &code, &text);
	row_slice("error", fault, "code", code, S("28P01"));
	row_slice("error", fault, "text", text, S("no \"x\""));
	for (size_t n = 0; n < fault.n; n++) {
		struct slice cut = exact((struct slice){ fault.p, n });
		pgmsg_error(cut, &code, &text);
		assert_true(code.n == 0 || code.n == 5);
		exact_free(cut);
	}
	rows_end();
}

static void
writer_test(void **state)
{
	char b[200];
	struct text t = { b, 0, sizeof b, false };
	const struct slice none = S("");
	size_t at;

	(void)state;
	pgmsg_startup(&t, "joe", "web");
	row_slice("startup", none, "it", text_slice(&t), S("\0\0\0\65\0\3\0\0user\0joe\0database\0web\0"
	    "application_name\0warp\0\0"));
	t.n = 0;
	pgmsg_listen(&t, S("a \"B\" é"));
	row_slice("listen", none, "it", text_slice(&t), S("Q\0\0\0\30LISTEN \"a \"\"B\"\" é\"\0"));
	t.n = 0;
	pgmsg_put(&t, 'p', S("pw"));
	row_slice("password", none, "it", text_slice(&t), S("p\0\0\0\7pw\0"));
	t.n = 0;
	pgmsg_md5(&t, S("joe"), S("secret"), S("\1\2\3\4"));
	row_slice("md5", none, "it", text_slice(&t), S("p\0\0\0\50md5" MD5_ANSWER "\0"));
	for (size_t room = 0; room < 41; room++) {
		char *p = malloc(room);
		t = (struct text){ p, 0, room, false };
		at = pgmsg_begin(&t, 'Q');
		pgmsg_end(&t, at);
		t = (struct text){ p, 0, room, false };
		pgmsg_md5(&t, S("joe"), S("secret"), S("\1\2\3\4"));
		assert_true(t.full);
		free(p);
	}
	rows_end();
}

/* ---- proofs ---- */

#define NONCE  "rOprNGfwEbeRWgbNEkqO" /* RFC 7677 3 */
#define SERVER_NONCE NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define SALT   ",s=W22ZaJ0SNY7soEsUEjb6gQ=="
#define SIGN   "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static const struct {
	struct slice first;
	const char *why; /* in what is wrong; NULL: nothing */
} firsts[] = {
	{ T("r=" SERVER_NONCE SALT ",i=4096"), NULL },
	{ T("r=" SERVER_NONCE SALT ",i=4096,x=y"), NULL },
	{ T(""), "nonce" },
	{ T("r=" NONCE SALT ",i=4096"), "nonce" },
	{ T("r=x" NONCE SALT ",i=4096"), "nonce" },
	{ T("m=x,r=" SERVER_NONCE SALT ",i=4096"), "nonce" },
	{ T("r=" SERVER_NONCE ",i=4096" SALT), "salt" },
	{ T("r=" SERVER_NONCE ",s=,i=4096"), NULL },
	{ T("r=" SERVER_NONCE ",s=W22ZaJ0SNY7soEsUEjb6g"), "salt" },
	{ T("r=" SERVER_NONCE SALT), "rounds" },
	{ T("r=" SERVER_NONCE SALT ",i="), "rounds" },
	{ T("r=" SERVER_NONCE SALT ",i=4095"), "rounds" },
	{ T("r=" SERVER_NONCE SALT ",i=1000001"), "rounds" },
	{ T("r=" SERVER_NONCE SALT ",i=-1"), "rounds" },
};

static void
scram_test(void **state)
{
	char b[300];
	struct text t = { b, 0, sizeof b, false };
	unsigned char sign[br_sha256_SIZE];
	const char *why;

	(void)state;
	for (size_t i = 0; i < LEN(firsts); i++) {
		struct slice in = exact(firsts[i].first);
		t.n = 0;
		why = scram_answer(&t, S("pencil"), S("n=user,r=" NONCE), in, sign);
		if (!why != !firsts[i].why || (why && !strstr(why, firsts[i].why)))
			row_bad("a server's first message", in, "%s", why ? why : "taken");
		exact_free(in);
	}
	t.n = 0;
	assert_null(scram_answer(&t, S("pencil"), S("n=user,r=" NONCE), firsts[0].first, sign));
	row_slice("RFC 7677", firsts[0].first, "the proof", text_slice(&t), S("c=biws,r=" SERVER_NONCE
	    ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
	assert_true(scram_is_server(S("v=" SIGN), sign));
	assert_true(scram_is_server(S("v=" SIGN ",x=y"), sign));
	assert_false(scram_is_server(S("v=7" SIGN), sign));
	assert_false(scram_is_server(S("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), sign));
	assert_false(scram_is_server(S("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95A=="), sign));
	assert_false(scram_is_server(S("v="), sign));
	assert_false(scram_is_server(S("e=other-error"), sign));
	assert_false(scram_is_server(S(""), sign));
	t.n = 0;
	scram_first(&t, S("0123456789abcdefgh"));
	row_slice("first", S(""), "it", text_slice(&t), S("n=,r=MDEyMzQ1Njc4OWFiY2RlZmdo"));
	for (size_t room = 0; room < 100; room++) {
		t = (struct text){ malloc(room), 0, room, false };
		assert_non_null(scram_answer(&t, S("pencil"), S("n=user,r=" NONCE), firsts[0].first, sign));
		free(t.p);
	}
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(url_test),
		cmocka_unit_test(message_test),
		cmocka_unit_test(bell_test),
		cmocka_unit_test(writer_test),
		cmocka_unit_test(scram_test),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
