/* ==== path ===================================================================
 * Owns    the normalised view of the path in hand.
 * Offers  path_plain, path_normalise, path_encode, query_has.
 * Calls   base, http. Routes match this view, so that no spelling slips past a
 *         guarded one; RFC 3986 6.2.2. */

static char path_buf[PATH_PAD + TARGET_MAX + 1]; /* the pad stays zero */

/* A path that is its own normalised view. */
static void
path_plain(struct slice raw, struct path_view *v)
{
	char *to = path_buf + PATH_PAD;

	memcpy(to, raw.p, raw.n);
	to[raw.n] = '\0';
	v->path = (struct slice){ to, raw.n };
}

/* The byte that %XX stands for, -1 when it is not that. */
static int
percent_value(struct slice s)
{
	int high, low;

	if (s.n < 3 || s.p[0] != '%' || (high = hex_value(s.p[1])) < 0 ||
	    (low = hex_value(s.p[2])) < 0)
		return -1;
	return high << 4 | low;
}

/* One segment, decoded behind *n. An encoded slash or percent sign stays
 * encoded. -1: bad. */
static int
segment_decode(struct slice s, char *to, size_t *n)
{
	int c;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] != '%') {
			to[(*n)++] = s.p[i];
			continue;
		}
		if ((c = percent_value(slice_from(s, i))) <= 0)
			return -1;
		if (c == '/' || c == '%') {
			memcpy(to + *n, c == '/' ? "%2F" : "%25", 3);
			*n += 3;
		} else
			to[(*n)++] = (char)c;
		i += 2;
	}
	return 0;
}

/* A dot segment that an encoded slash hides, or a backslash, which some
 * backends take for one: `..%2f`, `..\\`. */
static bool
hides_dots(struct slice s)
{
	size_t from = 0, skip;

	for (size_t i = 0; i <= s.n; i += skip) {
		bool end = i == s.n || s.p[i] == '\\';
		bool slash = s.n - i >= 3 && memcmp(s.p + i, "%2F", 3) == 0;
		skip = slash ? 3 : 1;
		if (!end && !slash)
			continue;
		if (i - from <= 2 && i > from && s.p[from] == '.' && s.p[i - 1] == '.' && i - from < s.n)
			return true;
		from = i + skip;
	}
	return false;
}

/* Percent-decoded but for %2F and %25, dot segments resolved, slashes merged.
 * 0, or -400: malformed, a NUL, or above the root. The view is good until the
 * next call, has a NUL behind it and PATH_PAD zero bytes before. */
static int
path_normalise(struct slice raw, struct path_view *v)
{
	char *to = path_buf + PATH_PAD;
	struct slice rest = raw, seg, done;
	size_t n = 0, start;

	if (raw.n == 0 || raw.n > TARGET_MAX || raw.p[0] != '/')
		return -400;
	to[n++] = '/';
	rest = slice_from(raw, 1);
	while (slice_cut(&rest, '/', &seg)) {
		start = n;
		if (segment_decode(seg, to, &n) < 0)
			return -400;
		done = (struct slice){ to + start, n - start };
		if (hides_dots(done))
			return -400;
		if (done.n == 0)
			continue;
		if (slice_eq(done, S("."))) {
			n = start;
			continue;
		}
		if (slice_eq(done, S(".."))) {
			if (start == 1)
				return -400;
			for (n = start - 1; to[n - 1] != '/'; n--)
				;
			continue;
		}
		if (rest.p)
			to[n++] = '/';
	}
	to[n] = '\0';
	v->path = (struct slice){ to, n };
	return 0;
}

/* A normalised path as it may stand in a request line. */
static void
path_encode(struct text *t, struct slice normal)
{
	static const char bare[] = "/-._~!$&'()*+,;=:@%";

	for (size_t i = 0; i < normal.n; i++) {
		unsigned char c = (unsigned char)normal.p[i];
		if (c < 0x80 && c && (isalnum(c) || strchr(bare, c))) {
			text_char(t, (char)c);
			continue;
		}
		text_char(t, '%');
		text_char(t, "0123456789ABCDEF"[c >> 4]);
		text_char(t, "0123456789ABCDEF"[c & 15]);
	}
}

/* s, form-decoded, is want. */
static bool
form_is(struct slice s, struct slice want)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++, n++) {
		int c = s.p[i] == '+' ? ' ' : percent_value(slice_from(s, i));
		if (c >= 0 && s.p[i] == '%')
			i += 2;
		else if (c < 0)
			c = (unsigned char)s.p[i];
		if (n >= want.n || (unsigned char)want.p[n] != c)
			return false;
	}
	return n == want.n;
}

/* The query has that name with that value; `*`: with any. */
static bool
query_has(struct slice query, struct slice name, struct slice value)
{
	struct slice rest = query, pair, key;
	bool any = slice_eq(value, S("*"));

	while (slice_cut(&rest, '&', &pair)) {
		struct slice given = pair;
		slice_cut(&given, '=', &key);
		if (!given.p)
			given = S("");
		if (form_is(key, name) && (any || form_is(given, value)))
			return true;
	}
	return false;
}

