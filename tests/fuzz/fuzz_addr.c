/* Any bytes as an address, a network and a PROXY header: what is printed or
 * written can be read again, and is the same then. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

static void
addr(struct slice in)
{
	struct arena arena = { NULL };
	struct addr a, b;
	const char *why;

	if (!addr_parse(&arena, in, &a, &why)) {
		MUST(*why);
	} else if (!memchr(in.p, '\0', in.n)) { /* TOML lets no NUL through */
		MUST(a.kind != ADDR_NONE && a.text);
		MUST(addr_parse(&arena, slice_of(a.text), &b, &why));
		MUST(a.kind == b.kind && a.port == b.port && a.any == b.any);
		MUST(strcmp(a.text, b.text) == 0);
		MUST(a.sock_n == b.sock_n && memcmp(&a.sock, &b.sock, sizeof a.sock) == 0);
	}
	arena_free(&arena);
}

static void
network(struct slice in)
{
	struct cidr c;
	char b[64];
	struct text t = { b, 0, sizeof b, false };
	struct ip ip;

	if (cidr_parse(in, &c)) {
		MUST(ip_is_none(&c.ip) ? !cidr_has(&c, &c.ip) || c.bits == CIDR_UNIX
		                       : c.bits <= 128 && cidr_has(&c, &c.ip));
		ip_text(&t, &c.ip);
		if (!ip_is_none(&c.ip))
			MUST(ip_parse(text_slice(&t), &ip) && memcmp(&ip, &c.ip, sizeof ip) == 0);
	}
}

static void
proxy(struct slice in)
{
	struct ip src = { { 0 } }, dst = { { 0 } }, src2 = { { 0 } }, dst2 = { { 0 } };
	uint16_t sport = 0, dport = 0, sport2 = 0, dport2 = 0;
	int n = proxy_parse(in, &src, &sport, &dst, &dport);
	char b[128];

	MUST(n >= -1 && n <= (int)in.n);
	if (n <= 0)
		return;
	for (size_t k = 0; k < (size_t)n; k++) { /* cut short: not whole */
		struct slice less = exact(in.p, k);
		MUST(proxy_parse(less, &src2, &sport2, &dst2, &dport2) == 0);
		exact_free(less);
	}
	for (int version = 1; version <= 2; version++) {
		struct text t = { b, 0, sizeof b, false };

		src2 = dst2 = (struct ip){ { 0 } };
		proxy_write(&t, version, &src, sport, &dst, dport);
		MUST(!t.full);
		MUST(proxy_parse(text_slice(&t), &src2, &sport2, &dst2, &dport2) == (int)t.n);
		if (ip_is_none(&src2)) /* nobody to name, or version 1 and two families */
			continue;
		MUST(memcmp(&src, &src2, sizeof src) == 0 && memcmp(&dst, &dst2, sizeof dst) == 0);
		MUST(sport == sport2 && dport == dport2);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = exact(data, size);

	if (size > 0) {
		addr(in);
		network(in);
	}
	proxy(in);
	exact_free(in);
	return 0;
}
