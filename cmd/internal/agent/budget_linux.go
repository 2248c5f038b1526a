package agent

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"jindan/capture/live/filter"
	"jindan/cmd/internal/cli"
)

const (
	// budgetEvery is how often the agent looks at its own cost: often enough to give way within half a minute of a
	// surge, too seldom for a burst to count.
	budgetEvery = 5 * time.Second
	// overFor and underFor are how many looks in a row it takes to capture less, and more again: give way soon, come
	// back carefully.
	overFor, underFor = 2, 12
	// comeBack is the share of the budget below which there is room for twice as many connections.
	comeBack = 0.4
)

// economise keeps the agent within its budget of CPU, and its rings from overflowing: it captures one of 2, 4… 64
// connections, whole ones, and says so in the coverage.
func (ag *agent) economise(ctx context.Context) {
	tick := time.NewTicker(budgetEvery)
	defer tick.Stop()
	b := budget{limit: float64(ag.cfg.Budget.CPU) / 100, part: 1}
	used, at := ag.cpuTime(), time.Now()
	for looks := 0; ; looks++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if looks == 0 {
			settle()
		}
		u, now := ag.cpuTime(), time.Now()
		load := float64(u-used) / float64(now.Sub(at))
		used, at = u, now
		if n := b.next(load, ag.dropped()); n != b.part {
			b.part = n
			ag.sample(n, load)
		}
	}
}

// budget decides which part of the connections to capture.
type budget struct {
	limit       float64 // cores
	part        int     // one of so many connections is captured
	over, under int
	drops       uint64
}

// next takes the load since the last look, in cores, and the packets dropped so far, and returns the part to capture.
func (b *budget) next(load float64, drops uint64) int {
	lost := drops > b.drops
	b.drops = drops
	switch {
	case load > b.limit || lost:
		b.over, b.under = b.over+1, 0
	case load < comeBack*b.limit:
		b.over, b.under = 0, b.under+1
	default:
		b.over, b.under = 0, 0
	}
	switch {
	case b.over >= overFor && b.part < filter.MaxSample:
		b.over = 0
		return b.part * 2
	case b.under >= underFor && b.part > 1:
		b.under = 0
		return b.part / 2
	}
	return b.part
}

// sample captures one of n connections from now on.
func (ag *agent) sample(n int, load float64) {
	what := "" // all
	if n > 1 {
		what = fmt.Sprintf("1 of %d connections", n)
	}
	for _, w := range ag.watches {
		if w.live == nil {
			continue
		}
		program, err := captureFilter(ag.cfg, n)
		if err == nil {
			err = w.live.SetFilter(program, what)
		}
		if err != nil {
			ag.app.Log.Warn().Msgf("capture less: %s", cli.OneLine(err))
			return
		}
	}
	if what == "" {
		what = "all connections again"
	}
	ag.app.Log.Warn().Msgf("the agent takes %.0f %% of a core, of %s allowed: it captures %s", load*100, ag.cfg.Budget.CPU, what)
}

// dropped is how many packets the kernel has dropped because rings were full.
func (ag *agent) dropped() (n uint64) {
	for _, w := range ag.watches {
		if w.live != nil {
			n += w.live.Stats().Dropped
		}
	}
	return n
}

// cpuTime is the CPU time that the agent has used, with its keeper.
func (ag *agent) cpuTime() time.Duration {
	if ag.keeper != nil {
		return cpuTime() + ag.keeper.Used()
	}
	return cpuTime()
}

// cpuTime is the CPU time that the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
