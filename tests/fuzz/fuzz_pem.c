/* Any text as a certificate with its key, as a bundle, and as what the master
 * hands to its workers: what loads can be packed and is the same then. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static void
said(void *to, enum diag_level level, int pair, const char *text)
{
	(void)to;
	MUST(pair == 0 && *text && (level == DIAG_ERROR || level == DIAG_WARNING));
}

static void
objects(struct slice in)
{
	struct arena a = { NULL };
	struct slice rest = in;
	struct pem o;
	size_t n = 0;
	int got;

	while ((got = pem_next(&a, &rest, &o)) > 0) {
		MUST(lies_in(o.name, in) && o.der.n <= in.n);
		MUST(o.encrypted || o.der.n > 0);
		n++;
	}
	MUST(got == 0 || got == -1);
	MUST(n <= pem_count(in));
	arena_free(&a);
}

static void
certificate(struct slice in)
{
	struct arena a = { NULL };
	struct cert_set *set, *again;
	struct certs_reader r = { .say = said };
	struct slice packed;

	set = certs_new(&r.a, 1);
	if (cert_read(&r, certs_add(set, CERT_FILE, "cert", "key"), in, in)) {
		set->n = 1;
		MUST(set->v[0].n_chain > 0 && set->v[0].key_bits > 0 && set->v[0].pem.n > 0);
		for (int i = 0; i < set->v[0].names.n; i++)
			MUST(cert_covers(&set->v[0], set->v[0].names.v[i]) == 2);
		packed = certs_pack(set, &a);
		MUST((again = certs_unpack(packed)));
		MUST(again->n == 1 && slice_eq(again->v[0].pem, set->v[0].pem));
		certs_free(again);
	}
	certs_free(set);
	arena_free(&a);
}

static void
bundle(struct slice in)
{
	struct arena a = { NULL };
	br_x509_trust_anchor anchor;
	struct slice rest = in;
	struct pem o;

	while (pem_next(&a, &rest, &o) > 0)
		if (trust_add(&a, o.der, &anchor))
			MUST(anchor.dn.len > 0);
	arena_free(&a);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = exact(data, size);

	objects(in);
	certificate(in);
	bundle(in);
	certs_free(certs_unpack(in));
	exact_free(in);
	return 0;
}
