package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v3 "margay/api/v3"
)

// A keeper holds on disk the last good version of objects that a restart must not lose: one JSON file each, readable by
// root only; null says that there was none. The files outlive the store's history, which is compacted after some minutes.
type keeper struct {
	dir string
	// on names the files that are there, so that dropping what was never kept costs nothing.
	on map[string]bool
}

const (
	keptSuffix = ".json"
	halfPrefix = ".kept-" // of files that are being written
	keptHash   = 16       // bytes
)

// kept reports whether fileName makes such names: the directory may hold what is somebody else's.
func kept(name string) bool {
	name, ok := strings.CutSuffix(name, keptSuffix)
	at := strings.LastIndexByte(name, '-')
	if !ok || at < 1 {
		return false
	}
	sum, err := hex.DecodeString(name[at+1:])
	return err == nil && len(sum) == keptHash
}

// Forget removes the agent's files from a state directory, and the directory if nothing else is in it. No agent may run there.
func Forget(stateDir string) error {
	entries, err := os.ReadDir(stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state directory: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name == socketName || strings.HasPrefix(name, halfPrefix) || kept(name) {
			if err := os.Remove(filepath.Join(stateDir, name)); err != nil {
				return fmt.Errorf("remove the agent's files: %w", err)
			}
		}
	}
	if err := os.Remove(stateDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("remove state directory: %w", err)
	}
	return nil
}

// openKeeper makes the directory and removes half-written files of an agent that was killed.
func openKeeper(dir string) (*keeper, error) {
	k := &keeper{dir: dir, on: map[string]bool{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return k, fmt.Errorf("make state directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return k, fmt.Errorf("read state directory: %w", err)
	}
	for _, e := range entries {
		switch {
		case kept(e.Name()):
			k.on[e.Name()] = true
		case strings.HasPrefix(e.Name(), halfPrefix):
			_ = os.Remove(filepath.Join(dir, e.Name())) // disturbs nobody if it stays
		}
	}
	return k, nil
}

// fileName is free of whatever a stored key may hold: names come from the store unchecked.
func fileName(key v3.Key) string {
	sum := sha256.Sum256([]byte(key.Namespace + "/" + key.Name))
	return strings.ToLower(string(key.Kind)) + "-" + hex.EncodeToString(sum[:keptHash]) + keptSuffix
}

// save writes r, which may be nil, as a whole or not at all.
func (k *keeper) save(key v3.Key, r v3.Resource) error {
	name := fileName(key)
	data, err := json.Marshal(r)
	if err == nil && r != nil {
		data, err = v3.UnknownInRules(r).Graft(data)
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", key, err)
	}
	file, err := os.CreateTemp(k.dir, halfPrefix+"*") // mode 0600
	if err != nil {
		return fmt.Errorf("keep %s: %w", key, err)
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(k.dir, name))
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return fmt.Errorf("keep %s: %w", key, err)
	}
	k.on[name] = true
	return nil
}

// load returns what was saved under the key, false if nothing was.
func (k *keeper) load(key v3.Key) (v3.Resource, bool, error) {
	data, err := os.ReadFile(filepath.Join(k.dir, fileName(key)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read kept %s: %w", key, err)
	}
	if string(data) == "null" {
		return nil, true, nil
	}
	info, ok := v3.Lookup(key.Kind)
	if !ok {
		return nil, false, fmt.Errorf("read kept %s: unknown kind", key)
	}
	r := info.New()
	if err := errors.Join(json.Unmarshal(data, r), v3.MarkUnknown(r, data)); err != nil {
		return nil, false, fmt.Errorf("read kept %s: %w", key, err)
	}
	if v3.KeyOf(r) != key {
		return nil, false, fmt.Errorf("read kept %s: the file holds %s", key, v3.KeyOf(r))
	}
	return r, true, nil
}

// drop removes what was saved under the key.
func (k *keeper) drop(key v3.Key) error { return k.remove(fileName(key)) }

// dropExcept removes every file but those of the keys.
func (k *keeper) dropExcept(keys map[v3.Key]bool) error {
	wanted := map[string]bool{}
	for key := range keys {
		wanted[fileName(key)] = true
	}
	var errs []error
	for name := range k.on {
		if !wanted[name] {
			errs = append(errs, k.remove(name))
		}
	}
	return errors.Join(errs...)
}

func (k *keeper) remove(name string) error {
	if !k.on[name] {
		return nil
	}
	delete(k.on, name)
	if err := os.Remove(filepath.Join(k.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what was kept: %w", err)
	}
	return nil
}
