/* The cache's memory: what it answers, beside a simple model; that every block is
 * accounted for; and what is left of it when a worker is killed, at each instruction of
 * each operation, and at random while others go on. */

#define main static warp_main
#include "../../warp.c"
#undef main

#include <sys/ptrace.h>

#include "unit.h"

enum { SMALL = 65536, KEYS = 40, WORKERS = 3, MASTER = STORE_SLOTS, STEPS_MAX = 400000,
	KILLS = 1000, BODY_MAX = 6000 };

static struct store *s;
static struct text head;
static char head_bytes[8192];
static struct policy facts;

/* ---- several workers in one process ---- */

static __typeof__(shelf) shelves[STORE_SLOTS + 1];

static void
be(unsigned slot)
{
	shelves[shelf.slot] = shelf;
	if (shelves[slot].s == s) {
		shelf = shelves[slot];
	} else if (slot != MASTER) {
		store_join(s, slot);
	} else {
		shelf.slot = slot;
		shelf.pins = shelf.owed = 0;
	}
}

static void
opened(size_t size)
{
	if (s)
		store_close(s);
	memset(shelves, 0, sizeof shelves);
	shelf.pins = shelf.owed = 0;
	s = store_open(size);
	assert_non_null(s);
	clock_turn();
	assert_int_equal(store_bells_open(4), 0);
	be(0);
}

/* ---- every block is accounted for ---- */

static unsigned char *seen; /* blocks */
static uint32_t *pinned;

static uint32_t
audit_chain(uint32_t b)
{
	uint32_t n = 0;

	for (; b; b = shelf.links[b], n++) {
		assert_in_range(b, 1, s->fresh - 1);
		assert_int_equal(seen[b], 0);
		seen[b] = 1;
	}
	return n;
}

/* Returns how many pins there are. */
static unsigned
audit(void)
{
	uint32_t used = 0, linked = 0, in_index = 0, pins = 0, listed;

	seen = calloc(s->n_blocks + 2, 1);
	pinned = calloc(s->n_blocks + 2, sizeof *pinned);
	assert_true(seen && pinned);
	assert_in_range(s->fresh, 1, s->n_blocks + 1);
	listed = audit_chain(s->free);
	assert_int_equal(listed, s->n_free);
	for (size_t i = 0; i < STORE_SLOTS; i++) {
		used += audit_chain(s->workers[i].log);
		for (uint32_t b = s->workers[i].log; b; b = shelf.links[b])
			for (size_t k = 0; k < STORE_PINS; k++)
				pinned[((struct store_pin *)(void *)block_at(b))[k].entry]++;
	}
	for (uint32_t b = 1; b < s->fresh; b++) {
		struct store_entry *e = entry_at(b);
		if (!bit_get(shelf.heads, b)) {
			assert_int_equal(pinned[b], 0);
			continue;
		}
		used += audit_chain(b) + audit_chain(e->head_chain);
		assert_int_equal(e->pins, pinned[b]);
		pins += e->pins;
		assert_true(e->pins > 0 || (e->linked && e->state == STORE_WHOLE));
		linked += e->linked && e->generation == s->generation;
		in_index += e->linked;
	}
	assert_int_equal(used + s->n_free, s->fresh - 1);
	assert_int_equal(linked, s->entries);
	for (uint32_t i = 0; i < s->buckets; i++) {
		uint32_t n = 0;
		for (uint32_t b = shelf.buckets[i]; b; b = entry_at(b)->next, n++) {
			assert_true(bit_get(shelf.heads, b) && entry_at(b)->linked);
			assert_ptr_equal(bucket_of(entry_at(b)->hash), &shelf.buckets[i]);
			in_index--;
		}
		assert_in_range(n, 0, STORE_CHAIN);
	}
	assert_int_equal(in_index, 0);
	assert_int_equal(s->lock, 0);
	free(seen);
	free(pinned);
	return pins;
}

/* ---- contents that follow from key and version ---- */

static struct store_key
key_of(unsigned n, const char *vary)
{
	static char texts[8][800];
	static unsigned turn;
	char *t = texts[turn++ % 8];
	/* some keys are longer than a block */
	int len = snprintf(t, sizeof texts[0], "http://host/%u/%0*u", n, n % 7 == 3 ? 700 : 8, n);

	return store_key((struct slice){ t, (size_t)len }, slice_of(vary));
}

static char
byte_of(unsigned key, unsigned version, size_t i)
{
	return (char)(mix64((uint64_t)key << 40 ^ (uint64_t)version << 8 ^ (i / 8)) >> i % 8 * 8);
}

static size_t
body_length(unsigned key, unsigned version)
{
	return mix64(key * 1000003u + version) % (key % 5 == 0 ? 20 : key % 3 == 0 ? BODY_MAX : 1500);
}

static struct slice
head_for(unsigned key, unsigned version)
{
	static char h[1200];
	size_t n = version % 3 == 2 ? 900 : 60 + version % 50;
	int k = snprintf(h, sizeof h, "%u %u ", key, version);

	memset(h + k, 'a' + (char)(version % 26), n - (size_t)k);
	return (struct slice){ h, n };
}

static struct policy
facts_of(unsigned key, unsigned version)
{
	return (struct policy){ .came_s = (int64_t)version << 33, .flags = 9,
		.age_s = version * 3, .fresh_s = key ^ version, .while_s = ~version,
		.error_s = version };
}

static bool
find(const struct store_key *k, bool filling, struct store_ref *r)
{
	uint32_t b;

	head = (struct text){ head_bytes, 0, sizeof head_bytes, false };
	if (!filling)
		return store_find(k, r, &facts, &head);
	*r = (struct store_ref){ 0 };
	if (!store_enter())
		return false;
	if (pins_ready() && (b = index_find(k, true)) != 0) {
		pin_take(r, b, true);
		ref_look(r, &facts, &head);
	}
	store_leave();
	return r->entry != 0;
}

/* In a worker too, which has no test to fail. */
static void
wrong(const char *what, unsigned key, unsigned version, size_t at)
{
	fprintf(stderr, "%s: key %u version %u at %zu\n", what, key, version, at);
	abort();
}

/* What was looked at is of one piece; returns the version. */
static unsigned
whole_head(unsigned key)
{
	struct policy f = facts_of(key, facts.error_s);

	if (f.came_s != facts.came_s || f.age_s != facts.age_s || f.fresh_s != facts.fresh_s ||
	    f.while_s != facts.while_s || f.flags != facts.flags)
		wrong("facts", key, facts.error_s, 0);
	if (!slice_eq(text_slice(&head), head_for(key, facts.error_s)))
		wrong("head", key, facts.error_s, head.n);
	return facts.error_s;
}

/* Versions of bodies: an update adds to the high half. */
static unsigned
body_version(unsigned version)
{
	return version & 0xffff;
}

/* Reads what is there and compares. Returns bytes read. */
static size_t
read_on(struct store_ref *r, unsigned key, unsigned version, size_t most)
{
	struct iovec v[3];
	size_t sum = 0;
	int n = store_read(r, v, (int)LEN(v), most);

	for (int i = 0; i < n; i++)
		for (size_t k = 0; k < v[i].iov_len; k++, sum++)
			if (((char *)v[i].iov_base)[k] != byte_of(key, body_version(version), r->pos + sum))
				wrong("torn", key, version, r->pos + sum);
	store_skip(r, sum);
	return sum;
}

static bool
put_head(struct store_ref *r, unsigned key, unsigned version, bool announced)
{
	struct policy f = facts_of(key, version);

	return store_head(r, &f, head_for(key, version), announced ? body_length(key, body_version(version)) : 0);
}

static bool
put_body(struct store_ref *r, unsigned key, unsigned version, size_t most)
{
	static char b[BODY_MAX];
	static unsigned of[2];
	size_t from = store_length(r), n = body_length(key, version);

	for (size_t i = 0; i < n && (of[0] != key || of[1] != version); i++)
		b[i] = byte_of(key, version, i);
	of[0] = key;
	of[1] = version;
	return store_add(r, (struct slice){ b + from, MIN(n - from, most) });
}

/* Stores it whole. False: no room. */
static bool
put(unsigned key, const char *vary, unsigned version)
{
	struct store_key k = key_of(key, vary);
	struct store_ref r;
	bool good = store_begin(&k, &r);

	if (!good)
		return false;
	assert_true(r.writing);
	good = put_head(&r, key, version, version % 2) && put_body(&r, key, version, SIZE_MAX);
	store_finish(&r, good);
	store_drop(&r);
	return good;
}

/* The version under that key; -1: none. */
static int
got(unsigned key, const char *vary)
{
	struct store_key k = key_of(key, vary);
	struct store_ref r;
	unsigned version;
	size_t sum = 0;

	if (!find(&k, false, &r))
		return -1;
	if (r.state != STORE_WHOLE) {
		store_drop(&r);
		return -1;
	}
	version = whole_head(key);
	for (size_t n; (n = read_on(&r, key, version, 700)) > 0;)
		sum += n;
	assert_int_equal(sum, body_length(key, body_version(version)));
	assert_int_equal(store_length(&r), sum);
	store_drop(&r);
	assert_int_equal(r.entry, 0);
	store_drop(&r);
	return (int)version;
}

/* ---- what it answers ---- */

static bool
rings(unsigned slot)
{
	struct pollfd p = { shelf.bells[slot][0], POLLIN, 0 };

	return poll(&p, 1, 0) == 1;
}

static void
test_fill_and_read(void **state)
{
	struct store_key k;
	struct store_ref w, r;
	struct iovec v;

	(void)state;
	opened(SMALL);
	k = key_of(6, "");
	assert_int_equal(got(6, ""), -1);
	assert_true(store_begin(&k, &w) && w.writing);
	be(1);
	assert_true(store_begin(&k, &r) && !r.writing);
	store_drop(&r);
	assert_true(find(&k, false, &r));
	assert_int_equal(r.state, STORE_BEGUN);
	assert_int_equal(head.n, 0);
	assert_true(store_wait(&r));
	assert_int_equal(store_read(&r, &v, 1, 10), 0);
	be(0);
	assert_true(put_head(&w, 6, 1, false));
	assert_true(rings(1));
	be(1);
	assert_false(store_wait(&r)); /* there is something already */
	store_bell_drain();
	assert_false(rings(1));
	assert_true(store_look(&r, &facts, &head));
	assert_int_equal(r.state, STORE_HEAD);
	whole_head(6);
	assert_true(store_wait(&r));
	be(0);
	assert_true(put_body(&w, 6, 1, 100));
	assert_true(put_body(&w, 6, 1, 0));
	be(1);
	store_bell_drain();
	assert_int_equal(read_on(&r, 6, 1, SIZE_MAX), 100);
	assert_int_equal(read_on(&r, 6, 1, SIZE_MAX), 0);
	assert_true(store_wait(&r));
	be(0);
	assert_true(put_body(&w, 6, 1, SIZE_MAX));
	store_finish(&w, true);
	store_drop(&w);
	be(1);
	assert_false(store_wait(&r));
	for (size_t n; (n = read_on(&r, 6, 1, SIZE_MAX)) > 0;)
		;
	assert_int_equal(r.state, STORE_WHOLE);
	assert_int_equal(r.pos, body_length(6, 1));
	store_drop(&r);
	assert_int_equal(got(6, ""), 1);
	assert_int_equal(audit(), 0);
}

static void
test_cut(void **state)
{
	struct store_key k;
	struct store_ref w, r;

	(void)state;
	opened(SMALL);
	k = key_of(6, "");
	for (int known = 0; known < 2; known++) {
		be(0);
		assert_true(store_begin(&k, &w) && (!known || put_head(&w, 6, 1, true)));
		be(1);
		assert_true(find(&k, false, &r));
		be(0);
		store_drop(&w);
		be(1);
		assert_false(store_wait(&r));
		head.n = 0;
		assert_true(store_look(&r, &facts, &head));
		assert_int_equal(r.state, STORE_CUT);
		assert_int_equal(head.n > 0, known);
		assert_int_equal(got(6, ""), -1);
		assert_int_equal(audit(), 1);
		store_drop(&r);
		assert_int_equal(audit(), 0);
	}
}

/* Those who wait hear of it when the writer is killed, even if it was about to ring. */
static void
test_killed_writer_is_told(void **state)
{
	struct store_key k;
	struct store_ref w, r;

	(void)state;
	opened(SMALL);
	k = key_of(6, "");
	assert_true(store_begin(&k, &w) && put_head(&w, 6, 1, false));
	be(1);
	assert_true(find(&k, false, &r) && store_wait(&r));
	s->workers[1].rung = 1;
	entry_at(r.entry)->waiters[0] = 0;
	be(MASTER);
	assert_true(store_repair(s, 0));
	assert_true(rings(1));
	be(1);
	store_bell_drain();
	assert_int_equal(s->workers[1].rung, 0);
	assert_int_equal(read_on(&r, 6, 1, SIZE_MAX), 0);
	assert_int_equal(r.state, STORE_CUT);
	store_drop(&r);
	shelves[0] = (__typeof__(shelf)){ 0 }; /* another takes its place */
	be(0);
	assert_int_equal(got(6, ""), -1);
	assert_true(put(6, "", 2));
	assert_int_equal(got(6, ""), 2);
	assert_int_equal(audit(), 0);
}

/* A reader that sleeps whenever there is nothing new is woken every time. */
static void
test_no_wake_is_lost(void **state)
{
	struct pollfd bell = { .events = POLLIN };
	struct store_key k;
	struct store_ref r;
	unsigned naps = 0;
	pid_t pid;

	(void)state;
	opened(SMALL);
	bell.fd = shelf.bells[1][0];
	k = key_of(6, "");
	pid = fork();
	if (pid == 0) {
		if (!store_begin(&k, &r) || !put_head(&r, 6, 1, true))
			_exit(1);
		while (store_length(&r) < body_length(6, 1))
			if (store_length(&r) % 50 == 0 && !entry_at(r.entry)->waiters[0])
				sched_yield(); /* until it sleeps */
			else if (!put_body(&r, 6, 1, 1) && !r.busy)
				_exit(2);
		store_finish(&r, true);
		_exit(0);
	}
	be(1);
	while (!find(&k, false, &r))
		sched_yield();
	while (!store_look(&r, &facts, &head) || r.state == STORE_BEGUN)
		sched_yield();
	do {
		while (read_on(&r, 6, 1, SIZE_MAX) > 0)
			;
		if (r.state == STORE_HEAD && store_wait(&r)) {
			naps++;
			assert_int_equal(poll(&bell, 1, 5000), 1);
			store_bell_drain();
		}
	} while (r.state == STORE_HEAD);
	assert_int_equal(r.pos, body_length(6, 1));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	print_message("%u naps\n", naps);
	assert_true(naps >= body_length(6, 1) / 50);
	assert_true(store_repair(s, 0)); /* what it had pinned */
	store_drop(&r);
	assert_int_equal(audit(), 0);
}

static void
test_replace(void **state)
{
	struct store_key k;
	struct store_ref w, r, old;

	(void)state;
	opened(SMALL);
	k = key_of(6, "");
	assert_true(put(6, "", 1));
	assert_true(find(&k, false, &old));
	assert_false(find(&k, true, &r));
	assert_true(store_begin(&k, &w) && w.writing && put_head(&w, 6, 2, false));
	assert_int_equal(got(6, ""), 1);
	assert_true(find(&k, true, &r));
	assert_int_equal(r.state, STORE_HEAD);
	assert_int_equal(whole_head(6), 2);
	store_drop(&r);
	assert_true(put_body(&w, 6, 2, SIZE_MAX));
	store_finish(&w, true);
	assert_int_equal(got(6, ""), 2);
	assert_int_equal(s->entries, 1);
	assert_false(store_wait(&old));
	assert_true(read_on(&old, 6, 1, SIZE_MAX) > 0); /* still there for its reader */
	store_drop(&old);
	store_drop(&w);
	assert_int_equal(audit(), 0);
}

static void
test_variants(void **state)
{
	(void)state;
	opened(SMALL);
	assert_true(put(3, "", 1) && put(3, "gzip", 2) && put(3, "br", 3) && put(5, "br", 4));
	assert_int_equal(got(3, ""), 1);
	assert_int_equal(got(3, "gzip"), 2);
	assert_int_equal(got(3, "br"), 3);
	assert_int_equal(got(3, "bx"), -1);
	assert_int_equal(got(5, ""), -1);
	assert_int_equal(store_purge_key(key_of(3, "").key), 3);
	assert_int_equal(got(3, "gzip"), -1);
	assert_int_equal(got(5, "br"), 4);
	/* the oldest of too many goes */
	opened(SMALL * 16);
	assert_true(put(5, "br", 4));
	for (unsigned i = 0; i < STORE_CHAIN + 10; i++) {
		char vary[16];
		snprintf(vary, sizeof vary, "%u", i);
		put(5, vary, 2);
	}
	assert_int_equal(got(5, "br"), -1);
	assert_int_equal(audit(), 0);
}

static void
test_update(void **state)
{
	struct store_key k;
	struct store_ref r, other;
	struct policy f;

	(void)state;
	opened(SMALL);
	k = key_of(6, "");
	assert_true(put(6, "", 1) && find(&k, false, &r));
	be(1);
	assert_true(find(&k, false, &other));
	assert_true(store_wait(&other));
	for (unsigned i = 1; i < 40; i++) {
		unsigned version = i << 16 | 1; /* shorter and longer ones */
		f = facts_of(6, version);
		be(0);
		assert_true(store_update(&r, &f, head_for(6, version)));
		be(1);
		assert_int_equal(got(6, ""), version);
		assert_false(store_wait(&other));
		head.n = 0;
		assert_true(store_look(&other, &facts, &head));
		assert_true(store_wait(&other));
	}
	assert_true(rings(1));
	assert_int_equal(store_purge_key(k.key), 1);
	be(0);
	assert_false(store_update(&r, &f, head_for(6, 1)));
	store_drop(&r);
	be(1);
	store_drop(&other);
	assert_int_equal(audit(), 0);
}

static bool
odd(const void *arg, struct slice key)
{
	(void)arg;
	return (key.p[key.n - 1] - '0') % 2;
}

static void
test_purge(void **state)
{
	struct store_key k;
	struct store_ref w, r;
	unsigned n = 0;
	uint32_t cursor = 0;

	(void)state;
	opened(SMALL * 16);
	for (unsigned i = 0; i < 300; i++)
		assert_true(put(i, "", 2));
	k = key_of(1001, "");
	assert_true(store_begin(&k, &w) && find(&k, false, &r) && put_head(&w, 1001, 2, false));
	while (store_purge_some(&cursor, odd, NULL, &n))
		;
	assert_int_equal(n, 151);
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(got(i, ""), i % 2 ? -1 : 2);
	/* what is being filled goes on for its readers */
	assert_true(put_body(&w, 1001, 2, SIZE_MAX));
	store_finish(&w, true);
	assert_int_equal(got(1001, ""), -1);
	assert_true(store_look(&r, &facts, &head));
	assert_int_equal(r.state, STORE_WHOLE);
	assert_true(read_on(&r, 1001, 2, SIZE_MAX) > 0);
	store_drop(&w);
	store_drop(&r);
	assert_int_equal(store_purge_all(), 150);
	assert_int_equal(s->entries, 0);
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(got(i, ""), -1);
	assert_true(put(2, "", 5));
	assert_int_equal(got(2, ""), 5);
}

static void
test_busy_lock(void **state)
{
	struct store_key k;
	struct store_ref r, w;

	(void)state;
	opened(SMALL);
	k = key_of(2, "");
	assert_true(put(2, "", 1) && find(&k, false, &r));
	assert_true(store_begin(&(struct store_key){ S("w"), S(""), 1 }, &w));
	s->lock = 77;
	assert_int_equal(got(2, ""), -1);
	assert_false(put(3, "", 1));
	assert_int_equal(store_purge_key(k.key), -1);
	assert_int_equal(store_purge_all(), -1);
	assert_false(store_repair(s, 1));
	store_drop(&r);
	store_drop(&w);
	s->lock = 0;
	assert_int_equal(got(2, ""), 1);
	assert_int_equal(audit(), 0);
	assert_int_equal(s->entries, 1);
	assert_true(store_stats(s).missed_lock > 0);
}

/* ---- what passes through ---- */

static bool
pass_on(struct store_ref *w, size_t n)
{
	static char b[4096];

	for (size_t i = 0; i < n; i++)
		b[i] = byte_of(6, 1, store_length(w) + i);
	return store_add(w, (struct slice){ b, n });
}

/* Much more than the store holds, for two who read it; it takes what they leave. */
static void
test_pass(void **state)
{
	enum { ALL = 40 * SMALL, AHEAD = 3000 };
	struct store_key k = { S("key"), S(""), 0 };
	struct store_ref w, r[2];
	unsigned waits = 0;

	(void)state;
	opened(SMALL);
	k = key_of(6, "");
	assert_true(store_begin(&k, &w) && put_head(&w, 6, 1, false) && pass_on(&w, 900));
	be(1);
	assert_true(find(&k, false, &r[0]));
	be(2);
	assert_true(find(&k, false, &r[1]));
	read_on(&r[1], 6, 1, 10);
	while (store_length(&w) < ALL) {
		size_t n = dice(AHEAD);
		int got;
		be(0);
		got = store_pass(&w, n);
		assert_false(w.busy);
		assert_int_equal(got, w.room >= n ? 1 : -1);
		if (got == 1) {
			assert_true(pass_on(&w, n));
		} else if (store_wait(&w)) { /* whoever has not read all will tell */
			waits++;
			be(r[0].pos < r[1].pos ? 1 : 2);
			read_on(&r[shelf.slot - 1], 6, 1, SIZE_MAX);
			assert_false(entry_at(w.entry)->waiters[0]);
		}
		be(1 + dice(2));
		read_on(&r[shelf.slot - 1], 6, 1, dice(2 * AHEAD));
		assert_in_range(s->fresh - 1 - s->n_free, 1, 40);
	}
	assert_true(waits > 10);
	be(0);
	assert_int_equal(got(6, ""), -1);
	store_finish(&w, true);
	for (unsigned i = 0; i < 2; i++) {
		be(i + 1);
		while (read_on(&r[i], 6, 1, SIZE_MAX) > 0)
			;
		assert_int_equal(r[i].state, STORE_WHOLE);
		assert_int_equal(r[i].pos, store_length(&w));
		store_drop(&r[i]);
	}
	be(0);
	assert_int_equal(store_pass(&w, 1), 0);
	store_drop(&w);
	assert_int_equal(audit(), 0);
}

/* ---- beside a model ---- */

static void
test_model(void **state)
{
	enum { REFS = 12 };
	static struct { struct store_ref r; unsigned key, version; } refs[REFS];
	int whole[KEYS], hits = 0;

	(void)state;
	opened(SMALL);
	memset(refs, 0, sizeof refs);
	for (int i = 0; i < KEYS; i++)
		whole[i] = -1;
	for (unsigned turn = 1; turn < 30000; turn++) {
		unsigned i = dice(REFS), key = dice(KEYS), version = turn & 0xffff;
		struct store_ref *r = &refs[i].r;
		struct store_key k = key_of(key, "");
		int g;

		be(i % WORKERS);
		switch (dice(12)) {
		case 0: case 1: case 2:
			g = got(key, "");
			hits += g >= 0;
			assert_true(g == -1 || g == whole[key]); /* evicted, or the last one */
			if (g == -1)
				whole[key] = -1;
			break;
		case 3: case 4: case 5: /* nobody else fills it: this model has one at a time */
			if (r->entry)
				break;
			refs[i].key = key;
			refs[i].version = version;
			if (find(&k, true, r) || !store_begin(&k, r) || !put_head(r, key, version, turn % 2))
				store_drop(r);
			break;
		case 6: case 7:
			if (r->writing && !put_body(r, refs[i].key, refs[i].version, dice(3000)))
				store_drop(r);
			else if (r->writing && store_length(r) == body_length(refs[i].key, refs[i].version)) {
				bool purged = entry_gone(entry_at(r->entry));
				store_finish(r, true);
				store_drop(r);
				if (!purged)
					whole[refs[i].key] = (int)refs[i].version;
			}
			break;
		case 8:
			if (!r->writing && r->entry)
				read_on(r, refs[i].key, refs[i].version, dice(2000));
			break;
		case 9:
			store_drop(r);
			break;
		case 10:
			if (dice(8) == 0) {
				store_purge_key(k.key);
				whole[key] = -1;
			} else if (dice(500) == 0) {
				store_purge_all();
				for (int n = 0; n < KEYS; n++)
					whole[n] = -1;
			}
			break;
		default:
			if (!r->entry && find(&k, false, r)) {
				if (r->state == STORE_WHOLE) {
					refs[i].key = key;
					refs[i].version = whole_head(key);
				} else
					store_drop(r);
			}
		}
		if (turn % 50 == 0)
			audit();
	}
	for (unsigned i = 0; i < REFS; i++) {
		be(i % WORKERS);
		store_drop(&refs[i].r);
	}
	assert_int_equal(audit(), 0);
	assert_true(hits > 1000);
}

/* ---- memory ---- */

static size_t
resident(void)
{
	size_t pages = s->size / 4096, n = 0;
	unsigned char *v = malloc(pages);

	assert_int_equal(mincore(s, s->size, v), 0);
	for (size_t i = 0; i < pages; i++)
		n += v[i] & 1;
	free(v);
	return n * 4096;
}

static void
test_bounds(void **state)
{
	static const size_t sizes[] = { SMALL, 65537, 100000, 1 << 20, 8 << 20, 1 << 28 };

	(void)state;
	for (size_t i = 0; i < LEN(sizes); i++) {
		opened(sizes[i]);
		assert_true(store_use(s) <= sizes[i]);
		assert_true(store_use(s) + sizes[i] / 200 + 1024 > sizes[i]);
	}
	assert_true(put(1, "", 1));
	assert_true(resident() < 64 * 1024);
	assert_null(store_open(1000));
}

/* Objects of 1 KB. */
static bool
put_object(unsigned n)
{
	static const char body[1024];
	struct store_key k = key_of(n * 7, "");
	struct store_ref r;
	struct policy f = { 0 };
	bool good = store_begin(&k, &r) && store_head(&r, &f, slice_of("Content-Type: a"), 1024) &&
	    store_add(&r, (struct slice){ body, sizeof body });

	if (r.writing)
		store_finish(&r, good);
	store_drop(&r);
	return good;
}

static bool
hit_object(unsigned n)
{
	struct store_key k = key_of(n * 7, "");
	struct store_ref r;
	bool hit = find(&k, false, &r);

	store_drop(&r);
	return hit || (put_object(n), false);
}

static void
test_many_objects(void **state)
{
	(void)state;
	opened(8 << 20);
	for (unsigned n = 0; n < 10000; n++)
		assert_true(put_object(n));
	assert_in_range(s->entries, 4500, 10000);
	assert_true(resident() <= s->size && store_stats(s).used <= s->size);
	assert_int_equal(audit(), 0);
}

/* Half of the lookups are of 1000 keys, the other half of keys that come once; there is
 * room for some 2000. Later 1000 others are hot. */
static void
test_scan(void **state)
{
	unsigned once = 100000, hits[4] = { 0 };

	(void)state;
	opened(3 << 20);
	for (unsigned part = 0; part < LEN(hits); part++)
		for (unsigned i = 0; i < 20000; i++) {
			hits[part] += hit_object(dice(1000) + (part < 2 ? 0 : 5000));
			hit_object(once++);
			if (part == 1) /* a burst of them */
				hit_object(once++), hit_object(once++);
		}
	print_message("hot set under scan: %u %u, another: %u %u of 20000; %u entries\n", hits[0],
	    hits[1], hits[2], hits[3], (unsigned)s->entries);
	assert_true(hits[0] > 18000 && hits[1] > 18000 && hits[2] > 17000 && hits[3] > 19500);
	assert_int_equal(audit(), 0);
}

/* ---- killed at each instruction ---- */

static struct store_ref step_ref, step_other, step_reader;

static void
step_begin(void)
{
	struct store_key k = key_of(6, "");

	store_begin(&k, &step_ref);
}

static void
step_fill(void)
{
	put_head(&step_ref, 6, 1, false);
	put_body(&step_ref, 6, 1, SIZE_MAX);
}

static void
step_pass(void)
{
	store_pass(&step_ref, step_ref.room + 600);
}

static void
step_finish(void)
{
	store_finish(&step_ref, true);
}

static void
step_drop(void)
{
	store_drop(&step_ref);
}

static void
step_find(void)
{
	struct store_key k = key_of(9, "");

	find(&k, false, &step_ref);
}

static void
step_update(void)
{
	struct policy f = facts_of(9, 5 << 16 | 1);

	store_update(&step_ref, &f, head_for(9, 5 << 16 | 1));
}

static void
step_update_short(void)
{
	struct policy f = facts_of(9, 7 << 16 | 1);

	store_update(&step_ref, &f, head_for(9, 7 << 16 | 1));
}

static void
step_purge(void)
{
	store_purge_key(key_of(9, "").key);
}

/* Everything again, with victims, in one go. */
static void
step_put_more(void)
{
	for (unsigned i = 0; i < 2; i++)
		put(300 + i * 5, "", 4);
}

static char *was, *first;

/* As if the worker had been killed here. What another has pinned stays; all that is
 * found is whole. */
static void
step_look(void)
{
	static const unsigned keys[] = { 6, 9, 300, 305 };
	unsigned others = (step_other.entry > 0) + (step_reader.entry > 0);
	struct store_ref r = step_other, reader = step_reader;

	if (memcmp(s, was, SMALL) == 0)
		return;
	memcpy(was, s, SMALL);
	be(MASTER);
	assert_true(store_repair(s, 0));
	assert_int_equal(audit(), others);
	be(1);
	for (size_t i = 0; i < LEN(keys); i++) {
		int version = got(keys[i], "");
		assert_true(version == -1 || i > 1 || version == 1 || version == 2 ||
		    version == (5 << 16 | 1) || version == (7 << 16 | 1));
	}
	while (read_on(&r, 9, 1, SIZE_MAX) > 0)
		;
	assert_int_equal(r.pos, body_length(9, 1));
	head.n = 0;
	if (reader.entry && store_look(&reader, &facts, &head) && head.n > 0 && whole_head(6) == 1)
		while (read_on(&reader, 6, 1, SIZE_MAX) > 0)
			;
	if (reader.entry)
		assert_in_range(reader.state, STORE_WHOLE, STORE_CUT);
	memcpy(s, was, SMALL);
	be(0);
}

/* Looks before, between any two instructions of it, and behind; then does it. */
static void
each_step(void (*operation)(void))
{
	pid_t pid = fork();
	int status, steps = 0;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(1);
		raise(SIGSTOP);
		operation();
		kill(getpid(), SIGSTOP);
		_exit(0);
	}
	memcpy(first, s, SMALL);
	assert_true(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	for (bool ends = false; !ends && steps < STEPS_MAX; steps++) {
		step_look();
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSTOPPED(status));
		ends = steps > 0 && WSTOPSIG(status) == SIGSTOP;
	}
	step_look();
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_in_range(steps, 10, STEPS_MAX - 1);
	memcpy(s, first, SMALL);
	operation();
}

static void
killed_at_each_step(void (*const *operations)(void), size_t n_operations)
{
	struct store_key k;

	was = malloc(SMALL);
	first = malloc(SMALL);
	opened(SMALL);
	shelf.n_bells = 0;
	be(1);
	shelf.n_bells = 0;
	assert_true(put(6, "", 1) && put(9, "", 1));
	for (unsigned n = 100; s->evicted.lo == 0 && n < 300; n++)
		if (n % 5)
			put(n, "", 2);
	assert_true(put(6, "", 1) && put(9, "", 1));
	k = key_of(9, "");
	assert_true(find(&k, false, &step_other));
	be(0);
	assert_true(put(8, "", 1) && put(6, "", 1));
	for (size_t i = 0; i < n_operations; i++) {
		if (operations[i] == step_pass) {
			be(1);
			if (store_look(&step_reader, &facts, &head))
				read_on(&step_reader, 6, 1, step_ref.room ? 1300 : 0);
			be(0);
		}
		each_step(operations[i]);
		if (operations[i] != step_begin)
			continue;
		be(1); /* reads while it is filled, and longer */
		k = key_of(6, "");
		assert_true(find(&k, true, &step_reader));
		be(0);
	}
	store_drop(&step_ref);
	be(1);
	store_drop(&step_other);
	store_drop(&step_reader);
	assert_int_equal(audit(), 0);
	free(was);
	free(first);
	shelf.n_bells = 4;
}

static void
test_killed_at_each_step(void **state)
{
	static void (*const operations[])(void) = { step_begin, step_fill, step_finish, step_drop,
		step_find, step_update, step_update_short, step_drop, step_put_more, step_find,
		step_purge };

	(void)state;
	killed_at_each_step(operations, LEN(operations));
}

/* The reader goes on before each pass; at last it has read all. */
static void
test_killed_passing(void **state)
{
	static void (*const operations[])(void) = { step_begin, step_fill, step_pass, step_pass,
		step_pass, step_finish, step_drop };

	(void)state;
	killed_at_each_step(operations, LEN(operations));
}

/* ---- killed at random ---- */

/* A worker's life: whatever it finds is right, or it aborts. */
static void
live(unsigned slot)
{
	enum { REFS = 6 };
	struct { struct store_ref r; unsigned key, version; } refs[REFS] = { 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	store_join(s, slot);
	head = (struct text){ head_bytes, 0, sizeof head_bytes, false };
	unit_seed = (uint32_t)getpid() * 2654435761u;
	if (nice(5) < 0) /* the parent is not to wait for its turn */
		_exit(1);
	for (unsigned turn = 0;; turn++) {
		unsigned i = dice(REFS), key = dice(KEYS), version = dice(60000) + 1;
		struct store_ref *r = &refs[i].r;
		struct store_key k = key_of(key, "");

		if (r->entry && r->writing) {
			if (!refs[i].version || !put_body(r, refs[i].key, refs[i].version, dice(2000)))
				store_drop(r);
			else if (store_length(r) == body_length(refs[i].key, refs[i].version)) {
				store_finish(r, true);
				store_drop(r);
			}
		} else if (r->entry) {
			if (!refs[i].version && r->state == STORE_BEGUN) {
				head.n = 0;
				if (!store_look(r, &facts, &head))
					continue;
				if (r->state == STORE_BEGUN && store_wait(r))
					continue;
				if (head.n > 0)
					refs[i].version = whole_head(refs[i].key);
			}
			if (refs[i].version && read_on(r, refs[i].key, refs[i].version, 1 + dice(3000)) > 0)
				continue;
			if (r->state == STORE_WHOLE && refs[i].version &&
			    r->pos != body_length(refs[i].key, body_version(refs[i].version)))
				wrong("length", refs[i].key, refs[i].version, r->pos);
			if (r->state == STORE_WHOLE && dice(4) == 0) {
				unsigned next = body_version(refs[i].version) | dice(1000) << 16;
				struct policy f = facts_of(refs[i].key, next);
				store_update(r, &f, head_for(refs[i].key, next));
			}
			if (r->state == STORE_WHOLE || r->state == STORE_CUT || dice(50) == 0)
				store_drop(r);
		} else if (dice(100) == 0) {
			store_purge_key(k.key);
		} else if (find(&k, false, r)) {
			refs[i].key = key;
			refs[i].version = r->state == STORE_BEGUN || head.n == 0 ? 0 : whole_head(key);
			if (r->state == STORE_WHOLE && dice(4) == 0) {
				store_drop(r);
				if (store_begin(&k, r) && r->writing && put_head(r, key, version, turn % 2))
					refs[i].version = version;
				else
					store_drop(r);
			}
		} else if (store_begin(&k, r)) {
			refs[i].key = key;
			refs[i].version = 0;
			if (r->writing && dice(10) > 0) {
				refs[i].version = version;
				if (!put_head(r, key, version, turn % 2))
					store_drop(r);
			}
		}
	}
}

static pid_t
worker_fork(unsigned slot)
{
	pid_t pid = fork();

	if (pid == 0) {
		live(slot);
		_exit(1);
	}
	return pid;
}

static void
test_killed_at_random(void **state)
{
	pid_t pids[WORKERS];
	unsigned amid = 0, late = 0, hits = 0;
	int64_t from = clock_us(), longest = 0;

	(void)state;
	opened(SMALL);
	be(MASTER);
	for (unsigned i = 0; i < WORKERS; i++)
		pids[i] = worker_fork(i);
	for (unsigned kills = 0; kills < KILLS;) {
		unsigned who = 1 + dice((1 << WORKERS) - 1), tries = 0;
		int status;

		nanosleep(&(struct timespec){ 0, (long)(100 + dice(2500)) * 1000 }, NULL);
		if (waitpid(-1, &status, WNOHANG) > 0) /* what it found was wrong */
			fail_msg("a worker ended after %u kills: status 0x%x", kills, (unsigned)status);
		for (unsigned i = 0; i < WORKERS; i++)
			if (who >> i & 1) {
				kill(pids[i], SIGKILL);
				assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
				assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
				amid += s->lock == i + 1;
				kills++;
			}
		for (unsigned i = 0; who; i = (i + 1) % WORKERS) {
			int64_t began = clock_us();
			if (!(who >> i & 1))
				continue;
			assert_in_range(++tries, 1, 1000);
			if (!store_repair(s, i)) {
				late++;
				continue;
			}
			longest = MAX(longest, clock_us() - began);
			pids[i] = worker_fork(i);
			who &= ~(1u << i);
		}
		hits += s->entries > 3;
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		if (s->lock == i + 1)
			assert_true(store_repair(s, i));
	for (unsigned i = 0; i < WORKERS; i++)
		assert_true(store_repair(s, i));
	print_message("%d kills, %u of them with the lock held, %u later tries; repair took %d us at most; "
	    "%u missed the lock; %d ms\n", KILLS, amid, late, (int)longest,
	    (unsigned)store_stats(s).missed_lock, (int)((clock_us() - from) / 1000));
	assert_true(hits > KILLS / 4);
	assert_int_equal(audit(), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill_and_read),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_killed_writer_is_told),
		cmocka_unit_test(test_no_wake_is_lost),
		cmocka_unit_test(test_replace),
		cmocka_unit_test(test_variants),
		cmocka_unit_test(test_update),
		cmocka_unit_test(test_purge),
		cmocka_unit_test(test_busy_lock),
		cmocka_unit_test(test_pass),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_many_objects),
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_killed_at_each_step),
		cmocka_unit_test(test_killed_passing),
		cmocka_unit_test(test_killed_at_random),
	};

	cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
