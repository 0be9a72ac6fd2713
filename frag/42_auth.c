/* ==== auth ===================================================================
 * Owns    a few passwords whose slow hash was checked already.
 * Offers  auth_token_ok, auth_basic_ok.
 * Calls   base, http. RFC 7617. */

#define CREDENTIALS_MAX 256 /* bytes of user:password; longer ones fail */

struct auth_seen {
	const char *secret; /* the hash that it was checked against */
	uint16_t n;
	char text[CREDENTIALS_MAX];
};
static struct auth_seen auth_cache[AUTH_CACHE];
static unsigned auth_next;

static int
base64_value(char c)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Appends what s encodes; false when it is not base64. RFC 4648 4. */
static bool
base64_decode(struct text *t, struct slice s)
{
	unsigned bits = 0, n = 0;

	while (s.n > 0 && s.p[s.n - 1] == '=')
		s.n--;
	for (size_t i = 0; i < s.n; i++) {
		int v = base64_value(s.p[i]);
		if (v < 0)
			return false;
		bits = bits << 6 | (unsigned)v;
		n += 6;
		if (n >= 8) {
			n -= 8;
			text_char(t, (char)(bits >> n & 0xff));
		}
	}
	return !t->full;
}

/* The word behind the scheme: `Basic xyz`, `Bearer xyz`; empty: not that. */
static struct slice
auth_credentials(const struct head *h, const char *scheme)
{
	const struct field *f = head_field(h, F_AUTHORIZATION);
	struct slice rest, word;

	if (!f || h->count[F_AUTHORIZATION] != 1)
		return S("");
	rest = f->value;
	if (!slice_cut(&rest, ' ', &word) || !slice_ieq(word, slice_of(scheme)) || !rest.p)
		return S("");
	return slice_trim(rest);
}

static bool
auth_token_ok(const struct head *h, struct slice token)
{
	const struct field *f = head_field(h, F_X_ADMIN_TOKEN);

	return f && h->count[F_X_ADMIN_TOKEN] == 1 && slice_eq_secret(f->value, token);
}

static bool
auth_hash_ok(struct slice password, const char *hash, struct slice credentials)
{
	struct auth_seen *seen;
	char text[CREDENTIALS_MAX + 1];
	const char *made;

	for (size_t i = 0; i < LEN(auth_cache); i++)
		if (auth_cache[i].secret == hash && slice_eq_secret(credentials,
		    (struct slice){ auth_cache[i].text, auth_cache[i].n }))
			return true;
	memcpy(text, password.p, password.n);
	text[password.n] = '\0';
	made = crypt(text, hash);
	if (!made || !slice_eq_secret(slice_of(made), slice_of(hash)))
		return false;
	seen = &auth_cache[auth_next++ % AUTH_CACHE];
	seen->secret = hash;
	seen->n = (uint16_t)credentials.n;
	memcpy(seen->text, credentials.p, credentials.n);
	return true;
}

/* One of users with its password, which is a crypt(3) hash if it starts with
 * `$`, else the text itself. */
static bool
auth_basic_ok(const struct head *h, const struct pairs *users)
{
	char b[CREDENTIALS_MAX];
	struct text t = { b, 0, sizeof b, false };
	struct slice all, rest, user;

	if (!base64_decode(&t, auth_credentials(h, "Basic")))
		return false;
	all = rest = text_slice(&t);
	if (!slice_cut(&rest, ':', &user) || !rest.p || memchr(rest.p, '\0', rest.n))
		return false;
	for (int i = 0; i < users->n; i++) {
		struct slice secret = users->v[i].value;
		if (!slice_eq(user, users->v[i].name))
			continue;
		return secret.n > 0 && secret.p[0] == '$' ? auth_hash_ok(rest, secret.p, all)
		                                          : slice_eq_secret(rest, secret);
	}
	return false;
}

