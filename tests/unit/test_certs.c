/* Certificates and keys in every spelling, what is said of wrong ones, names,
 * and the way from the master to its workers. The files are tests/unit/certs,
 * made by make.sh there. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

#define DIR "tests/unit/certs/"

/* ---- what is said ---- */

static char said[8192];

static void
say(void *to, enum diag_level level, int pair, const char *text)
{
	size_t n = strlen(said);

	(void)to;
	if (strstr(text, "can be read by others"))
		return; /* as git leaves files */
	snprintf(said + n, sizeof said - n, "%s %d: %s\n", level == DIAG_ERROR ? "error" : "warning",
	    pair, text);
}

static struct cert_set *
load(const char *cert, const char *key)
{
	char c[200], k[200];

	said[0] = '\0';
	snprintf(c, sizeof c, "%s%s", *cert == '/' ? "" : DIR, cert);
	snprintf(k, sizeof k, "%s%s", *key == '/' ? "" : DIR, key);
	return certs_pair(c, k, say, NULL);
}

static const struct {
	const char *cert, *key, *want; /* all that is said has it; "": nothing is said */
	bool good;
} pairs[] = {
	{ "ec.pem", "ec.key", "", true },
	{ "ec.pem", "ec8.key", "", true },
	{ "ec.pem", "params.key", "", true },
	{ "both.pem", "both.pem", "", true },
	{ "rsa.pem", "rsa.key", "", true },
	{ "rsa.pem", "rsa1.key", "", true },
	{ "p384.pem", "p384.key", "", true },
	{ "disorder.pem", "ec.key", "warning 0: the chain in " DIR "disorder.pem is out of order: "
	    "'ignored.example' was signed by 'Test, Inter', but 'Test, Root' follows", true },
	{ "expired.pem", "ec.key", "warning 0: the certificate in " DIR "expired.pem has expired on "
	    "2020-01-02; renew it", true },
	{ "future.pem", "ec.key", "is not valid before 2120-01-01; is this host's clock right?", true },
	{ "weak.pem", "weak.key", "has only 1024 bits", true },
	{ "behind.pem", "ec.key", "error 0: the chain in " DIR "behind.pem is in the wrong order: "
	    "the key in " DIR "ec.key belongs to certificate 2", false },
	{ "cut.pem", "ec.key", "error 0: " DIR "cut.pem is damaged: 'CERTIFICATE'", false },
	{ "ec.key", "ec.key", "error 0: " DIR "ec.key holds no certificate", false },
	{ "ec.pem", "ec.pem", "error 0: " DIR "ec.pem holds no private key", false },
	{ "ec.pem", "rsa.key", "error 0: " DIR "ec.pem and " DIR "rsa.key do not belong together", false },
	{ "ec.pem", "p384.key", "do not belong together", false },
	{ "rsa.pem", "weak.key", "do not belong together", false },
	{ "ec.pem", "encrypted.key", "is encrypted, and warp cannot ask for the passphrase; decrypt "
	    "it: openssl pkey -in " DIR "encrypted.key", false },
	{ "ec.pem", "encrypted1.key", "is encrypted", false },
	{ "ec.pem", "k1.key", "cannot be used: warp knows RSA", false },
	{ "ec.pem", "ed.key", "cannot be used: warp knows RSA", false },
	{ "none.pem", "ec.key", "error 0: cannot read " DIR "none.pem: No such file", false },
	{ "ec.pem", "none.key", "error 0: cannot read " DIR "none.key: No such file", false },
	{ "/dev/null", "ec.key", "cannot read /dev/null: it is not a regular file", false },
	{ "/dev/zero", "ec.key", "cannot read /dev/zero: it is not a regular file", false },
};

static void
test_pairs(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(pairs); i++) {
		struct cert_set *set = load(pairs[i].cert, pairs[i].key);
		struct slice what = slice_of(pairs[i].cert);

		row_int(pairs[i].key, what, "loads", set != NULL, pairs[i].good);
		if (!strstr(said, pairs[i].want) || (!*pairs[i].want && *said))
			row_bad(pairs[i].key, what, "wanted '%s', said '%s'", pairs[i].want, said);
		if (set)
			row_int(pairs[i].key, what, "certificates", set->n, 1);
		certs_free(set);
	}
	rows_end();
}

/* ---- what is in them ---- */

static void
test_facts(void **state)
{
	struct cert_set *set = load("ec.pem", "ec.key");
	const struct cert *c = &set->v[0];

	(void)state;
	assert_int_equal(c->origin, CERT_FILE);
	assert_int_equal(c->n_chain, 2);
	assert_int_equal(c->key_type, BR_KEYTYPE_EC);
	assert_int_equal(c->issuer_key_type, BR_KEYTYPE_EC);
	assert_int_equal(c->key_bits, 256);
	assert_int_equal(c->ec.curve, BR_EC_secp256r1);
	assert_int_equal(c->names.n, 2); /* the common name does not count */
	assert_string_equal(c->names.v[0].p, "a.example");
	assert_string_equal(c->names.v[1].p, "*.w.example");
	assert_string_equal(c->issuer.p, "Test, Inter");
	assert_int_equal(c->issuer_id.n, 20);
	assert_int_equal(c->serial.n, 20);
	assert_true(c->from_s < (int64_t)time(NULL) && c->until_s > 4000000000);
	certs_free(set);
	set = load("rsa.pem", "rsa.key");
	c = &set->v[0];
	assert_int_equal(c->key_type, BR_KEYTYPE_RSA);
	assert_int_equal(c->issuer_key_type, BR_KEYTYPE_RSA);
	assert_int_equal(c->key_bits, 2048);
	assert_int_equal(c->names.n, 1);
	assert_string_equal(c->names.v[0].p, "cn.example"); /* no other name */
	assert_string_equal(c->issuer.p, "Only O, Cn.Example");
	certs_free(set);
	set = load("expired.pem", "ec.key");
	assert_int_equal(set->v[0].from_s, 1577836800);
	assert_int_equal(set->v[0].until_s, 1577923200);
	certs_free(set);
}

static const struct {
	const char *name;
	int covers;
} covered[] = {
	{ "a.example", 2 },   { "b.example", 0 },      { "x.w.example", 1 },
	{ "*.w.example", 2 }, { "x.y.w.example", 0 },  { "w.example", 0 },
	{ ".w.example", 0 },  { "xw.example", 0 },     { "", 0 },
	{ "example", 0 },     { "ignored.example", 0 }, { "a.example.", 0 },
};

static void
test_covers(void **state)
{
	struct cert_set *set = load("ec.pem", "ec.key");

	(void)state;
	for (size_t i = 0; i < LEN(covered); i++) {
		struct slice name = exact(slice_of(covered[i].name));
		row_int("cert_covers", name, covered[i].name, cert_covers(&set->v[0], name),
		    covered[i].covers);
		exact_free(name);
	}
	certs_free(set);
	rows_end();
}

/* ---- several, and ACME ---- */

static void
file_write(const char *path, const char *from, mode_t mode)
{
	struct arena a = { NULL };
	struct slice text;
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_null(file_read(&a, from, 1000000, &text));
	fwrite(text.p, 1, text.n, f);
	fclose(f);
	chmod(path, mode);
	arena_free(&a);
}

static void
test_set(void **state)
{
	struct cert_files files[] = { { DIR "ec.pem", DIR "ec.key", 0, 0 },
		{ DIR "rsa.pem", DIR "rsa.key", 0, 0 }, { DIR "p384.pem", DIR "p384.key", 0, 0 } };
	struct tls_conf t = { .files = files, .n_files = 3 };
	struct cert_set *set;

	(void)state;
	said[0] = '\0';
	set = certs_load(&t, say, NULL);
	assert_non_null(set);
	assert_int_equal(set->n, 3);
	assert_string_equal(said, "warning 2: " DIR "ec.pem and " DIR "p384.pem are both for a.example: "
	    "the first is used\n");
	certs_free(set);
	files[1].key = DIR "ec.key";
	files[2].key = DIR "none";
	said[0] = '\0';
	assert_null(certs_load(&t, say, NULL)); /* all that is wrong is said */
	assert_non_null(strstr(said, "error 1: " DIR "rsa.pem and "));
	assert_non_null(strstr(said, "error 2: cannot read "));
	t.n_files = 0;
	said[0] = '\0';
	assert_null(certs_load(&t, say, NULL));
	assert_string_equal(said, "error -1: there is no certificate\n");
}

static void
test_acme(void **state)
{
	char dir[] = "/tmp/warp-certs-XXXXXX", file[100];
	struct slice names[] = { T("a.example"), T("*.w.example") }; /* as ec.pem has them */
	struct tls_conf t = { .domains = { names, 1 } };
	struct cert_set *set;
	uint64_t print;

	(void)state;
	t.acme_dir = mkdtemp(dir);
	snprintf(file, sizeof file, "%s/a.example.pem", dir);
	print = certs_print(&t);
	said[0] = '\0';
	set = certs_load(&t, say, NULL); /* none yet */
	assert_non_null(set);
	assert_string_equal(said, "");
	assert_int_equal(set->v[0].origin, CERT_MADE);
	assert_null(set->v[0].cert_file);
	assert_int_equal(cert_covers(&set->v[0], S("a.example")), 2);
	certs_free(set);

	file_write(file, DIR "both.pem", 0600); /* for other names */
	assert_true(print != certs_print(&t));
	print = certs_print(&t);
	assert_true(print == certs_print(&t));
	set = certs_load(&t, say, NULL);
	assert_int_equal(set->n, 1); /* it has more names than are wanted now */
	assert_int_equal(set->v[0].origin, CERT_ACME);
	assert_non_null(strstr(said, "warning -1: "));
	assert_non_null(strstr(said, "is not for exactly the names of tls.domains"));
	certs_free(set);

	said[0] = '\0';
	t.domains.n = 2;
	set = certs_load(&t, say, NULL);
	assert_int_equal(set->v[0].origin, CERT_ACME);
	assert_string_equal(set->v[0].cert_file, file);
	assert_string_equal(said, "");
	certs_free(set);

	file_write(file, DIR "cut.pem", 0600);
	assert_true(print != certs_print(&t));
	set = certs_load(&t, say, NULL);
	assert_int_equal(set->n, 1);
	assert_int_equal(set->v[0].origin, CERT_MADE);
	assert_non_null(strstr(said, "warning -1: "));
	certs_free(set);
	unlink(file);
	rmdir(dir);
}

static bool readable;

static void
say_readable(void *to, enum diag_level level, int pair, const char *text)
{
	(void)to;
	(void)pair;
	readable |= level == DIAG_WARNING && strstr(text, "can be read by others; chmod 600 ");
}

static void
test_mode(void **state)
{
	char file[] = "/tmp/warp-certs-XXXXXX";
	int fd = mkstemp(file);

	(void)state;
	close(fd);
	file_write(file, DIR "both.pem", 0600);
	certs_free(certs_pair(file, file, say_readable, NULL));
	assert_false(readable);
	file_write(file, DIR "both.pem", 0640);
	certs_free(certs_pair(file, file, say_readable, NULL));
	assert_true(readable);
	unlink(file);
}

/* ---- packed ---- */

static void
test_pack(void **state)
{
	struct arena a = { NULL };
	struct slice names[] = { T("a.example") }, packed, cut, again;
	struct cert_files files[] = { { DIR "disorder.pem", DIR "ec.key", 0, 0 },
		{ DIR "rsa.pem", DIR "rsa.key", 0, 0 } };
	struct tls_conf t = { .files = files, .n_files = 2, .domains = { names, 1 },
		.acme_dir = "/none" };
	struct cert_set *set = certs_load(&t, say, NULL), *back;

	(void)state;
	assert_int_equal(set->n, 3);
	packed = exact(certs_pack(set, &a));
	back = certs_unpack(packed);
	assert_non_null(back);
	assert_int_equal(back->n, 3);
	for (int i = 0; i < 3; i++) {
		const struct cert *c = &set->v[i], *b = &back->v[i];
		assert_int_equal(b->origin, c->origin);
		assert_int_equal(b->n_chain, c->n_chain);
		assert_int_equal(b->key_type, c->key_type);
		assert_int_equal(b->until_s, c->until_s);
		assert_int_equal(b->names.n, c->names.n);
		assert_true(slice_eq(b->pem, c->pem));
		assert_true(slice_eq(slice_of(b->cert_file), slice_of(c->cert_file)));
		assert_true(slice_eq(slice_of(b->key_file), slice_of(c->key_file)));
	}
	assert_null(back->v[2].cert_file);
	again = certs_pack(back, &a);
	assert_true(slice_eq(again, packed));
	certs_free(back);
	certs_free(set);
	for (size_t n = 0; n < packed.n; n += n < 100 ? 1 : 37) {
		cut = exact((struct slice){ packed.p, n });
		back = certs_unpack(cut);
		assert_true(!back || back->n < 3); /* cut between two */
		certs_free(back);
		exact_free(cut);
	}
	exact_free(packed);
	arena_free(&a);
}

/* ---- PEM ---- */

static const struct {
	struct slice in;
	int got;
	struct slice der;
	const char *why;
} pems[] = {
	{ T("-----BEGIN X-----\nYWJj\n-----END X-----\n"), 1, T("abc"), "plain" },
	{ T("-----BEGIN X-----\r\nYWJj\r\n-----END X-----\r\n"), 1, T("abc"), "CRLF" },
	{ T("-----BEGIN X-----\nYWJj\n-----END X-----"), 1, T("abc"), "no newline at the end" },
	{ T("text\n-----BEGIN X-----\nYW\n Jj\t\n-----END X----- \n"), 1, T("abc"), "blanks" },
	{ T("-----BEGIN X-----\nYWI=\n-----END X-----\n"), 1, T("ab"), "one pad" },
	{ T("-----BEGIN X-----\nYQ==\n-----END X-----\n"), 1, T("a"), "two" },
	{ T("-----BEGIN X-----\nYQ\n-----END X-----\n"), 1, T("a"), "none" },
	{ T(""), 0, T(""), "nothing" },
	{ T("-----END X-----\n"), 0, T(""), "only an end" },
	{ T("-----BEGIN X\nYWJj\n"), 0, T(""), "no begin" },
	{ T("-----BEGIN -----\nYWJj\n-----END -----"), 1, T("abc"), "no name" },
	{ T("-----BEGIN X-----\nYWJj\n"), -1, T(""), "no end" },
	{ T("-----BEGIN X-----\nYWJj\n-----END Y-----\n"), -1, T(""), "another end" },
	{ T("-----BEGIN X-----\n-----END X-----\n"), -1, T(""), "empty" },
	{ T("-----BEGIN X-----\nY\n-----END X-----\n"), -1, T(""), "six bits" },
	{ T("-----BEGIN X-----\nYW_j\n-----END X-----\n"), -1, T(""), "no base64" },
	{ T("-----BEGIN X-----\nY=Wj\n-----END X-----\n"), -1, T(""), "pad inside" },
	{ T("-----BEGIN X-----\nYQ===\n-----END X-----\n"), -1, T(""), "three pads" },
	{ T("-----BEGIN X-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: A\n\n?\n-----END X-----\n"), 1, T(""), "encrypted" },
};

static void
test_pem(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(pems); i++) {
		struct arena a = { NULL };
		struct slice in = exact(pems[i].in), rest = in;
		struct pem o;

		row_int(pems[i].why, in, "pem_next", pem_next(&a, &rest, &o), pems[i].got);
		if (pems[i].got > 0 && !slice_eq(o.der, pems[i].der))
			row_bad(pems[i].why, in, "got '%s'", shown(o.der));
		arena_free(&a);
		exact_free(in);
	}
	rows_end();
}

/* ---- trust ---- */

static void
test_trust(void **state)
{
	struct arena a = { NULL };
	struct trust *t = NULL;

	(void)state;
	assert_null(trust_load(&a, DIR "disorder.pem", &t));
	assert_int_equal(t->n, 3);
	assert_int_equal(t->v[0].flags, 0);
	assert_int_equal(t->v[1].flags, BR_X509_TA_CA);
	assert_int_equal(t->v[1].dn.data[0], DER_SEQUENCE);
	assert_int_equal(t->v[1].dn.len, t->v[1].dn.data[1] + 2);
	assert_int_equal(t->v[1].pkey.key.ec.qlen, 65);
	assert_null(trust_load(&a, DIR "rsa.pem", &t));
	assert_int_equal(t->v[0].pkey.key.rsa.nlen, 256);
	assert_null(trust_load(&a, NULL, &t));
	assert_true(t->n > 50);
	assert_non_null(strstr(trust_load(&a, DIR "none", &t), "cannot read " DIR "none: No such file"));
	assert_non_null(strstr(trust_load(&a, DIR "ec.key", &t), "holds no certificate"));
	assert_non_null(strstr(trust_load(&a, DIR "cut.pem", &t), "is damaged: 'CERTIFICATE'"));
	arena_free(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_facts),
		cmocka_unit_test(test_covers),
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_acme),
		cmocka_unit_test(test_mode),
		cmocka_unit_test(test_pack),
		cmocka_unit_test(test_pem),
		cmocka_unit_test(test_trust),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
