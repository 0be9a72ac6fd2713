/* ==== addr ===================================================================
 * Owns    nothing.
 * Offers  addr_parse, ip_*, cidr_*, proxy_parse, proxy_write.
 * Calls   base, arena. One grammar for every address, see CONFIG.md. */

#define IP_V4_PREFIX 12 /* bytes of ::ffff: before an IPv4 address */

static const uint8_t v4_mapped[IP_V4_PREFIX] = { [10] = 0xff, [11] = 0xff };

static bool
ip_is_none(const struct ip *ip)
{
	static const struct ip none;

	return memcmp(ip, &none, sizeof none) == 0;
}

static bool
ip_is_v4(const struct ip *ip)
{
	return memcmp(ip->b, v4_mapped, IP_V4_PREFIX) == 0;
}

static bool
ip_parse(struct slice s, struct ip *ip)
{
	char text[INET6_ADDRSTRLEN];

	if (s.n == 0 || s.n >= sizeof text)
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	memcpy(ip->b, v4_mapped, IP_V4_PREFIX);
	return inet_pton(AF_INET, text, ip->b + IP_V4_PREFIX) == 1 ||
	    inet_pton(AF_INET6, text, ip->b) == 1;
}

/* Dotted, or RFC 5952; nothing for none. */
static void
ip_text(struct text *t, const struct ip *ip)
{
	char b[INET6_ADDRSTRLEN];

	if (ip_is_v4(ip)) {
		for (int i = IP_V4_PREFIX; i < 16; i++) {
			if (i > IP_V4_PREFIX)
				text_char(t, '.');
			text_uint(t, ip->b[i]);
		}
	} else if (!ip_is_none(ip) && inet_ntop(AF_INET6, ip->b, b, sizeof b))
		text_str(t, b);
}

static bool
cidr_parse(struct slice s, struct cidr *c)
{
	struct slice rest = s, ip;
	int64_t bits = 128, most;

	slice_cut(&rest, '/', &ip);
	if (!ip_parse(ip, &c->ip))
		return false;
	most = memchr(ip.p, ':', ip.n) ? 128 : 32;
	if (rest.p && (bits = slice_uint(rest, (uint64_t)most)) < 0)
		return false;
	c->bits = (uint8_t)(rest.p && most == 32 ? bits + 96 : bits);
	return true;
}

static bool
cidr_has(const struct cidr *c, const struct ip *ip)
{
	size_t whole = c->bits / 8;
	unsigned rest = c->bits % 8, mask = (0xff00u >> rest) & 0xff;

	return memcmp(c->ip.b, ip->b, whole) == 0 &&
	    (rest == 0 || ((c->ip.b[whole] ^ ip->b[whole]) & mask) == 0);
}

static bool
cidrs_have(const struct cidrs *c, const struct ip *ip)
{
	for (int i = 0; i < c->n; i++)
		if (!ip_is_none(ip) && cidr_has(&c->v[i], ip))
			return true;
	return false;
}

/* None for a unix socket. */
static struct ip
ip_of_sock(const union sock *s, uint16_t *port)
{
	struct ip ip = { { 0 } };

	*port = 0;
	if (s->sa.sa_family == AF_INET) {
		memcpy(ip.b, v4_mapped, IP_V4_PREFIX);
		memcpy(ip.b + IP_V4_PREFIX, &s->in.sin_addr, 4);
		*port = ntohs(s->in.sin_port);
	} else if (s->sa.sa_family == AF_INET6) {
		memcpy(ip.b, &s->in6.sin6_addr, sizeof ip.b);
		*port = ntohs(s->in6.sin6_port);
	}
	return ip;
}

static socklen_t
sock_of_ip(union sock *s, const struct ip *ip, uint16_t port)
{
	memset(s, 0, sizeof *s);
	if (ip_is_v4(ip)) {
		s->in.sin_family = AF_INET;
		s->in.sin_port = htons(port);
		memcpy(&s->in.sin_addr, ip->b + IP_V4_PREFIX, 4);
		return sizeof s->in;
	}
	s->in6.sin6_family = AF_INET6;
	s->in6.sin6_port = htons(port);
	memcpy(&s->in6.sin6_addr, ip->b, sizeof ip->b);
	return sizeof s->in6;
}

/* ---- the grammar ---- */

static bool
addr_unix(struct arena *a, struct slice path, bool abstract, struct addr *out, const char **why)
{
	struct sockaddr_un *un = &out->sock.un;

	*why = "the path of a unix socket has 1 to 107 bytes";
	if (path.n == 0 || path.n >= sizeof un->sun_path)
		return false;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path + abstract, path.p, path.n);
	out->kind = abstract ? ADDR_ABSTRACT : ADDR_UNIX;
	out->sock_n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + 1);
	out->text = arena_fmt(a, abstract ? "@%.*s" : "unix:%.*s", (int)path.n, path.p);
	return true;
}

static bool
addr_fd(struct arena *a, struct slice number, struct addr *out, const char **why)
{
	int64_t fd = slice_uint(number, INT_MAX);

	*why = "expected the number of a descriptor";
	if (fd < 0)
		return false;
	out->kind = ADDR_FD;
	out->fd = (int)fd;
	out->text = arena_fmt(a, "fd://%d", (int)fd);
	return true;
}

static bool
is_host_name(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && !memchr("-._", s.p[i], 3))
			return false;
	return s.n > 0 && s.n <= 253;
}

/* Splits `host:port`, `[v6]:port`, `:port`; port is empty when there is none. */
static bool
addr_split(struct slice s, struct slice *host, struct slice *port, bool *v6)
{
	const char *at;

	*port = S("");
	*v6 = s.n > 0 && s.p[0] == '[';
	if (*v6) {
		if (!(at = memchr(s.p, ']', s.n)))
			return false;
		*host = (struct slice){ s.p + 1, (size_t)(at - s.p) - 1 };
		s = slice_from(s, host->n + 2);
		if (s.n > 0 && s.p[0] != ':')
			return false;
		*port = s.n > 0 ? slice_from(s, 1) : S("");
		return true;
	}
	at = s.n ? memchr(s.p, ':', s.n) : NULL;
	*host = at ? (struct slice){ s.p, (size_t)(at - s.p) } : s;
	*port = at ? slice_from(s, host->n + 1) : S("");
	return true;
}

static bool
addr_inet(struct arena *a, struct slice s, int preset, struct addr *out, const char **why)
{
	struct slice host, port;
	struct ip ip = { { 0 } };
	bool v6, numeric;
	int64_t n;

	*why = "expected host:port, :port, [v6]:port, unix:/path or @name";
	if (!addr_split(s, &host, &port, &v6) || (port.n == 0 && preset < 0))
		return false;
	*why = "expected a port from 0 to 65535";
	if ((n = port.n ? slice_uint(port, UINT16_MAX) : preset) < 0)
		return false;
	out->port = (uint16_t)n;
	out->any = !v6 && (host.n == 0 || slice_eq(host, S("*")));
	numeric = !out->any && ip_parse(host, &ip);
	*why = v6 ? "expected an IPv6 address in []" : "expected a host name or an IP address";
	if (v6 ? !numeric || !memchr(host.p, ':', host.n)
	       : !out->any && !numeric && !is_host_name(host))
		return false;
	if (numeric && !v6 && memchr(host.p, ':', host.n))
		return false;
	out->kind = out->any || numeric ? ADDR_INET : ADDR_NAME;
	if (out->kind == ADDR_INET)
		out->sock_n = sock_of_ip(&out->sock, &ip, out->port);
	out->host = out->any ? NULL : arena_fmt(a, "%.*s", (int)host.n, host.p);
	out->text = arena_fmt(a, v6 ? "[%s]:%u" : "%s:%u", out->any ? "" : out->host, out->port);
	return true;
}

static const struct addr_scheme {
	struct slice name;
	enum scheme scheme;
	int port;
} addr_schemes[] = {
	{ { "http://", 7 }, SCHEME_HTTP, 80 },   { { "ws://", 5 }, SCHEME_HTTP, 80 },
	{ { "https://", 8 }, SCHEME_HTTPS, 443 }, { { "wss://", 6 }, SCHEME_HTTPS, 443 },
	{ { "uwsgi://", 8 }, SCHEME_UWSGI, -1 },
};

static bool
addr_url(struct arena *a, struct slice s, const struct addr_scheme *sc, struct addr *out,
    const char **why)
{
	const char *slash;

	out->scheme = sc->scheme;
	s = slice_from(s, sc->name.n);
	slash = s.n ? memchr(s.p, '/', s.n) : NULL;
	if (slash && slash + 1 < s.p + s.n) {
		*why = "an upstream's URL ends after the port; use rewrite for a path";
		return false;
	}
	if (slash)
		s.n = (size_t)(slash - s.p);
	return addr_inet(a, s, sc->port, out, why);
}

/* Parses s; its texts are in a. False: *why says what was expected. */
static bool
addr_parse(struct arena *a, struct slice s, struct addr *out, const char **why)
{
	*out = (struct addr){ .fd = -1 };
	*why = "";
	for (size_t i = 0; i < LEN(addr_schemes); i++)
		if (slice_starts(s, addr_schemes[i].name))
			return addr_url(a, s, &addr_schemes[i], out, why);
	if (slice_starts(s, S("uwsgi//"))) {
		out->scheme = SCHEME_UWSGI;
		return addr_unix(a, slice_from(s, 6), false, out, why);
	}
	if (slice_starts(s, S("unix://")) || slice_starts(s, S("unix//")) ||
	    slice_starts(s, S("unix:/"))) {
		s = slice_from(s, 4 + (s.p[4] == ':'));
		while (s.n > 1 && s.p[1] == '/')
			s = slice_from(s, 1);
		return addr_unix(a, s, false, out, why);
	}
	if (slice_starts(s, S("/")))
		return addr_unix(a, s, false, out, why);
	if (slice_starts(s, S("@")))
		return addr_unix(a, slice_from(s, 1), true, out, why);
	if (slice_starts(s, S("\\0")) && slice_ends(s, S("\\0")) && s.n > 4)
		return addr_unix(a, (struct slice){ s.p + 2, s.n - 4 }, true, out, why);
	if (slice_starts(s, S("fd://")))
		return addr_fd(a, slice_from(s, 5), out, why);
	if (slice_starts(s, S("=")))
		return addr_fd(a, slice_from(s, 1), out, why);
	return addr_inet(a, s, -1, out, why);
}

/* ---- PROXY protocol ---- */

#define PROXY_V1_MAX 107
#define PROXY_V2_HEAD 16

static const struct slice proxy_v2_mark = { "\r\n\r\n\0\r\nQUIT\n", 12 };

/* PROXY TCP4 src dst sport dport CRLF */
static int
proxy_parse_v1(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst, uint16_t *dport)
{
	const char *lf = memchr(in.p, '\n', MIN(in.n, (size_t)PROXY_V1_MAX));
	struct slice rest, part[6];
	int64_t a, b;
	int n = 0;

	if (!lf)
		return in.n >= PROXY_V1_MAX ? -1 : 0;
	if (lf == in.p || lf[-1] != '\r')
		return -1;
	rest = (struct slice){ in.p, (size_t)(lf - in.p) - 1 };
	while (n < 6 && slice_cut(&rest, ' ', &part[n]))
		n++;
	if (n >= 2 && slice_eq(part[1], S("UNKNOWN")))
		return (int)(lf - in.p) + 1;
	if (n != 6 || rest.p || (!slice_eq(part[1], S("TCP4")) && !slice_eq(part[1], S("TCP6"))) ||
	    !ip_parse(part[2], src) || !ip_parse(part[3], dst) ||
	    (a = slice_uint(part[4], UINT16_MAX)) < 0 || (b = slice_uint(part[5], UINT16_MAX)) < 0)
		return -1;
	*sport = (uint16_t)a;
	*dport = (uint16_t)b;
	return (int)(lf - in.p) + 1;
}

static uint16_t
two_bytes(const char *p)
{
	return (uint16_t)((unsigned char)p[0] << 8 | (unsigned char)p[1]);
}

static int
proxy_parse_v2(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst, uint16_t *dport)
{
	size_t n, size;
	unsigned char command, family;

	if (in.n < PROXY_V2_HEAD)
		return 0;
	command = (unsigned char)in.p[12];
	family = (unsigned char)in.p[13];
	n = two_bytes(in.p + 14);
	if (command >> 4 != 2 || (command & 15) > 1)
		return -1;
	if (in.n < PROXY_V2_HEAD + n)
		return 0;
	size = family >> 4 == 1 ? 4 : family >> 4 == 2 ? 16 : 0;
	if ((command & 15) == 0 || size == 0)
		return (int)(PROXY_V2_HEAD + n); /* LOCAL, or no IP */
	if (n < 2 * size + 4)
		return -1;
	memcpy(src->b, v4_mapped, IP_V4_PREFIX);
	memcpy(dst->b, v4_mapped, IP_V4_PREFIX);
	memcpy(src->b + 16 - size, in.p + PROXY_V2_HEAD, size);
	memcpy(dst->b + 16 - size, in.p + PROXY_V2_HEAD + size, size);
	*sport = two_bytes(in.p + PROXY_V2_HEAD + 2 * size);
	*dport = two_bytes(in.p + PROXY_V2_HEAD + 2 * size + 2);
	return (int)(PROXY_V2_HEAD + n);
}

/* A PROXY header at the front of in: bytes eaten, 0 not whole, -1 none. src
 * stays as it is when the header names nobody. */
static int
proxy_parse(struct slice in, struct ip *src, uint16_t *sport, struct ip *dst, uint16_t *dport)
{
	size_t mark = MIN(in.n, proxy_v2_mark.n), word = MIN(in.n, (size_t)6);

	if (in.n > 0 && memcmp(in.p, proxy_v2_mark.p, mark) == 0)
		return proxy_parse_v2(in, src, sport, dst, dport);
	if (in.n > 0 && memcmp(in.p, "PROXY ", word) == 0)
		return proxy_parse_v1(in, src, sport, dst, dport);
	return in.n > 0 ? -1 : 0;
}

static void
proxy_write_v2(struct text *t, const struct ip *src, uint16_t sport, const struct ip *dst,
    uint16_t dport)
{
	bool known = !ip_is_none(src) && !ip_is_none(dst);
	bool v4 = known && ip_is_v4(src) && ip_is_v4(dst);
	size_t size = !known ? 0 : v4 ? 4 : 16, n = known ? 2 * size + 4 : 0;
	char ports[4] = { (char)(sport >> 8), (char)sport, (char)(dport >> 8), (char)dport };

	text_add(t, proxy_v2_mark);
	text_char(t, known ? 0x21 : 0x20);
	text_char(t, !known ? 0 : v4 ? 0x11 : 0x21);
	text_char(t, 0);
	text_char(t, (char)n);
	if (!known)
		return;
	text_add(t, (struct slice){ (const char *)src->b + 16 - size, size });
	text_add(t, (struct slice){ (const char *)dst->b + 16 - size, size });
	text_add(t, (struct slice){ ports, sizeof ports });
}

/* Says who the client is, as version 1 or 2. */
static void
proxy_write(struct text *t, int version, const struct ip *src, uint16_t sport,
    const struct ip *dst, uint16_t dport)
{
	if (version == 2) {
		proxy_write_v2(t, src, sport, dst, dport);
		return;
	}
	if (ip_is_none(src) || ip_is_none(dst) || ip_is_v4(src) != ip_is_v4(dst)) {
		text_add(t, S("PROXY UNKNOWN\r\n"));
		return;
	}
	text_add(t, ip_is_v4(src) ? S("PROXY TCP4 ") : S("PROXY TCP6 "));
	ip_text(t, src);
	text_char(t, ' ');
	ip_text(t, dst);
	text_char(t, ' ');
	text_uint(t, sport);
	text_char(t, ' ');
	text_uint(t, dport);
	text_add(t, S("\r\n"));
}

