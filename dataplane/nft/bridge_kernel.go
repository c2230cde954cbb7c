package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// compileBridge returns the table of family bridge for a Program, nil where the kernel takes none.
func (d *Dataplane) compileBridge(p *ruleset.Program) *Table {
	if d.noBridge != nil {
		return nil
	}
	return CompileBridge(p)
}

// diffBridge returns the changes of the table of family bridge, nil being none. A chain that changes is written anew, so that
// the handles of its rules do not matter.
func diffBridge(have, want *Table) []Change {
	var changes []Change
	switch {
	case want != nil:
		changes = Diff(have, want)
	case have != nil:
		changes = []Change{{op: opDelTable}}
	}
	for i := range changes {
		c := &changes[i]
		if c.bridge = true; c.op != opEdit {
			continue
		}
		c.edits = nil
		for at := range c.old {
			c.edits = append(c.edits, edit{at: at})
		}
		for _, r := range c.chain.Rules {
			c.edits = append(c.edits, edit{at: len(c.old), insert: r})
		}
	}
	return changes
}

// Bridges returns why ports of bridges cannot be held to the addresses of workloads; nil: they are.
func (d *Dataplane) Bridges() error { return d.noBridge }

// tryBridge sends a transaction that makes a table of family bridge and ends with a request that the kernel refuses, so that it
// takes all of it back. It returns why the kernel takes no table of that family; nil: it does.
func (c *conn) tryBridge() error {
	const name, refused = TableName + "-tries", "delete a table that is not there"
	b := newBatch(0)
	b.family = unix.NFPROTO_BRIDGE
	b.add("add table", unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, attrString(nil, unix.NFTA_TABLE_NAME, name))
	b.add(refused, unix.NFT_MSG_DELTABLE, 0, attrString(nil, unix.NFTA_TABLE_NAME, name+"-none"))
	err := c.transactOnce(b)
	var kernel *kernelError
	if errors.As(err, &kernel) && b.note(kernel.seq) == refused {
		return nil
	}
	return fmt.Errorf("try a table of family bridge: %w (the kernel needs CONFIG_NF_TABLES_BRIDGE)", err)
}
