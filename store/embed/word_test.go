package embed

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
)

// TestLastWord: when etcd gives up in a goroutine of its own, the process goes on, the server is done, and its error says why
// and what to do.
func TestLastWord(t *testing.T) {
	noSpace := &fs.PathError{Op: "write", Path: "db", Err: syscall.ENOSPC}
	for _, c := range []struct {
		name string
		say  func(*zap.Logger)
		want []string
	}{
		{"full", func(log *zap.Logger) { log.Panic("failed to commit tx", zap.Error(noSpace)) },
			[]string{"is full: failed to commit tx: write db: no space left on device (free some space"}},
		{"fatal", func(log *zap.Logger) {
			log.Fatal("failed to save Raft", zap.String("at", "x"), zap.Error(errors.New("I/O error")))
		},
			[]string{"etcd gave up on", "failed to save Raft: I/O error", "restore the directory from a backup"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, err := Start(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "data"), Listen: []string{"127.0.0.1:0"}})
			if err != nil {
				t.Fatal(err)
			}
			defer server.etcd.HardStop() // which Close leaves out
			word := server.word
			config, err := serverConfig(Config{Dir: server.dir, Log: slog.New(slog.DiscardHandler)}, word)
			if err != nil {
				t.Fatal(err)
			}
			returned := make(chan struct{})
			go func() {
				defer close(returned)
				c.say(config.Logger)
			}()
			select {
			case <-server.Done():
			case <-time.After(time.Minute):
				t.Fatal("the server is not done")
			}
			err = server.Close()
			for _, part := range c.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%v, want %q", err, part)
				}
			}
			select {
			case <-returned:
				t.Error("what gave up went on")
			default:
			}
		})
	}
}

func TestDamagedByAFullDisk(t *testing.T) {
	err := damaged(&fs.PathError{Op: "write", Path: "db", Err: syscall.ENOSPC})
	if !strings.Contains(err.Error(), "free some space") || strings.Contains(err.Error(), "backup") {
		t.Error(err)
	}
}
