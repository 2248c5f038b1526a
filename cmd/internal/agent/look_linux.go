package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/privsep"
	"jindan/rules"
)

// Look opens a watch of one namespace, the first that cfg names, for a command that looks at this host for a while. Watcher looks on;
// nil: nobody does.
func Look(cfg *config.Config, set *rules.Set, watcher analyze.Watcher) (*Watch, error) {
	ns := ""
	if len(cfg.Netns) > 0 {
		ns = cfg.Netns[0]
	}
	cfg.Recorder.Enabled = false
	share := divide(cfg, 1)
	cli.LimitHeap(share.heap)
	w, err := openWatch(cfg, ns, share, nil)
	if err != nil {
		return nil, err
	}
	w.watcher = watcher
	if err := w.prepare(set, cfg, func(*analyze.Finding) error { return nil }); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// Confine gives up the rights that w does not need.
func (w *Watch) Confine() error { return privsep.Drop(needed(false, w.ns != "", false)) }

// Engine is the engine; it belongs to the goroutine of run.
func (w *Watch) Engine() *analyze.Engine { return w.engine }

// UnseenInputs are the inputs that could not be read, with the reason; owners of sockets are none.
func (w *Watch) UnseenInputs() []string {
	var list []string
	if w.NoPackets != "" {
		list = append(list, "packets: "+w.NoPackets)
	}
	if w.sockets == nil {
		list = append(list, "sockets")
	} else if n, err := w.sockets.Failures(); n > 0 {
		list = append(list, "sockets: "+cli.OneLine(err))
	}
	if errs := w.host.Untold(); len(errs) > 0 {
		more := ""
		if len(errs) > 1 {
			more = fmt.Sprintf(" (and %d more)", len(errs)-1)
		}
		list = append(list, "counters: "+cli.OneLine(errs[0])+more)
	}
	return list
}

// Describe names what is watched, for the first line of a report.
func (w *Watch) Describe() string {
	host, err := os.Hostname()
	if err != nil {
		host = "this host"
	}
	if w.ns != "" {
		host += " [" + filepath.Base(w.ns) + "]"
	}
	return host
}

// Inputs are what w sees beside packets, as steps name it.
func (w *Watch) Inputs() []string {
	in := []string{"counters", "changes"}
	if w.sockets != nil {
		in = append(in, "sockets")
	}
	return in
}
