package typha

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// ClientConfig says how an agent reaches typha.
type ClientConfig struct {
	// Addresses returns where typha may be found, host:port, those to be preferred first. It is asked for every
	// connection. A host that has several addresses means as many instances. See [Fixed] and [Spread].
	Addresses func(context.Context) ([]string, error)
	// Node is the host that the client is for.
	Node string
	// Version of this program, for the server.
	Version string
	// TLS with the server.
	TLS TLSFiles
	// ReadTimeout is after what silence a server is given up; it pings every 10 s [30 s]. WriteTimeout bounds one write
	// [10 s], DialTimeout one attempt to connect, introductions included [5 s], RequestTimeout a request whose context
	// ends later or never [10 s]. 0 stands for the default in brackets.
	ReadTimeout, WriteTimeout, DialTimeout, RequestTimeout time.Duration
	// MaxBehind bounds the bytes that have arrived and that the watcher has not taken in, packed as they are [16 MiB]. Beyond
	// it the connection is given up, and the watch goes on where it was.
	MaxBehind int
	// Dial connects; nil: in the network namespace of the process.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger // nil: nothing is logged
}

// Fixed returns the same address whenever it is asked.
func Fixed(address string) func(context.Context) ([]string, error) {
	return func(context.Context) ([]string, error) { return []string{address}, nil }
}

// Spread returns what find says, those near (on this host, say) before the others, each in random order, so that clients spread
// over the instances. It is for those who find instances by other means than a name, such as a service of Kubernetes. When
// nothing can be found out, those of the last time count: typha may be there when who knows it is not.
func Spread(find func(context.Context) (near, others []string, err error)) func(context.Context) ([]string, error) {
	var mu sync.Mutex
	var last [2][]string
	return func(ctx context.Context) ([]string, error) {
		near, others, err := find(ctx)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			last = [2][]string{near, others}
		} else if len(last[0])+len(last[1]) == 0 {
			return nil, err
		}
		return append(shuffled(last[0]), shuffled(last[1])...), nil
	}
}

func shuffled(list []string) []string {
	out := slices.Clone(list)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (c *ClientConfig) defaults() {
	for _, d := range []struct {
		value  *time.Duration
		preset time.Duration
	}{
		{&c.ReadTimeout, 30 * time.Second}, {&c.WriteTimeout, 10 * time.Second},
		{&c.DialTimeout, 5 * time.Second}, {&c.RequestTimeout, 10 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.preset
		}
	}
	c.MaxBehind = cmp.Or(max(c.MaxBehind, 0), 16<<20)
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// A Client is a store.Store for reading, over typha. What it returns is as old as typha's own watch: a write made
// elsewhere shows when typha has seen it. It serves the kinds that typha follows; of writes it takes what an agent says of
// itself, see [Client.Create],
// [Client.ReportStatus], [Client.ReportEndpoints] and [Client.Initialise].
//
// It keeps one connection, over which List, its Watch, and all requests go; it makes another one when that stream is
// in use.
type Client struct {
	cfg    ClientConfig
	tls    *reader // nil: none
	unpack *unpacker

	connecting chan struct{} // holds one token while a connection is being made

	mu       sync.Mutex
	closed   bool
	current  *session              // for requests; nil: none yet
	sessions map[*session]struct{} // all that are open
	newest   store.Revision        // the state that the client had last, from whatever server
	avoid    string                // the address that sent this client away last
}

var _ store.Store = (*Client)(nil)

// Dial returns a client. It does not wait for a connection: a typha that cannot be reached shows in the first operation,
// as store.ErrUnavailable. Its errors are about the configuration.
func Dial(cfg ClientConfig) (*Client, error) {
	if cfg.Addresses == nil {
		return nil, errors.New("open typha: no address is given (set TyphaAddr)")
	}
	if cfg.Node == "" {
		return nil, errors.New("open typha: the name of this host is not known")
	}
	names := [5]string{"TyphaCAFile", "TyphaCertFile", "TyphaKeyFile", "TyphaCN", "TyphaURISAN"}
	if err := cfg.TLS.Check(names); err != nil {
		return nil, fmt.Errorf("open typha: %w", err)
	}
	cfg.defaults()
	c := &Client{cfg: cfg, unpack: newUnpacker(maxRaw), connecting: make(chan struct{}, 1), sessions: map[*session]struct{}{}}
	if cfg.TLS.Enabled() {
		c.tls = &reader{files: cfg.TLS}
		if _, err := c.tls.get(); err != nil {
			return nil, fmt.Errorf("open typha: %w", err)
		}
	}
	return c, nil
}

// Close implements store.Store.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	open := c.sessions
	c.sessions = map[*session]struct{}{}
	c.mu.Unlock()
	for s := range open {
		s.close(errClosed)
	}
	return nil
}

var errClosed = errors.New("the connection was closed")

// session returns a connection for requests.
func (c *Client) session(ctx context.Context) (*session, error) {
	return c.connected(ctx, func(s *session) bool { return true })
}

// stream returns a connection whose stream is free, and takes it.
func (c *Client) stream(ctx context.Context) (*session, error) {
	return c.connected(ctx, (*session).claim)
}

// connected returns the current connection if that suits, or a new one.
func (c *Client) connected(ctx context.Context, suits func(*session) bool) (*session, error) {
	select {
	case c.connecting <- struct{}{}:
		defer func() { <-c.connecting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	current, closed := c.current, c.closed
	c.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	if current != nil && current.alive() && suits(current) {
		return current, nil
	}
	s, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	if !suits(s) {
		panic("a new connection has no free stream")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		s.close(errClosed)
		return nil, errClosed
	}
	c.sessions[s], c.current = struct{}{}, s
	return s, nil
}

// forget is called when a session has ended.
func (c *Client) forget(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s)
	if s.away != "" {
		c.avoid = s.address
	}
}

// connect tries the addresses one after the other until one answers.
func (c *Client) connect(ctx context.Context) (*session, error) {
	addresses, err := c.addresses(ctx)
	if err != nil {
		return nil, fmt.Errorf("find typha: %w", err)
	}
	errs := []error{}
	for _, address := range addresses {
		s, err := c.try(ctx, address)
		if err == nil {
			c.cfg.Log.Info("connected to typha", "address", address, "tls", c.tls != nil)
			return s, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", address, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// addresses returns what to try, host names resolved. Within one name the order is random, so that clients spread; the
// address that sent this client away comes last.
func (c *Client) addresses(ctx context.Context) ([]string, error) {
	hosts, err := c.cfg.Addresses(ctx)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, hostPort := range hosts {
		host, port, err := net.SplitHostPort(hostPort)
		if err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(host); err == nil {
			all = append(all, hostPort)
			continue
		}
		found, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return nil, err
		}
		for _, address := range shuffled(found) {
			all = append(all, net.JoinHostPort(address, port))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("there is no address")
	}
	c.mu.Lock()
	avoid := c.avoid
	c.mu.Unlock()
	if i := slices.Index(all, avoid); i >= 0 {
		all = append(slices.Delete(all, i, i+1), avoid)
	}
	return all, nil
}

// try connects to one address.
func (c *Client) try(ctx context.Context, address string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	conn, err := c.cfg.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends what is under way
	s, err := c.introduce(ctx, conn, address)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, err
	}
	go s.read()
	return s, nil
}

// introduce does what comes before the first request.
func (c *Client) introduce(ctx context.Context, conn net.Conn, address string) (*session, error) {
	if c.tls != nil {
		config, err := c.tls.client()
		if err != nil {
			return nil, err
		}
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secured
	}
	if _, err := conn.Write(messageFrame(frameHello, clientHello{protocol, c.cfg.Node, c.cfg.Version})); err != nil {
		return nil, err
	}
	t, payload, err := readFrame(conn, maxClient)
	if err != nil {
		return nil, err
	}
	if t == frameBye {
		farewell, err := readMessage[bye](payload)
		return nil, errors.Join(errors.New(farewell.Reason), err)
	}
	hello, err := readMessage[serverHello](payload)
	if err != nil {
		return nil, err
	}
	if t != frameHello || hello.Protocol != protocol {
		return nil, fmt.Errorf("it speaks protocol %d, this program %d (use the same release on both sides)", hello.Protocol, protocol)
	}
	return newSession(c, conn, address, hello.Kinds), nil
}

// fail turns what went wrong into an error of package store. ctx is the caller's.
func (c *Client) fail(ctx context.Context, op string, err error) error {
	var known *store.Error
	var refused *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s: %w", op, ctx.Err())
	case errors.As(err, &known), errors.Is(err, store.ErrNotSupported):
		return err
	case errors.Is(err, errPeer), errors.As(err, &refused) && refused.Op == "remote error": // a TLS alert
		return &store.Error{Err: store.ErrForbidden, Cause: fmt.Errorf("typha: %w", err)}
	}
	return &store.Error{Err: store.ErrUnavailable, Cause: fmt.Errorf("no answer from typha: %w", err)}
}

// bounded returns a context that ends with the request time-out.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.cfg.RequestTimeout)
}

// has notes the state that the client has.
func (c *Client) has(r store.Revision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest = r
}

// checkKinds refuses kinds that the server does not follow.
func checkKinds(op string, served, kinds []v3.Kind) error {
	for _, kind := range kinds {
		if !slices.Contains(served, kind) {
			return &store.UnsupportedError{Op: op, Key: v3.Key{Kind: kind}, Reason: "typha serves " + textOfKinds(served) + " only"}
		}
	}
	return nil
}

func textOfKinds(kinds []v3.Kind) string {
	texts := make([]string, len(kinds))
	for i, kind := range kinds {
		texts[i] = string(kind)
	}
	return strings.Join(texts, ", ")
}
