package ctl

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
)

// maxCollected bounds one file of a bundle, in bytes: the end of what is longer is left out.
const maxCollected = 32 << 20

// A bundle is a .tar.gz of what was found out. A part that cannot be had is noted in it and does not end the collection.
type bundle struct {
	path string
	root string // the directory in it
	file *os.File
	zip  *gzip.Writer
	tar  *tar.Writer
	now  time.Time
	errs []error
}

// newBundle creates the file. Nobody else may read it: it tells who may talk to whom.
func newBundle(path, root string, now time.Time) (*bundle, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	b := &bundle{path: path, root: root, file: file, now: now}
	b.zip = gzip.NewWriter(file)
	b.tar = tar.NewWriter(b.zip)
	return b, nil
}

// add puts in a part, or why it is missing.
func (b *bundle) add(name string, content []byte, err error) {
	if err != nil {
		name += ".error"
		content = append([]byte(err.Error()), '\n')
	}
	if len(content) > maxCollected {
		content = append(slices.Clip(content[:maxCollected]), "\n(cut)\n"...)
	}
	header := &tar.Header{Name: path.Join(b.root, name), Mode: 0o600, Size: int64(len(content)), ModTime: b.now, Typeflag: tar.TypeReg}
	if err := b.tar.WriteHeader(header); err != nil {
		b.errs = append(b.errs, err)
		return
	}
	if _, err := b.tar.Write(content); err != nil {
		b.errs = append(b.errs, err)
	}
}

func (b *bundle) addJSON(name string, value any, err error) {
	text, errJSON := json.MarshalIndent(value, "", "  ")
	b.add(name, append(text, '\n'), errors.Join(err, errJSON))
}

func (b *bundle) addYAML(name string, value any, err error) {
	text, errYAML := yaml.Marshal(value)
	b.add(name, text, errors.Join(err, errYAML))
}

// addFile copies a file of this host.
func (b *bundle) addFile(name, from string) {
	file, err := os.Open(from)
	var content []byte
	if err == nil {
		content, err = readStart(file)
	}
	b.add(name, content, err)
}

// readStart reads a file, at most one byte more than a bundle takes, and closes it.
func readStart(file *os.File) ([]byte, error) {
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, maxCollected+1))
}

// addTree copies the regular files below a directory. Who writes there may not be who runs this: a link that takes the place
// of a file meanwhile leads nowhere else, and a pipe is not waited for.
func (b *bundle) addTree(name, from string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return fs.WalkDir(root.FS(), ".", func(inside string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := root.OpenFile(inside, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
		var content []byte
		if err == nil {
			content, err = readStart(file)
		}
		b.add(path.Join(name, inside), content, err)
		return nil
	})
}

func (b *bundle) close() error {
	err := errors.Join(append(b.errs, b.tar.Close(), b.zip.Close(), b.file.Close())...)
	if err != nil {
		return fmt.Errorf("write %s: %w", b.path, err)
	}
	return nil
}

// addStore puts in everything that the datastore holds: resources by kind, values that cannot be used, what nodes say.
func (b *bundle) addStore(ctx context.Context, s *session) {
	for _, info := range slices.Concat(v3.Kinds(), v3.UntypedKinds()) {
		found, err := s.list(ctx, "", info.Kind)
		if err != nil {
			b.add("datastore/"+info.Plural+".yaml", nil, err)
			if unreachable(err) {
				return
			}
			continue
		}
		if len(found.Items) > 0 {
			b.addYAML("datastore/"+info.Plural+".yaml", found.Items, nil)
		}
		for i, fault := range found.Faults {
			text := fmt.Sprintf("%v\n%s\n", &fault, fault.Value)
			b.add(fmt.Sprintf("datastore/unusable/%s-%d", info.Plural, i), []byte(text), nil)
		}
	}
	statuses, err := s.statuses(ctx)
	b.addJSON("nodes.json", statuses, err)
	r, err := s.report(ctx)
	b.addJSON("report.json", r, err)
}
