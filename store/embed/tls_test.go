package embed_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/embed"
	"margay/store/etcd"
	"margay/store/storetest"
)

// TestTLS: beyond loopback a client must show a certificate of the authority.
func TestTLS(t *testing.T) {
	ca, stranger := storetest.NewAuthority(t), storetest.NewAuthority(t)
	cert, key := ca.Issue(t)
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	serverTLS, err := embed.TLSConfig(embed.TLSFiles{Cert: file("cert", cert), Key: file("key", key), ClientCA: file("ca", ca.PEM)})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	server := start(t, embed.Config{
		Dir: filepath.Join(dir, "data"), Listen: []string{"0.0.0.0:0", "127.0.0.1:0"}, TLS: serverTLS,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	anywhere, local := server.Addrs()[0].String(), server.Addrs()[1].String()
	_, port, _ := strings.Cut(strings.TrimPrefix(anywhere, "[::]"), ":")
	remote := "127.0.0.1:" + port
	strangeCert, strangeKey := stranger.Issue(t)
	for _, test := range []struct {
		name, endpoint string
		files          etcd.TLSFiles
		ok             bool
	}{
		{"with a certificate", "https://" + remote, etcd.TLSFiles{CA: ca.PEM, Cert: cert, Key: key}, true},
		{"without", "https://" + remote, etcd.TLSFiles{CA: ca.PEM}, false},
		{"a stranger's", "https://" + remote, etcd.TLSFiles{CA: ca.PEM, Cert: strangeCert, Key: strangeKey}, false},
		{"server not trusted", "https://" + remote, etcd.TLSFiles{CA: stranger.PEM, Cert: cert, Key: key}, false},
		{"without TLS", "http://" + remote, etcd.TLSFiles{}, false},
		{"loopback", "http://" + local, etcd.TLSFiles{}, true},
	} {
		config, err := etcd.TLSConfig(test.files)
		if err != nil {
			t.Fatal(err)
		}
		cfg := etcd.Config{Endpoints: []string{test.endpoint}, TLS: config, RequestTimeout: 20 * time.Second}
		if !test.ok { // it is tried until then
			cfg.RequestTimeout = 300 * time.Millisecond
		}
		s, err := etcd.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.List(t.Context(), "", v3.KindTier)
		if test.ok && err != nil || !test.ok && !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", test.name, err)
		}
		s.Close()
	}
	if strings.Contains(log.String(), "can change all policy") {
		t.Errorf("it warns although strangers are kept out:\n%s", log.String())
	}
}

func TestTLSConfigRefuses(t *testing.T) {
	if config, err := embed.TLSConfig(embed.TLSFiles{}); config != nil || err != nil {
		t.Errorf("nothing given: %v, %v", config, err)
	}
	for name, files := range map[string]embed.TLSFiles{
		"no key":         {Cert: "cert"},
		"no certificate": {Key: "key"},
		"only a CA":      {ClientCA: "ca"},
		"no such file":   {Cert: "/none", Key: "/none"},
	} {
		if config, err := embed.TLSConfig(files); config != nil || err == nil {
			t.Errorf("%s: %v, %v", name, config, err)
		}
	}
}
