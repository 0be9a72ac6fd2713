"""varnish: a cache and nothing else here."""

from . import Base

VCL = """
vcl 4.1;
backend app { .host = "%s"; .port = "%s"; .max_connections = 300; }
sub vcl_recv { if (req.url ~ "^/nocache/") { return (pass); } }
"""


class Proxy(Base):
    name = "varnish"
    program = "varnishd"
    features = {"cache"}

    def command(self, s):
        vcl = s.write("default.vcl", VCL % tuple(s.upstreams[0].rsplit(":", 1)))
        # one CPU: one pool of threads; what is kept alive must survive a quiet moment
        return [self.binary(), "-F", "-n", s.path("v"), "-a", "127.0.0.1:%d" % s.port, "-T", "none", "-f", vcl,
                "-s", "malloc,%d" % s.cache, "-p", "default_ttl=3600", "-p", "timeout_idle=300", "-p", "thread_pools=1"]
