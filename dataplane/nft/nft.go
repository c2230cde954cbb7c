package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// Options say where the table is.
type Options struct {
	// NetNS is a file descriptor of a network namespace; 0 is the one of the calling thread. It may be closed when Open
	// has returned.
	NetNS int
	// Log gets what happens beside the results of calls. nil: nothing.
	Log *slog.Logger
}

// Stats count what the table holds, as of the last success, and what was done since Open.
type Stats struct {
	Chains, Rules, Sets, Elements int
	// Transactions that the kernel took, the messages in them (begin and end left out), and calls that failed.
	Transactions, Messages, Errors uint64
	// Disturbances are the times somebody else changed the table.
	Disturbances uint64
}

// ErrUnknown says that Apply was called without a successful Resync since Open or since the last error.
var ErrUnknown = errors.New("the state of the kernel is unknown (Resync first)")

// A Dataplane enforces one Program in one network namespace. Its methods are for one goroutine, except Stats and
// Disturbed.
type Dataplane struct {
	conn    *conn
	monitor *monitor
	log     *slog.Logger
	limits  limits
	image   *image // nil: unknown
	bridge  *Table // of family bridge, as it is if image is known; nil: none
	// noBridge is why there can be no table of family bridge; nil: there can.
	noBridge error
	handles  map[string][]uint64
	ahead    chan *dump // what readAhead reads; nil: it does not

	mu    sync.Mutex
	stats Stats
}

// Open connects to the kernel and changes nothing there. It needs root.
func Open(o Options) (*Dataplane, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := dial(o.NetNS)
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	if _, err := c.generation(); err != nil {
		c.close()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	m, err := watch(o.NetNS, c.nl.PID(), o.Log)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	return &Dataplane{conn: c, monitor: m, log: o.Log, limits: defaultLimits, noBridge: c.tryBridge()}, nil
}

// Close releases the connections. The table stays in force.
func (d *Dataplane) Close() error {
	err := errors.Join(d.monitor.close(), d.conn.close())
	d.takeAhead()
	return err
}

// Disturbed receives a value when somebody else has changed the table, or may have: the caller then calls Resync. Values
// are not queued: one stands for any number of changes. The channel is never closed.
func (d *Dataplane) Disturbed() <-chan struct{} { return d.monitor.disturbed }

// Stats returns the counts. It may be called from any goroutine.
func (d *Dataplane) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Disturbances = d.monitor.count.Load()
	return s
}

// Prepare creates the table when there is none, with the conntrack rule alone: it filters nothing, but connections that
// are made from now on are tracked and go on when the first endpoint appears. When there is a table that nothing is known
// of, it begins to read it: with large sets that takes as long as everything that comes before the first Resync.
func (d *Dataplane) Prepare(ctx context.Context) error {
	d.takeAhead()
	there, err := (&reader{conn: d.conn, dump: &dump{}}).table()
	if there && d.image == nil {
		d.readAhead()
	}
	if err != nil || there {
		return d.count(err)
	}
	d.image = nil
	changes := Diff(nil, Compile(ruleset.NewProgram()))
	if err := d.transact(ctx, changes, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return d.count(fmt.Errorf("prepare table %s: %w", TableName, err))
	}
	return nil
}

// readAhead uses the connection until what it read is taken.
func (d *Dataplane) readAhead() {
	ahead := make(chan *dump, 1)
	d.ahead = ahead
	go func() {
		have, err := d.conn.dump()
		if err != nil {
			have = nil // Resync tries again
		}
		ahead <- have
	}()
}

// takeAhead waits for what was read ahead; nil: nothing was.
func (d *Dataplane) takeAhead() *dump {
	if d.ahead == nil {
		return nil
	}
	have := <-d.ahead
	d.ahead = nil
	return have
}

// read returns what the kernel holds now.
func (d *Dataplane) read() (*dump, error) {
	if have := d.takeAhead(); have != nil {
		if now, err := d.conn.generation(); err == nil && now == have.generation {
			return have, nil
		}
	}
	return d.conn.dump()
}

// restarts bounds how often something starts again because somebody changes rules, of any table, between reading and
// writing. The last try of Resync does without the check: what it names may be gone, but then the kernel refuses all of
// it.
const restarts = 8

// Resync makes the table enforce p, whatever it holds now. When it holds that already, nothing is sent.
func (d *Dataplane) Resync(ctx context.Context, p *ruleset.Program) error {
	d.image = nil
	if err := d.monitor.listen(); err != nil { // a large transaction may have failed to
		return d.count(fmt.Errorf("resync: %w", err))
	}
	want := newImage(p, d.limits)
	for try := 1; ; try++ {
		have, err := d.read()
		if err != nil {
			return d.count(fmt.Errorf("resync: %w", err))
		}
		if !p.Settings.IPVS && !want.leaving && have.table != nil && have.table.Chains[behindChain] != nil {
			want = leavingImage(p, d.limits)
		}
		bridge := d.compileBridge(want.program)
		changes := append(Diff(have.table, want.table), diffBridge(have.bridge, bridge)...)
		generation := have.generation
		if try == restarts {
			generation = 0
		}
		d.handles = have.handles
		err = d.transact(ctx, changes, generation)
		if errors.Is(err, unix.ERESTART) && try < restarts && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return d.count(fmt.Errorf("resync: %w", err))
		}
		d.log.Debug("table is in sync", "changes", len(changes))
		d.image, d.bridge = want, bridge
		if want.leaving {
			return d.Apply(ctx, &ruleset.Delta{Settings: &p.Settings})
		}
		d.measure()
		return nil
	}
}

// Apply changes what the table enforces.
func (d *Dataplane) Apply(ctx context.Context, delta *ruleset.Delta) error {
	im := d.image
	if im == nil {
		return d.count(fmt.Errorf("apply: %w", ErrUnknown))
	}
	d.image = nil
	if delta.Settings != nil && im.program.Settings.IPVS && !delta.Settings.IPVS {
		if !im.leaving {
			changes := im.leave()
			if err := d.transact(ctx, changes, 0); err != nil {
				return d.count(fmt.Errorf("apply: %w", err))
			}
			d.tally(changes)
		}
		im.leaving = false
	}
	changes, bridge := im.apply(delta), d.bridge
	if delta.Settings != nil || len(delta.Workloads) > 0 {
		bridge = d.compileBridge(im.program)
		changes = append(changes, diffBridge(d.bridge, bridge)...)
	}
	if err := d.transact(ctx, changes, 0); err != nil {
		return d.count(fmt.Errorf("apply: %w", err))
	}
	d.image, d.bridge = im, bridge
	if slices.ContainsFunc(changes, func(c Change) bool { return c.op == opDelTable }) {
		d.measure()
		return nil
	}
	d.tally(changes)
	return nil
}

// tally counts what changes added and removed.
func (d *Dataplane) tally(changes []Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range changes {
		d.stats.add(&changes[i])
	}
}

// transact makes the changes. Those that change verdicts are one transaction; what must be there before and what must go
// after, and changes no verdict, has transactions of its own, see the package comment.
func (d *Dataplane) transact(ctx context.Context, changes []Change, generation uint32) error {
	before, now, after := split(changes)
	if err := d.send(ctx, before, generation); err != nil {
		return err
	}
	if len(before) > 0 && generation != 0 {
		generation = following(generation)
	}
	if err := d.send(ctx, now, generation); err != nil {
		return err
	}
	return d.send(ctx, after, 0)
}

// split divides changes into those that change verdicts and those that do not and need another transaction: new sets of
// intervals, which have no rules yet, and, if elements of a verdict map go, all that goes.
func split(changes []Change) (first, second, third []Change) {
	stage := len(changes) > 0 && changes[0].op != opDelTable && slices.ContainsFunc(changes, Change.addsIntervals)
	sweep := slices.ContainsFunc(changes, Change.endsDispatch)
	for _, c := range changes {
		switch {
		case c.phase == before || stage && !c.bridge && (c.op == opAddTable || c.addsIntervals()):
			first = append(first, c)
		case c.phase == after || sweep && c.op >= opSweepElements:
			third = append(third, c)
		default:
			second = append(second, c)
		}
	}
	return first, second, third
}

// quietSize is the number of elements and rules from which a transaction is made without listening to its announcement.
const quietSize = 1000

// send makes the changes in one transaction.
func (d *Dataplane) send(ctx context.Context, changes []Change, generation uint32) error {
	size := 0
	for i := range changes {
		size += len(changes[i].elements) + len(changes[i].edits)
	}
	switch {
	case len(changes) == 0:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case size < quietSize:
		return d.commit(ctx, changes, generation)
	}
	for try := 1; ; try++ {
		err := d.monitor.pause(d.conn, func(now uint32) error {
			if generation != 0 {
				now = generation
			}
			return d.commit(ctx, changes, now)
		})
		if generation != 0 || try == restarts || !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
}

func (d *Dataplane) commit(ctx context.Context, changes []Change, generation uint32) error {
	b := newBatch(generation)
	for i := range changes {
		handles, err := d.handlesFor(&changes[i])
		if err != nil {
			return err
		}
		if err := b.encode(&changes[i], handles); err != nil {
			return err
		}
	}
	if err := d.conn.transact(ctx, b); err != nil {
		return err
	}
	for i := range changes {
		if c := &changes[i]; c.chain != nil {
			delete(d.handles, c.chain.Name)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.Transactions++
	d.stats.Messages += uint64(b.messages())
	return nil
}

// handlesFor returns the handles of the rules that a change starts from. They are read when first needed after the chain
// was changed, which also tells whether somebody else changed it.
func (d *Dataplane) handlesFor(c *Change) ([]uint64, error) {
	if c.op != opEdit || !c.needsHandles() {
		return nil, nil
	}
	if h := d.handles[c.chain.Name]; h != nil {
		return h, nil
	}
	return d.conn.chainHandles(c.chain.Name, c.old)
}

// count counts an error.
func (d *Dataplane) count(err error) error {
	if err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.stats.Errors++
	}
	return err
}

// measure counts what the table holds.
func (d *Dataplane) measure() {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := statsOf(d.image.table)
	if d.bridge != nil {
		of := statsOf(d.bridge)
		s.Chains, s.Rules, s.Sets, s.Elements = s.Chains+of.Chains, s.Rules+of.Rules, s.Sets+of.Sets, s.Elements+of.Elements
	}
	d.stats.Chains, d.stats.Rules, d.stats.Sets, d.stats.Elements = s.Chains, s.Rules, s.Sets, s.Elements
}

// statsOf returns the counts of what a table holds.
func statsOf(t *Table) Stats {
	s := Stats{Chains: len(t.Chains), Sets: len(t.Sets)}
	for _, c := range t.Chains {
		s.Rules += len(c.Rules)
	}
	for _, set := range t.Sets {
		s.Elements += set.len()
	}
	return s
}

// add counts what a change added and removed.
func (s *Stats) add(c *Change) {
	switch c.op {
	case opAddChain:
		s.Chains++
	case opDelChain:
		s.Chains--
		s.Rules -= len(c.chain.Rules)
	case opEdit:
		s.Rules += len(c.chain.Rules) - len(c.old)
	case opAddSet:
		s.Sets++
	case opDelSet:
		s.Sets--
		s.Elements -= c.set.len()
	case opAddElements:
		s.Elements += len(c.elements)
	case opDelElements, opSweepElements:
		s.Elements -= len(c.elements)
	}
}

// Cleanup removes the tables and everything in them. Without one it does nothing.
func Cleanup(ctx context.Context, o Options) error {
	c, err := dial(o.NetNS)
	if err != nil {
		return fmt.Errorf("clean up nftables: %w", err)
	}
	defer c.close()
	for _, bridge := range []bool{true, false} {
		b := newBatch(0)
		if err := b.encode(&Change{op: opDelTable, bridge: bridge}, nil); err != nil {
			return err
		}
		if err := c.transact(ctx, b); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("clean up nftables: %w", err)
		}
	}
	return nil
}
