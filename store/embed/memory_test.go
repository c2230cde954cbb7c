package embed_test

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"margay/store/embed"
)

// TestWritesAreForgotten: what was written and is on disk does not stay in memory for members that there are none of.
func TestWritesAreForgotten(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "store.sock")
	start(t, embed.Config{Dir: filepath.Join(dir, "data"), Socket: socket, Listen: []string{}})
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + socket}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const writes, size = 500, 200_000 // etcd looks for what it may forget after every 100
	value := strings.Repeat("x", size)
	before := live()
	for range writes {
		if _, err := client.Put(t.Context(), "/calico/big", value); err != nil {
			t.Fatal(err)
		}
	}
	if kept := int(live()-before) / size; kept > writes/2 {
		t.Errorf("as much memory as %d of %d values is in use", kept, writes)
	}
}

func live() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
