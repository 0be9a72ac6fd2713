#!/bin/sh
# Makes the certificates that the unit tests and fuzz seeds are made of, anew.
# They are good until 2124; needs openssl 3.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
days=36000
p256() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
sign() { # NAME SUBJECT EXTENSIONS KEY CA
	openssl req -new -key "$4" -subj "$2" -out "$tmp/csr" -batch
	printf '%b' "$3" >"$tmp/ext"
	openssl x509 -req -in "$tmp/csr" -CA "$tmp/$5.crt" -CAkey "$tmp/$5.key" -CAcreateserial \
	    -days $days -extfile "$tmp/ext" -out "$1" 2>/dev/null
}
ca='basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n'
leaf='authorityKeyIdentifier=keyid\n'

p256 "$tmp/root.key"
openssl req -x509 -new -key "$tmp/root.key" -subj "/O=Test/CN=Root" -days $days -out "$tmp/root.crt"
p256 "$tmp/inter.key"
sign "$tmp/inter.crt" "/O=Test/CN=Inter" "$ca" "$tmp/inter.key" root
p256 ec.key
sign "$tmp/ec.crt" "/CN=ignored.example" "${leaf}subjectAltName=DNS:A.example,DNS:*.w.example,IP:127.0.0.1\n" ec.key inter
cat "$tmp/ec.crt" "$tmp/inter.crt" >ec.pem
cat "$tmp/ec.crt" "$tmp/root.crt" "$tmp/inter.crt" >disorder.pem
cat "$tmp/inter.crt" "$tmp/ec.crt" >behind.pem
cat ec.key "$tmp/ec.crt" "$tmp/inter.crt" | sed 's/$/\r/' >both.pem
head -c 700 ec.pem >cut.pem
{ openssl ecparam -name prime256v1; cat ec.key; } >params.key
openssl pkcs8 -topk8 -nocrypt -in ec.key -out ec8.key
openssl pkcs8 -topk8 -in ec.key -out encrypted.key -passout pass:x
openssl ec -in ec.key -aes128 -passout pass:x -out encrypted1.key 2>/dev/null
openssl genrsa 2048 2>/dev/null >rsa.key
openssl rsa -in rsa.key -traditional -out rsa1.key 2>/dev/null
openssl req -x509 -new -key rsa.key -subj "/O=Only O/CN=Cn.Example" -days $days -out rsa.pem
openssl genrsa 1024 2>/dev/null >weak.key
openssl req -x509 -new -key weak.key -subj "/CN=weak.example" -days $days -out weak.pem
openssl ecparam -name secp384r1 -genkey -noout -out p384.key
openssl req -x509 -new -key p384.key -subj "/CN=a.example" -days $days -out p384.pem
openssl ecparam -name secp256k1 -genkey -noout -out k1.key
openssl genpkey -algorithm ed25519 -out ed.key
openssl req -new -key ec.key -subj "/CN=old.example" -out "$tmp/csr" -batch
: >"$tmp/index"
echo unique_subject = no >"$tmp/index.attr"
echo 01 >"$tmp/serial"
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\nserial=%s/serial\nnew_certs_dir=%s\ndefault_md=sha256\nunique_subject=no\npolicy=p\n[p]\ncommonName=supplied\n' \
    "$tmp" "$tmp" "$tmp" >"$tmp/conf"
openssl ca -batch -config "$tmp/conf" -cert "$tmp/root.crt" -keyfile "$tmp/root.key" -notext \
    -startdate 20200101000000Z -enddate 20200102000000Z -in "$tmp/csr" -out expired.pem 2>/dev/null
openssl ca -batch -config "$tmp/conf" -cert "$tmp/root.crt" -keyfile "$tmp/root.key" -notext \
    -startdate 21200101000000Z -enddate 21210102000000Z -in "$tmp/csr" -out future.pem 2>/dev/null
cp "$tmp/root.crt" root.pem
