package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/host"
	"jindan/capture/live"
	"jindan/capture/live/filter"
	"jindan/capture/recording"
	"jindan/capture/sockets"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/privsep"
	"jindan/rules"

	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Watch observes one network namespace and diagnoses it.
type Watch struct {
	ns      string // name; empty: the agent's own
	sources []capture.Source
	live    *live.Source
	sockets *sockets.Source
	host    *host.Source
	handle  netns.NsHandle
	// Blind says what cannot be seen, why, and what would help.
	Blind     []string
	NoPackets string // why nothing captures packets; empty: something does
	engine    *analyze.Engine
	renew     func() error              // makes a new engine
	next      atomic.Pointer[rules.Set] // what to judge by from the next batch on; nil: no change
	set       *rules.Set                // that the engine judges by
	share     memory                    // that it may take
	gone      atomic.Bool               // the namespace was deleted, and let go of
	meta      recording.Meta
	progress  progressMade
	// crashed is told of a failure of the engine, which begins anew then; nil: nobody wants to know.
	crashed func(at capture.Instant, what any, stack []byte)
	// watcher looks on; nil: nobody does.
	watcher analyze.Watcher
	states  *states // of the agent; nil: nobody asks for them
}

// progressMade is how far an engine has come. What says that the agent is alive asks it, never a timer.
type progressMade struct {
	newest   atomic.Int64  // event time up to which the engine is done
	turns    atomic.Uint64 // batches that it is done with
	at       atomic.Int64  // when it was done with the last one, ns since began
	failures atomic.Uint64 // times that it failed and was begun anew
}

// began is when the process began: what is counted from it goes by the monotonic clock.
var began = time.Now()

func (p *progressMade) made(until capture.Instant) {
	p.newest.Store(int64(until))
	p.at.Store(int64(time.Since(began)))
	p.turns.Add(1)
}

// late is how far the engine is behind the clock, or how long it has done nothing, whichever is more.
func (p *progressMade) late() time.Duration {
	return max(time.Since(time.Unix(0, p.newest.Load())), time.Since(began)-time.Duration(p.at.Load()))
}

// openWatch opens the sources of a namespace. What cannot be opened is noted; it fails only when
// nothing can be.
func openWatch(cfg *config.Config, ns string, share memory, keeper *privsep.Keeper) (*Watch, error) {
	w := &Watch{ns: ns, handle: netns.None(), share: share}
	path := ""
	if ns != "" {
		path = netnsPath(ns)
		h, err := netns.GetFromPath(path)
		if err != nil {
			return nil, fmt.Errorf("network namespace %s: %w", ns, err)
		}
		w.handle = h
	}
	var errs []error
	if cfg.Capture.Enabled {
		if err := w.openLive(cfg, keeper); err != nil {
			errs = append(errs, err)
			w.NoPackets = advice(err, "CAP_NET_RAW")
		}
	} else {
		w.NoPackets = "capture is switched off"
	}
	if w.NoPackets != "" {
		w.Blind = append(w.Blind, "packets: "+w.NoPackets)
	}
	s, err := sockets.NewSource(sockets.Options{Netns: ns, Path: path, Every: cfg.Sockets.GateEvery, FullEvery: cfg.Sockets.FullEvery, Max: share.sockets})
	if err != nil {
		errs = append(errs, err)
		w.Blind = append(w.Blind, "sockets: "+advice(err, "CAP_SYS_ADMIN"))
	} else {
		w.sockets = s
		w.sources = append(w.sources, s)
	}
	o := host.Options{Proc: cfg.Host.Procfs, Netns: w.handle, Name: ns, Interval: cfg.Host.Every}
	held := privsep.Capabilities()
	if keeper != nil {
		o.Look, held = keeper, keeper.Capabilities()
	}
	w.host = host.NewSource(o)
	w.sources = append(w.sources, w.host)
	if b := blindToProcesses(held); b != "" {
		w.Blind = append(w.Blind, b)
	}
	if w.live == nil && w.sockets == nil {
		return nil, errors.Join(append(errs, w.Close())...)
	}
	return w, nil
}

// netnsPath is where a namespace is found that is given by name, process id or path.
func netnsPath(ns string) string {
	switch {
	case strings.Contains(ns, "/"):
		return ns
	case strings.Trim(ns, "0123456789") == "":
		return "/proc/" + ns + "/ns/net"
	}
	return "/run/netns/" + ns
}

// deleted tells whether the namespace has lost its name, or has given it to another: the descriptors held on it are then all that
// keeps it, with its interfaces, in being.
func (w *Watch) deleted() bool {
	if w.ns == "" {
		return false
	}
	var named, held unix.Stat_t
	if err := unix.Fstat(int(w.handle), &held); err != nil {
		return false
	}
	err := unix.Stat(netnsPath(w.ns), &named)
	return errors.Is(err, fs.ErrNotExist) || err == nil && (named.Ino != held.Ino || named.Dev != held.Dev)
}

// advice is an error with what would help against it.
func advice(err error, capability string) string {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Sprintf("not permitted: run as root, or with %s", capability)
	}
	return cli.OneLine(err)
}

func (w *Watch) openLive(cfg *config.Config, keeper *privsep.Keeper) error {
	program, err := captureFilter(cfg, 1)
	if err != nil {
		return err
	}
	o := live.Options{Interfaces: cfg.Capture.Interfaces, Filter: program, RingBytes: int(cfg.Capture.RingSize), Rings: cfg.Capture.Fanout}
	if w.handle.IsOpen() {
		o.Netns = int(w.handle)
	}
	if keeper != nil {
		o.Socket = keeper.Socket
	}
	if w.live, err = live.Open(o, decode.New()); err != nil {
		return err
	}
	w.sources = append(w.sources, newPackets(w.live, cfg.Capture.Interfaces))
	return nil
}

// names lists the sources.
func (w *Watch) names() []string {
	var names []string
	for _, s := range w.sources {
		names = append(names, s.Name())
	}
	return names
}

// Close lets go of the sources and of the namespace.
func (w *Watch) Close() error {
	var errs []error
	for _, s := range w.sources {
		errs = append(errs, s.Close())
	}
	if w.handle.IsOpen() {
		errs = append(errs, w.handle.Close())
	}
	w.gone.Store(true)
	return errors.Join(errs...)
}

// prepare makes the engine. What it depends on beside the observations goes into the meta data of recordings.
func (w *Watch) prepare(set *rules.Set, cfg *config.Config, emit func(*analyze.Finding) error) error {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = ""
	}
	w.meta = recording.Meta{Host: hostname, Agent: "jindan/" + cli.Version, Sources: w.names(), Netns: w.ns,
		MaxConns: w.share.conns, MaxPaths: w.share.paths,
		Local: cfg.Local}
	o, err := diagnose.EngineOptions(w.meta)
	if err != nil {
		return err
	}
	o.Ask = w.ask
	o.Watch = w.watcher
	w.set = set
	w.renew = func() error {
		o.Causes = cause.New(w.set)
		w.engine, err = analyze.New(w.set, detect.All(), o, emit)
		return err
	}
	return w.renew()
}

// ask hands the engine's wishes to the sources; the answers come as observations.
func (w *Watch) ask(a analyze.Ask) {
	if a.Full && w.sockets != nil {
		w.sockets.Want()
	}
	if len(a.Inodes) > 0 {
		w.host.Ask(a.Inodes)
	}
}

// errFailed is what a panic of the engine becomes.
type errFailed struct {
	what  any
	stack []byte
}

func (e *errFailed) Error() string { return fmt.Sprintf("the analysis failed: %v", e.what) }

// caught runs f and turns its panic into an error. The packets and names that an engine judges are strangers': one that
// it cannot bear must not end the agent.
func caught(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &errFailed{p, debug.Stack()}
		}
	}()
	return f()
}

// observe shows b to the engine. If the engine fails, the rest of b and what the engine knew are lost; another one goes on
// with the next batch, and is told of the gap.
func (w *Watch) observe(b *capture.Batch) error {
	err := caught(func() error { return w.engine.Observe(b) })
	var failed *errFailed
	if !errors.As(err, &failed) {
		return err
	}
	w.progress.failures.Add(1)
	if w.crashed != nil {
		w.crashed(b.Until, failed.what, failed.stack)
	}
	if err := w.renew(); err != nil {
		return err
	}
	gap := &capture.Batch{Until: b.Until, Obs: []capture.Observation{
		{At: b.Until, Kind: capture.KindLoss, Reason: capture.LossEngine, Lost: w.progress.failures.Load()}}}
	return caught(func() error { return w.engine.Observe(gap) })
}

// Run observes until ctx ends, and returns the diagnosis. See shows every batch before the engine has it.
func (w *Watch) Run(ctx context.Context, see func(*capture.Batch) error) (*analyze.Diagnosis, error) {
	var failed error
	take := func(b *capture.Batch) error {
		if see != nil {
			if failed = caught(func() error { return see(b) }); failed != nil {
				return failed
			}
		}
		if set := w.next.Swap(nil); set != nil {
			w.set = set
			if failed = caught(func() error { return w.engine.Reload(set, cause.New(set)) }); failed != nil {
				return failed
			}
		}
		if failed = w.observe(b); failed == nil {
			w.progress.made(b.Until)
		}
		return failed
	}
	if w.NoPackets != "" {
		if err := take(w.unseen()); err != nil {
			return nil, err
		}
	}
	err := capture.Merge(ctx, w.sources, 0, take)
	if failed != nil {
		return nil, failed
	}
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	var d *analyze.Diagnosis
	err = caught(func() (err error) {
		d, err = w.engine.Close()
		return err
	})
	return d, err
}

// failures sums up what the sources could not do, for people and metrics.
func (w *Watch) failures() map[string]uint64 {
	m := make(map[string]uint64)
	if w.sockets != nil {
		m["sockets"], _ = w.sockets.Failures()
	}
	m["host"], _ = w.host.Failures()
	if w.live != nil {
		st := w.live.Stats()
		m["capture"] = st.Gone
	}
	return m
}

// namespaces lists the namespaces to watch: those of the configuration, or all that have a name.
func namespaces(cfg *config.Config) ([]string, error) {
	if len(cfg.Netns) == 0 {
		return []string{""}, nil
	}
	if !slices.Contains(cfg.Netns, "all") {
		return cfg.Netns, nil
	}
	list := []string{""}
	names, err := filepath.Glob("/run/netns/*")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		list = append(list, filepath.Base(n))
	}
	return list, nil
}

// captureFilter compiles what to capture: a user's expression, or what the analysis reads; and of that one of n
// connections.
func captureFilter(cfg *config.Config, n int) ([]bpf.RawInstruction, error) {
	e := filter.Default()
	if expr := cfg.Capture.Filter; expr != "" {
		var err error
		if e, err = filter.Parse(expr); err != nil {
			return nil, fmt.Errorf("capture filter: %w", err)
		}
	}
	if n > 1 {
		some, err := filter.Sample(n)
		if err != nil {
			return nil, err
		}
		e = filter.And(e, some)
	}
	return e.Program(filter.Packet, uint32(cfg.Capture.SnapLength))
}
