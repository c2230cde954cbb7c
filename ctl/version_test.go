package ctl

import (
	"bytes"
	"context"
	"errors"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
)

// A pollStore answers Get with one version of ClusterInformation after the other, "" for an error, and ends the command
// after the last.
type pollStore struct {
	store.Store
	versions []string
	stop     func()
}

func (s *pollStore) Get(_ context.Context, key v3.Key) (v3.Resource, error) {
	version := s.versions[0]
	if s.versions = s.versions[1:]; len(s.versions) == 0 {
		s.stop()
	}
	if version == "" {
		return nil, &store.Error{Key: key, Err: store.ErrNotFound, Cause: errors.New("key not found")}
	}
	return &v3.ClusterInformation{Spec: v3.ClusterInformationSpec{CalicoVersion: version}}, nil
}

func (s *pollStore) Close() error { return nil }

// TestVersionPoll checks that only changes are printed, and all again after an error.
func TestVersionPoll(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	polled := &pollStore{versions: []string{"v1", "v1", "v2", "", "v2", "v2"}, stop: stop}
	var stdout, stderr bytes.Buffer
	root := NewCommand(Env{
		Name: "calicoctl", Stdout: &stdout, Stderr: &stderr, Version: "v0.1.0",
		Getenv:    func(name string) string { return map[string]string{"ETCD_ENDPOINTS": "http://127.0.0.1:1"}[name] },
		OpenStore: func(context.Context, StoreConfig) (store.Store, error) { return polled, nil },
	})
	root.SetArgs([]string{"version", "--poll", "1ns"})
	code := Execute(ctx, root)
	want := "Client Version:    v0.1.0\nGit commit:        unknown\n" +
		"Cluster Version:   v1\nCluster Type:      unknown\n" +
		"Cluster Version:   v2\n" +
		"Cluster Version:   v2\nCluster Type:      unknown\n"
	const wantErr = "unable to retrieve Cluster Version or Type: " +
		"resource does not exist: ClusterInformation(default) with error: key not found\n"
	if code != 0 || stdout.String() != want || stderr.String() != wantErr {
		t.Errorf("exit %d\nstdout:\n%s\nwant:\n%s\nstderr: %s", code, stdout.String(), want, stderr.String())
	}
}
