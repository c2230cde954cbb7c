package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// ResolveEndpoints returns the endpoints, asking DNS for them when DiscoverySRV is set: SRV records of etcd-client-ssl
// give https URLs and those of etcd-client http ones (etcd's DNS discovery).
func (cfg StoreConfig) ResolveEndpoints(ctx context.Context) ([]string, error) {
	if cfg.DiscoverySRV == "" {
		return cfg.Endpoints, nil
	}
	var out []string
	var errs []error
	for _, service := range []struct{ name, scheme string }{{"etcd-client-ssl", "https"}, {"etcd-client", "http"}} {
		_, records, err := net.DefaultResolver.LookupSRV(ctx, service.name, "tcp", cfg.DiscoverySRV)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, r := range records {
			host := net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			out = append(out, service.scheme+"://"+host)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("discover etcd endpoints by SRV records of %s: %w", cfg.DiscoverySRV, errors.Join(errs...))
	}
	return out, nil
}
