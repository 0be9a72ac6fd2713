/* Keys, requests and certificates that warp makes: BearSSL reads them again,
 * and what was signed holds. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

static const struct slice two[] = { T("example.com"), T("*.example.com") };

/* The tag and content of the value at the front of *rest, which is cut. */
static struct slice
value(struct slice *rest, int *tag)
{
	const unsigned char *p = (const unsigned char *)rest->p;
	size_t n, head = 2;
	struct slice v;

	assert_true(rest->n >= 2);
	*tag = p[0];
	n = p[1];
	if (n >= 0x80) {
		head += n & 0x7f;
		assert_true((n & 0x7f) >= 1 && (n & 0x7f) <= 2 && rest->n >= head);
		n = head == 3 ? p[2] : (size_t)p[2] << 8 | p[3];
		assert_true(n > (head == 3 ? 0x7f : 0xff)); /* no longer form than needed */
	}
	assert_true(rest->n - head >= n);
	v = (struct slice){ rest->p + head, n };
	*rest = slice_from(*rest, head + n);
	return v;
}

static struct slice
expect(struct slice *rest, int tag)
{
	int got;
	struct slice v = value(rest, &got);

	assert_int_equal(got, tag);
	return v;
}

/* der is SEQUENCE { body, ecdsa-with-SHA256, signature by q over body }; the
 * content of body. */
static struct slice
signed_body(struct slice der, const unsigned char q[65])
{
	struct slice rest = der, outer = expect(&rest, DER_SEQUENCE), body, all = outer, bits;
	unsigned char hash[32];
	unsigned char point[65];
	br_sha256_context sha;
	br_ec_public_key key = { BR_EC_secp256r1, point, sizeof point };

	assert_int_equal(rest.n, 0);
	memcpy(point, q, sizeof point);
	body = expect(&outer, DER_SEQUENCE);
	all.n = (size_t)(outer.p - all.p);
	br_sha256_init(&sha);
	br_sha256_update(&sha, all.p, all.n);
	br_sha256_out(&sha, hash);
	assert_int_equal(expect(&outer, DER_SEQUENCE).n, 10);
	bits = expect(&outer, DER_BITS);
	assert_int_equal(outer.n, 0);
	assert_int_equal(bits.p[0], 0);
	assert_int_equal(br_ecdsa_vrfy_asn1_get_default()(br_ec_get_default(), hash, sizeof hash,
	    &key, bits.p + 1, bits.n - 1), 1);
	return body;
}

static void
append(void *ctx, const void *p, size_t n)
{
	text_add(ctx, (struct slice){ p, n });
}

/* The objects of a PEM text, by turns into key and cert. */
static void
pem_read(struct slice pem, struct text *key, struct text *cert)
{
	br_pem_decoder_context d;
	const char *p = pem.p;
	size_t n = pem.n, eaten;
	int objects = 0;

	br_pem_decoder_init(&d);
	while (n > 0) {
		eaten = br_pem_decoder_push(&d, p, n);
		p += eaten;
		n -= eaten;
		switch (br_pem_decoder_event(&d)) {
		case BR_PEM_BEGIN_OBJ:
			assert_string_equal(br_pem_decoder_name(&d),
			    objects == 0 ? "PRIVATE KEY" : "CERTIFICATE");
			br_pem_decoder_setdest(&d, append, objects++ == 0 ? key : cert);
			break;
		case BR_PEM_ERROR:
			fail();
			break;
		default:
			break;
		}
	}
	assert_int_equal(objects, cert ? 2 : 1);
}

static void
test_keys(void **state)
{
	struct arena a = { NULL };
	unsigned char x[32], y[32], q[65], q2[65];
	char b[512];
	struct text der = { b, 0, sizeof b, false };
	br_ec_private_key key, other;
	br_skey_decoder_context d;
	const br_ec_private_key *read;

	(void)state;
	assert_true(key_new(&key, x) && key_new(&other, y));
	assert_memory_not_equal(x, y, sizeof x);
	assert_int_equal(key.xlen, 32);
	assert_ptr_equal(key.x, x);
	assert_true(key_point(&key, q));
	assert_int_equal(q[0], 4);
	pem_read(key_pem(&a, &key), &der, NULL);
	br_skey_decoder_init(&d);
	br_skey_decoder_push(&d, der.p, der.n);
	assert_int_equal(br_skey_decoder_last_error(&d), 0);
	assert_int_equal(br_skey_decoder_key_type(&d), BR_KEYTYPE_EC);
	read = br_skey_decoder_get_ec(&d);
	assert_int_equal(read->curve, BR_EC_secp256r1);
	assert_true(key_point(read, q2));
	assert_memory_equal(q, q2, sizeof q);
	arena_free(&a);
}

static void
names_are(struct slice seq, const struct slices *names)
{
	struct slice list = expect(&seq, DER_SEQUENCE);

	assert_int_equal(seq.n, 0);
	for (int i = 0; i < names->n; i++)
		assert_true(slice_eq(expect(&list, DER_DNS_NAME), names->v[i]));
	assert_int_equal(list.n, 0);
}

static void
csr_holds(const struct slices *names)
{
	struct arena a = { NULL };
	unsigned char x[32], q[65];
	br_ec_private_key key;
	struct slice der, body, spki, ext, oid;

	assert_true(key_new(&key, x) && key_point(&key, q));
	assert_null(csr_der(&a, &key, names, &der));
	body = signed_body(der, q);
	assert_true(slice_eq(expect(&body, DER_INTEGER), S("\0")));
	assert_int_equal(expect(&body, DER_SEQUENCE).n, 0);
	spki = expect(&body, DER_SEQUENCE);
	assert_memory_equal(spki.p + spki.n - sizeof q, q, sizeof q);
	ext = expect(&body, DER_0);
	assert_int_equal(body.n, 0);
	ext = expect(&ext, DER_SEQUENCE);
	oid = expect(&ext, 0x06);
	assert_true(slice_eq(oid, S("\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e")));
	ext = expect(&ext, DER_SET);
	ext = expect(&ext, DER_SEQUENCE);
	ext = expect(&ext, DER_SEQUENCE);
	assert_true(slice_eq(expect(&ext, 0x06), S("\x55\x1d\x11")));
	names_are(expect(&ext, DER_OCTETS), names);
	arena_free(&a);
}

/* Lengths of one, two and three bytes. */
static void
test_csr(void **state)
{
	struct slice many[60], one[] = { two[0] };
	char b[60][64];

	(void)state;
	for (int i = 0; i < 60; i++)
		many[i] = (struct slice){ b[i], (size_t)snprintf(b[i], sizeof b[i],
		    "a-rather-long-name-%d.of-a-site.example.org", i) };
	csr_holds(&(struct slices){ one, 1 });
	csr_holds(&(struct slices){ (struct slice *)(uintptr_t)two, 2 });
	for (int n = 2; n < 60; n++)
		csr_holds(&(struct slices){ many, n });
}

static void
test_refused(void **state)
{
	struct arena a = { NULL };
	unsigned char x[32];
	char b[256], *p;
	struct slice bad[] = { T(""), T("a b"), T("a\nb"), T("\xc3\xa9.example"), { b, 254 } };
	struct slice most[400], der;
	br_ec_private_key key;

	(void)state;
	memset(b, 'a', sizeof b);
	assert_true(key_new(&key, x));
	assert_non_null(csr_der(&a, &key, &(struct slices){ NULL, 0 }, &der));
	for (size_t i = 0; i < LEN(bad); i++) {
		assert_non_null(csr_der(&a, &key, &(struct slices){ bad + i, 1 }, &der));
		assert_non_null(cert_make_pem(&a, &(struct slices){ bad + i, 1 }, NULL, &der));
	}
	for (int i = 0; i < 400; i++) {
		p = arena_alloc(&a, 253);
		memset(p, 'a', 253);
		most[i] = (struct slice){ p, 253 };
	}
	assert_null(csr_der(&a, &key, &(struct slices){ most, 200 }, &der));
	assert_non_null(csr_der(&a, &key, &(struct slices){ most, 400 }, &der));
	arena_free(&a);
}

/* RFC 5280 4.1.2.5: the century is told from 2050 on. */
static void
test_times(void **state)
{
	static const struct {
		long long at;
		struct slice der;
	} rows[] = {
		{ 0, T("\x17\x0d" "700101000000Z") },
		{ 2524607999, T("\x17\x0d" "491231235959Z") },
		{ 2524608000, T("\x18\x0f" "20500101000000Z") },
		{ -631152001, T("\x18\x0f" "19491231235959Z") },
	};
	struct arena a = { NULL };

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++) {
		struct der d = der_new(&a, 32);
		der_time(&d, (time_t)rows[i].at);
		row_slice("time", rows[i].der, "der", (struct slice){ (char *)d.p + d.at,
		    der_n(&d) }, rows[i].der);
	}
	arena_free(&a);
	rows_end();
}

static void
cert_holds(const struct slices *names, const unsigned char *hash)
{
	struct arena a = { NULL };
	char kb[512], cb[4096];
	struct text k = { kb, 0, sizeof kb, false }, c = { cb, 0, sizeof cb, false };
	br_skey_decoder_context sk;
	br_x509_decoder_context xd;
	br_x509_pkey *pub;
	unsigned char q[65];
	struct slice pem, body, list, ext;
	time_t now = time(NULL);

	assert_null(cert_make_pem(&a, names, hash, &pem));
	assert_int_equal(pem.p[pem.n - 1], '\n');
	pem_read(pem, &k, &c);
	br_skey_decoder_init(&sk);
	br_skey_decoder_push(&sk, k.p, k.n);
	assert_int_equal(br_skey_decoder_last_error(&sk), 0);
	br_x509_decoder_init(&xd, NULL, NULL);
	br_x509_decoder_push(&xd, c.p, c.n);
	assert_non_null(pub = br_x509_decoder_get_pkey(&xd));
	assert_true(key_point(br_skey_decoder_get_ec(&sk), q));
	assert_int_equal(pub->key.ec.qlen, sizeof q);
	assert_memory_equal(pub->key.ec.q, q, sizeof q);
	assert_int_equal(br_x509_decoder_get_signer_key_type(&xd), BR_KEYTYPE_EC);
	assert_int_equal(br_x509_decoder_isCA(&xd), 0);
	assert_true(llabs(((long long)xd.notbefore_days - 719528) * DAY_S + xd.notbefore_seconds -
	    (now - MADE_BEFORE_S)) < 10);
	assert_true(llabs(((long long)xd.notafter_days - 719528) * DAY_S + xd.notafter_seconds -
	    (now + MADE_FOR_S)) < 10);
	body = signed_body(text_slice(&c), q);
	for (int i = 0; i < 7; i++)
		expect(&body, (const int[]){ DER_0, DER_INTEGER, DER_SEQUENCE, DER_SEQUENCE,
		    DER_SEQUENCE, DER_SEQUENCE, DER_SEQUENCE }[i]);
	list = expect(&body, DER_3);
	list = expect(&list, DER_SEQUENCE);
	ext = expect(&list, DER_SEQUENCE);
	expect(&ext, 0x06);
	names_are(expect(&ext, DER_OCTETS), names);
	if (hash) {
		ext = expect(&list, DER_SEQUENCE);
		assert_true(slice_eq(expect(&ext, 0x06), S("\x2b\x06\x01\x05\x05\x07\x01\x1f")));
		assert_true(slice_eq(expect(&ext, 0x01), S("\xff")));
		ext = expect(&ext, DER_OCTETS);
		ext = expect(&ext, DER_OCTETS);
		assert_true(slice_eq(ext, (struct slice){ (const char *)hash, 32 }));
	}
	assert_int_equal(list.n, 0);
	arena_free(&a);
}

static void
test_certs(void **state)
{
	struct slices names = { (struct slice *)(uintptr_t)two, 2 };
	unsigned char hash[32];

	(void)state;
	for (size_t i = 0; i < sizeof hash; i++)
		hash[i] = (unsigned char)i;
	cert_holds(&names, NULL);
	names.n = 1;
	cert_holds(&names, hash);
}

/* With an argument: what openssl shall judge. */
static int
show(const char *what)
{
	struct arena a = { NULL };
	unsigned char x[32];
	br_ec_private_key key;
	struct slices names = { (struct slice *)(uintptr_t)two, 2 };
	struct slice out = S("");
	static const unsigned char hash[32] = "0123456789abcdef0123456789abcde";

	if (strcmp(what, "cert") == 0)
		cert_make_pem(&a, &names, NULL, &out);
	else if (strcmp(what, "acme") == 0)
		cert_make_pem(&a, &names, hash, &out);
	else if (key_new(&key, x)) {
		if (strcmp(what, "csr") == 0)
			csr_der(&a, &key, &names, &out);
		else
			out = key_pem(&a, &key);
	}
	fwrite(out.p, 1, out.n, stdout);
	arena_free(&a);
	return out.n == 0;
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_csr),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_certs),
	};

	if (argc > 1)
		return show(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
