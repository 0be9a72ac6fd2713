/* Addresses in every spelling of CONFIG.md, networks, and the PROXY protocol,
 * read and written. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "unit.h"

/* ---- IP addresses ---- */

/* clang-format off */
static const struct {
	struct slice in;
	const char *text; /* NULL: none */
	const char *why;
} ips[] = {
	{ T("1.2.3.4"), "1.2.3.4", "IPv4" },
	{ T("0.0.0.0"), "0.0.0.0", "all zero" },
	{ T("255.255.255.255"), "255.255.255.255", "all one" },
	{ T("::1"), "::1", "loopback" },
	{ T("2001:DB8:0:0:1:0:0:1"), "2001:db8::1:0:0:1", "RFC 5952" },
	{ T("::ffff:1.2.3.4"), "1.2.3.4", "IPv4 in IPv6 is IPv4" },
	{ T("::ffff:102:304"), "1.2.3.4", "in digits" },
	{ T("1111:2222:3333:4444:5555:6666:255.255.255.255"),
	    "1111:2222:3333:4444:5555:6666:ffff:ffff", "the longest" },
	{ T(""), NULL, "nothing" },
	{ T("::"), "", "all zero is none" },
	{ T("1::"), "1::", "gap at the end" },
	{ T("0:0:3:4:5:6:7:8"), "::3:4:5:6:7:8", "two zeros in front" },
	{ T("1:2:3:4:5:6:0:0"), "1:2:3:4:5:6::", "two zeros at the end" },
	{ T("1:0:3:4:5:6:7:8"), "1:0:3:4:5:6:7:8", "one zero is no gap" },
	{ T("0:2:3:4:5:6:7:0"), "0:2:3:4:5:6:7:0", "nor at the ends" },
	{ T("1:0:0:4:5:0:0:8"), "1::4:5:0:0:8", "the first of equal gaps" },
	{ T("1:0:0:4:0:0:0:8"), "1:0:0:4::8", "the longer one" },
	{ T("64:ff9b::1.2.3.4"), "64:ff9b::102:304", "NAT64 in digits" },
	{ T("1:2:3:4:5:6:7"), NULL, "seven words" },
	{ T("1:2:3:4:5:6:7:8:9"), NULL, "nine" },
	{ T("::12345"), NULL, "five digits" },
	{ T("1.2.3"), NULL, "three bytes" },
	{ T("1.2.3.4.5"), NULL, "five" },
	{ T("1.2.3.256"), NULL, "too large" },
	{ T("1.2.3.+4"), NULL, "sign" },
	{ T("1.2.3.04"), NULL, "leading zero: octal to some" },
	{ T("0x1.2.3.4"), NULL, "hexadecimal" },
	{ T("16909060"), NULL, "one number" },
	{ T(" 1.2.3.4"), NULL, "blank in front" },
	{ T("1.2.3.4 "), NULL, "blank behind" },
	{ T(":::"), NULL, "three colons" },
	{ T("1::2::3"), NULL, "two gaps" },
	{ T("[::1]"), NULL, "brackets" },
	{ T("fe80::1%eth0"), NULL, "zone" },
	{ T("g::"), NULL, "no digit" },
	{ T("a.example"), NULL, "name" },
	{ T("1.2.3.4\0"), NULL, "NUL behind" },
	{ T("::1\0x"), NULL, "NUL and more" },
	{ T("1111:2222:3333:4444:5555:6666:255.255.255.2555"), NULL, "one too long" },
};

static const struct {
	const char *cidr, *ip;
	int want; /* -1: the network is none */
	const char *why;
} cidrs[] = {
	{ "10.0.0.0/8", "10.255.0.1", 1, "in" },
	{ "10.0.0.0/8", "11.0.0.0", 0, "out" },
	{ "10.1.2.3/8", "10.9.9.9", 1, "bits behind the mask do not matter" },
	{ "10.0.0.0/9", "10.127.255.255", 1, "odd mask, last in" },
	{ "10.0.0.0/9", "10.128.0.0", 0, "odd mask, first out" },
	{ "1.2.3.4", "1.2.3.4", 1, "an address is a network" },
	{ "1.2.3.4", "1.2.3.5", 0, "of one" },
	{ "1.2.3.4/32", "1.2.3.4", 1, "32 bits" },
	{ "1.2.3.4/31", "1.2.3.5", 1, "31 bits" },
	{ "0.0.0.0/0", "255.1.2.3", 1, "all of IPv4" },
	{ "0.0.0.0/0", "::1", 0, "and nothing else" },
	{ "::/0", "::1", 1, "all of IPv6" },
	{ "::/0", "10.0.0.1", 0, "and nothing of IPv4" },
	{ "::/1", "10.0.0.1", 0, "nor with a bit" },
	{ "::/80", "1.2.3.4", 0, "nor with as many as it has in front" },
	{ "::/95", "1.2.3.4", 0, "up to the last" },
	{ "::/95", "::1:2:3", 1, "while of IPv6 it has them all" },
	{ "::ffff:0.0.0.0/96", "1.2.3.4", 1, "unless it says that it means IPv4" },
	{ "::ffff:0:0/96", "::1", 0, "which is not IPv6 then" },
	{ "2001:db8::/32", "2001:db8:ffff::1", 1, "IPv6 in" },
	{ "2001:db8::/32", "2001:db9::1", 0, "IPv6 out" },
	{ "2001:db8::/33", "2001:db8:8000::", 0, "IPv6, odd mask" },
	{ "::1/128", "::1", 1, "128 bits" },
	{ "10.0.0.0/8", "::ffff:10.1.1.1", 1, "IPv4 in IPv6" },
	{ "::ffff:10.0.0.0/104", "10.1.1.1", 1, "a network of IPv4 in IPv6" },
	{ "private", "10.1.2.3", 1, "RFC 1918" },
	{ "private", "172.31.255.255", 1, "its last of 172" },
	{ "private", "172.32.0.0", 0, "and the first behind" },
	{ "private", "192.168.0.0", 1, "its third" },
	{ "private", "192.169.0.0", 0, "which ends" },
	{ "private", "127.255.0.1", 1, "loopback" },
	{ "private", "169.254.1.1", 1, "link-local" },
	{ "private", "100.64.0.1", 0, "a carrier's customers are strangers" },
	{ "private", "::1", 1, "loopback of IPv6" },
	{ "private", "::2", 0, "which is one" },
	{ "private", "fd00::1", 1, "RFC 4193" },
	{ "private", "fe00::", 0, "and the first behind" },
	{ "private", "fe80::1", 1, "link-local of IPv6" },
	{ "private", "febf:ffff::1", 1, "to its end" },
	{ "private", "fec0::1", 0, "but not site-local" },
	{ "private", "2001:db8::1", 0, "the world" },
	{ "unix:", "1.2.3.4", 0, "no address is a unix socket's" },
	{ "unix", "", -1, "it has a colon" },
	{ "Private", "", -1, "words are in small letters" },
	{ "private/8", "", -1, "and have no bits" },
	{ "10.0.0.0/33", "", -1, "too many bits" },
	{ "::/129", "", -1, "too many bits of IPv6" },
	{ "10.0.0.0/", "", -1, "no bits" },
	{ "10.0.0.0/-1", "", -1, "sign" },
	{ "10.0.0.0/8/8", "", -1, "two masks" },
	{ "10.0.0.0/255.0.0.0", "", -1, "netmask" },
	{ "/8", "", -1, "no address" },
	{ "10/8", "", -1, "short address" },
	{ "a/8", "", -1, "name" },
	{ "", "", -1, "nothing" },
};
/* clang-format on */

static void
test_ips(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(ips); i++) {
		struct slice in = exact(ips[i].in);
		char b[64];
		struct text t = { b, 0, sizeof b, false };
		struct ip ip;
		bool got = ip_parse(in, &ip);

		row_int(ips[i].why, in, "ip_parse", got, ips[i].text != NULL);
		if (got && ips[i].text) {
			ip_text(&t, &ip);
			row_slice(ips[i].why, in, "text", text_slice(&t), slice_of(ips[i].text));
			row_int(ips[i].why, in, "v4", ip_is_v4(&ip), strchr(ips[i].text, '.') != NULL);
		}
		exact_free(in);
	}
	rows_end();
}

static void
test_cidrs(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(cidrs); i++) {
		struct slice in = exact(slice_of(cidrs[i].cidr));
		struct cidr *c = malloc(sizeof *c);
		struct cidrs list = { c, 1 };
		struct ip ip = { { 0 } };
		bool got = cidr_parse(in, c);

		row_int(cidrs[i].why, in, "cidr_parse", got, cidrs[i].want >= 0);
		if (got && cidrs[i].want >= 0) {
			row_int(cidrs[i].why, in, "none is in", cidrs_have(&list, &ip),
			    strcmp(cidrs[i].cidr, "unix:") == 0);
			assert_true(ip_parse(slice_of(cidrs[i].ip), &ip));
			row_int(cidrs[i].why, in, "cidr_has", cidr_has(c, &ip), cidrs[i].want);
			row_int(cidrs[i].why, in, "cidrs_have", cidrs_have(&list, &ip), cidrs[i].want);
		}
		free(c);
		exact_free(in);
	}
	rows_end();
}

/* ---- the grammar ---- */

/* clang-format off */
static const struct {
	struct slice in;
	enum addr_kind kind;
	enum scheme scheme;
	const char *text, *host;
	uint16_t port;
	bool any;
	const char *why;
} addrs[] = {
	{ T("a.example:80"), ADDR_NAME, 0, "a.example:80", "a.example", 80, false, "name and port" },
	{ T("localhost:1"), ADDR_NAME, 0, "localhost:1", "localhost", 1, false, "localhost" },
	{ T("my_host-1.x.:65535"), ADDR_NAME, 0, "my_host-1.x.:65535", "my_host-1.x.", 65535, false, "every byte of a name" },
	{ T("1.2.3.4:5"), ADDR_INET, 0, "1.2.3.4:5", "1.2.3.4", 5, false, "IPv4" },
	{ T("0.0.0.0:80"), ADDR_INET, 0, "0.0.0.0:80", "0.0.0.0", 80, false, "all of IPv4" },
	{ T(":8080"), ADDR_INET, 0, ":8080", NULL, 8080, true, "every interface" },
	{ T("*:8080"), ADDR_INET, 0, ":8080", NULL, 8080, true, "as nginx says it" },
	{ T(":0"), ADDR_INET, 0, ":0", NULL, 0, true, "a port the kernel chooses" },
	{ T("[::1]:80"), ADDR_INET, 0, "[::1]:80", "::1", 80, false, "IPv6" },
	{ T("[::]:80"), ADDR_INET, 0, "[::]:80", "::", 80, false, "all of IPv6" },
	{ T("[::ffff:1.2.3.4]:80"), ADDR_INET, 0, "1.2.3.4:80", "1.2.3.4", 80, false, "IPv4 in IPv6" },
	{ T("[2001:DB8:0:0::0001]:80"), ADDR_INET, 0, "[2001:db8::1]:80", "2001:db8::1", 80, false, "IPv6 as RFC 5952 writes it" },
	{ T("a:0080"), ADDR_NAME, 0, "a:80", "a", 80, false, "port with leading zeros" },
	{ T("unix//run/a.sock"), ADDR_UNIX, 0, "unix:/run/a.sock", NULL, 0, false, "unix//" },
	{ T("unix:/run/a.sock"), ADDR_UNIX, 0, "unix:/run/a.sock", NULL, 0, false, "unix:/" },
	{ T("unix:///run/a.sock"), ADDR_UNIX, 0, "unix:/run/a.sock", NULL, 0, false, "unix:///" },
	{ T("/run/a.sock"), ADDR_UNIX, 0, "unix:/run/a.sock", NULL, 0, false, "path" },
	{ T("//run/a.sock"), ADDR_UNIX, 0, "unix:/run/a.sock", NULL, 0, false, "path with two slashes in front" },
	{ T("/a b:c"), ADDR_UNIX, 0, "unix:/a b:c", NULL, 0, false, "any byte in a path" },
	{ T("@name"), ADDR_ABSTRACT, 0, "@name", NULL, 0, false, "abstract" },
	{ T("@a/b:80"), ADDR_ABSTRACT, 0, "@a/b:80", NULL, 0, false, "any byte in a name" },
	{ T("\\0name\\0"), ADDR_ABSTRACT, 0, "@name", NULL, 0, false, "as uWSGI spells it" },
	{ T("http://a.example"), ADDR_NAME, SCHEME_HTTP, "a.example:80", "a.example", 80, false, "preset port" },
	{ T("http://a.example/"), ADDR_NAME, SCHEME_HTTP, "a.example:80", "a.example", 80, false, "slash" },
	{ T("http://a.example:8080/"), ADDR_NAME, SCHEME_HTTP, "a.example:8080", "a.example", 8080, false, "port, slash" },
	{ T("http://1.2.3.4"), ADDR_INET, SCHEME_HTTP, "1.2.3.4:80", "1.2.3.4", 80, false, "IPv4" },
	{ T("http://[::1]"), ADDR_INET, SCHEME_HTTP, "[::1]:80", "::1", 80, false, "IPv6, preset port" },
	{ T("http://[::1]:81/"), ADDR_INET, SCHEME_HTTP, "[::1]:81", "::1", 81, false, "IPv6, port" },
	{ T("ws://a:1"), ADDR_NAME, SCHEME_HTTP, "a:1", "a", 1, false, "ws" },
	{ T("https://a"), ADDR_NAME, SCHEME_HTTPS, "a:443", "a", 443, false, "https" },
	{ T("https://:8443"), ADDR_INET, SCHEME_HTTPS, ":8443", NULL, 8443, true, "https, to listen on" },
	{ T("wss://a"), ADDR_NAME, SCHEME_HTTPS, "a:443", "a", 443, false, "wss" },
	{ T("uwsgi://a:3031"), ADDR_NAME, SCHEME_UWSGI, "a:3031", "a", 3031, false, "uwsgi" },
	{ T("uwsgi://1.2.3.4:3031/"), ADDR_INET, SCHEME_UWSGI, "1.2.3.4:3031", "1.2.3.4", 3031, false, "uwsgi, IPv4" },
	{ T("uwsgi//run/a.sock"), ADDR_UNIX, SCHEME_UWSGI, "unix:/run/a.sock", NULL, 0, false, "uwsgi by path" },
	{ T("fd:3"), ADDR_NAME, 0, "fd:3", "fd", 3, false, "a host of that name" },
	{ T("fd://3"), ADDR_FD, 0, "fd://3", NULL, 0, false, "descriptor" },
	{ T("=0"), ADDR_FD, 0, "fd://0", NULL, 0, false, "shared socket" },
	{ T("/2345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"),
	    ADDR_UNIX, 0, "unix:/2345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
	    NULL, 0, false, "path of 107 bytes" },
};

static const struct {
	struct slice in;
	const char *why;
} addrs_bad[] = {
	{ T(""), "nothing" },
	{ T("a"), "no port" },
	{ T("a:"), "empty port" },
	{ T(":"), "colon alone" },
	{ T("a:x"), "port of letters" },
	{ T("a:-1"), "sign" },
	{ T("a:+1"), "plus" },
	{ T("a: 1"), "blank" },
	{ T("a:65536"), "port too large" },
	{ T("a:99999999999999999999"), "far too large" },
	{ T("a:1:2"), "two ports" },
	{ T("a b:1"), "blank in a name" },
	{ T("a/b:1"), "slash in a name" },
	{ T("a@b:1"), "user info" },
	{ T("a\0b:1"), "NUL in a name" },
	{ T("1.2.3.4\0:80"), "NUL behind an address" },
	{ T("\xc3\xa4:1"), "UTF-8" },
	{ T("::1"), "IPv6 without brackets" },
	{ T("::1:80"), "and with a port" },
	{ T("[::1]"), "no port" },
	{ T("[::1]:"), "empty port behind IPv6" },
	{ T("[::1]80"), "no colon" },
	{ T("[::1:80"), "not closed" },
	{ T("[]:80"), "empty brackets" },
	{ T("[1.2.3.4]:80"), "IPv4 in brackets" },
	{ T("[a]:80"), "name in brackets" },
	{ T("[*]:80"), "asterisk in brackets" },
	{ T("unix:a"), "path that is not absolute" },
	{ T("unix:"), "no path" },
	{ T("unix/"), "one slash" },
	{ T("@"), "abstract without a name" },
	{ T("\\0\\0"), "and as uWSGI spells it" },
	{ T("\\0name"), "not closed" },
	{ T("http://"), "no host" },
	{ T("http:///"), "no host, slash" },
	{ T("http://:80"), "no host, port" },
	{ T("http://a/b"), "path" },
	{ T("http://a//"), "two slashes" },
	{ T("http://a?b"), "query" },
	{ T("http://a:x"), "port of letters" },
	{ T("http://u@a"), "user info" },
	{ T("http://::1"), "IPv6 without brackets" },
	{ T("http:/a"), "one slash" },
	{ T("HTTP//a"), "no colon" },
	{ T("ftp://a"), "unknown scheme" },
	{ T("uwsgi://a"), "uwsgi has no preset port" },
	{ T("uwsgi/a"), "one slash" },
	{ T("fd://"), "no number" },
	{ T("fd://x"), "no number" },
	{ T("fd://-1"), "sign" },
	{ T("fd://2147483648"), "too large" },
	{ T("="), "no number" },
	{ T("=x"), "no number" },
	{ T("off"), "a word" },
	{ T("127.0.0.1"), "IPv4 without a port" },
	{ T("1.2.3:80"), "IPv4 of three numbers" },
	{ T("1.2.3.4.5:80"), "of five" },
	{ T("1.2.3.256:80"), "a number too large" },
	{ T("1.2.3.04:80"), "leading zero: octal to some" },
	{ T("3000:80"), "a number for a host" },
	{ T("-a:80"), "hyphen in front" },
	{ T(".a:80"), "dot in front" },
	{ T("a:80/"), "path, and no scheme" },
	{ T("[1::2::3]:80"), "IPv6 with two gaps" },
	{ T("/run/a\0b"), "NUL in a path" },
	{ T("@a\0b"), "NUL in a name" },
	{ T("unix/a.sock"), "path that is not absolute, behind a slash" },
	{ T("http://*:80"), "every interface is no host of a URL" },
	{ T("/23456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"),
	    "path of 108 bytes" },
	{ T("@23456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678x"),
	    "name of 108 bytes" },
};
/* clang-format on */

static void
sock_check(const char *why, struct slice in, const struct addr *a)
{
	uint16_t port;
	struct ip ip, want = { { 0 } };

	switch (a->kind) {
	case ADDR_INET:
		ip = ip_of_sock(&a->sock, &port);
		row_int(why, in, "port of sock", port, a->port);
		if (a->host)
			assert_true(ip_parse(slice_of(a->host), &want));
		row_int(why, in, "address of sock", memcmp(&ip, &want, sizeof ip), 0);
		row_int(why, in, "sock_n", a->sock_n, a->sock.sa.sa_family == AF_INET ?
		    sizeof a->sock.in : sizeof a->sock.in6);
		break;
	case ADDR_UNIX:
		row_int(why, in, "family", a->sock.sa.sa_family, AF_UNIX);
		row_slice(why, in, "sun_path", slice_of(a->sock.un.sun_path), slice_of(a->text + 5));
		row_int(why, in, "sock_n", a->sock_n, (long long)(offsetof(struct sockaddr_un, sun_path) +
		    strlen(a->text + 5) + 1));
		break;
	case ADDR_ABSTRACT:
		row_int(why, in, "first byte", a->sock.un.sun_path[0], 0);
		row_slice(why, in, "name", slice_of(a->sock.un.sun_path + 1), slice_of(a->text + 1));
		row_int(why, in, "sock_n", a->sock_n, (long long)(offsetof(struct sockaddr_un, sun_path) +
		    strlen(a->text)));
		break;
	default:
		row_int(why, in, "sock_n", a->sock_n, 0);
	}
}

static void
cut_short(struct arena *a, struct slice in)
{
	for (size_t n = 0; n <= in.n; n++) {
		struct slice copy = exact((struct slice){ in.p, n });
		struct addr out;
		const char *why;

		if (!addr_parse(a, copy, &out, &why) && !*why)
			row_bad("cut short", copy, "refused, and not said why");
		exact_free(copy);
	}
}

static void
test_addrs(void **state)
{
	struct arena arena = { NULL };

	(void)state;
	for (size_t i = 0; i < LEN(addrs); i++) {
		const char *why = addrs[i].why, *reason;
		struct slice in = exact(addrs[i].in);
		struct addr a;
		bool got = addr_parse(&arena, in, &a, &reason);

		exact_free(in);
		in = addrs[i].in;
		cut_short(&arena, in);
		if (!got) {
			row_bad(why, in, "refused: %s", reason);
			continue;
		}
		row_int(why, in, "kind", a.kind, addrs[i].kind);
		row_int(why, in, "scheme", a.scheme, addrs[i].scheme);
		row_slice(why, in, "text", slice_of(a.text), slice_of(addrs[i].text));
		row_slice(why, in, "host", slice_of(a.host), slice_of(addrs[i].host));
		row_int(why, in, "port", a.port, addrs[i].port);
		row_int(why, in, "any", a.any, addrs[i].any);
		if (a.kind != ADDR_FD)
			row_int(why, in, "fd", a.fd, -1);
		else
			row_int(why, in, "fd", a.fd, atoi(a.text + 5));
		sock_check(why, in, &a);
	}
	arena_free(&arena);
	rows_end();
}

/* What is printed can be read again, and is the same then. */
static void
test_addr_text(void **state)
{
	struct arena arena = { NULL };

	(void)state;
	for (size_t i = 0; i < LEN(addrs); i++) {
		const char *why;
		struct addr a, b;

		if (!addr_parse(&arena, addrs[i].in, &a, &why))
			continue;
		if (!addr_parse(&arena, slice_of(a.text), &b, &why))
			row_bad(addrs[i].why, addrs[i].in, "'%s' cannot be read: %s", a.text, why);
		else if (strcmp(a.text, b.text) != 0 || a.kind != b.kind || a.sock_n != b.sock_n ||
		    memcmp(&a.sock, &b.sock, a.sock_n) != 0)
			row_bad(addrs[i].why, addrs[i].in, "'%s' is read as '%s'", a.text, b.text);
	}
	arena_free(&arena);
	rows_end();
}

static void
test_addrs_bad(void **state)
{
	struct arena arena = { NULL };

	(void)state;
	for (size_t i = 0; i < LEN(addrs_bad); i++) {
		struct slice in = exact(addrs_bad[i].in);
		struct addr a;
		const char *why;

		if (addr_parse(&arena, in, &a, &why))
			row_bad(addrs_bad[i].why, in, "taken for '%s'", a.text);
		else if (!*why)
			row_bad(addrs_bad[i].why, in, "refused, and not said why");
		exact_free(in);
		cut_short(&arena, addrs_bad[i].in);
	}
	arena_free(&arena);
	rows_end();
}

/* The operator is told what would have been right. */
static void
test_addr_reasons(void **state)
{
	static const struct {
		const char *in, *says;
	} rows[] = {
		{ "localhost", "host:port" },        { "a:65536", "0 to 65535" },
		{ "::1:80", "in []" },               { "[a]:80", "IPv6 address in []" },
		{ "1.2.3.256:80", "host name or" },  { "@", "1 to 107 bytes" },
		{ "http://a/b", "use rewrite" },     { "http://:80", "names its host" },
		{ "fd://x", "descriptor" },
	};
	struct arena arena = { NULL };
	struct addr a;
	const char *why;

	(void)state;
	for (size_t i = 0; i < LEN(rows); i++)
		if (addr_parse(&arena, slice_of(rows[i].in), &a, &why) || !strstr(why, rows[i].says))
			row_bad("reason", slice_of(rows[i].in), "says: %s", why);
	arena_free(&arena);
	rows_end();
}

/* ---- PROXY protocol ---- */

#define MARK "\r\n\r\n\0\r\nQUIT\n"
#define V4   "\1\2\3\4" "\5\6\7\x8" "\x04\xd2" "\x01\xbb"
#define SIX1 "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
#define P54  "/23456789012345678901234567890123456789012345678901234"
#define UNIX P54 P54 P54 P54
#define SIX2 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"

enum { ALL = 1 };

/* clang-format off */
static const struct {
	struct slice in;
	int want; /* ALL, so many, 0 unfinished, -1 */
	const char *src, *dst; /* NULL: nobody is named */
	uint16_t sport, dport;
	const char *why;
} proxies[] = {
	{ T("PROXY TCP4 1.2.3.4 5.6.7.8 1234 443\r\n"), ALL, "1.2.3.4", "5.6.7.8", 1234, 443, "TCP4" },
	{ T("PROXY TCP6 2001:db8::1 ::1 1234 443\r\n"), ALL, "2001:db8::1", "::1", 1234, 443, "TCP6" },
	{ T("PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\nGET"), 36, "1.2.3.4", "5.6.7.8", 0, 65535, "what follows is left" },
	{ T("PROXY UNKNOWN\r\n"), ALL, NULL, NULL, 0, 0, "UNKNOWN" },
	{ T("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), ALL, NULL, NULL, 0, 0, "UNKNOWN, and more" },
	{ T("PROXY UNKNOWN 234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901\r\n"),
	    ALL, NULL, NULL, 0, 0, "UNKNOWN, 107 bytes" },
	{ T("PROXY UNKNOWN 234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234\r\n"),
	    -1, NULL, NULL, 0, 0, "longer than version 1 may be" },
	{ T("PROXY TCP4 1.2.3.4 5.6.7.8 1234 443\n"), -1, NULL, NULL, 0, 0, "bare LF" },
	{ T("PROXY TCP4 1.2.3.4 5.6.7.8 1234\r\n"), -1, NULL, NULL, 0, 0, "one port" },
	{ T("PROXY TCP4 1.2.3.4 5.6.7.8 1234 443 \r\n"), -1, NULL, NULL, 0, 0, "blank at the end" },
	{ T("PROXY TCP4 1.2.3.4 5.6.7.8 1234 443 5\r\n"), -1, NULL, NULL, 0, 0, "one word too many" },
	{ T("PROXY TCP4  1.2.3.4 5.6.7.8 1234 443\r\n"), -1, NULL, NULL, 0, 0, "two blanks" },
	{ T("PROXY TCP4 1.2.3.4 5.6.7.8 1234 65536\r\n"), -1, NULL, NULL, 0, 0, "port too large" },
	{ T("PROXY TCP4 1.2.3.4 5.6.7.8 -1 443\r\n"), -1, NULL, NULL, 0, 0, "sign" },
	{ T("PROXY TCP4 1.2.3 5.6.7.8 1234 443\r\n"), -1, NULL, NULL, 0, 0, "no address" },
	{ T("PROXY TCP4 1.2.3.4\0 5.6.7.8 1234 443\r\n"), -1, NULL, NULL, 0, 0, "NUL in an address" },
	{ T("PROXY TCP4 2001:db8::1 ::1 1234 443\r\n"), -1, NULL, NULL, 0, 0, "TCP4 with IPv6" },
	{ T("PROXY TCP6 1.2.3.4 5.6.7.8 1234 443\r\n"), -1, NULL, NULL, 0, 0, "TCP6 with IPv4" },
	{ T("PROXY TCP4 ::ffff:1.2.3.4 5.6.7.8 1234 443\r\n"), -1, NULL, NULL, 0, 0, "TCP4 with IPv4 in IPv6" },
	{ T("PROXY TCP4 1.2.3.4 5.6.7.8 01234 443\r\n"), -1, NULL, NULL, 0, 0, "port with a leading zero" },
	{ T("PROXY TCP4 1.2.3.04 5.6.7.8 1234 443\r\n"), -1, NULL, NULL, 0, 0, "address with one" },
	{ T("PROXY UNKNOWNX\r\n"), -1, NULL, NULL, 0, 0, "nearly UNKNOWN" },
	{ T("PROXX"), -1, NULL, NULL, 0, 0, "another word, unfinished" },
	{ T("PROXY TCP5 1.2.3.4 5.6.7.8 1234 443\r\n"), -1, NULL, NULL, 0, 0, "unknown family" },
	{ T("PROXY tcp4 1.2.3.4 5.6.7.8 1234 443\r\n"), -1, NULL, NULL, 0, 0, "small letters" },
	{ T("PROXY\r\n"), -1, NULL, NULL, 0, 0, "word alone" },
	{ T("PROXY \r\n"), -1, NULL, NULL, 0, 0, "word and blank" },
	{ T("proxy TCP4 1.2.3.4 5.6.7.8 1234 443\r\n"), -1, NULL, NULL, 0, 0, "small letters in front" },
	{ T("GET / HTTP/1.1\r\n"), -1, NULL, NULL, 0, 0, "a request" },
	{ T("P"), 0, NULL, NULL, 0, 0, "unfinished" },
	{ T(""), 0, NULL, NULL, 0, 0, "nothing" },

	{ T(MARK "\x21\x11\0\x0c" V4), ALL, "1.2.3.4", "5.6.7.8", 1234, 443, "version 2, IPv4" },
	{ T(MARK "\x21\x11\0\x0c" V4 "GET"), 28, "1.2.3.4", "5.6.7.8", 1234, 443, "what follows is left" },
	{ T(MARK "\x21\x11\0\x10" V4 "\4\0\1x"), ALL, "1.2.3.4", "5.6.7.8", 1234, 443, "with a TLV" },
	{ T(MARK "\x21\x21\0\x24" SIX1 SIX2 "\x04\xd2" "\x01\xbb"), ALL, "2001:db8::1", "::1", 1234, 443, "version 2, IPv6" },
	{ T(MARK "\x20\x11\0\x0c" V4), ALL, NULL, NULL, 0, 0, "LOCAL names nobody" },
	{ T(MARK "\x20\0\0\0"), ALL, NULL, NULL, 0, 0, "LOCAL, bare" },
	{ T(MARK "\x21\0\0\0"), ALL, NULL, NULL, 0, 0, "unspecified family" },
	{ T(MARK "\x21\0\0\4abcd"), ALL, NULL, NULL, 0, 0, "unspecified, with more" },
	{ T(MARK "\x21\x31\0\xd8" UNIX), ALL, NULL, NULL, 0, 0, "unix family" },
	{ T(MARK "\x21\x31\0\xd7" UNIX), -1, NULL, NULL, 0, 0, "too short for it" },
	{ T(MARK "\x21\x12\0\x0c" V4), ALL, "1.2.3.4", "5.6.7.8", 1234, 443, "datagrams" },
	{ T(MARK "\x21\x10\0\x0c" V4), ALL, NULL, NULL, 0, 0, "unspecified transport" },
	{ T(MARK "\x21\x13\0\x0c" V4), -1, NULL, NULL, 0, 0, "unknown transport" },
	{ T(MARK "\x21\x41\0\x0c" V4), -1, NULL, NULL, 0, 0, "unknown family" },
	{ T(MARK "\x21\x11\xff\xff"), -1, NULL, NULL, 0, 0, "longer than it is waited for" },
	{ T(MARK "\x20\xff\0\2ab"), ALL, NULL, NULL, 0, 0, "LOCAL, and what nobody knows" },
	{ T(MARK "\x11\x11\0\x0c" V4), -1, NULL, NULL, 0, 0, "version 1 in version 2" },
	{ T(MARK "\x31\x11\0\x0c" V4), -1, NULL, NULL, 0, 0, "version 3" },
	{ T(MARK "\x22\x11\0\x0c" V4), -1, NULL, NULL, 0, 0, "unknown command" },
	{ T(MARK "\x21\x11\0\x0b\1\2\3\4\5\6\7\x8\1\2\3"), -1, NULL, NULL, 0, 0, "too short for IPv4" },
	{ T(MARK "\x21\x21\0\x0c" V4), -1, NULL, NULL, 0, 0, "too short for IPv6" },
	{ T("\r\n\r\n\0\r\nQUIT\r"), -1, NULL, NULL, 0, 0, "another mark" },
	{ T("\r\n"), 0, NULL, NULL, 0, 0, "start of the mark" },
};
/* clang-format on */

static void
ip_row(const char *why, struct slice in, const char *what, const struct ip *ip, const char *want)
{
	char b[64];
	struct text t = { b, 0, sizeof b, false };

	ip_text(&t, ip);
	row_slice(why, in, what, text_slice(&t), slice_of(want));
}

static void
test_proxies(void **state)
{
	(void)state;
	for (size_t i = 0; i < LEN(proxies); i++) {
		const char *why = proxies[i].why;
		struct slice in = exact(proxies[i].in);
		struct ip src = { { 0 } }, dst = { { 0 } };
		uint16_t sport = 0, dport = 0;
		int got = proxy_parse(in, &src, &sport, &dst, &dport);
		int want = proxies[i].want == ALL ? (int)in.n : proxies[i].want;

		row_int(why, in, "result", got, want);
		if (got > 0 && got == want) {
			ip_row(why, in, "source", &src, proxies[i].src);
			ip_row(why, in, "destination", &dst, proxies[i].dst);
			row_int(why, in, "source port", sport, proxies[i].sport);
			row_int(why, in, "destination port", dport, proxies[i].dport);
		}
		exact_free(in);
		for (size_t n = 0; n < proxies[i].in.n; n++) {
			in = exact((struct slice){ proxies[i].in.p, n });
			got = proxy_parse(in, &src, &sport, &dst, &dport);
			if (want > 0 ? got != ((int)n < want ? 0 : want) : got > 0)
				row_bad(why, in, "cut short at %zu: %d", n, got);
			exact_free(in);
		}
	}
	rows_end();
}

/* What we write is what we read; families that differ are both told as IPv6. */
static void
test_proxy_round(void **state)
{
	static const char *const texts[] = { "1.2.3.4", "255.255.255.255", "::1", "2001:db8::ffff",
		"1111:2222:3333:4444:5555:6666:7777:8888", NULL };

	(void)state;
	for (size_t i = 0; i < 2 * LEN(texts) * LEN(texts); i++) {
		const char *from = texts[i / 2 % LEN(texts)], *to = texts[i / 2 / LEN(texts)];
		struct ip src = { { 0 } }, dst = { { 0 } }, src2 = { { 0 } }, dst2 = { { 0 } };
		uint16_t sport = (uint16_t)dice(65536), dport = (uint16_t)dice(65536), a = 0, b = 0;
		int version = 1 + (int)(i % 2);
		char out[128];
		struct text t = { out, 0, sizeof out, false };
		bool told;

		if (from)
			assert_true(ip_parse(slice_of(from), &src));
		if (to)
			assert_true(ip_parse(slice_of(to), &dst));
		proxy_write(&t, version, &src, sport, &dst, dport);
		assert_false(t.full);
		told = from && to;
		if (told && version == 1)
			row_int("round trip", text_slice(&t), "TCP6", memcmp(out, "PROXY TCP6", 10) == 0,
			    strchr(from, ':') || strchr(to, ':'));
		row_int("round trip", text_slice(&t), "length",
		    proxy_parse(text_slice(&t), &src2, &a, &dst2, &b), (long long)t.n);
		ip_row("round trip", text_slice(&t), "source", &src2, told ? from : NULL);
		ip_row("round trip", text_slice(&t), "destination", &dst2, told ? to : NULL);
		row_int("round trip", text_slice(&t), "source port", a, told ? sport : 0);
		row_int("round trip", text_slice(&t), "destination port", b, told ? dport : 0);
		if (version == 1 && t.n > PROXY_V1_MAX)
			row_bad("round trip", text_slice(&t), "longer than version 1 may be");
	}
	rows_end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ips),
		cmocka_unit_test(test_cidrs),
		cmocka_unit_test(test_addrs),
		cmocka_unit_test(test_addr_text),
		cmocka_unit_test(test_addrs_bad),
		cmocka_unit_test(test_addr_reasons),
		cmocka_unit_test(test_proxies),
		cmocka_unit_test(test_proxy_round),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
