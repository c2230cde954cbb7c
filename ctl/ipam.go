package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// An ipamStore is a store that has Calico's records of who has which address. Nothing here uses them; they go along when a
// datastore is moved.
type ipamStore interface {
	IPAM(ctx context.Context) (map[string]json.RawMessage, error)
	CreateIPAM(ctx context.Context, key string, value json.RawMessage) error
}

// An ipamFile is the last part of an export, as calicoctl writes it.
type ipamFile struct {
	Affinities []ipamRecord `json:"block_affinities,omitempty"`
	Blocks     []ipamRecord `json:"blocks,omitempty"`
	Handles    []ipamRecord `json:"handles,omitempty"`
	Config     *ipamRecord  `json:"config,omitempty"`
}

// An ipamRecord is a key of etcd with its value. TTL is part of the form and always 0.
type ipamRecord struct {
	Key   string
	Value json.RawMessage
	TTL   int64
}

// records returns all of the file, in the order in which they are stored.
func (f *ipamFile) records() []ipamRecord {
	all := slices.Concat(f.Affinities, f.Blocks, f.Handles)
	if f.Config != nil {
		all = append(all, *f.Config)
	}
	return all
}

const ipamPrefix = "/calico/ipam/v2/"

// readIPAM sorts the records by what they are.
func (e *exporter) readIPAM(ctx context.Context) (ipamFile, error) {
	var file ipamFile
	s, ok := e.store.(ipamStore)
	if !ok {
		return file, nil
	}
	values, err := within(ctx, e.session, s.IPAM)
	if err != nil {
		return file, err
	}
	if len(values) > 0 && len(e.nodes) > 0 {
		return file, errors.New("nothing is exported: nodes have other names in Kubernetes, and records of addresses name nodes " +
			"(this program does not rewrite them: export with calicoctl)")
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		record := ipamRecord{Key: key, Value: values[key]}
		switch kind, _, _ := strings.Cut(strings.TrimPrefix(key, ipamPrefix), "/"); kind {
		case "host":
			file.Affinities = append(file.Affinities, record)
		case "assignment":
			file.Blocks = append(file.Blocks, record)
		case "handle":
			file.Handles = append(file.Handles, record)
		case "config":
			file.Config = &record
		default:
			return file, fmt.Errorf("nothing is exported: record %s is of a kind that is not known", key)
		}
	}
	return file, nil
}
