package main

import (
	"context"
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

// alive tells the service manager's watchdog that the engines go on: event time must move (sd_watchdog_enabled(3)).
func (ag *agent) alive(ctx context.Context) {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return
	}
	tick := time.NewTicker(time.Duration(usec) * time.Microsecond / 2)
	defer tick.Stop()
	before := make([]int64, len(ag.watches))
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		moved := true
		for i, w := range ag.watches {
			now := w.newest.Load()
			moved = moved && now != before[i]
			before[i] = now
		}
		if moved {
			notify("WATCHDOG=1")
		}
	}
}
