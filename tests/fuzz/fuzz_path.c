/* A path and its query: the view that routes see leaves the root nowhere, and
 * is its own view once it has been sent on. */

#include "fuzz.h"

static void
no_dots(struct slice path)
{
	struct slice rest = path, seg;

	MUST(path.n > 0 && path.p[0] == '/' && memchr(path.p, '\0', path.n) == NULL);
	while (slice_cut(&rest, '/', &seg))
		MUST(!slice_eq(seg, S(".")) && !slice_eq(seg, S("..")));
}

/* No request line has other bytes in its target. */
static bool
is_target(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= ' ' || s.p[i] == '\x7f')
			return false;
	return true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static char seen[TARGET_MAX + 1], sent[3 * TARGET_MAX];
	struct slice raw = { (const char *)data, n }, query = { NULL, 0 };
	const char *mark = n ? memchr(raw.p, '?', n) : NULL;
	struct text t = { sent, 0, sizeof sent, false };
	struct path_view v;
	size_t seen_n;

	if (!is_target(raw))
		return 0;
	if (mark) {
		query = slice_from(raw, (size_t)(mark - raw.p) + 1);
		raw.n = (size_t)(mark - raw.p);
		query_has(query, S("a"), S("*"));
		query_has(query, S("a b"), S("c"));
	}
	if (path_normalise(raw, &v) < 0)
		return 0;
	no_dots(v.path);
	seen_n = v.path.n;
	memcpy(seen, v.path.p, seen_n);
	path_encode(&t, v.path);
	MUST(!t.full);
	if (t.n > TARGET_MAX)
		return 0;
	MUST(path_normalise(text_slice(&t), &v) == 0);
	MUST(slice_eq(v.path, (struct slice){ seen, seen_n }));
	return 0;
}
