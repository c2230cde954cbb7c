package nft

import (
	"context"
	"fmt"
	"strings"

	"margay/ruleset"
)

// Compare returns what would have to change for the table to enforce exactly p, a line per change, and "" when it does. It
// changes nothing.
func Compare(ctx context.Context, o Options, p *ruleset.Program) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	c, err := dial(o.NetNS)
	if err != nil {
		return "", fmt.Errorf("compare: %w", err)
	}
	defer c.close()
	have, err := c.dump()
	if err != nil {
		return "", fmt.Errorf("compare: %w", err)
	}
	var b strings.Builder
	for _, change := range Diff(have.table, Compile(p)) {
		fmt.Fprintln(&b, change.String())
	}
	return b.String(), nil
}
