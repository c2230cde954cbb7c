package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
	"margay/store"
)

// storeFlags are the flags of every command that talks to a datastore.
type storeFlags struct{ config string }

func (c *cli) addStoreFlags(cmd *cobra.Command, f *storeFlags) {
	cmd.Flags().StringVarP(&f.config, "config", "c", c.env.ConfigFile, "file that says which datastore to use and how")
	cmd.Flags().DurationVar(&c.timeout, "request-timeout", 10*time.Second, "give up a request after this time")
}

// A session is a datastore whose requests all end in time and whose errors say which datastore it was.
type session struct {
	store   store.Store
	cfg     StoreConfig
	timeout time.Duration
	// settings are those of nodes, see [Env].
	settings SettingsFunc
	// down says that a request was not answered, answered that one was.
	down, answered bool
}

// open connects to the configured datastore. Errors of the configuration are printed as calicoctl prints them.
func (c *cli) open(ctx context.Context, f storeFlags) (*session, error) {
	cfg, err := c.loadConfig(f.config)
	if err != nil {
		return nil, noClient(err)
	}
	cfg.Patience = c.timeout
	c.log.Info("datastore", "type", cfg.Type, "is", cfg.String(), "source", cfg.Source)
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	s, err := c.env.OpenStore(ctx, cfg)
	if err != nil {
		return nil, noClient(fmt.Errorf("%w; the settings come from %s", err, cfg.Source))
	}
	return &session{store: s, cfg: cfg, timeout: c.timeout, settings: c.env.Settings}, nil
}

// noClient says that no client could be made.
func noClient(err error) error {
	if plain := (*stdoutError)(nil); errors.As(err, &plain) {
		return err
	}
	//lint:ignore ST1005 this is how calicoctl says it
	return &stdoutError{fmt.Errorf("Failed to create Calico API client: %w", err)}
}

// A store of this host that was started in the line before is waited for.
const (
	startPatience = 2 * time.Second
	startPause    = 50 * time.Millisecond
)

// openForWork is open for commands that calicoctl refuses on a cluster of another release.
func (c *cli) openForWork(ctx context.Context, f storeFlags) (*session, error) {
	s, err := c.open(ctx, f)
	for begin := time.Now(); errors.Is(err, errNoStore) && time.Since(begin) < startPatience && ctx.Err() == nil; {
		pause(ctx, startPause)
		s, err = c.open(ctx, f)
	}
	if err != nil || c.allowMismatch {
		return s, err
	}
	if err := s.checkVersion(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// checkVersion compares releases as far as compatibility goes, major and minor: patch releases share the format.
func (s *session) checkVersion(ctx context.Context) error {
	r, err := s.get(ctx, v3.Key{Kind: v3.KindClusterInformation, Name: "default"})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case ctx.Err() != nil:
		return errors.New("interrupted: nothing was written")
	case unreachable(err):
		return err
	case err != nil:
		return fmt.Errorf("unable to get Cluster Information to verify version mismatch: %w\n"+
			"Use --allow-version-mismatch to override", err)
	}
	version := r.(*v3.ClusterInformation).Spec.CalicoVersion
	if version == "" || release(version) == release(compatible) {
		return nil
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	return fmt.Errorf("version mismatch.\nClient Version:   %s\nCluster Version:  %s\n"+
		"Use --allow-version-mismatch to override", compatible, number)
}

// release returns 3.32 for v3.32.1-0.dev.
func release(version string) string {
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "v"), "-")
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

func (s *session) close() { _ = s.store.Close() }

// within runs one request.
func within[T any](ctx context.Context, s *session, request func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	out, err := request(ctx)
	s.answered = s.answered || err == nil || !unreachable(err)
	return out, s.explain(ctx, err)
}

// explain adds where the settings came from to the error of a datastore that does not answer, and, when that is why the
// request was given up, its time-out.
func (s *session) explain(ctx context.Context, err error) error {
	if !unreachable(err) {
		return err
	}
	s.down = true
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return fmt.Errorf("%w: given up after %v (if it is slow, give it more time with --request-timeout; the settings come from %s)",
			err, s.timeout, s.cfg.Source)
	}
	return fmt.Errorf("%w (the settings come from %s)", err, s.cfg.Source)
}

// unreachable reports whether an error says that the datastore does not answer, so that asking again is of no use.
func unreachable(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

func (s *session) get(ctx context.Context, key v3.Key) (v3.Resource, error) {
	return within(ctx, s, func(ctx context.Context) (v3.Resource, error) { return s.store.Get(ctx, key) })
}

func (s *session) list(ctx context.Context, namespace string, kinds ...v3.Kind) (*store.List, error) {
	return within(ctx, s, func(ctx context.Context) (*store.List, error) { return s.store.List(ctx, namespace, kinds...) })
}

// inspect is get, with the fields that this program does not know.
func (s *session) inspect(ctx context.Context, key v3.Key) (r v3.Resource, unknown v3.Unknown, err error) {
	r, err = within(ctx, s, func(ctx context.Context) (r v3.Resource, err error) {
		r, unknown, err = s.store.Inspect(ctx, key)
		return r, err
	})
	return r, unknown, err
}

// writeAll returns a result per write.
func (s *session) writeAll(ctx context.Context, mode store.Mode, writes []store.Write) []store.Result {
	if len(writes) == 0 {
		return nil
	}
	results, _ := within(ctx, s, func(ctx context.Context) ([]store.Result, error) {
		results := s.store.WriteAll(ctx, mode, writes)
		first := results[0].Err
		for i := range results {
			results[i].Err = s.explain(ctx, results[i].Err)
		}
		return results, first
	})
	return results
}

func (s *session) previous(ctx context.Context, key v3.Key, before store.Revision) (v3.Resource, error) {
	return within(ctx, s, func(ctx context.Context) (v3.Resource, error) { return s.store.Previous(ctx, key, before) })
}

func (s *session) lastChange(ctx context.Context) (store.Revision, error) {
	return within(ctx, s, func(ctx context.Context) (store.Revision, error) { return s.store.LastChange(ctx, v3.AgentKinds()...) })
}

func (s *session) statuses(ctx context.Context) ([]store.NodeStatus, error) {
	statuses, err := within(ctx, s, s.store.Statuses)
	for i := range statuses {
		statuses[i] = readable(statuses[i])
	}
	return statuses, err
}

// initialise prepares a new datastore, as every write of calicoctl does first. Who may not do that may still be allowed
// to write, so its failure is no error unless the datastore does not answer at all.
func (s *session) initialise(ctx context.Context) error {
	_, err := within(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.store.Initialise(ctx) })
	if unreachable(err) {
		return err
	}
	return nil
}
