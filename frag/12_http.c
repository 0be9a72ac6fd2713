/* ==== http ===================================================================
 * Owns    nothing.
 * Offers  request_parse, response_parse, head_scan, body_of_*, chunk_decode,
 *         body_take, and what is asked of a head.
 * Calls   base. RFC 9110, 9112. Strict: what two parsers could read
 *         differently is refused, never repaired. */

#define METHOD_MAX   64
#define EMPTY_LINES  2 /* before a request line; RFC 9112 2.2 */
#define CHUNK_DIGITS_MAX 16

enum { CH_TOKEN = 1, CH_VALUE = 2, CH_TARGET = 4, CH_HOST = 8 };

/* What each byte may be part of: a sum of CH_. Rows of 16, from NUL. */
/* clang-format off */
static const uint8_t chars[256] = {
	 0,  0,  0,  0,  0,  0,  0,  0,  0,  2,  0,  0,  0,  0,  0,  0,
	 0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
	 2, 15,  6,  3, 15, 15, 15, 15,  6,  6, 15, 15,  6, 15, 15,  6,
	15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6, 14,  6, 14,  6,  6,
	 6, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
	15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6,  6,  6,  7, 15,
	 7, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
	15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6,  7,  6, 15,  0,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
	 6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,  6,
};
/* clang-format on */

static bool
all_are(struct slice s, uint8_t bit)
{
	for (size_t i = 0; i < s.n; i++)
		if (!(chars[(unsigned char)s.p[i]] & bit))
			return false;
	return true;
}

static bool
is_token(struct slice s)
{
	return s.n > 0 && all_are(s, CH_TOKEN);
}

static bool
is_field_value(struct slice s)
{
	return all_are(s, CH_VALUE);
}

/* ---- names ---- */

enum { FIELD_HOP = 1, FIELD_KEPT = 2 /* cannot be named in Connection */ };

static const struct {
	struct slice name;
	uint8_t flags;
} http_fields[FIELD_IDS] = {
	[F_ACCEPT]            = { { "Accept", 6 }, 0 },
	[F_AUTHORIZATION]     = { { "Authorization", 13 }, FIELD_KEPT },
	[F_CONNECTION]        = { { "Connection", 10 }, FIELD_HOP },
	[F_CONTENT_LENGTH]    = { { "Content-Length", 14 }, FIELD_KEPT },
	[F_CONTENT_TYPE]      = { { "Content-Type", 12 }, FIELD_KEPT },
	[F_COOKIE]            = { { "Cookie", 6 }, FIELD_KEPT },
	[F_DATE]              = { { "Date", 4 }, FIELD_KEPT },
	[F_EXPECT]            = { { "Expect", 6 }, FIELD_KEPT },
	[F_FORWARDED]         = { { "Forwarded", 9 }, FIELD_KEPT },
	[F_HOST]              = { { "Host", 4 }, FIELD_KEPT },
	[F_HTTP2_SETTINGS]    = { { "HTTP2-Settings", 14 }, FIELD_HOP },
	[F_KEEP_ALIVE]        = { { "Keep-Alive", 10 }, FIELD_HOP },
	[F_PROXY_CONNECTION]  = { { "Proxy-Connection", 16 }, FIELD_HOP },
	[F_REFERER]           = { { "Referer", 7 }, 0 },
	[F_SERVER]            = { { "Server", 6 }, FIELD_KEPT },
	[F_TE]                = { { "TE", 2 }, FIELD_HOP },
	[F_TRAILER]           = { { "Trailer", 7 }, FIELD_KEPT },
	[F_TRANSFER_ENCODING] = { { "Transfer-Encoding", 17 }, FIELD_HOP },
	[F_UPGRADE]           = { { "Upgrade", 7 }, FIELD_HOP },
	[F_USER_AGENT]        = { { "User-Agent", 10 }, 0 },
	[F_VIA]               = { { "Via", 3 }, FIELD_KEPT },
	[F_X_ADMIN_TOKEN]     = { { "X-Admin-Token", 13 }, FIELD_KEPT },
	[F_X_FORWARDED_FOR]   = { { "X-Forwarded-For", 15 }, FIELD_KEPT },
	[F_X_FORWARDED_HOST]  = { { "X-Forwarded-Host", 16 }, FIELD_KEPT },
	[F_X_FORWARDED_PORT]  = { { "X-Forwarded-Port", 16 }, FIELD_KEPT },
	[F_X_FORWARDED_PROTO] = { { "X-Forwarded-Proto", 17 }, FIELD_KEPT },
	[F_X_REAL_IP]         = { { "X-Real-IP", 9 }, FIELD_KEPT },
	[F_X_REQUEST_ID]      = { { "X-Request-Id", 12 }, FIELD_KEPT },
};

/* Fields of no id that Connection cannot name, and that no trailer may be. */
static const struct slice kept_names[] = {
	{ "Set-Cookie", 10 }, { "Cache-Control", 13 }, { "Location", 8 }, { "WWW-Authenticate", 16 },
	{ "Range", 5 }, { "If-Match", 8 }, { "If-None-Match", 13 }, { "If-Modified-Since", 17 },
	{ "If-Unmodified-Since", 19 }, { "If-Range", 8 }, { "Max-Forwards", 12 }, { "Pragma", 6 },
	{ "Vary", 4 }, { "Age", 3 }, { "Expires", 7 }, { "Proxy-Authorization", 19 },
};

static enum field_id
field_id_of(struct slice name)
{
	for (int i = F_OTHER + 1; i < FIELD_IDS; i++)
		if (http_fields[i].name.n == name.n &&
		    lower(http_fields[i].name.p[0]) == lower(name.p[0]) &&
		    slice_ieq(http_fields[i].name, name))
			return (enum field_id)i;
	return F_OTHER;
}

static const struct slice method_names[METHODS] = {
	[M_OTHER] = { "", 0 },          [M_GET] = { "GET", 3 },
	[M_HEAD] = { "HEAD", 4 },       [M_POST] = { "POST", 4 },
	[M_PUT] = { "PUT", 3 },         [M_DELETE] = { "DELETE", 6 },
	[M_PATCH] = { "PATCH", 5 },     [M_OPTIONS] = { "OPTIONS", 7 },
	[M_TRACE] = { "TRACE", 5 },     [M_CONNECT] = { "CONNECT", 7 },
};

static enum method
method_of(struct slice s)
{
	for (int i = M_OTHER + 1; i < METHODS; i++)
		if (slice_eq(s, method_names[i]))
			return (enum method)i;
	return M_OTHER;
}

static const char *
status_text(int status)
{
	static const struct { int status; const char *text; } texts[] = {
		{ 100, "Continue" }, { 101, "Switching Protocols" }, { 103, "Early Hints" },
		{ 200, "OK" }, { 201, "Created" }, { 202, "Accepted" }, { 204, "No Content" },
		{ 206, "Partial Content" }, { 301, "Moved Permanently" }, { 302, "Found" },
		{ 303, "See Other" }, { 304, "Not Modified" }, { 307, "Temporary Redirect" },
		{ 308, "Permanent Redirect" }, { 400, "Bad Request" }, { 401, "Unauthorized" },
		{ 402, "Payment Required" }, { 403, "Forbidden" }, { 404, "Not Found" },
		{ 405, "Method Not Allowed" }, { 406, "Not Acceptable" }, { 408, "Request Timeout" },
		{ 409, "Conflict" }, { 410, "Gone" }, { 411, "Length Required" },
		{ 412, "Precondition Failed" }, { 413, "Content Too Large" }, { 414, "URI Too Long" },
		{ 415, "Unsupported Media Type" }, { 416, "Range Not Satisfiable" },
		{ 417, "Expectation Failed" }, { 418, "I'm a teapot" }, { 421, "Misdirected Request" },
		{ 422, "Unprocessable Content" }, { 425, "Too Early" }, { 426, "Upgrade Required" },
		{ 429, "Too Many Requests" }, { 431, "Request Header Fields Too Large" },
		{ 451, "Unavailable For Legal Reasons" }, { 500, "Internal Server Error" },
		{ 501, "Not Implemented" }, { 502, "Bad Gateway" }, { 503, "Service Unavailable" },
		{ 504, "Gateway Timeout" }, { 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < LEN(texts); i++)
		if (texts[i].status == status)
			return texts[i].text;
	return "Status";
}

/* ---- lines ---- */

/* Takes the next line, without its CRLF, off the front of *in. 1, 0 when it is
 * not whole, -1 for a bare CR or LF. RFC 9112 2.2. */
static int
line_take(struct slice *in, struct slice *line)
{
	const char *lf = in->n ? memchr(in->p, '\n', in->n) : NULL;

	if (!lf)
		return 0;
	if (lf == in->p || lf[-1] != '\r')
		return -1;
	*line = (struct slice){ in->p, (size_t)(lf - in->p) - 1 };
	*in = slice_from(*in, line->n + 2);
	return 1;
}

/* Looks for the empty line that ends a head, on from *scanned. Returns bytes
 * up to its end, 0 when it is not there yet, -400 for a bare LF. */
static int
head_scan(struct slice in, uint32_t *scanned)
{
	const char *lf;
	size_t at = *scanned;

	while (at < in.n && (lf = memchr(in.p + at, '\n', in.n - at))) {
		size_t i = (size_t)(lf - in.p);
		if (i == 0 || in.p[i - 1] != '\r')
			return -400;
		if (i >= 3 && in.p[i - 2] == '\n')
			return (int)(i + 1);
		at = i + 1;
		*scanned = (uint32_t)at;
	}
	return 0;
}

/* ---- fields ---- */

/* One field line. 0 or -1. RFC 9112 5. */
static int
field_parse(struct head *h, struct slice line)
{
	struct field *f = &h->f[h->n];
	size_t i = 0;

	while (i < line.n && chars[(unsigned char)line.p[i]] & CH_TOKEN)
		i++;
	if (i == 0 || i == line.n || line.p[i] != ':')
		return -1;
	f->name = (struct slice){ line.p, i };
	f->value = slice_trim(slice_from(line, i + 1));
	if (!is_field_value(f->value))
		return -1;
	f->start = line.p;
	f->end = line.p + line.n + 2;
	f->drop = false;
	f->id = (uint8_t)field_id_of(f->name);
	h->n++;
	if (f->id != F_OTHER) {
		if (!h->first[f->id])
			h->first[f->id] = (uint16_t)h->n;
		if (h->count[f->id] < UINT8_MAX)
			h->count[f->id]++;
	}
	return 0;
}

/* All field lines and the empty one. 1, 0 unfinished, -1 malformed, -2 too
 * many. */
static int
fields_parse(struct head *h, struct slice *in)
{
	struct slice line;
	int got;

	h->n = 0;
	memset(h->first, 0, sizeof h->first);
	memset(h->count, 0, sizeof h->count);
	while ((got = line_take(in, &line)) > 0) {
		if (line.n == 0)
			return 1;
		if (h->n == FIELDS_MAX)
			return -2;
		if (field_parse(h, line) < 0)
			return -1;
	}
	return got;
}

static const struct field *
head_field(const struct head *h, enum field_id id)
{
	return h->first[id] ? &h->f[h->first[id] - 1] : NULL;
}

/* The token stands in a comma list of such a field; parameters are ignored. */
static bool
head_has(const struct head *h, enum field_id id, const char *token)
{
	struct slice want = slice_of(token), rest, item;

	for (int i = h->first[id] - 1; h->first[id] && i < h->n; i++) {
		if (h->f[i].id != id)
			continue;
		rest = h->f[i].value;
		while (slice_list_next(&rest, &item))
			if (slice_ieq(item, want))
				return true;
	}
	return false;
}

static bool
name_is_kept(const struct field *f)
{
	if (f->id != F_OTHER)
		return http_fields[f->id].flags & FIELD_KEPT;
	if (f->name.n > 8 && slice_ieq((struct slice){ f->name.p, 8 }, S("content-")))
		return true;
	for (size_t i = 0; i < LEN(kept_names); i++)
		if (slice_ieq(f->name, kept_names[i]))
			return true;
	return false;
}

/* Marks what ends here: hop-by-hop fields and those that Connection names,
 * unless somebody would gain by stripping them. RFC 9110 7.6.1. */
static void
head_hop_by_hop(struct head *h)
{
	for (int i = 0; i < h->n; i++)
		if (h->f[i].id != F_OTHER && http_fields[h->f[i].id].flags & FIELD_HOP)
			h->f[i].drop = true;
	if (h->count[F_CONNECTION] == 0)
		return;
	for (int i = 0; i < h->n; i++) {
		struct slice rest = h->f[i].value, item;
		if (h->f[i].id != F_CONNECTION)
			continue;
		while (slice_list_next(&rest, &item))
			for (int k = 0; k < h->n; k++)
				if (slice_ieq(h->f[k].name, item) && !name_is_kept(&h->f[k]))
					h->f[k].drop = true;
	}
}

/* ---- request line ---- */

/* reg-name, IPv4 or [v6], and a port. RFC 9110 7.2. */
static bool
is_host(struct slice s)
{
	const char *end;
	struct slice port;

	if (s.n > 0 && s.p[0] == '[') {
		if (!(end = memchr(s.p, ']', s.n)))
			return false;
		for (const char *p = s.p + 1; p < end; p++)
			if (!isxdigit((unsigned char)*p) && *p != ':' && *p != '.')
				return false;
		end++;
	} else {
		for (end = s.p; end < s.p + s.n && chars[(unsigned char)*end] & CH_HOST; end++)
			;
	}
	if (end == s.p + s.n)
		return true;
	port = slice_from(s, (size_t)(end - s.p) + 1);
	return *end == ':' && end > s.p && (port.n == 0 || slice_uint(port, UINT16_MAX) >= 0);
}

static void
target_split(struct head *h, struct slice t)
{
	const char *q = t.n ? memchr(t.p, '?', t.n) : NULL;

	h->has_query = q != NULL;
	h->path = q ? (struct slice){ t.p, (size_t)(q - t.p) } : t;
	h->query = q ? slice_from(t, h->path.n + 1) : (struct slice){ "", 0 };
	if (h->path.n == 0)
		h->path = S("/");
	h->path_plain = true;
	for (size_t i = 0; i < h->path.n; i++)
		if (h->path.p[i] == '%' || (h->path.p[i] == '/' && i + 1 < h->path.n &&
		    (h->path.p[i + 1] == '/' || h->path.p[i + 1] == '.')))
			h->path_plain = false;
}

/* RFC 9112 3.2. 0 or -status. */
static int
target_parse(struct head *h)
{
	struct slice t = h->target, authority;
	size_t scheme = 0;

	if (t.n > TARGET_MAX)
		return -414;
	if (t.n == 0 || !all_are(t, CH_TARGET))
		return -400;
	if (h->method == M_CONNECT)
		return -501;
	h->form = TARGET_ORIGIN;
	if (t.p[0] == '/') {
		target_split(h, t);
		return 0;
	}
	if (t.n == 1 && t.p[0] == '*') {
		h->form = TARGET_ASTERISK;
		target_split(h, S("/"));
		return h->method == M_OPTIONS ? 0 : -400;
	}
	if (t.n > 7 && slice_ieq((struct slice){ t.p, 7 }, S("http://")))
		scheme = 7;
	else if (t.n > 8 && slice_ieq((struct slice){ t.p, 8 }, S("https://")))
		scheme = 8;
	else
		return -400;
	h->form = TARGET_ABSOLUTE;
	authority = slice_from(t, scheme);
	for (size_t i = 0; i < authority.n; i++)
		if (authority.p[i] == '/' || authority.p[i] == '?')
			authority.n = i;
	target_split(h, slice_from(t, scheme + authority.n));
	h->host = authority;
	return authority.n > 0 && is_host(authority) ? 0 : -400;
}

/* method SP target SP version. 0 or -status. RFC 9112 3. */
static int
request_line(struct head *h, struct slice line)
{
	struct slice rest = line, v;
	int major;

	if (!slice_cut(&rest, ' ', &h->method_text) || !rest.p || h->method_text.n > METHOD_MAX ||
	    !is_token(h->method_text))
		return -400;
	h->method = method_of(h->method_text);
	if (!slice_cut(&rest, ' ', &h->target) || !rest.p)
		return -400;
	v = rest;
	if (v.n != 8 || memcmp(v.p, "HTTP/", 5) != 0 || !isdigit((unsigned char)v.p[5]) ||
	    v.p[6] != '.' || !isdigit((unsigned char)v.p[7]))
		return -400;
	major = v.p[5] - '0';
	if (major != 1)
		return -505;
	h->minor = v.p[7] != '0';
	return target_parse(h);
}

static int
host_parse(struct head *h)
{
	const struct field *f = head_field(h, F_HOST);

	h->has_host = f != NULL;
	if (h->count[F_HOST] > 1 || (!f && h->minor > 0) || (f && !is_host(f->value)))
		return -400;
	if (f && h->form != TARGET_ABSOLUTE)
		h->host = f->value;
	return 0;
}

/* A request head at the front of in. Returns bytes eaten, 0 unfinished, or
 * minus the status to answer with. */
static int
request_parse(struct head *h, struct slice in)
{
	struct slice rest = in, line;
	int got, err;

	for (int i = 0; i < EMPTY_LINES && rest.n > 1 && rest.p[0] == '\r' && rest.p[1] == '\n'; i++)
		rest = slice_from(rest, 2);
	if ((got = line_take(&rest, &line)) == 0)
		return rest.n > TARGET_MAX + METHOD_MAX ? -414 : 0;
	h->host = (struct slice){ NULL, 0 };
	if (got < 0)
		return -400;
	if ((err = request_line(h, line)) < 0)
		return err;
	if ((got = fields_parse(h, &rest)) <= 0)
		return got == 0 ? 0 : got == -2 ? -431 : -400;
	if ((err = host_parse(h)) < 0)
		return err;
	return (int)(rest.p - in.p);
}

/* A response head at the front of in. Bytes eaten, 0 unfinished, -502. */
static int
response_parse(struct head *h, struct slice in)
{
	struct slice rest = in, line;
	int got = line_take(&rest, &line);

	if (got <= 0)
		return got < 0 ? -502 : 0;
	if (line.n < 12 || memcmp(line.p, "HTTP/1.", 7) != 0 || !isdigit((unsigned char)line.p[7]) ||
	    line.p[8] != ' ' || (line.n > 12 && line.p[12] != ' '))
		return -502;
	h->minor = line.p[7] != '0';
	h->status = (int)slice_uint((struct slice){ line.p + 9, 3 }, 599);
	h->reason = line.n > 13 ? slice_from(line, 13) : S("");
	if (h->status < 100 || !is_field_value(h->reason))
		return -502;
	if ((got = fields_parse(h, &rest)) <= 0)
		return got == 0 ? 0 : -502;
	return (int)(rest.p - in.p);
}

/* ---- bodies ---- */

/* Exactly one coding, chunked? 1, 0 when another comes with it, -1 malformed
 * or chunked twice or not last. */
static int
coding_of(const struct head *h)
{
	struct slice rest, item;
	int chunked = 0, others = 0;

	for (int i = 0; i < h->n; i++) {
		if (h->f[i].id != F_TRANSFER_ENCODING)
			continue;
		rest = h->f[i].value;
		while (slice_cut(&rest, ',', &item)) {
			item = slice_trim(item);
			if (chunked || !is_token(item))
				return -1;
			if (slice_ieq(item, S("chunked")))
				chunked++;
			else
				others++;
		}
	}
	return !chunked ? -1 : others ? 0 : 1;
}

/* Content-Length once, digits only: stricter than RFC 9110 8.6, which lets
 * equal ones be merged. -1: not so. */
static int64_t
length_of(const struct head *h)
{
	return h->count[F_CONTENT_LENGTH] == 1
	    ? slice_uint(head_field(h, F_CONTENT_LENGTH)->value, INT64_MAX) : -1;
}

static void
body_set(struct body *b, enum body_kind kind, uint64_t left)
{
	*b = (struct body){ .kind = kind, .left = left,
		.done = kind == BODY_NONE || (kind == BODY_LENGTH && left == 0) };
}

/* How the request's body ends: 0, or minus the status. RFC 9112 6.3. */
static int
body_of_request(struct body *b, const struct head *h)
{
	int64_t n;
	int coding;

	body_set(b, BODY_NONE, 0);
	if (h->count[F_TRANSFER_ENCODING] > 0) {
		if (h->count[F_CONTENT_LENGTH] > 0 || h->minor == 0 || (coding = coding_of(h)) < 0)
			return -400;
		body_set(b, BODY_CHUNKED, 0);
		return coding ? 0 : -501;
	}
	if (h->count[F_CONTENT_LENGTH] == 0)
		return 0;
	if ((n = length_of(h)) < 0)
		return -400;
	body_set(b, BODY_LENGTH, (uint64_t)n);
	return 0;
}

/* The same for the response to a request of that method: 0 or -502. */
static int
body_of_response(struct body *b, const struct head *h, enum method m)
{
	int64_t n;

	body_set(b, BODY_NONE, 0);
	if (h->count[F_TRANSFER_ENCODING] > 0 &&
	    (h->count[F_CONTENT_LENGTH] > 0 || coding_of(h) != 1))
		return -502;
	if (h->count[F_CONTENT_LENGTH] > 0 && (n = length_of(h)) < 0)
		return -502;
	if (m == M_HEAD || h->status < 200 || h->status == 204 || h->status == 304)
		return 0;
	if (h->count[F_TRANSFER_ENCODING] > 0)
		body_set(b, BODY_CHUNKED, 0);
	else if (h->count[F_CONTENT_LENGTH] > 0)
		body_set(b, BODY_LENGTH, (uint64_t)n);
	else
		body_set(b, BODY_CLOSE, 0);
	return 0;
}

/* How many of n bytes that came belong to a body without chunks. */
static size_t
body_take(struct body *b, size_t n)
{
	if (b->kind == BODY_LENGTH) {
		n = (size_t)MIN((uint64_t)n, b->left);
		b->left -= n;
		b->done = b->left == 0;
	}
	b->total += n;
	return n;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A trailer line is whole: checked, and cut off again when it is one that may
 * not come behind the body. RFC 9110 6.5.1. -1: malformed. */
static int
trailer_check(struct body *b, struct text *t)
{
	struct slice line = { t->p + b->line_at, t->n - b->line_at - 2 }, name;
	struct field f = { 0 };

	for (name = line; name.n > 0 && chars[(unsigned char)line.p[line.n - name.n]] & CH_TOKEN;)
		name.n--;
	f.name = (struct slice){ line.p, line.n - name.n };
	if (f.name.n == 0 || name.n == 0 || line.p[f.name.n] != ':' ||
	    !is_field_value(slice_from(line, f.name.n + 1)))
		return -1;
	f.id = (uint8_t)field_id_of(f.name);
	if (name_is_kept(&f) || (f.id != F_OTHER && http_fields[f.id].flags))
		t->n = b->line_at;
	b->line_at = (uint32_t)t->n;
	return 0;
}

/* One byte of a trailer part. -1: malformed or too long. */
static int
trailer_byte(struct body *b, char c, struct text *t)
{
	if (++b->ext_bytes > CHUNK_EXT_MAX)
		return -1;
	text_char(t, c);
	if (t->full)
		return -1;
	if (b->chunk == CHUNK_TRAILER_LF) {
		b->chunk = CHUNK_TRAILER;
		return c == '\n' ? trailer_check(b, t) : -1;
	}
	b->chunk = c == '\r' ? CHUNK_TRAILER_LF : CHUNK_TRAILING;
	return c == '\n' ? -1 : 0;
}

/* A digit of the size, or what follows the digits. */
static int
chunk_size_byte(struct body *b, char c)
{
	int v = hex_value(c);

	if (v >= 0 && (b->chunk == CHUNK_SIZE || b->chunk == CHUNK_DIGITS)) {
		if (b->left > (uint64_t)INT64_MAX >> 4)
			return -1;
		b->left = b->left << 4 | (unsigned)v;
		b->chunk = CHUNK_DIGITS;
		return ++b->ext_bytes > CHUNK_DIGITS_MAX ? -1 : 0;
	}
	if (b->chunk == CHUNK_SIZE)
		return -1;
	if (c == '\r')
		b->chunk = CHUNK_SIZE_LF;
	else if (c == ';')
		b->chunk = CHUNK_EXT;
	else
		return -1;
	return 0;
}

/* Extensions mean nothing to a proxy; their form is checked. RFC 9112 7.1.1. */
static int
chunk_ext_byte(struct body *b, char c)
{
	if (++b->ext_bytes > CHUNK_EXT_MAX || (c != '\r' && !(chars[(unsigned char)c] & CH_VALUE)))
		return -1;
	if (b->chunk == CHUNK_ESCAPED)
		b->chunk = CHUNK_QUOTED;
	else if (b->chunk == CHUNK_QUOTED)
		b->chunk = c == '\\' ? CHUNK_ESCAPED : c == '"' ? CHUNK_EXT : CHUNK_QUOTED;
	else if (c == '"')
		b->chunk = CHUNK_QUOTED;
	else if (c == '\r')
		b->chunk = CHUNK_SIZE_LF;
	return c == '\r' && b->chunk != CHUNK_SIZE_LF ? -1 : 0;
}

/* Framing, a byte at a time. -1: malformed. */
static int
chunk_byte(struct body *b, char c, struct text *trailers)
{
	switch (b->chunk) {
	case CHUNK_SIZE:
	case CHUNK_DIGITS:
		return chunk_size_byte(b, c);
	case CHUNK_EXT:
	case CHUNK_QUOTED:
	case CHUNK_ESCAPED:
		return chunk_ext_byte(b, c);
	case CHUNK_SIZE_LF:
		b->chunk = b->left ? CHUNK_DATA : CHUNK_TRAILER;
		b->ext_bytes = 0;
		return c == '\n' ? 0 : -1;
	case CHUNK_DATA_CR:
		b->chunk = CHUNK_DATA_LF;
		return c == '\r' ? 0 : -1;
	case CHUNK_DATA_LF:
		b->chunk = CHUNK_SIZE;
		return c == '\n' ? 0 : -1;
	case CHUNK_TRAILER:
		if (c != '\r')
			return trailer_byte(b, c, trailers);
		b->chunk = CHUNK_END_LF;
		return 0;
	case CHUNK_END_LF:
		b->chunk = CHUNK_DONE;
		b->done = true;
		return c == '\n' ? 0 : -1;
	default:
		return trailer_byte(b, c, trailers);
	}
}

/* Decodes n bytes at p in place: *content bytes of the body end up at p.
 * Returns how many bytes were used; what is behind them stays where it is. -1:
 * malformed. Stops before the first trailer line, with need_trailers set, when
 * trailers has no room at all: the caller brings some and calls again. */
static ssize_t
chunk_decode(struct body *b, char *p, size_t n, size_t *content, struct text *trailers)
{
	size_t at = 0, run;

	*content = 0;
	while (at < n && !b->done) {
		if (b->chunk == CHUNK_DATA) {
			run = (size_t)MIN((uint64_t)(n - at), b->left);
			if (at != *content)
				memmove(p + *content, p + at, run);
			*content += run;
			at += run;
			b->total += run;
			b->left -= run;
			if (b->left == 0)
				b->chunk = CHUNK_DATA_CR;
			continue;
		}
		if (b->chunk == CHUNK_TRAILER && p[at] != '\r' && trailers->cap == 0) {
			b->need_trailers = true;
			break;
		}
		if (chunk_byte(b, p[at++], trailers) < 0)
			return -1;
	}
	return (ssize_t)at;
}

