package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// notify tells the service manager something (sd_notify(3)). Without one it does nothing.
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if name[0] == '@' {
		name = "\x00" + name[1:] // abstract
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state)) // a manager that does not listen is none
}

// alive tells the service manager's watchdog that the engines go on: each must have done something since the last time
// (sd_watchdog_enabled(3)).
func (ag *agent) alive(ctx context.Context) {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return
	}
	tick := time.NewTicker(time.Duration(usec) * time.Microsecond / 2)
	defer tick.Stop()
	before := make([]uint64, len(ag.watches))
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if ag.moved(before) {
			notify("WATCHDOG=1")
		}
	}
}

// moved tells whether every engine has done something since before, which it brings up to date.
func (ag *agent) moved(before []uint64) bool {
	all := true
	for i, w := range ag.watches {
		now := w.progress.turns.Load()
		all = all && (now != before[i] || w.gone.Load())
		before[i] = now
	}
	return all
}

const (
	// stuckEvery is between two looks whether the engines go on. Looks are counted, not time: a process that was stopped
	// or a host that slept is not stuck.
	stuckEvery = time.Second
	// stuckLooks in a row without progress end the agent: far beyond the slowest window seen (36 s), and what the unit
	// file's watchdog allows.
	stuckLooks = 60
)

// errStuck ends an agent whose engine does not go on: it takes a core and sees nothing. Whoever started it starts it again.
var errStuck = fmt.Errorf("the analysis made no progress for %v", stuckLooks*stuckEvery)

// guard ends the agent by stop when an engine does not go on.
func (ag *agent) guard(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.NewTicker(stuckEvery)
	defer tick.Stop()
	before := make([]uint64, len(ag.watches))
	for n := 0; n < stuckLooks; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n++; ag.moved(before) {
			n = 0
		}
	}
	stop(errStuck)
}
