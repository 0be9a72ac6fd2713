/* Addresses as the operator writes them, networks, and PROXY headers. */

#include "fuzz.h"

/* What is printed of an address is that address. */
static void
ip_round(const struct ip *ip)
{
	char b[INET6_ADDRSTRLEN];
	struct text t = { b, 0, sizeof b, false };
	struct ip again;

	ip_text(&t, ip);
	if (!ip_is_none(ip))
		MUST(!t.full && ip_parse(text_slice(&t), &again) && memcmp(ip, &again, sizeof again) == 0);
}

static void
proxy(struct slice in)
{
	struct ip src = { { 0 } }, dst = { { 0 } };
	uint16_t sport = 0, dport = 0;
	int got = proxy_parse(in, &src, &sport, &dst, &dport);

	MUST(got >= -1 && got <= (int)in.n);
	if (got <= 0)
		return;
	ip_round(&src);
	in.n = (size_t)got - 1;
	MUST(proxy_parse(in, &src, &sport, &dst, &dport) == 0);
	for (int version = 1; version <= 2; version++) {
		char b[256];
		struct text t = { b, 0, sizeof b, false };
		struct ip s = { { 0 } }, d = { { 0 } };
		uint16_t sp = 0, dp = 0;

		proxy_write(&t, version, &src, sport, &dst, dport);
		MUST(!t.full && proxy_parse(text_slice(&t), &s, &sp, &d, &dp) == (int)t.n);
		MUST(ip_is_none(&s) || (memcmp(&s, &src, sizeof s) == 0 && sp == sport && dp == dport));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct slice in = { (const char *)data, n };
	struct arena arena = { 0 };
	struct addr a;
	struct cidr c;
	const char *why;

	if (addr_parse(&arena, in, &a, &why))
		MUST(a.text);
	else
		MUST(why && *why);
	if (cidr_parse(in, &c)) {
		MUST(c.bits <= 128 && cidr_has(&c, &c.ip));
		ip_round(&c.ip);
	}
	proxy(in);
	arena_free(&arena);
	return 0;
}
