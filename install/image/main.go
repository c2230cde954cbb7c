// Command image makes a container image of one static binary, from scratch, without a container engine: an archive that
// podman, docker, ctr and skopeo load. The same binary and name give the same bytes.
//
//	image -binary bin/margay -name margay:v1 -o bin/margay-image.tar
//
// The archive is an OCI image layout (oci-layout, index.json, blobs) with the manifest.json of `docker save` beside it. In
// the image is /margay and nothing else: no shell, no certificates, no users. It must not fetch anything.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	binary := flag.String("binary", "bin/margay", "the static binary")
	name := flag.String("name", "margay:dev", "name and tag of the image")
	out := flag.String("o", "bin/margay-image.tar", "the archive to write")
	flag.Parse()
	if err := run(*binary, *name, *out); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(binary, name, out string) error {
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	arch, err := architecture(program)
	if err != nil {
		return fmt.Errorf("%s: %w", binary, err)
	}
	archive, err := build(program, arch, name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, archive, 0o644); err != nil {
		return err
	}
	fmt.Printf("%s: %s for linux/%s, %d MiB\n", out, name, arch, len(archive)>>20)
	return nil
}

// architecture returns what a binary is for, in Go's words. One that is linked dynamically could not run in the image.
func architecture(program []byte) (string, error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return "", err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", errors.New("is linked dynamically (build it with CGO_ENABLED=0)")
		}
	}
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", fmt.Errorf("is for %s, which nobody has tried", f.Machine)
}

// The media types of OCI's image specification 1.1.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// An archive is a tar file in the making. The first error stays.
type archive struct {
	buffer bytes.Buffer
	tar    *tar.Writer
	err    error
}

func newArchive() *archive {
	a := &archive{}
	a.tar = tar.NewWriter(&a.buffer)
	return a
}

// add adds a file. All of them are of the same time, so that the archive depends on the content only.
func (a *archive) add(name string, mode int64, content []byte) {
	if a.err == nil {
		a.err = a.tar.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
	}
	if a.err == nil {
		_, a.err = io.Copy(a.tar, bytes.NewReader(content))
	}
}

// blob adds content under its digest.
func (a *archive) blob(mediaType string, content []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	a.add("blobs/sha256/"+sum, 0o644, content)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(content)}
}

func (a *archive) json(v any) []byte {
	text, err := json.Marshal(v)
	a.err = errors.Join(a.err, err)
	return text
}

func (a *archive) bytes() ([]byte, error) {
	err := errors.Join(a.err, a.tar.Close())
	return a.buffer.Bytes(), err
}

// build returns the archive of the image.
func build(program []byte, arch, name string) ([]byte, error) {
	layer := newArchive()
	layer.add("margay", 0o755, program)
	content, err := layer.bytes()
	if err != nil {
		return nil, err
	}
	a := newArchive()
	files := a.blob(typeLayer, content)
	config := a.blob(typeConfig, a.json(map[string]any{
		"architecture": arch, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/margay"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{files.Digest}},
	}))
	manifest := a.blob(typeManifest, a.json(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": []descriptor{files},
	}))
	_, tag, _ := strings.Cut(name, ":")
	manifest.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name}
	a.add("index.json", 0o644, a.json(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{manifest}}))
	a.add("oci-layout", 0o644, a.json(map[string]string{"imageLayoutVersion": "1.0.0"}))
	a.add("manifest.json", 0o644, a.json([]map[string]any{{
		"Config": path(config), "RepoTags": []string{name}, "Layers": []string{path(files)},
	}}))
	return a.bytes()
}

func path(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }
