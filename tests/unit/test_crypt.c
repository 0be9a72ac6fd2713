/* SHA-crypt against what openssl passwd -5, -6 and crypt(3) say. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

#define LONG                                                                      \
	"a long password, much longer than any digest is: "                      \
	"0123456789 0123456789 0123456789 0123456789 0123456789"
#define HEX "0123456789abcdef"
#define A8  "aaaaaaaa"
#define A64 A8 A8 A8 A8 A8 A8 A8 A8

/* clang-format off */
static const struct {
	struct slice password;
	const char *hash;
	const char *why;
} hashes[] = {
	{ T("password"), "$5$saltstring$OH4IDuTlsuTYPdED1gsuiRMyTAwNlRWyA6Xr3I4/dQ5", "SHA-256" },
	{ T("password"), "$5$a$x8ssIx34C.IRiXo29UURs5AcnNhdWP3dXGeLtS3KoBB", "salt of one byte" },
	{ T("password"), "$5$rounds=1000$abcdefgh$GEazsRB0Tipk2UJZtYJM/eHHRMtwea4Vnto3YxMbrG0", "fewest rounds" },
	{ T("password"), "$5$rounds=10000$saltstringsaltst$DnR6.aMZDwOMqtynA.o2eobA3dYZepULoyGw/CZ4ID0", "more rounds" },
	{ T(LONG), "$5$saltstring$/8xQlGSyN/IotpjjexOPO33qZd/6JSHs1CeVsYxmAuA", "long password" },
	{ T(LONG), "$5$rounds=1000$abcdefgh$wP7f2yxJ5HlRIjndc76HO.xHuPYDo6J77NC0DvR8ZKB", "long, fewest rounds" },
	{ T("x"), "$5$$0Uor7kq6CTPY0DtjOiw.I2DuJSUfiZxCqkrafMVjNc8", "empty salt" },
	{ T(""), "$5$abc$bBHLwRRW2Li0XKaX13kz/g2fkDil4Jx46aNvd.48MS8", "empty password" },
	{ T("\xc3\xa4"), "$5$rounds=1234$abc$tQS5isQonIthpYANWy9TE8rKpy2ZtI84q.tUyfDLp12", "UTF-8" },
	{ T(HEX HEX), "$5$0123456789abcdef$EjumwKy/tnXmj0Fx4ZH1AeNjTSSQ4Yqdyw9KqfLyYVD", "as long as the digest" },
	{ T("password"), "$6$saltstring$adDbXsJjcDlq2662QPgd.tkSOVmnG9Tt3oXl4HR60SusC3AGjirnDenVZp3DGwLwqy6iYKCzannhaX9DR72nN1", "SHA-512" },
	{ T("password"), "$6$a$cDF29/4rxkZzke7MDbxA5QugGKNXjz8kkJgmZT.KmMruKzBbS9DbFa09GnKP6G5OyNipfZwCBHbrAJRPb5aAR1", "salt of one byte" },
	{ T("password"), "$6$rounds=1000$abcdefgh$wuAp2XWwaaguzVxZjeM2bd1yLSqbC/I9sr9DFeOfIPoAZiIj3ecL6rf9ibuAg8RDmh1vqbaeL0NSLJtGPF7b60", "fewest rounds" },
	{ T("password"), "$6$rounds=10000$saltstringsaltst$Qzq13AQeOS5aa8nj8fFRVn5cZkLp.t1PUmhPeygZiOwD7eFxWmcxrxGtIgnXDKoTYvTEmyGzyqVjaDGGtAurL/", "more rounds" },
	{ T(LONG), "$6$a$AR792ZdxKv7uDee3zVSzUqWOZwhlFKp1Juf8bcHeL8VcVqKO8G7DpUVNuDCVhfTjOtQPA7/I9a0djqyBPcEmW/", "long password" },
	{ T(LONG), "$6$rounds=1000$abcdefgh$LNQQXOJV6bXhLxT1bFA8meFLFiYUCc6fcwxWic839bcldq/KxlTt1J7p.KgqgtSsCi0D/qaRamIs5xmeUMQK0.", "long, fewest rounds" },
	{ T("x"), "$6$$KvRrc0bxRLyTUhO8OJOmRczh7oCol5BACiR8rmdfVzvuGgm8JmLDumsL/ah.jFtT.DswxoP9Nv3ByfU4j5hm/0", "empty salt" },
	{ T(""), "$6$abc$mJP3a6FyA8uCnzRtlnNypPwjnvpi5TP9qOrInzrfDmwxUQG38PkpCPdqfTb8JQfAngapMxeim4AZ..hSdRRzD.", "empty password" },
	{ T("\xc3\xa4"), "$6$abc$1YXSC4MFIBzKNAA8ErgyZxPhZdh9hq0f8rEntUmqlIgyQXbPWTAe512FfRBZWBT47.ZfwPAm8yhV33sSPXMV9/", "UTF-8" },
	{ T(HEX HEX HEX HEX), "$6$0123456789abcdef$nn9GWG8xWSvXblgih1cHtpGaAtGPUWoMLrlBPVoyI1WkjJ7YT6f.P7E1HuKxisdAuMHO0pDmlNNSq23Mr6GPG/", "as long as the digest" },
	{ T(A64 A64 A64 A64), "$6$s$aM5L9zf3CYDjsVyeH1LXeyuZnnGCGNd0fiUHZNZEsHEE71xP/jo2uEZ.qCD7qrL7qlv2sItZqQW.jN2mxgWRR/", "256 bytes" },
	/* crypt(3) lowers and raises what is out of bounds, and cuts the salt */
	{ T("x"), "$6$rounds=10$short$OcyCC7WtUReIOT8ORK5pUhNxYIwUN0LakZfYfzAxTg7SpeLqXz0zTUDorrk/BkgMFz5rM/jCwDRTi/2WclkE/.", "too few rounds are 1000" },
	{ T("x"), "$5$toolongsaltstring$5HmNJgXuzoMFjHvwjTNI8Mc7HEWhS69Cp384XR7KDD3", "the salt's first 16 bytes" },
	/* openssl passwd -apr1, -1; htpasswd -m, -s, -B; crypt(3) */
	{ T("password"), "$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq/", "apr1" },
	{ T("x"), "$apr1$saltsalt$Q17bmANhIA7pctgRGqF/S0", "apr1, one byte" },
	{ T(HEX), "$apr1$saltsalt$noZiBycUL1t9WTQEO7/nr1", "apr1, as long as the digest" },
	{ T(HEX "z"), "$apr1$saltsalt$syEzjIN9xdXI9n8uD0cXJ0", "apr1, a byte more" },
	{ T("\xc3\xa4"), "$apr1$saltsalt$5ksad285edsB98q8yJbW4.", "apr1, UTF-8" },
	{ T("password"), "$apr1$a$uaXsIQMLByuJ96Y9RmVGM.", "apr1, salt of one byte" },
	{ T(LONG), "$apr1$q72uaGAH$BkBPwA2eW0Jq2I2XjEw4T/", "htpasswd -m, long" },
	{ T(""), "$apr1$SJiGVpQE$rOoypbPa/JX0Cwe9jsFvY/", "htpasswd -m, empty" },
	{ T("password"), "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/", "MD5-crypt" },
	{ T(HEX "z"), "$1$saltsalt$82FY3OzYW8EJ0NIgxYcgg0", "MD5-crypt, longer than the digest" },
	{ T("password"), "$1$a$ST5kqD4oZxgiNWF1.mkWu1", "MD5-crypt, salt of one byte" },
	{ T(""), "$1$abc$Or2rbeUYTvt12aiVzMuS/.", "MD5-crypt, empty password" },
	{ T("password"), "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "htpasswd -s" },
	{ T(""), "{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "{SHA}, empty" },
	{ T(LONG), "{SHA}CyquBCNi49wlCr1FmQr/NlDLDQk=", "{SHA}, long" },
	{ T("password"), "$2y$04$UMo.mGH.xMW2EtWiVNc2iOyEqZ.Q0vZASPD7gTDekOgexi4AobkCO", "htpasswd -B" },
	{ T("password"), "$2y$06$5qLhRHqjqz/qWZ3Z9/0IEOfzThT/G/s7X6VVki3SAfBFxTPTSNUMG", "htpasswd -B -C 6" },
	{ T("\xc3\xa4"), "$2y$04$gON92Q/JatpbNsAXhmxlsuiZdLvFupgPqK6yg.Tg7KvChSoRMqOim", "bcrypt, UTF-8" },
	{ T(""), "$2b$04$abcdefghijklmnopqrstuubyCG3zY1GIXMyxfivm.ClDiInHzxjiq", "bcrypt, empty" },
	{ T("x"), "$2a$04$abcdefghijklmnopqrstuuPp7HPfoAs8I2dCQCQ/fW7zEJv8I8C8e", "$2a$" },
	{ T("x"), "$2b$04$......................8QPuF36SqwZ1d9QO3taNcRXHOtLxpvS", "$2b$" },
	{ T(A64 "aaaaaaa"), "$2b$04$abcdefghijklmnopqrstuuMCu.k1vM/ywQwiONaEn3oEMlZoCVBd6", "bcrypt, 71 bytes" },
};

static const struct {
	const char *hash, *why;
} unknown[] = {
	{ "", "nothing" },
	{ "password", "plain text" },
	{ "$", "dollar" },
	{ "$5", "no end" },
	{ "$5$", "no salt" },
	{ "$5$salt", "no digest" },
	{ "$5$salt$", "empty digest" },
	{ "$5$salt$OH4IDuTlsuTYPdED1gsuiRMyTAwNlRWyA6Xr3I4/dQ", "42 digits" },
	{ "$5$salt$OH4IDuTlsuTYPdED1gsuiRMyTAwNlRWyA6Xr3I4/dQ55", "44 digits" },
	{ "$6$salt$OH4IDuTlsuTYPdED1gsuiRMyTAwNlRWyA6Xr3I4/dQ5", "SHA-512 with digits for SHA-256" },
	{ "$1$saltstri$qpR/Z4gzYYHzBHT6GfVbQ", "MD5, a digit less" },
	{ "$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq//", "apr1, a digit more" },
	{ "$apr1$saltsalt", "apr1 without digest" },
	{ "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g", "{SHA}, a digit less" },
	{ "{SSHA}0c0blFTXXNuAMHECS4uxrj3ZieMoWImr", "{SSHA}" },
	{ "rqXexS6ZhobKA", "DES" },
	{ "$2y$03$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "bcrypt, cost too low" },
	{ "$2y$32$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "bcrypt, cost too high" },
	{ "$2y$5$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "bcrypt, one digit of cost" },
	{ "$2y$04$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "bcrypt, a digit less" },
	{ "$2y$04$abcdefghijklmnopqrst=uAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "bcrypt, no digit in its salt" },
	{ "$2y$04$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA+", "bcrypt, no digit of it" },
	{ "$2x$04$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "bcrypt with a bug" },
	{ "$2$04$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "bcrypt, the first" },
	{ "$y$j9T$abc$def", "yescrypt" },
	{ "$5$rounds=x$a$x8ssIx34C.IRiXo29UURs5AcnNhdWP3dXGeLtS3KoBB", "rounds of letters" },
	{ "$5$rounds=$a$x8ssIx34C.IRiXo29UURs5AcnNhdWP3dXGeLtS3KoBB", "no rounds" },
	{ "$5$rounds=-1$a$x8ssIx34C.IRiXo29UURs5AcnNhdWP3dXGeLtS3KoBB", "negative" },
	{ "$5$rounds=1000000000$a$x8ssIx34C.IRiXo29UURs5AcnNhdWP3dXGeLtS3KoBB", "too many rounds" },
	{ "$5$rounds=99999999999999999999$a$x8ssIx34C.IRiXo29UURs5AcnNhdWP3dXGeLtS3KoBB", "far too many" },
	{ "$5$rounds=1000", "rounds alone" },
};
/* clang-format on */

static bool
matches(struct slice password, struct slice hash)
{
	struct slice p = exact(password), h = exact(hash);
	struct crypt_job j;
	bool got = crypt_begin(&j, p, h);

	if (got) {
		while (j.round < j.rounds)
			crypt_work(&j, j.rounds);
		got = crypt_matches(&j);
	}

	exact_free(p);
	exact_free(h);
	return got;
}

static void
test_hashes(void **state)
{
	char other[300], b[160];

	(void)state;
	for (size_t i = 0; i < LEN(hashes); i++) {
		struct slice p = hashes[i].password, h = slice_of(hashes[i].hash);

		row_int(hashes[i].why, h, "crypt_rounds", crypt_rounds(h) > 0, 1);
		row_int(hashes[i].why, h, "the password", matches(p, h), 1);
		memcpy(other, p.p, p.n);
		other[p.n] = 'x';
		row_int(hashes[i].why, h, "one byte more", matches((struct slice){ other, p.n + 1 }, h), 0);
		if (p.n == 0)
			continue;
		other[p.n - 1] ^= 1;
		row_int(hashes[i].why, h, "another last byte", matches((struct slice){ other, p.n }, h), 0);
		row_int(hashes[i].why, h, "one byte less", matches((struct slice){ p.p, p.n - 1 }, h), 0);
		snprintf(b, sizeof b, "%s", hashes[i].hash);
		b[h.n - 1] = b[h.n - 1] == '.' ? '/' : '.';
		row_int(hashes[i].why, h, "another digest", matches(p, slice_of(b)), 0);
	}
	rows_end();
}

/* A few rounds now, a few later, as many at a time as it comes: the same. The
 * job keeps what it needs of the password, not the salt and the digest. */
static void
test_in_pieces(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(hashes); i++) {
		struct slice h = exact(slice_of(hashes[i].hash));
		struct slice p = exact(hashes[i].password);
		struct crypt_job j, moved;
		unsigned turns = 0;

		assert_true(crypt_begin(&j, p, h));
		exact_free(p);
		row_int(hashes[i].why, h, "rounds", j.rounds, crypt_rounds(h));
		crypt_work(&j, 0);
		row_int(hashes[i].why, h, "none yet", j.round, 0);
		while (j.round < j.rounds) {
			unsigned before = j.round, n = 1 + dice(turns++ % 2 ? 7 : 300);
			moved = j;
			memset(&j, 0xa5, sizeof j);
			j = moved; /* nothing points into itself */
			crypt_work(&j, n);
			row_int(hashes[i].why, h, "done", j.round - before,
			    slice_starts(h, S("$2")) ? 1 : MIN(n, j.rounds - before));
			if (j.round < j.rounds && turns == 3)
				row_int(hashes[i].why, h, "half way", crypt_matches(&j), false);
		}
		crypt_work(&j, 100); /* more than there are */
		row_int(hashes[i].why, h, "matches", crypt_matches(&j), true);
		exact_free(h);
	}
	rows_end();
}

/* Of two jobs each has its own turns. */
static void
test_side_by_side(void **state)
{
	struct crypt_job good, bad;

	(void)state;
	assert_true(crypt_begin(&good, hashes[0].password, slice_of(hashes[0].hash)));
	assert_true(crypt_begin(&bad, S("passwore"), slice_of(hashes[0].hash)));
	while (good.round < good.rounds || bad.round < bad.rounds) {
		crypt_work(&good, 64);
		crypt_work(&bad, 64);
	}
	assert_true(crypt_matches(&good));
	assert_false(crypt_matches(&bad));
}

/* As long as any may be, and one byte more. */
static void
test_longest(void **state)
{
	static char b[CRYPT_PASSWORD_MAX + 1];
	struct slice p;
	struct crypt_job j;

	(void)state;
	memset(b, 'x', sizeof b);
	p = exact((struct slice){ b, CRYPT_PASSWORD_MAX });
	assert_true(crypt_begin(&j, p, slice_of(hashes[0].hash)));
	crypt_work(&j, j.rounds);
	assert_false(crypt_matches(&j));
	exact_free(p);
	assert_false(crypt_begin(&j, (struct slice){ b, sizeof b }, slice_of(hashes[0].hash)));
}

static void
test_unknown(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(unknown); i++) {
		struct slice h = exact(slice_of(unknown[i].hash));

		row_int(unknown[i].why, h, "crypt_rounds", crypt_rounds(h) > 0, 0);
		row_int(unknown[i].why, h, "matches", matches(S("password"), h), 0);
		exact_free(h);
	}
	rows_end();
}

static void
test_cut_short(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(hashes); i++)
		for (size_t n = 0; n < strlen(hashes[i].hash); n++) {
			struct slice h = { hashes[i].hash, n };

			if (matches(hashes[i].password, h))
				row_bad(hashes[i].why, h, "cut short at %zu", n);
		}
	rows_end();
}

/* bcrypt looks at 72 bytes, as htpasswd does. */
static void
test_bcrypt_cut(void **state)
{
	struct slice h = S("$2b$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe");

	(void)state;
	assert_true(matches(S(A64 A8), h));
	assert_true(matches(S(A64 A64 A64 A8), h));
	assert_false(matches(S(A64 "aaaaaaa"), h));
	assert_false(matches(S(A64 "aaaaaaab"), h));
}

/* The first and last words of Blowfish's tables. */
static void
test_pi(void **state)
{
	(void)state;
	crypt_open();
	crypt_open();
	assert_int_equal(pi[0], 0);
	assert_int_equal(pi[1], 0x243f6a88);
	assert_int_equal(pi[BLOWFISH_SUBKEYS], 0x8979fb1b);
	assert_int_equal(pi[BLOWFISH_SUBKEYS + 1], 0xd1310ba6);
	assert_int_equal(pi[BLOWFISH_WORDS - 1], 0x578fdfe3);
	assert_int_equal(pi[BLOWFISH_WORDS], 0x3ac372e6);
}

#define SHA1 "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="

static const struct {
	struct slice text;
	int n; /* users; -1: wrong */
	unsigned line;
	const char *why;
} files[] = {
	{ T(""), 0, 0, "empty" },
	{ T("\n\n"), 0, 0, "empty lines" },
	{ T("ann:" SHA1), 1, 0, "no line end" },
	{ T("ann:" SHA1 "\nbob:" SHA1 "\n"), 2, 0, "two" },
	{ T("# a remark\r\n \r\nann:" SHA1 "\r\n"), 1, 0, "Windows, remarks" },
	{ T("ann:" SHA1 ":a remark\n"), 1, 0, "a third column" },
	{ T("ann:" SHA1 "\nbob\n"), -1, 2, "no hash" },
	{ T("ann:" SHA1 "\n\nbob:\n"), -1, 3, "empty hash" },
	{ T("ann:password\n"), -1, 1, "plain text" },
	{ T("ann:rqXexS6ZhobKA\n"), -1, 1, "DES" },
	{ T(":" SHA1 "\n"), -1, 1, "nobody" },
	{ T("ann:" SHA1 "\0\n"), -1, 1, "a NUL" },
};

static void
test_files(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(files); i++) {
		struct arena a = { NULL };
		struct slice text = exact(files[i].text);
		struct logins users;
		unsigned line;
		const char *why = users_parse(&a, text, &users, &line);

		exact_free(text); /* nothing points there */
		row_int(files[i].why, files[i].text, "users", why ? -1 : users.n, files[i].n);
		row_int(files[i].why, files[i].text, "a list", users.v != NULL, 1);
		if (why)
			row_int(files[i].why, files[i].text, "line", line, files[i].line);
		for (int k = 0; !why && k < users.n; k++)
			row_int(files[i].why, files[i].text, "hash", matches(S("password"), users.v[k].value), 1);
		arena_free(&a);
	}
	rows_end();
}

/* An unknown user is not told from those of a list by the time: the dearest hash is made. */
static void
test_unknown_user(void **state)
{
	static const char cheap[] = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
		sha[] = "$6$saltstring$adDbXsJjcDlq2662QPgd.tkSOVmnG9Tt3oXl4HR60SusC3AGjirnDenVZp3DGwLwqy6iYKCzannhaX9DR72nN1",
		bcrypt[] = "$2y$10$UMo.mGH.xMW2EtWiVNc2iOyEqZ.Q0vZASPD7gTDekOgexi4AobkCO";
	static const struct { const char *of[3]; unsigned rounds; } lists[] = {
		{ { cheap, sha, bcrypt }, 1024 }, { { bcrypt, sha, cheap }, 1024 }, { { cheap, sha, cheap }, 5000 },
		{ { "plain", cheap, "text" }, 1 }, { { "plain", "text", "all" }, 0 },
	};

	(void)state;
	for (size_t i = 0; i < LEN(lists); i++) {
		struct pair v[3];
		struct logins users = { v, LEN(v), 0 };
		struct exchange x = { .auth = NULL };
		struct head h;
		struct slice head = S("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic em9lOng=\r\n\r\n");
		enum auth said;

		for (size_t k = 0; k < LEN(v); k++)
			v[k] = (struct pair){ S("ann"), slice_of(lists[i].of[k]) };
		users_rate(&users);
		assert_true(request_parse(&h, head) > 0);
		said = auth_basic(&x, &h, &users);
		row_int("unknown user", slice_of(lists[i].of[0]), "waits", said == AUTH_LATER, lists[i].rounds > 0);
		row_int("unknown user", slice_of(lists[i].of[0]), "rounds", x.auth ? x.auth->crypt.rounds : 0, lists[i].rounds);
		auth_leave(&x);
	}
	rows_end();
}

/* CPU time in ns of what auth_basic does at once for that user of n with bcrypt. */
static uint64_t
auth_ns(const char *user, int n)
{
	struct arena a = { NULL };
	struct exchange x = { .auth = NULL };
	struct head h;
	struct logins users;
	struct timespec from, to;
	uint64_t best = UINT64_MAX;
	unsigned line;
	char b[64];
	struct text file = { xcalloc(1, (size_t)n * 80), 0, (size_t)n * 80, false }, head = { arena_alloc(&a, 256), 0, 256, false },
		said = { b, 0, sizeof b, false };

	for (int i = 0; i < n; i++)
		text_fmt(&file, "u%06d:$2y$05$UMo.mGH.xMW2EtWiVNc2iOyEqZ.Q0vZASPD7gTDekOgexi4AobkCO\n", i);
	assert_null(users_parse(&a, text_slice(&file), &users, &line));
	text_fmt(&said, "%s:x", user);
	text_str(&head, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic ");
	base64_write(&head, text_slice(&said), false);
	text_str(&head, "\r\n\r\n");
	assert_true(request_parse(&h, text_slice(&head)) > 0);
	for (int i = 0; i < 5; i++) {
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
		assert_int_equal(auth_basic(&x, &h, &users), AUTH_LATER);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
		auth_leave(&x);
		best = MIN(best, (uint64_t)(to.tv_sec - from.tv_sec) * 1000000000 + (uint64_t)to.tv_nsec - (uint64_t)from.tv_nsec);
	}
	free(file.p);
	arena_free(&a);
	return best;
}

/* Nor is a long list worked through for who is not in it. */
static void
test_unknown_user_of_many(void **state)
{
	(void)state;
	crypt_open();
	assert_in_range(auth_ns("zoe", 10000), 0, 5 * auth_ns("u009999", 10000));
}

static void
test_secret(void **state)
{
	(void)state;
	assert_true(slice_eq_secret(S("abc"), S("abc")));
	assert_false(slice_eq_secret(S("abc"), S("abd")));
	assert_false(slice_eq_secret(S("ab"), S("abc")));
	assert_false(slice_eq_secret(S("abcabc"), S("abc")));
	assert_false(slice_eq_secret(S(""), S("abc")));
	assert_false(slice_eq_secret(S("abc"), S("")));
	assert_false(slice_eq_secret(S(""), S(""))); /* an empty secret lets nobody in */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hashes),
		cmocka_unit_test(test_in_pieces),
		cmocka_unit_test(test_side_by_side),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_bcrypt_cut),
		cmocka_unit_test(test_pi),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_unknown_user), cmocka_unit_test(test_unknown_user_of_many),
		cmocka_unit_test(test_secret),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
