package etcd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/etcd"
	"margay/store/storetest"
)

// TestPassword: with authentication on, a refusal is a refusal and not an outage, and the password is in no log.
func TestPassword(t *testing.T) {
	endpoint := startServer(t)
	enableAuth(t, rawClient(t, endpoint))
	var log bytes.Buffer
	open := func(user, password string) *etcd.Store {
		s := openStore(t, etcd.Config{
			Endpoints: []string{endpoint}, Username: user, Password: password,
			Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		t.Cleanup(func() { s.Close() })
		return s
	}
	ctx := t.Context()
	root := open("root", "very-secret")
	if err := root.Initialise(ctx); err != nil {
		t.Fatal(err)
	}
	reader := open("reader", "also-secret")
	list, err := reader.List(ctx, "", v3.KindTier)
	if err != nil || len(list.Items) != 3 {
		t.Fatalf("reader: %v, %v", list, err)
	}
	w := reader.Watch(ctx, list.Revision, v3.KindGlobalNetworkSet)
	defer w.Close()
	if _, err := w.Next(ctx); err != nil {
		t.Fatal(err)
	}
	created, err := root.Create(ctx, networkSet("a", 1))
	if err != nil {
		t.Fatal(err)
	}
	if events, err := w.Next(ctx); err != nil || events[0].Revision != store.Revision(created.GetResourceVersion()) {
		t.Fatalf("%v, %v", events, err)
	}
	_, err = reader.Create(ctx, networkSet("b", 1))
	wantForbidden(t, err, "connection is unauthorized: etcdserver: permission denied")
	wantForbidden(t, reader.ReportStatus(ctx, store.NodeStatus{Node: "n"}), "")
	_, err = open("reader", "wrong-secret").Get(ctx, v3.KeyOf(created))
	wantForbidden(t, err, "connection is unauthorized: etcdserver: authentication failed, invalid user ID or password")
	_, err = open("", "").Get(ctx, v3.KeyOf(created))
	wantForbidden(t, err, "")
	for _, s := range []*etcd.Store{open("", ""), open("nobody", "none")} {
		refused := s.Watch(ctx, "1", v3.KindTier)
		_, err = refused.Next(ctx)
		wantForbidden(t, err, "")
		refused.Close()
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("the log tells a password")
	}
}

func wantForbidden(t *testing.T, err error, text string) {
	t.Helper()
	if !errors.Is(err, store.ErrForbidden) || text != "" && err.Error() != text {
		t.Errorf("error is %v, want forbidden %s", err, text)
	}
}

func enableAuth(t *testing.T, client *clientv3.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	prefix := "/calico/resources/v3/projectcalico.org/"
	for _, do := range []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", "very-secret"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.UserAdd(ctx, "reader", "also-secret"); return err },
		func() error { _, err := client.UserAdd(ctx, "nobody", "none"); return err },
		func() error { _, err := client.RoleAdd(ctx, "reader"); return err },
		func() error {
			_, err := client.RoleGrantPermission(ctx, "reader", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func() error { _, err := client.UserGrantRole(ctx, "reader", "reader"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil && !strings.Contains(err.Error(), "role name already exists") {
			t.Fatal(err)
		}
	}
}

func TestTLSConfig(t *testing.T) {
	ca := storetest.NewAuthority(t)
	cert, key := ca.Issue(t)
	_, otherKey := ca.Issue(t)
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caFile, certFile, keyFile := file("ca", ca.PEM), file("cert", cert), file("key", key)
	for _, test := range []struct {
		name         string
		files        etcd.TLSFiles
		certificates int
		err          string
	}{
		{"CA inline", etcd.TLSFiles{CA: ca.PEM}, 0, ""},
		{"all inline", etcd.TLSFiles{CA: ca.PEM, Cert: cert, Key: key}, 1, ""},
		{"all files", etcd.TLSFiles{CAFile: caFile, CertFile: certFile, KeyFile: keyFile}, 1, ""},
		{"no CA", etcd.TLSFiles{CertFile: certFile, KeyFile: keyFile}, 1, ""},
		{"mixed", etcd.TLSFiles{CA: ca.PEM, CertFile: certFile, KeyFile: keyFile}, 0, "files and inline"},
		{"no such file", etcd.TLSFiles{CAFile: dir + "/none"}, 0, "none"},
		{"no certificate in the CA", etcd.TLSFiles{CAFile: keyFile}, 0, "no certificate in the CA"},
		{"certificate without key", etcd.TLSFiles{CertFile: certFile}, 0, "together"},
		{"key without certificate", etcd.TLSFiles{Key: key}, 0, "together"},
		{"another's key", etcd.TLSFiles{Cert: cert, Key: otherKey}, 0, "does not match"},
	} {
		config, err := etcd.TLSConfig(test.files)
		if test.err != "" {
			if err == nil || config != nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v, %v", test.name, config, err)
			}
			continue
		}
		if err != nil || len(config.Certificates) != test.certificates || config.MinVersion < tls.VersionTLS12 {
			t.Errorf("%s: %+v, %v", test.name, config, err)
		}
	}
	if config, err := etcd.TLSConfig(etcd.TLSFiles{}); config != nil || err != nil {
		t.Errorf("nothing given: %v, %v", config, err)
	}
}
