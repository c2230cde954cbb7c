package demo

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// stepTime is how long a table may take to become right.
const stepTime = 10 * time.Second

// settle is how far apart the two looks at a table are, at least, that must both find it right.
const settle = 300 * time.Millisecond

// A play is one run of the script.
type play struct {
	stage               *stage
	out                 *screen
	stepTime            time.Duration
	steps, cells, wrong int
}

// run goes through the script and stops at the first step that is not as it should be.
func (p *play) run(ctx context.Context) error {
	for _, st := range script() {
		if err := p.step(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) step(ctx context.Context, st step) error {
	start := time.Now()
	p.steps++
	if st.section != "" {
		p.out.heading(st.section)
	}
	p.out.title(st.title)
	for _, args := range st.commands {
		p.out.command(strings.Join(append([]string{"margay"}, args...), " "))
		output, err := p.stage.run(ctx, st.dir, args)
		p.out.output(output)
		if err != nil {
			return err
		}
	}
	if st.want == nil {
		return nil
	}
	t := p.stage.table(*st.want)
	err := p.watch(ctx, t)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.cells += len(t.cells())
	p.wrong += t.wrong()
	p.out.table(t)
	p.out.result(t, time.Since(start))
	return err
}

// watch looks until the table is right twice in a row, or the time is over.
func (p *play) watch(ctx context.Context, t *table) error {
	count, deadline := len(t.cells()), time.Now().Add(p.stepTime)
	for rights := 0; ; {
		next := time.Now().Add(settle)
		p.out.progress(fmt.Sprintf("%d attempts at once, look %d", count, rights+1))
		t.look(ctx)
		wrong := t.wrong()
		if rights++; wrong > 0 {
			rights = 0
		}
		if rights == 2 || ctx.Err() != nil {
			return ctx.Err()
		}
		if rights == 0 && time.Now().After(deadline) {
			return fmt.Errorf("%d of %d cells are wrong: %w", wrong, count, ErrWrong)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(next)):
		}
	}
}
