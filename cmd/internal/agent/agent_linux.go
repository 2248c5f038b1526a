// Package agent is what `jindan run` is: it watches network namespaces, and tells sinks and the terminal what it finds.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/privsep"
	"jindan/cmd/internal/sink"
	"jindan/rules"
)

// agent is a run of the agent with one configuration: the namespaces that it watches, and where what it
// finds goes.
type agent struct {
	app     *cli.App
	cfg     *config.Config
	set     *rules.Set
	output  string
	watches []*Watch
	tapes   []*tape // beside watches
	closing []func() error
	// delivery takes the findings to the other sinks; none where there are none, and while they are changed.
	delivery atomic.Pointer[sink.Delivery]
	stuck    bool   // an engine did not end: what it uses stays open
	host     string // empty: it has no name
	// renamed tells that the files of sinks were moved away; nil: nobody does.
	renamed <-chan os.Signal
	share   memory          // of each namespace
	keeper  *privsep.Keeper // nil: this process has what it needs itself, or nobody has
	stdout  *cli.Outlet
	started atomic.Bool // watches are complete, and run
	lives   atomic.Bool // a line on the terminal shows so
	sinking sync.Mutex  // held while sinks are changed, and from their end on

	lock   sync.Mutex                    // of what follows; nothing waits for a disk or a reader while it is held
	direct *sink.Direct                  // to stdout; nil: nothing goes to standard output
	held   []*analyze.Finding            // while sinks are changed: what they have yet to get
	change bool                          // sinks are being changed
	found  map[foundKey]*analyze.Finding // newest state
	counts map[countKey]uint64           // findings opened
}

type countKey struct{ rule, severity string }

// foundKey names a finding: a fault that comes back has one id and several findings.
type foundKey struct {
	ns, id   string
	detected capture.Instant
}

func newAgent(a *cli.App, cfg *config.Config, set *rules.Set, output string) (*agent, error) {
	ag := &agent{app: a, cfg: cfg, set: set, output: output, stdout: cli.NewOutlet(os.Stdout),
		found: make(map[foundKey]*analyze.Finding), counts: make(map[countKey]uint64)}
	ag.host, _ = os.Hostname() // without a name, records bear none
	return ag, ag.openSinks(cfg)
}

// openSinks opens standard output and the other sinks of a configuration. The lock is the caller's where others know the agent.
func (ag *agent) openSinks(cfg *config.Config) error {
	d, err := direct(cfg, ag.output, ag.stdout)
	if err != nil {
		return err
	}
	delivery, err := deliver(cfg, ag.host, ag.unwell)
	if errors.As(err, new(*spoolError)) {
		ag.app.Log.Warn().Msg(cli.OneLine(err))
	} else if err != nil {
		ag.app.Log.Error().Msgf("findings go to standard output only: %s", cli.OneLine(err))
		if d == nil {
			if d, err = sink.NewDirect(ag.stdout, sink.Output{Name: "stdout"}); err != nil {
				return err
			}
		}
	}
	if delivery != nil {
		if aside := delivery.Spool().Aside; aside != "" {
			ag.app.Log.Error().Msgf("the spool was damaged and is set aside as %s", aside)
		}
	}
	ag.lock.Lock()
	defer ag.lock.Unlock()
	ag.direct = d
	ag.delivery.Store(delivery)
	return nil
}

// reload takes over the sinks and rules of a configuration that watches the same as this one: what is known, and what is open, stays.
func (ag *agent) reload(cfg *config.Config) error {
	set, err := diagnose.Catalogue(cfg.Rules)
	if err != nil {
		return err
	}
	if _, err := direct(cfg, ag.output, ag.stdout); err != nil {
		return err
	}
	ag.sinking.Lock()
	defer ag.sinking.Unlock()
	for _, w := range ag.watches {
		w.next.Store(set)
	}
	ag.lock.Lock()
	ag.set, ag.change = set, true
	ag.lock.Unlock()
	old := ag.delivery.Swap(nil) // the spool is one file, and has one owner
	if old != nil {
		ctx, stop := context.WithTimeout(context.Background(), deliverWithin)
		defer stop()
		if err := old.Close(ctx); err != nil {
			ag.app.Log.Warn().Msgf("not all findings are delivered yet, the rest is in the spool: %s", cli.OneLine(err))
		}
	}
	err = ag.openSinks(cfg)
	ag.lock.Lock()
	defer ag.lock.Unlock()
	d := ag.delivery.Load()
	if d != nil && old != nil {
		d.Continue(old)
	}
	for _, f := range ag.held {
		if d != nil {
			err = errors.Join(err, d.Finding(f))
		}
	}
	ag.held, ag.change = nil, false
	return err
}

// add begins to watch a namespace, and keeps what it sees in record unless that is empty.
func (ag *agent) add(ns, record string) error {
	w, err := openWatch(ag.cfg, ns, ag.share, ag.keeper)
	if err != nil {
		return err
	}
	w.states = newStates(w)
	w.watcher = w.states.view
	if err := w.prepare(ag.set, ag.cfg, func(f *analyze.Finding) error { return ag.finding(w, f) }); err != nil {
		return errors.Join(err, w.Close())
	}
	t, err := newTape(ag, w, record)
	if err != nil {
		return errors.Join(err, w.Close())
	}
	ag.watches, ag.tapes = append(ag.watches, w), append(ag.tapes, t)
	return nil
}

// deliverWithin is how long the sinks have at the end.
const deliverWithin = 1500 * time.Millisecond

func (ag *agent) close() {
	ag.sinking.Lock()
	if d := ag.delivery.Load(); d != nil {
		// What is not sent by then stays in the spool.
		ctx, stop := context.WithTimeout(context.Background(), deliverWithin)
		defer stop()
		if err := d.Close(ctx); err != nil {
			ag.app.Log.Warn().Msgf("not all findings are delivered, the rest stays in the spool: %s", cli.OneLine(err))
		}
	}
	for _, c := range ag.closing {
		if err := c(); err != nil {
			ag.app.Log.Warn().Msg(cli.OneLine(err))
		}
	}
	if !ag.stuck {
		for i, w := range ag.watches {
			if w.gone.Load() {
				continue
			}
			if err := errors.Join(ag.tapes[i].close(), w.Close()); err != nil {
				ag.app.Log.Warn().Msg(cli.OneLine(err))
			}
		}
	}
	if !ag.stdout.Flush(flushWithin) {
		n, _, _ := ag.stdout.Pending()
		ag.app.Log.Warn().Msgf("standard output is not read: %d records are left", n)
	}
}

// flushWithin is how long the reader of standard output has for the rest.
const flushWithin = time.Second

// banner says what is watched, and what is not.
func (ag *agent) banner() {
	for _, w := range ag.watches {
		where := "this host"
		if w.ns != "" {
			where = "network namespace " + w.ns
		}
		ag.app.Log.Info().Msgf("watching %s: %s; Ctrl-C ends with the diagnosis", where, strings.Join(w.names(), ", "))
		for _, b := range w.Blind {
			ag.app.Log.Warn().Msgf("cannot see %s; the steps that need it stay \"not assessable\"", b)
		}
	}
}

// stopWithin is how long the engines have to end once they are told to. With what closing takes it stays below endWithin.
const stopWithin = 2 * time.Second

// errUnstoppable ends an agent whose engine does not heed a stop.
var errUnstoppable = fmt.Errorf("the analysis did not end within %v; there is no last diagnosis", stopWithin)

// run watches all namespaces until ctx ends. One that cannot be watched any more ends all: whoever started the
// agent starts it again.
func (ag *agent) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var engines, helpers sync.WaitGroup
	errs := make([]error, len(ag.watches))
	now := capture.Instant(time.Now().UnixNano())
	for i, w := range ag.watches {
		w.progress.made(now)
		w.crashed = func(at capture.Instant, what any, stack []byte) { ag.crashed(i, at, what, stack) }
		engines.Go(func() {
			here, leave := context.WithCancel(ctx)
			defer leave()
			go ag.release(here, w, leave)
			d, err := w.Run(here, func(b *capture.Batch) error {
				w.states.seen(b)
				return ag.tapes[i].see(b)
			})
			if err == nil {
				err = ag.conclude(w, d)
			}
			if err == nil && ctx.Err() == nil { // the namespace was deleted: the others go on
				err = errors.Join(ag.tapes[i].close(), w.Close())
				ag.app.Log.Warn().Msgf("network namespace %s is deleted and not watched any more", w.ns)
				<-ctx.Done()
			}
			errs[i] = err
			stop(nil)
		})
	}
	ag.started.Store(true)
	for _, help := range []func(context.Context){ag.alive, ag.showLife, ag.economise, ag.reopen, ag.complain} {
		helpers.Go(func() { help(ctx) })
	}
	helpers.Go(func() { ag.guard(ctx, stop) })
	if ag.keeper != nil {
		helpers.Go(func() {
			select {
			case <-ctx.Done():
			case <-ag.keeper.Gone():
				stop(privsep.ErrGone)
			}
		})
	}
	done := make(chan struct{})
	go func() { engines.Wait(); close(done) }()
	<-ctx.Done()
	helpers.Wait()
	select {
	case <-done:
		if err := context.Cause(ctx); errors.Is(err, privsep.ErrGone) { // interfaces that come back would not be captured on
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	case <-time.After(stopWithin):
	}
	ag.stuck = true
	if err := context.Cause(ctx); errors.Is(err, errStuck) {
		return err
	}
	return errUnstoppable
}

// releaseEvery is how often a namespace is looked for that may have been deleted.
const releaseEvery = 2 * time.Second

// release ends the watch of a namespace that was deleted: the agent's descriptors must not keep it in being.
func (ag *agent) release(ctx context.Context, w *Watch, leave context.CancelFunc) {
	tick := time.NewTicker(releaseEvery)
	defer tick.Stop()
	for !w.deleted() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	leave()
}

// crashed tells of a failure of an engine, and keeps what led to it: headers, as every recording.
func (ag *agent) crashed(i int, at capture.Instant, what any, stack []byte) {
	where := ag.tapes[i].keepFailure(at, stack)
	ag.app.Log.Error().Msgf("the analysis failed and begins anew, what it knew is lost: %v (%s)%s", what, panicked(stack), where)
	if d := ag.delivery.Load(); d != nil {
		_ = d.Notice("error", fmt.Sprintf("the analysis failed and began anew; findings that were open may have gone on unseen: %v%s", what, where))
	}
}

// panicked is the line of the program that panicked: in a stack, the one behind the runtime's own "panic(…)".
func panicked(stack []byte) string {
	_, rest, _ := strings.Cut(string(stack), "\npanic(")
	lines := strings.SplitN(rest, "\n", 5)
	if len(lines) < 5 {
		return "place unknown"
	}
	place, _, _ := strings.Cut(strings.TrimSpace(lines[3]), " +0x")
	return place
}

// complainEvery is how often the log tells what standard output lost, and what the host's source could not read: each
// file once, when it begins.
const complainEvery = 5 * time.Second

func (ag *agent) complain(ctx context.Context) {
	tick := time.NewTicker(complainEvery)
	defer tick.Stop()
	told, resets := uint64(0), uint64(0) // of what standard output lost, of spools set aside
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, lost, err := ag.stdout.Pending(); lost > told {
			why := "it is not read"
			if err != nil {
				why = cli.OneLine(err)
			}
			ag.app.Log.Error().Msgf("standard output lost %d records: %s", lost-told, why)
			told = lost
		}
		if d := ag.delivery.Load(); d != nil {
			if st := d.Spool(); st.Resets > resets {
				ag.app.Log.Error().Msgf("the spool was damaged and is set aside as %s", st.Aside)
				resets = st.Resets
			}
		}
		for _, w := range ag.watches {
			if errs := w.host.Untold(); len(errs) > 0 {
				ag.app.Log.Warn().Msgf("%s goes on without what it cannot read: %s", w.host.Name(), cli.OneLine(errors.Join(errs...)))
			}
		}
	}
}

// reopen lets go of the files of sinks that were moved away.
func (ag *agent) reopen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ag.renamed:
		}
		d := ag.delivery.Load()
		if d == nil {
			continue
		}
		if err := d.Reopen(); err != nil {
			ag.app.Log.Warn().Msgf("reopen files: %s", cli.OneLine(err))
		}
	}
}
