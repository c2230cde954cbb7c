package etcd_test

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/embed"
	"margay/store/etcd"
	"margay/store/storetest"
)

const prefix = "/calico/resources/v3/projectcalico.org/"

// path returns the etcd key of an object, from what the tests know of the layout.
func path(key v3.Key) string {
	info, _ := v3.Lookup(key.Kind)
	if key.Namespace != "" {
		return prefix + info.Plural + "/" + key.Namespace + "/" + key.Name
	}
	return prefix + info.Plural + "/" + key.Name
}

func startServer(t testing.TB) (endpoint string) {
	t.Helper()
	server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(t.TempDir(), "store"), Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return "http://" + server.Addrs()[0].String()
}

func rawClient(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func openStore(t testing.TB, cfg etcd.Config) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func backend(endpoint string, client *clientv3.Client) storetest.Backend {
	return storetest.Backend{
		Open: func(t testing.TB) store.Store { return openStore(t, etcd.Config{Endpoints: []string{endpoint}}) },
		Put: func(t testing.TB, key v3.Key, value []byte) {
			if _, err := client.Put(context.Background(), path(key), string(value)); err != nil {
				t.Fatal(err)
			}
		},
		Compact: func(t testing.TB, at store.Revision) {
			revision, err := strconv.ParseInt(string(at), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Compact(context.Background(), revision, clientv3.WithCompactPhysical()); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		endpoint := startServer(t)
		return backend(endpoint, rawClient(t, endpoint))
	})
}
