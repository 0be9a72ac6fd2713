/* ==== buf ====================================================================
 * Owns    free blocks of two sizes, and the scratch block that every read
 *         goes into first.
 * Offers  block_take, block_give, buf_free, scratch_*.
 * Calls   base. A block belongs to a connection only while bytes wait in it:
 *         on the usual way nothing but the scratch block is touched. */

#define HEADROOM 16 /* before what is read: for a chunk's size line */
#define TAILROOM 16 /* behind it: CRLF, the last chunk */

static struct block *blocks_free[BLOCK_CLASSES];
static unsigned n_blocks_free[BLOCK_CLASSES];
static uint32_t block_bytes[BLOCK_CLASSES] = {
	[BLOCK_SMALL] = BLOCK_SMALL_BYTES,
	[BLOCK_LARGE] = RELAY_BYTES,
};
static struct block *scratch;

/* Large blocks hold a piece of a body, or the longest head and that. */
static void
blocks_open(uint32_t head_bytes)
{
	block_bytes[BLOCK_LARGE] = (uint32_t)sizeof(struct block) + HEADROOM +
	    MAX((uint32_t)RELAY_BYTES, head_bytes) + head_bytes + HEAD_ADDED_MAX + TAILROOM;
}

static struct block *
block_take(enum block_class k)
{
	struct block *b = blocks_free[k];

	if (b) {
		blocks_free[k] = b->next;
		n_blocks_free[k]--;
		return b;
	}
	if (!(b = malloc(block_bytes[k])))
		die_memory(); /* the master starts another worker */
	b->cap = block_bytes[k] - (uint32_t)sizeof *b;
	b->klass = (uint8_t)k;
	return b;
}

static void
block_give(struct block *b)
{
	static const unsigned kept[] = { BLOCKS_KEPT_SMALL, BLOCKS_KEPT_LARGE };

	if (!b)
		return;
	if (n_blocks_free[b->klass] >= kept[b->klass]) {
		free(b);
		return;
	}
	b->next = blocks_free[b->klass];
	blocks_free[b->klass] = b;
	n_blocks_free[b->klass]++;
}

static char *
buf_p(const struct buf *f)
{
	return f->b->data + f->off;
}

static struct slice
buf_slice(const struct buf *f)
{
	return f->b ? (struct slice){ buf_p(f), f->n } : S("");
}

static void
buf_free(struct buf *f)
{
	if (f->b != scratch)
		block_give(f->b);
	*f = (struct buf){ NULL, 0, 0 };
}

/* Drops n bytes from the front; the block goes with the last one. */
static void
buf_eat(struct buf *f, size_t n)
{
	f->off += (uint32_t)n;
	f->n -= (uint32_t)n;
	if (f->n == 0)
		buf_free(f);
}

/* The bytes of f go to a block of their own of that class. */
static void
buf_move(struct buf *f, enum block_class k)
{
	struct block *b = block_take(k);

	memcpy(b->data + HEADROOM, buf_p(f), f->n);
	if (f->b != scratch)
		block_give(f->b);
	f->b = b;
	f->off = HEADROOM;
}

/* A block that lay in scratch has a new owner: scratch is a fresh one. */
static void
scratch_leave(const struct block *b)
{
	if (b == scratch)
		scratch = block_take(BLOCK_LARGE);
}

/* f outlives the event: a few bytes are copied, many keep their block. */
static void
buf_settle(struct buf *f)
{
	if (f->b != scratch || !f->b)
		return;
	if (f->n + HEADROOM + TAILROOM <= block_bytes[BLOCK_SMALL] - sizeof(struct block))
		buf_move(f, BLOCK_SMALL);
	else
		scratch_leave(f->b);
}

/* ==== chan ===================================================================
 * Owns    what a chan owns: its descriptor and unsent bytes.
 * Offers  chan_open, chan_close, chan_send, chan_flush, side_fill, side_settle.
 * Calls   base, loop, buf. The only reads and writes of a connection. */

/* The side whose `in` lies in the scratch block now. */
static struct side *scratch_side;

static void
chan_open(struct chan *ch, int fd, void (*ready)(struct watch *, short))
{
	*ch = (struct chan){ .w = { .fd = fd, .slot = -1, .ready = ready } };
}

static void
side_close(struct side *s)
{
	loop_unwatch(&s->ch.w);
	timer_clear(&s->timer);
	if (scratch_side == s)
		scratch_side = NULL;
	buf_free(&s->in);
	buf_free(&s->ch.out);
	if (s->ch.w.fd >= 0)
		close(s->ch.w.fd);
	s->ch.w.fd = -1;
}

/* Before the event ends, or another side reads: what is in scratch moves. */
static void
side_settle(void)
{
	if (scratch_side)
		buf_settle(&scratch_side->in);
	scratch_side = NULL;
}

/* Makes room for at least one more byte behind s->in; false: head_max is
 * reached. */
static bool
side_room(struct side *s)
{
	struct buf *in = &s->in;

	if (in->n == 0) {
		side_settle();
		buf_free(in);
		*in = (struct buf){ scratch, HEADROOM, 0 };
		scratch_side = s;
		return true;
	}
	if (in->off + in->n + TAILROOM < in->b->cap)
		return true;
	if (in->off > HEADROOM) {
		memmove(in->b->data + HEADROOM, buf_p(in), in->n);
		in->off = HEADROOM;
		return true;
	}
	if (in->b->klass == BLOCK_LARGE)
		return false;
	buf_move(in, BLOCK_LARGE);
	return true;
}

/* Reads once, behind what is there. Returns bytes read, 0 when nothing came
 * (or nothing fits), -1 at the end or on failure: see ch.eof, ch.broken. */
static ssize_t
side_fill(struct side *s)
{
	struct buf *in = &s->in;
	ssize_t got;
	size_t room;

	if (!side_room(s))
		return 0;
	room = in->b->cap - in->off - in->n - TAILROOM;
	do
		got = recv(s->ch.w.fd, buf_p(in) + in->n, MIN(room, (size_t)RELAY_BYTES), 0);
	while (got < 0 && errno == EINTR);
	if (got > 0) {
		in->n += (uint32_t)got;
		return got;
	}
	if (in->n == 0)
		buf_free(in);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (got < 0)
		s->ch.broken = true;
	s->ch.eof = true;
	return -1;
}

/* What the kernel takes now; -1: the peer is gone. */
static ssize_t
chan_writev(struct chan *ch, struct iovec *v, int n)
{
	struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)n };
	ssize_t put;

	do
		put = n == 1 ? send(ch->w.fd, v[0].iov_base, v[0].iov_len, MSG_NOSIGNAL)
		             : sendmsg(ch->w.fd, &m, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	if (put >= 0)
		return put;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
		return 0;
	ch->broken = true;
	return -1;
}

/* Skips put bytes of v; returns the first piece that is left. */
static int
iov_skip(struct iovec *v, int n, size_t put)
{
	int i = 0;

	while (i < n && put >= v[i].iov_len)
		put -= v[i++].iov_len;
	if (i < n) {
		v[i].iov_base = (char *)v[i].iov_base + put;
		v[i].iov_len -= put;
	}
	return i;
}

/* Keeps what was not sent in out. A last piece that lies in `owner`, and only
 * that, takes the block along; anything else is copied. */
static bool
chan_keep(struct chan *ch, struct iovec *v, int n, struct buf *owner)
{
	struct buf *out = &ch->out;
	size_t total = 0;

	for (int i = 0; i < n; i++)
		total += v[i].iov_len;
	if (n == 1 && owner && owner->b) {
		scratch_leave(owner->b);
		*out = (struct buf){ owner->b,
		    (uint32_t)((char *)v[0].iov_base - owner->b->data), (uint32_t)total };
		*owner = (struct buf){ NULL, 0, 0 };
		return true;
	}
	out->b = block_take(total <= block_bytes[BLOCK_SMALL] - sizeof(struct block) ?
	    BLOCK_SMALL : BLOCK_LARGE);
	for (int i = 0; i < n && out->n + v[i].iov_len <= out->b->cap; i++) {
		memcpy(out->b->data + out->n, v[i].iov_base, v[i].iov_len);
		out->n += (uint32_t)v[i].iov_len;
	}
	return out->n == total;
}

/* Sends v[0 .. n), which together fit a large block, or keeps what is left.
 * owner: the buf whose block the last piece lies in and that is otherwise used
 * up, or NULL. Only while out is empty. -1: the peer is gone. */
static int
chan_send(struct chan *ch, struct iovec *v, int n, struct buf *owner)
{
	ssize_t put = chan_writev(ch, v, n);
	int i;

	if (put < 0)
		return -1;
	i = iov_skip(v, n, (size_t)put);
	if (i < n && !chan_keep(ch, v + i, n - i, owner))
		ch->broken = true;
	return ch->broken ? -1 : 0;
}

/* Sends what waits; true when nothing does any more. */
static bool
chan_flush(struct chan *ch)
{
	struct iovec v;
	ssize_t put;

	if (ch->out.n == 0)
		return true;
	v = (struct iovec){ buf_p(&ch->out), ch->out.n };
	put = chan_writev(ch, &v, 1);
	if (put > 0)
		buf_eat(&ch->out, (size_t)put);
	return ch->out.n == 0;
}

