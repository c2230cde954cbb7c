// Package demo shows the guide "Secure Calico Prometheus endpoints" at work, on hosts made of network namespaces: one
// store, one real agent on each of the guide's two hosts, the guide's manifests applied by the command line, and after
// each step HTTP scrapes and connections from everybody to everything.
//
//	script (the guide as data) --> margay apply ... --> store --> agents --> kernel
//	   |                                                                       |
//	   +--------- expected --------------> table <------ seen <-- probes ------+
//
// Nothing in it knows how Margay works: it starts the margay binary, and sends packets. It touches nothing of the machine
// but a temporary directory.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Options say how to run the demo. The zero value is ready for use.
type Options struct {
	// Binary is the path of the margay binary; "" is the running program.
	Binary string
	// Stdout is where the demo goes, os.Stdout if nil. On a terminal it shows progress, and colours unless NO_COLOR is set.
	Stdout io.Writer
	// Getenv looks up NO_COLOR and TERM, os.Getenv if nil.
	Getenv func(string) string
}

// ErrWrong is what Run returns, wrapped, when something was reachable that should not be, or the other way round.
var ErrWrong = errors.New("not as the guide says")

// Run runs the demo. When the context ends it cleans up and returns an error that wraps the context's. It needs root.
func Run(ctx context.Context, o Options) error {
	if err := o.fill(); err != nil {
		return err
	}
	start := time.Now()
	out := newScreen(o.Stdout, isTerminal(o.Stdout), o.Getenv)
	out.heading("Secure Calico Prometheus endpoints, with Margay")
	out.text(intro)
	s, err := newStage(ctx, o.Binary, out)
	if err != nil {
		return fmt.Errorf("set the stage: %w", err)
	}
	defer s.close()
	p := &play{stage: s, out: out, stepTime: stepTime}
	err = p.run(ctx)
	out.clear()
	if ctx.Err() != nil {
		out.text("\nInterrupted. Taking everything down.")
		return fmt.Errorf("demo interrupted: %w", ctx.Err())
	}
	if err != nil {
		s.printLogs()
	}
	out.heading("Summary")
	out.text(fmt.Sprintf("%d steps, %d cells checked, each at least twice, %d wrong; %.1f s", p.steps, p.cells, p.wrong,
		time.Since(start).Seconds()))
	if err == nil {
		out.text(out.paint(green, "The guide holds, both approaches."))
	}
	return err
}

func (o *Options) fill() error {
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Binary != "" {
		return nil
	}
	var err error
	if o.Binary, err = os.Executable(); err != nil {
		return fmt.Errorf("find the margay binary: %w", err)
	}
	return nil
}
