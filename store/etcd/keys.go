package etcd

import (
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	v3 "margay/api/v3"
	"margay/store"
)

// Where things are. The status is our own addition.
const (
	root       = "/calico/resources/v3/projectcalico.org/"
	statusRoot = "/calico/margay/v1/status/"
)

var (
	escaper   = strings.NewReplacer("%", "%25", "/", "%2f")
	unescaper = strings.NewReplacer("%2f", "/", "%2F", "/", "%25", "%")
)

// pathOf returns the key of an object.
func pathOf(key v3.Key) (string, error) {
	info, ok := v3.Lookup(key.Kind)
	switch {
	case !ok:
		return "", fmt.Errorf("find %s: resource type %q is not supported", key, key.Kind)
	case key.Name == "":
		return "", fmt.Errorf("find %s: insufficient identifiers, missing 'Name'", key)
	case info.Namespaced && key.Namespace == "":
		return "", fmt.Errorf("find %s: namespace is not specified on namespaced resource", key)
	case !info.Namespaced && key.Namespace != "":
		return "", fmt.Errorf("find %s: namespace is specified on a resource of the cluster", key)
	}
	return prefixOf(info, key.Namespace) + escaper.Replace(key.Name), nil
}

// prefixOf returns what the keys of a kind begin with, of one namespace if that is not "" and the kind has namespaces.
func prefixOf(info v3.Info, namespace string) string {
	prefix := root + info.Plural + "/"
	if info.Namespaced && namespace != "" {
		prefix += escaper.Replace(namespace) + "/"
	}
	return prefix
}

// A keyspace holds kinds by their plural.
type keyspace map[string]v3.Info

func newKeyspace(kinds []v3.Kind) (keyspace, error) {
	space := make(keyspace, len(kinds))
	for _, kind := range kinds {
		info, ok := v3.Lookup(kind)
		if !ok {
			return nil, fmt.Errorf("resource type %q is not supported", kind)
		}
		space[info.Plural] = info
	}
	return space, nil
}

// find returns what object a key is of; false if it is of another kind, or of none.
func (k keyspace) find(path string) (v3.Key, bool) {
	rest, ok := strings.CutPrefix(path, root)
	if !ok {
		return v3.Key{}, false
	}
	parts := strings.Split(rest, "/")
	info, ok := k[parts[0]]
	if !ok {
		return v3.Key{}, false
	}
	key := v3.Key{Kind: info.Kind}
	switch {
	case info.Namespaced && len(parts) == 3:
		key.Namespace, key.Name = unescaper.Replace(parts[1]), unescaper.Replace(parts[2])
	case !info.Namespaced && len(parts) == 2:
		key.Name = unescaper.Replace(parts[1])
	default:
		return v3.Key{}, false
	}
	return key, key.Name != ""
}

// decode returns the resource in a value, or why there is none.
func decode(key v3.Key, value []byte, revision int64) (v3.Resource, *store.Fault) {
	at := formatRevision(revision)
	r, err := v3.DecodeStored(key.Kind, value)
	if err == nil {
		err = rename(r, key)
	}
	if err != nil {
		return nil, &store.Fault{Key: key, Revision: at, Value: value, Err: err}
	}
	r.SetResourceVersion(string(at))
	return r, nil
}

func decodeKV(key v3.Key, kv *mvccpb.KeyValue) (v3.Resource, *store.Fault) {
	return decode(key, kv.Value, kv.ModRevision)
}

// rename gives a resource the name of its key, and refuses a value that belongs elsewhere. Releases before 3.32 stored
// the policies of tier default under default.<name>: such an object goes by the name of its key.
func rename(r v3.Resource, key v3.Key) error {
	if r.GetNamespace() != key.Namespace {
		return fmt.Errorf("metadata.namespace is %q, the key says %q", r.GetNamespace(), key.Namespace)
	}
	name := r.GetName()
	_, policy := store.TierKey(r)
	if name != key.Name && !(policy && key.Name == "default."+name) {
		return fmt.Errorf("metadata.name is %q, the key says %q", name, key.Name)
	}
	r.SetName(key.Name)
	return nil
}

// keepName returns a new value with the name as the old one of the key has it, where an older release stored that under
// another name than people know: everybody goes on to know the policy by that name. See [Store.MigratePolicyNames].
func keepName(key v3.Key, old, value []byte) ([]byte, error) {
	r, err := v3.DecodeStored(key.Kind, old)
	if err != nil || r.GetName() == key.Name {
		return value, nil
	}
	return v3.CopyStoredName(old, value)
}

func formatRevision(revision int64) store.Revision {
	return store.Revision(strconv.FormatInt(revision, 10))
}

func parseRevision(revision store.Revision) (int64, error) {
	n, err := strconv.ParseInt(string(revision), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("revision %q is not one of this datastore", revision)
	}
	return n, nil
}
