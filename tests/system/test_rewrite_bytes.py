"""What strip_prefix, rewrite and path_regex did not match arrives as the client sent it, byte for byte:
signed URLs hold. Routes match the normalised view as ever."""
import pytest

from lib import conf, request

# What a client may write and nobody may change: escapes that decode to plain bytes, in either case, empty
# segments, dots that stay below, bytes of UTF-8 as they are.
REST = ["/a%3Bb;c", "/a%3bb", "/x//y", "/https://x.example/y", "/%7Euser/%41", "/k%27s/%28%29", "/%c3%a4/%C3%A4", "/a%2Fb%2fc",
        "/a%25b%2541", "/a/./b", "/a/b/../c", "/a/b//../c", "/a/", "/a//", "/s%20t+u", "/\xc3\xa4", "/a[0]|{x}^`", "/a%3Fb%23c",
        "/r?Sig=a%2Fb//%3B&e=1", "/...;x", "/a%5Cb"]
STRIP = dict(path_prefix="/app", strip_prefix=True)
REPLACE = dict(path_prefix="/app", rewrite="/new/base")
REGEX = dict(path_regex="^/app", rewrite="/v2")
GROUP = dict(path_regex="^/app/(.*)$", rewrite="/files/$1")


@pytest.mark.parametrize("keys, front", [(STRIP, ""), (REPLACE, "/new/base"), (REGEX, "/v2"), (GROUP, "/files")],
                         ids=["strip_prefix", "rewrite", "path_regex", "groups"])
def test_the_rest_is_the_clients(warp, backend, keys, front):
    """However the prefix itself was spelled."""
    b = backend()
    w = warp(conf(keys, app=b))
    changed = []
    with w.client() as c:
        for spelled in ("/app", "/%61pp", "//app", "/x/../app", "/./a%70p", "/app/../app", "/app/y/../../app"):
            for rest in REST:
                c.send(request(spelled + rest))
                assert c.response().status == 200, spelled + rest
                if b.last.target != front + rest:
                    changed.append((spelled + rest, b.last.target))
    assert not changed, "%d changed, such as %s" % (len(changed), changed[:5])


# reason: keys, and what comes of which target
CUTS = {
    "a prefix with its slash": (dict(path_prefix="/app/", strip_prefix=True), [("/app/a%3Bb", "/a%3Bb"), ("/%61pp/x//y", "/x//y")]),
    "in the middle of a segment": (STRIP, [("/append%69x", "/end%69x"), ("/app%3B1", "/%3B1"), ("/app%2Fx", "/%2Fx"), ("/app", "/")]),
    "an exact path": (dict(path_exact="/a b", rewrite="/c d"), [("/a%20b?x=%3B", "/c%20d?x=%3B"), ("//%61%20b", "/c%20d")]),
    "no path at all": (dict(rewrite="/one"), [("/a%3Bb//c?q=//", "/one?q=//")]),
    "before and behind a match": (dict(path_regex="/v([0-9]+)/", rewrite="/api-$1/"), [
        ("/a%3Bb//c/v%32/d%3Be//f", "/a%3Bb//c/api-%32/d%3Be//f"), ("/x/../y%3B/v1/z", "/x/../y%3B/api-1/z")]),
    "groups in another order": (dict(path_regex="^/(.*)/by/(.*)$", rewrite="/$2/$1"), [("/a%3Bb/by/c%3Bd//e", "/c%3Bd//e/a%3Bb")]),
    "a group that is not there": (dict(path_regex="^/a(/x)?/(.*)$", rewrite="/$1b/$2"), [("/a/c%3B", "/b/c%3B")]),
    "an absolute target": (STRIP, [("http://a.example/app/x%3B//y?z", "/x%3B//y?z")]),
    "what was configured is still encoded": (dict(path_prefix="/app", rewrite="/neu \u00e4"), [("/app/x%3B", "/neu%20%C3%A4/x%3B")]),
}


@pytest.mark.parametrize("reason", CUTS)
def test_cut(warp, backend, reason):
    keys, rows = CUTS[reason]
    b = backend()
    w = warp(conf(keys, app=b))
    for sent, want in rows:
        assert w.ask(sent).status == 200 and b.last.target == want, (reason, sent, b.last.target)


def test_what_is_left_stays_below(warp, backend):
    """Dots that the client left in the rest lead no higher than where it was cut."""
    b = backend()
    w = warp(conf(STRIP, {"respond": {"status": 404}}, app=b))
    for t, want in (("/app/../x", 404), ("/app/a/../../x", 404), ("/app/..%2Fx", 400), ("/app/%2e%2e/x", 404), ("/app/a/../b", 200),
                    ("/x/../../app", 400)):
        assert w.ask(t).status == want, t
    assert w.ask("/app/..;/x").status in (400, 404), "as for routes, see test_trust"
    assert [r.target for r in b.requests if r.target != "/a/../b"] == []


# reason: keys, targets that are refused, and what comes of others
SEAMS = {
    "behind half a segment": (STRIP, ["/app../x", "/app%2e%2e/x", "/app..;y/x", "/app.", "/app..", "/app/y/../../app../x"], {"/app.../x": "/.../x", "/app/./b/../c": "/./b/../c"}),
    "rewritten": (REPLACE, ["/app..\\..\\x"], {"/app../x": "/new/base../x"}),
    "a group": (dict(path_regex="^/app-(.*)$", rewrite="/img/$1"), ["/app-../x", "/app-..", "/app-..%2Fx", "/app-..%5cx", "/app-..;/x"], {"/app-.a/./b": "/img/.a/./b"}),
    "two of them": (dict(path_regex="^/(.*)x(.*)$", rewrite="/p/$1$2"), ["/.x.", "/a/.x./b", "/x..", "/a/%2Ex%2e/b"], {"/.x.a/./b": "/p/..a/./b"}),
    "a value": (dict(path_prefix="/app", rewrite="/u/{query.u}"), ["/app/r?u=" + v for v in (".", "..", "..;x", "..%3bx", "../..", "..%2f..", "a/..", "a\\..", "%2e.")], {
        "/app/a/../r?u=.a/b": "/u/.a%2Fb/a/../r?u=.a/b", "/app/r?u=...": "/u/.../r?u=..."}),
    "two values": (dict(path_prefix="/app", rewrite="/u/{query.u}{query.v}"), ["/app/r?u=.&v=.%2f"], {}),
}


@pytest.mark.parametrize("reason", SEAMS)
def test_no_dots_where_it_was_cut(warp, backend, reason):
    """`/app../x` without `/app` would lead above what the upstream is to show."""
    keys, bad, good = SEAMS[reason]
    b = backend()
    w = warp(conf(keys, app=b))
    with w.client() as c:
        for t in bad:
            assert c.ask(t).status == 400, (t, b.requests and b.last.target)
        assert not b.requests
        for t, want in good.items():
            assert c.ask(t).status == 200 and b.last.target == want, t


def test_a_target_of_full_length(warp, backend):
    """Escapes make the client's bytes three times as long as the view: nothing is cut off, nothing fails."""
    b = backend()
    w = warp(conf(STRIP, app=b))
    rest = "/" + "%3B" * 2500
    assert w.ask("/app" + rest).status == 200 and b.last.target == rest
