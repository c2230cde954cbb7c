package ctl

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer is a server of DNS on loopback that knows SRV records by name, and the resolver that asks it.
func nameServer(t *testing.T, records map[string][]dnsmessage.SRVResource) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			found := records[m.Questions[0].Name.String()]
			if len(found) == 0 {
				m.RCode = dnsmessage.RCodeNameError
			}
			for i := range found {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, Type: dnsmessage.TypeSRV}, Body: &found[i]})
			}
			if text, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(text, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// TestDiscovery has etcd's two services of a domain, one, and none.
func TestDiscovery(t *testing.T) {
	srv := func(target string, port uint16) dnsmessage.SRVResource {
		return dnsmessage.SRVResource{Target: dnsmessage.MustNewName(target), Port: port}
	}
	was := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = was })
	net.DefaultResolver = nameServer(t, map[string][]dnsmessage.SRVResource{
		"_etcd-client-ssl._tcp.both.example.": {srv("a.example.", 2379), srv("b.example.", 2380)},
		"_etcd-client._tcp.both.example.":     {srv("c.example.", 4001)},
		"_etcd-client._tcp.plain.example.":    {srv("d.example.", 2379)},
	})
	for _, c := range []struct {
		cfg     StoreConfig
		want    []string
		wantErr string
	}{
		{StoreConfig{DiscoverySRV: "both.example"}, []string{"http://c.example:4001", "https://a.example:2379", "https://b.example:2380"}, ""},
		{StoreConfig{DiscoverySRV: "plain.example"}, []string{"http://d.example:2379"}, ""},
		{StoreConfig{DiscoverySRV: "none.example"}, nil, "discover etcd endpoints by SRV records of none.example: "},
		{StoreConfig{Endpoints: []string{"http://e:1"}}, []string{"http://e:1"}, ""},
	} {
		got, err := c.cfg.ResolveEndpoints(t.Context())
		slices.Sort(got)
		if !slices.Equal(got, c.want) || (err != nil) != (c.wantErr != "") || err != nil && !strings.HasPrefix(err.Error(), c.wantErr) {
			t.Errorf("%s: %v, %v", c.cfg, got, err)
		}
	}
}
