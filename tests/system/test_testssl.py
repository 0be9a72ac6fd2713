"""testssl.sh looks at warp: nothing above LOW but the absence of TLS 1.3, and an authority it does not know."""
import json
import os
import shutil
import subprocess

import pytest

from lib import SLOW

# Not of the protocol: who signed the test's certificate, for how long, what a static answer lacks.
IGNORED = ("cert_chain_of_trust", "cert_trust", "cert_notBefore", "cert_validityPeriod", "cert_expirationStatus", "OCSP_stapling",
           "cert_revocation", "DNS_CAArecord", "cert_crlDistributionPoints", "cert_ocspURL", "cert_certificatePolicies_EV",
           "engine_problem", "scanTime", "overall_grade", "grade_cap")
WARNINGS = ("MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL")


def findings(port, file, *checks):
    """What it found: id -> (severity, words)."""
    testssl = shutil.which("testssl") or shutil.which("testssl.sh") or pytest.skip("no testssl")
    p = subprocess.run([testssl, "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--fast", "--ip", "127.0.0.1",
                        "--jsonfile", str(file), *checks, "a.example:%d" % port], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                       env=dict(os.environ, MAX_WAITSOCK="5"), timeout=170 * SLOW)
    try:
        got = json.loads(file.read_text())
    except (OSError, ValueError):
        raise AssertionError("testssl has no result:\n" + p.stdout[-3000:]) from None
    return {f["id"]: (f["severity"], f["finding"]) for f in got}


@pytest.mark.limit(180)
@pytest.mark.parametrize("checks", [["-p", "-S", "-P", "-f"], ["-U"]], ids=["protocols", "vulnerabilities"])
def test_testssl(https, pki, tmp_path, checks):
    w = https(pki.cert("a.example", days=90), pki.cert("a.example", key="rsa", days=90), server=dict(max_connections=4096))
    got = findings(w.https, tmp_path / "found.json", *checks)
    bad = {k: v for k, v in got.items() if v[0] in WARNINGS and not k.startswith(IGNORED) and "local OpenSSL" not in v[1]}
    assert len(got) > 10, got
    if "-p" in checks:
        assert got["TLS1_2"][0] == "OK" and "offered" in got["TLS1_2"][1]
        assert "not offered" in got["TLS1"][1] and "not offered" in got["TLS1_1"][1]
        bad.pop("TLS1_3", None)
    assert not bad, "\n".join("%s: %s: %s" % (k, *v) for k, v in bad.items())
    assert w.tls().ask().text == "ok"
