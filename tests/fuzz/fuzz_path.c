/* Any bytes as a path and a query: a normal path is its own normal form, also
 * by way of the wire, and holds nothing that climbs. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include "fuzz.h"

/* No empty, `.` or `..` segment, whatever is taken for a separator. */
static bool
climbs(struct slice path)
{
	struct slice rest = slice_from(path, 1), seg;

	while (slice_cut(&rest, '/', &seg)) {
		if (slice_eq(seg, S(".")) || slice_eq(seg, S("..")) || (seg.n == 0 && rest.p))
			return true;
		for (size_t i = 0, from = 0; i <= seg.n; i++) {
			if (i < seg.n && seg.p[i] != '\\')
				continue;
			if (i - from == 2 && memcmp(seg.p + from, "..", 2) == 0)
				return true;
			from = i + 1;
		}
	}
	return false;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char first[TARGET_MAX + 1], wire[3 * TARGET_MAX];
	size_t cut;
	struct text t = { wire, 0, sizeof wire, false };
	struct slice in = exact(data, size), normal, rest = in, part;
	struct path_view v;

	if (path_normalise(in, &v) == 0) {
		MUST(v.path.n > 0 && v.path.n <= size && v.path.p[0] == '/');
		MUST(v.path.p[v.path.n] == '\0' && !memchr(v.path.p, '\0', v.path.n));
		for (int i = 1; i <= PATH_PAD; i++)
			MUST(v.path.p[-i] == '\0');
		MUST(!climbs(v.path));
		memcpy(first, v.path.p, v.path.n);
		normal = (struct slice){ first, v.path.n };
		for (cut = normal.n - 1; cut > 0 && (first[cut] != '/' || cut % 4); cut--)
			MUST(lies_in(path_raw(&v, cut, normal.n), in) && lies_in(path_raw(&v, 0, cut), in));
		part = path_raw(&v, cut, normal.n); /* the client's bytes mean what the view says */
		MUST(lies_in(part, in) && path_normalise(part, &v) == 0);
		MUST(slice_eq(v.path, slice_from(normal, cut)));
		MUST(path_normalise(normal, &v) == 0 && slice_eq(v.path, normal));
		path_encode(&t, normal);
		MUST(all_are(text_slice(&t), CH_TARGET) && !memchr(wire, '?', t.n));
		if (t.n <= TARGET_MAX)
			MUST(path_normalise(text_slice(&t), &v) == 0 && slice_eq(v.path, normal));
	}
	if (size > 0 && slice_cut(&rest, '\n', &part) && rest.p) {
		bool any = query_has(rest, part, S("*"));
		MUST(any || !query_has(rest, part, S("x")));
	}
	exact_free(in);
	return 0;
}
