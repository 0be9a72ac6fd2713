/* Any bytes as a certificate that was decoded: names, issuer, serial number and
 * extensions lie in it, and the names are such as a client can ask for. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static void
names(struct arena *a, const struct x509 *x)
{
	struct slices all = x509_names(a, x);
	struct cert c = { .names = all };

	MUST(all.n >= 0);
	for (int i = 0; i < all.n; i++) {
		MUST(all.v[i].n > 0 && all.v[i].p[all.v[i].n] == '\0');
		MUST(strlen(all.v[i].p) == all.v[i].n);
		for (size_t k = 0; k < all.v[i].n; k++)
			MUST(all.v[i].p[k] == lower(all.v[i].p[k]));
		MUST(cert_covers(&c, all.v[i]) == 2);
	}
}

static void
who(struct arena *a, struct slice dn)
{
	struct slice s = x509_who(a, dn);

	MUST(s.n > 0 && s.p[s.n] == '\0');
	for (size_t i = 0; i < s.n; i++)
		MUST((unsigned char)s.p[i] >= ' ' && s.p[i] != 0x7f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = exact(data, size), value;
	struct arena a = { NULL };
	br_x509_trust_anchor anchor;
	struct x509 x;

	who(&a, in);
	if (x509_split(in, &x)) {
		MUST(lies_in(x.serial, in) && lies_in(x.issuer, in) && lies_in(x.subject, in));
		MUST(lies_in(x.extensions, in));
		if (x509_extension(&x, OID_ISSUER_ID, &value))
			MUST(lies_in(value, x.extensions));
		names(&a, &x);
		who(&a, x.issuer);
		who(&a, x.subject);
	}
	if (size > 0)
		trust_add(&a, in, &anchor);
	arena_free(&a);
	exact_free(in);
	return 0;
}
