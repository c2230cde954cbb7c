package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImage follows an archive from its index to the binary, as programs that load it do, and by docker's way.
func TestImage(t *testing.T) {
	program := []byte("a program")
	text, err := build(program, "amd64", "margay:v1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := build(program, "amd64", "margay:v1")
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("the same twice gives other bytes (%v)", err)
	}
	files := untar(t, text)
	var index, manifest struct {
		Manifests []descriptor
		Config    descriptor
		Layers    []descriptor
	}
	unmarshal(t, files["index.json"], &index)
	unmarshal(t, blob(t, files, index.Manifests[0]), &manifest)
	var config struct {
		Architecture, OS string
		Config           struct{ Entrypoint []string }
		RootFS           struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	unmarshal(t, blob(t, files, manifest.Config), &config)
	layer := blob(t, files, manifest.Layers[0])
	if got := untar(t, layer)["margay"]; !bytes.Equal(got, program) {
		t.Errorf("the layer holds %q", got)
	}
	if config.Architecture != "amd64" || config.OS != "linux" || config.Config.Entrypoint[0] != "/margay" ||
		config.RootFS.DiffIDs[0] != fmt.Sprintf("sha256:%x", sha256.Sum256(layer)) {
		t.Errorf("config %+v", config)
	}
	var docker []struct {
		Config           string
		RepoTags, Layers []string
	}
	unmarshal(t, files["manifest.json"], &docker)
	if d := docker[0]; files[d.Config] == nil || files[d.Layers[0]] == nil || d.RepoTags[0] != "margay:v1" {
		t.Errorf("manifest.json %+v", d)
	}
}

// TestArchitecture: this test's own binary says what it is for; what is none, or is linked dynamically, is refused.
func TestArchitecture(t *testing.T) {
	if _, err := architecture([]byte("#!/bin/sh")); err == nil {
		t.Error("a script is taken")
	}
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if arch, err := architecture(own); err != nil && !strings.Contains(err.Error(), "dynamically") || err == nil && arch == "" {
		t.Errorf("%q, %v", arch, err)
	}
	if err := run(filepath.Join(t.TempDir(), "none"), "margay:v1", "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no binary: %v", err)
	}
}

func untar(t *testing.T, text []byte) map[string][]byte {
	t.Helper()
	if !bytes.HasSuffix(text, make([]byte, 1024)) { // Go's reader does without
		t.Error("the end of the archive is not marked")
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// blob returns what a descriptor points to.
func blob(t *testing.T, files map[string][]byte, d descriptor) []byte {
	t.Helper()
	content := files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(content)); got != d.Digest || len(content) != d.Size {
		t.Fatalf("%+v: %d bytes, digest %s", d, len(content), got)
	}
	return content
}

func unmarshal(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}
