package typha

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// An authority issues certificates and writes them to files.
type authority struct {
	testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{TB: t, dir: t.TempDir(), key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.write("ca.crt", "CERTIFICATE", der)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) write(name, kind string, der []byte) string {
	a.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.Fatal(err)
	}
	return path
}

// issue returns the files of a certificate with a common name and a URI, either of which may be "", for somebody who
// trusts this authority.
func (a *authority) issue(cn, uri string, usages ...x509.ExtKeyUsage) TLSFiles {
	a.Helper()
	key := newKey(a)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: usages,
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			a.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.Fatal(err)
	}
	name := template.SerialNumber.String()
	return TLSFiles{
		CA: filepath.Join(a.dir, "ca.crt"), Cert: a.write(name+".crt", "CERTIFICATE", der), Key: a.write(name+".key", "EC PRIVATE KEY", keyDER),
	}
}

func (f TLSFiles) wants(cn, uri string) TLSFiles {
	f.PeerCN, f.PeerURISAN = cn, uri
	return f
}

const (
	forClient = x509.ExtKeyUsageClientAuth
	forServer = x509.ExtKeyUsageServerAuth
	feliURI   = "spiffe://k8s.example.com/felix"
)

// TestMutualTLS tries certificates of both sides.
func TestMutualTLS(t *testing.T) {
	ca, strange := newAuthority(t), newAuthority(t)
	server := ca.issue("typha-server", "spiffe://typha", forServer)
	for _, c := range []struct {
		name           string
		server, client TLSFiles
		want           error // nil: it works
	}{
		{"common names", server.wants("felix", ""), ca.issue("felix", "", forClient).wants("typha-server", ""), nil},
		{"URIs", server.wants("", feliURI), ca.issue("", feliURI, forClient).wants("", "spiffe://typha"), nil},
		{"either will do", server.wants("felix", feliURI), ca.issue("another", feliURI, forClient).wants("other", "spiffe://typha"), nil},
		{"client's CN is another", server.wants("felix", ""), ca.issue("mallory", "", forClient).wants("typha-server", ""), store.ErrForbidden},
		{"client's CN as a URI", server.wants("felix", ""), ca.issue("mallory", "felix", forClient).wants("typha-server", ""), store.ErrForbidden},
		{"client's URI is another", server.wants("", feliURI), ca.issue("felix", feliURI+"x", forClient).wants("typha-server", ""), store.ErrForbidden},
		{"client of another authority", server.wants("felix", ""), mixed(strange.issue("felix", "", forClient), ca).wants("typha-server", ""), store.ErrForbidden},
		{"client with a server's certificate", server.wants("felix", ""), ca.issue("felix", "", forServer).wants("typha-server", ""), store.ErrForbidden},
		{"server's CN is another", server.wants("felix", ""), ca.issue("felix", "", forClient).wants("typha", ""), store.ErrForbidden},
		{"server's URI is another", server.wants("felix", ""), ca.issue("felix", "", forClient).wants("", "spiffe://typhb"), store.ErrForbidden},
		{"server of another authority", mixed(strange.issue("typha-server", "", forServer), ca).wants("felix", ""),
			ca.issue("felix", "", forClient).wants("typha-server", ""), store.ErrForbidden},
		{"server with a client's certificate", ca.issue("typha-server", "", forClient).wants("felix", ""),
			ca.issue("felix", "", forClient).wants("typha-server", ""), store.ErrForbidden},
		{"client without TLS", server.wants("felix", ""), TLSFiles{}, store.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := filled(3)
			fan := startServer(t, m, ServerConfig{TLS: c.server})
			client := dialWith(t, ClientConfig{Addresses: Fixed(fan.address), TLS: c.client})
			list, err := client.List(t.Context(), "", v3.KindGlobalNetworkSet)
			if !errors.Is(err, c.want) || err == nil && len(list.Items) != 3 {
				t.Errorf("%+v, %v; want %v", list, err, c.want)
			}
			if err != nil {
				eventually(t, "nothing is left of it", func() bool { return value(t, fan.server.metrics.active) == 0 })
			}
		})
	}
}

// mixed makes somebody with a strange certificate trust an authority.
func mixed(f TLSFiles, a *authority) TLSFiles {
	f.CA = filepath.Join(a.dir, "ca.crt")
	return f
}

// TestClientWithoutCertificate: TLS alone is not enough.
func TestClientWithoutCertificate(t *testing.T) {
	ca := newAuthority(t)
	fan := startServer(t, filled(3), ServerConfig{TLS: ca.issue("typha", "", forServer).wants("felix", "")})
	conn, err := tls.Dial("tcp", fan.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return // refused at once, as well
	}
	defer conn.Close()
	_, _ = conn.Write(messageFrame(frameHello, clientHello{Protocol: protocol, Node: "x"}))
	if _, _, err := readFrame(conn, maxClient); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without a certificate: %v", err)
	}
}

// TestStalledTLS: handshakes that stop halfway, as many as there may be, keep nobody out.
func TestStalledTLS(t *testing.T) {
	ca := newAuthority(t)
	m := filled(3)
	fan := startServer(t, m, ServerConfig{TLS: ca.issue("typha", "", forServer).wants("felix", ""), MaxHandshakes: 20, HandshakeTimeout: 2 * time.Second})
	for i := range 60 {
		s := fan.stranger(t)
		if i%2 == 0 {
			_, _ = s.Write([]byte{0x16, 3, 1, 2, 0, 1}) // the beginning of a ClientHello
		}
	}
	follows(t, dialWith(t, ClientConfig{Addresses: Fixed(fan.address), TLS: ca.issue("felix", "", forClient).wants("typha", "")})).same(t, m)
	eventually(t, "those that stalled are gone", func() bool { return value(t, fan.server.metrics.active) == 1 })
	if got := value(t, fan.server.metrics.refused.WithLabelValues("too many")); got == 0 {
		t.Errorf("%v had to make room", got)
	}
}

// TestRenewedCertificates: both sides use new files without a restart, and refuse while they cannot be read.
func TestRenewedCertificates(t *testing.T) {
	ca := newAuthority(t)
	server := ca.issue("typha", "", forServer).wants("felix", "")
	client := ca.issue("felix", "", forClient).wants("typha", "")
	fan := startServer(t, filled(3), ServerConfig{TLS: server})
	c := dialWith(t, ClientConfig{Addresses: Fixed(fan.address), TLS: client})
	list := func() error {
		c.breakAll()
		_, err := c.List(t.Context(), "", v3.KindGlobalNetworkSet)
		return err
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(server.Key, server.Key+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no handshake without a key", func() bool { return list() != nil })
	other := newAuthority(t)
	replacement, theirs := other.issue("typha", "", forServer), other.issue("felix", "", forClient)
	for from, to := range map[string]string{
		replacement.Cert: server.Cert, replacement.Key: server.Key, replacement.CA: server.CA, theirs.Cert: client.Cert, theirs.Key: client.Key,
	} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the new certificates are used", func() bool { return list() == nil })
}

func TestIncompleteTLS(t *testing.T) {
	full := TLSFiles{CA: "a", Cert: "b", Key: "c", PeerCN: "d"}
	names := [5]string{"CA", "Cert", "Key", "CN", "URI"}
	for _, c := range []struct {
		files TLSFiles
		want  string
	}{
		{TLSFiles{}, ""}, {full, ""}, {full.wants("", "u"), ""},
		{full.wants("", ""), "CN or URI is not set"}, {TLSFiles{PeerURISAN: "u"}, "CA, Cert, Key is not set"},
		{TLSFiles{CA: "a"}, "Cert, Key, CN or URI is not set"},
	} {
		err := c.files.Check(names)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.files, err, c.want)
		}
	}
	if _, err := Dial(ClientConfig{Addresses: Fixed("a:1"), Node: "n", TLS: TLSFiles{CA: "a"}}); err == nil {
		t.Error("a client with a part of TLS")
	}
	missing := full
	missing.CA = filepath.Join(t.TempDir(), "none")
	if _, err := Dial(ClientConfig{Addresses: Fixed("a:1"), Node: "n", TLS: missing}); err == nil {
		t.Error("a client with files that do not exist")
	}
}
