/* Base64url, keys and signatures of JOSE against the examples of RFC 7515 and
 * 7638. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

/* RFC 7515 A.1: a header with a line break in it. */
#define A1_HEADER  "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}"
#define A1_PAYLOAD "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}"
#define A1_KEY     "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
#define A1_MAC     "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

/* RFC 7515 A.3. */
#define A3_HEADER "{\"alg\":\"ES256\"}"
#define A3_X "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define A3_Y "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define A3_D "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
#define A3_SIGNATURE "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"

/* RFC 7638 3.1. */
#define RSA_JWK "{\"e\":\"AQAB\",\"kty\":\"RSA\",\"n\":\"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx" \
	"4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw\"}"
#define RSA_THUMB "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

/* clang-format off */
static const struct {
	struct slice raw, text;
	const char *why;
} encoded[] = {
	{ T(""), T(""), "RFC 4648 10: nothing" },
	{ T("f"), T("Zg"), "one byte" },
	{ T("fo"), T("Zm8"), "two bytes" },
	{ T("foo"), T("Zm9v"), "three" },
	{ T("foob"), T("Zm9vYg"), "four" },
	{ T("fooba"), T("Zm9vYmE"), "five" },
	{ T("foobar"), T("Zm9vYmFy"), "six" },
	{ T("\xff\xef\xbe"), T("_---") , "the two digits of its own" },
	{ T("\0\0"), T("AAA"), "zeros" },
};

static const struct {
	struct slice text;
	struct slice raw;
	bool good;
	const char *why;
} decoded[] = {
	{ T("Zg=="), T("f"), true, "padding is no harm" },
	{ T("/+++"), T("\xff\xef\xbe"), true, "nor the usual alphabet" },
	{ T("Z"), T(""), false, "one digit is no byte" },
	{ T("Zm9vY"), T(""), false, "five digits" },
	{ T("Zm 9v"), T(""), false, "a blank" },
	{ T("Zm=9v"), T(""), false, "padding inside" },
	{ T("Zm9\xff"), T(""), false, "no ASCII" },
};

static const struct {
	struct slice raw;
	const char *text, *why;
} quoted[] = {
	{ T(""), "\"\"", "empty" },
	{ T("a@b.example"), "\"a@b.example\"", "plain" },
	{ T("a\"b\\c"), "\"a\\\"b\\\\c\"", "quote and backslash" },
	{ T("a\n\x1f"), "\"a\\u000a\\u001f\"", "controls" },
	{ T("\1\1\1\1"), "\"\\u0001\\u0001\\u0001\\u0001\"", "all controls fit" },
	{ T("\xc3\xa4"), "\"\xc3\xa4\"", "UTF-8 stays" },
};
/* clang-format on */

static struct arena arena;

static struct slice
raw(const char *text)
{
	struct slice out;

	assert_true(b64url_decode(&arena, slice_of(text), &out));
	return out;
}

static void
test_base64(void **state)
{
	struct slice out;

	(void)state;
	for (size_t i = 0; i < LEN(encoded); i++) {
		struct slice in = exact(encoded[i].raw);
		row_slice(encoded[i].why, in, "text", b64url(&arena, in), encoded[i].text);
		exact_free(in);
		in = exact(encoded[i].text);
		if (!b64url_decode(&arena, in, &out))
			row_bad(encoded[i].why, in, "is not decoded");
		else
			row_slice(encoded[i].why, in, "bytes", out, encoded[i].raw);
		exact_free(in);
	}
	for (size_t i = 0; i < LEN(decoded); i++) {
		struct slice in = exact(decoded[i].text);
		bool good = b64url_decode(&arena, in, &out);
		row_int(decoded[i].why, in, "verdict", good, decoded[i].good);
		if (good)
			row_slice(decoded[i].why, in, "bytes", out, decoded[i].raw);
		exact_free(in);
	}
	arena_free(&arena);
	rows_end();
}

static void
test_quoted(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(quoted); i++) {
		struct slice in = exact(quoted[i].raw);
		row_slice(quoted[i].why, in, "text", slice_of(json_quoted(&arena, in)),
		    slice_of(quoted[i].text));
		exact_free(in);
	}
	arena_free(&arena);
	rows_end();
}

static br_ec_private_key
a3_key(void)
{
	struct slice d = raw(A3_D);

	return (br_ec_private_key){ BR_EC_secp256r1, (unsigned char *)(uintptr_t)d.p, d.n };
}

static void
test_jwk(void **state)
{
	br_ec_private_key key = a3_key();

	(void)state;
	row_slice("RFC 7515 A.3", S("key"), "jwk", jwk_text(&arena, &key),
	    S("{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"" A3_X "\",\"y\":\"" A3_Y "\"}"));
	row_slice("RFC 7638 3.1", S(RSA_JWK), "thumbprint",
	    jwk_thumbprint(&arena, S(RSA_JWK)), S(RSA_THUMB));
	key.curve = BR_EC_secp384r1;
	row_slice("another curve", S("key"), "jwk", jwk_text(&arena, &key), S(""));
	row_slice("another curve", S("key"), "jws", jws_ecdsa(&arena, &key, S("{}"), S("")), S(""));
	arena_free(&arena);
	rows_end();
}

static void
test_mac(void **state)
{
	struct slice want = slice_of(arena_fmt(&arena,
	    "{\"protected\":\"%s\",\"payload\":\"%s\",\"signature\":\"%s\"}",
	    b64url(&arena, S(A1_HEADER)).p, b64url(&arena, S(A1_PAYLOAD)).p, A1_MAC));

	(void)state;
	row_slice("RFC 7515 A.1", S(A1_HEADER), "jws",
	    jws_mac(&arena, raw(A1_KEY), S(A1_HEADER), S(A1_PAYLOAD)), want);
	arena_free(&arena);
	rows_end();
}

/* As others verify it. */
static bool
verifies(const char *header, const char *payload, struct slice signature)
{
	struct slice text = jws_signed(&arena, slice_of(header), slice_of(payload));
	br_ec_private_key key = a3_key();
	unsigned char q[EC_POINT_BYTES], hash[br_sha256_SIZE];
	br_ec_public_key pub = { BR_EC_secp256r1, q, sizeof q };
	br_sha256_context sha;

	assert_true(key_point(&key, q));
	br_sha256_init(&sha);
	br_sha256_update(&sha, text.p, text.n);
	br_sha256_out(&sha, hash);
	return br_ecdsa_vrfy_raw_get_default()(br_ec_get_default(), hash, sizeof hash, &pub,
	    signature.p, signature.n) == 1;
}

static void
test_ecdsa(void **state)
{
	br_ec_private_key key = a3_key();
	struct slice jws = jws_ecdsa(&arena, &key, S(A3_HEADER), S(A1_PAYLOAD));
	const struct json *v = json_parse(&arena, jws);

	(void)state;
	assert_non_null(v);
	/* the example's own shows that verifies() and what is signed are right */
	assert_true(verifies(A3_HEADER, A1_PAYLOAD, raw(A3_SIGNATURE)));
	assert_false(verifies(A3_HEADER, A1_PAYLOAD " ", raw(A3_SIGNATURE)));
	assert_true(verifies(A3_HEADER, A1_PAYLOAD, raw(json_text(v, "signature").p)));
	row_slice("ES256", jws, "protected", json_text(v, "protected"), b64url(&arena, S(A3_HEADER)));
	row_slice("ES256", jws, "payload", json_text(v, "payload"), b64url(&arena, S(A1_PAYLOAD)));
	v = json_parse(&arena, jws_ecdsa(&arena, &key, S(A3_HEADER), S("")));
	row_slice("POST as GET", jws, "payload", json_text(v, "payload"), S(""));
	assert_true(verifies(A3_HEADER, "", raw(json_text(v, "signature").p)));
	arena_free(&arena);
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_quoted),
		cmocka_unit_test(test_jwk),
		cmocka_unit_test(test_mac),
		cmocka_unit_test(test_ecdsa),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
