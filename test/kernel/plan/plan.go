// Package plan is what the virtual machine is told to do, and how it answers.
package plan

import (
	"encoding/json"
	"fmt"
)

// A Plan is the file /plan of the guest.
type Plan struct {
	Modules []string // files, in the order in which they can be loaded
	Tests   []Test
	Args    []string // of every test program
	Env     []string
}

// A Test is a test program.
type Test struct{ Package, Program, Dir string }

// Encode returns the plan as text.
func (p *Plan) Encode() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings only
	}
	return b
}

// Decode reads what Encode wrote.
func Decode(b []byte) (*Plan, error) {
	p := &Plan{}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	return p, nil
}

// What the guest says of itself, each a line.
const (
	Passed = "margay-kernel: passed " // a package
	Failed = "margay-kernel: FAILED " // a package, or what else could not be done
	Done   = "margay-kernel: done"    // all packages were run
)
