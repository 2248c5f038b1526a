package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/analyze/view"
	"jindan/capture"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/cmd/internal/top"
	"jindan/rules"
)

type topFlags struct {
	agent  topAgent
	replay string
	speed  float64
	once   bool
	span   time.Duration
	screen int
	width  int
	height int
	ascii  bool
	zone   string
}

func newTop(a *app) *cobra.Command {
	var f topFlags
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch the diagnosis on a terminal while it is made",
		Long: `Six screens, by number: the incident with its causal chain, listeners, peers, name servers, the steps of the catalogue, and what
began and ended when. "?" lists the keys; left and right go through the last ten minutes. It shows what the agent sees that runs on this
host, those of the time before too, and goes on when the agent comes back. Without an agent, or with -i, --filter, --local, --rules or
--no-capture, it watches with an engine of its own; --replay shows a recording or capture again.

--once writes one frame as plain text to standard output, also without a terminal: what is known after --for, or at the end of --replay.
The design size is 80 by 24; below 60 by 16 it says what it needs. NO_COLOR and --color are heeded.`,
		Example: `  sudo jindan top
  sudo jindan top --once --for 10s --screen 2
  jindan top --replay DIR --speed 10`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.top(c.Context(), &f) },
	}
	topAgentFlags(c, &f)
	c.Flags().StringVar(&f.replay, "replay", "", "show this `recording` or capture instead of the host")
	c.Flags().Float64Var(&f.speed, "speed", 1, "of --replay: how many times as fast; 0: as fast as it can be read")
	c.Flags().BoolVar(&f.once, "once", false, "write one frame to standard output and end")
	c.Flags().DurationVar(&f.span, "for", 5*time.Second, "of --once on this host: how long to look")
	c.Flags().IntVar(&f.screen, "screen", top.Incident, "the `number` of the first screen")
	c.Flags().IntVar(&f.width, "width", 80, "of --once: `columns`")
	c.Flags().IntVar(&f.height, "height", 24, "of --once: `rows`")
	c.Flags().BoolVar(&f.ascii, "ascii", false, "no characters beyond ASCII but those of names and Korean")
	c.Flags().StringVar(&f.zone, "tz", "local", "`zone` of the times: UTC, local, +09:00 or Asia/Seoul")
	return c
}

// topFeed gives states of an engine to the terminal, one for each second of event time.
type topFeed struct {
	app *app
	// catalogue is loaded when it is first asked for: beside an agent by the steps and their manual pages only.
	catalogue func() (*rules.Set, error)
	view      *view.Collector
	send      func(*top.State)
	blind     []string
	next      capture.Instant
	source    string
	engine    func() *analyze.Engine
	// page asks for a report page; the engine's own goroutine writes it.
	page   atomic.Pointer[chan string]
	remote atomic.Bool    // the agent makes the states
	gone   func(top.Gone) // tells that it does not; nil: nobody looks
}

// seen is called in the engine's goroutine after it has taken what came before at.
func (t *topFeed) seen(at capture.Instant) {
	if p := t.page.Swap(nil); p != nil {
		*p <- t.write()
	}
	if at < t.next {
		return
	}
	t.next = at.Add(top.Every)
	t.take(t.engine().Diagnosis())
}

func (t *topFeed) take(d *analyze.Diagnosis) {
	s := top.Take(d.Coverage.Last, d, t.view.Record(d))
	s.Blind = t.blind
	t.send(s)
}

// write writes a page of what is known now.
func (t *topFeed) write() string {
	d := t.engine().Diagnosis()
	set, err := t.catalogue()
	if err != nil {
		return cli.OneLine(err)
	}
	name := "jindan-" + d.Coverage.Last.Time().Format("20060102-150405") + ".html"
	page, err := openPage(name)
	if err != nil {
		return cli.OneLine(err)
	}
	page.view = t.view
	in := report.Input{Files: []report.File{{Name: t.source, Packets: d.Coverage.Packets}}, Blind: t.blind}
	o := report.Options{Lang: report.Lang(t.app.Lang), Zone: time.UTC, Catalogue: report.Rules(set, inputsOf(d)...)}
	// "-" stands for what cannot be read twice.
	if err := page.write(context.Background(), []string{"-"}, nil, in, d, o, false); err != nil {
		page.discard()
		return cli.OneLine(err)
	}
	return name
}

func (a *app) top(ctx context.Context, f *topFlags) error {
	tz, err := cli.Zone(f.zone)
	if err != nil {
		return err
	}
	if f.screen < top.Incident || f.screen > top.Events {
		return fmt.Errorf("--screen %d: there are screens %d to %d", f.screen, top.Incident, top.Events)
	}
	if f.speed < 0 {
		return fmt.Errorf("--speed %g: cannot go back in time", f.speed)
	}
	if !f.once && !cli.IsTerminal(os.Stdout) {
		return errors.New("standard output is no terminal; --once writes one frame to it")
	}
	catalogue := sync.OnceValues(func() (*rules.Set, error) { return diagnose.Catalogue(f.agent.rulesDir()) })
	if f.agent.rulesDir() != "" { // the user's own may have mistakes
		if _, err := catalogue(); err != nil {
			return a.FailEach(err)
		}
	}
	frame := top.Frame{Width: f.width, Height: f.height, Screen: f.screen, Lang: report.Lang(a.Lang), UTF8: !f.ascii && utf8Locale(os.Getenv), Zone: tz,
		Color: !f.once && a.WantColor(os.Stdout), Source: f.replay, Title: func(step string) analyze.Text {
			set, err := catalogue()
			if err != nil {
				return analyze.Text{}
			}
			return report.Rules(set).StepTitle(step)
		}}
	if frame.Source == "" {
		if frame.Source, err = os.Hostname(); err != nil {
			frame.Source = "this host"
		}
	}
	t := &topFeed{app: a, catalogue: catalogue, view: view.New(), source: frame.Source}
	if f.once {
		var last *top.State
		t.send = func(s *top.State) { last = s }
		if f.replay != "" {
			f.speed = 0
		} else {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, f.span)
			defer stop()
		}
		if err := a.feed(ctx, f, t); err != nil {
			return err
		}
		_, err := fmt.Fprintln(os.Stdout, frame.String(last))
		return err
	}
	return a.terminal(ctx, f, t, frame)
}

// feed runs the engine to the end of its input, or of ctx. A failure of the engine is an error: the terminal must be given back.
func (a *app) feed(ctx context.Context, f *topFlags, t *topFeed) (err error) {
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("the analysis failed: %v", what)
		}
	}()
	if f.replay != "" {
		return a.replayTop(ctx, f, t)
	}
	return a.watchTop(ctx, f, t)
}

// terminal runs the program on the terminal beside the engine.
func (a *app) terminal(ctx context.Context, f *topFlags, t *topFeed, frame top.Frame) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	m := top.NewModel(frame, top.Actions{
		Ack: func(id string) string {
			if err := a.ackTop(ctx, f, id); err != nil {
				return cli.OneLine(err)
			}
			return "ack " + id
		},
		Explain: func(name string) string {
			var b bytes.Buffer
			set, err := t.catalogue()
			if err != nil {
				return cli.OneLine(err)
			}
			o := report.Options{Lang: report.Lang(a.Lang)}
			if _, s := report.FindPage(set, name); s != nil {
				_ = report.StepPage(&b, set, s, o)
			} else if r, _ := report.FindPage(set, name); r != nil {
				_ = report.RulePage(&b, set, r, o)
			}
			return b.String()
		},
		Write: func() string {
			if t.remote.Load() {
				return "the agent keeps recordings: jindan analyze --report page.html DIR"
			}
			answer := make(chan string, 1)
			t.page.Store(&answer)
			select {
			case s := <-answer:
				return s
			case <-time.After(3 * time.Second): // the engine hears of it with its next batch
				t.page.Store(nil)
				return "no page: nothing is being read any more"
			}
		},
	})
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithFPS(top.MaxFPS), tea.WithoutSignalHandler())
	t.send, t.gone = func(s *top.State) { p.Send(s) }, func(g top.Gone) { p.Send(g) }
	ended := make(chan error, 1)
	go func() {
		err := a.feed(ctx, f, t)
		if ctx.Err() == nil {
			why := "end of the input; q quits"
			if err != nil {
				why = cli.OneLine(err)
			}
			p.Send(top.Over{Why: why})
		}
		ended <- err
	}()
	_, err := p.Run()
	stop()
	// The engine is not waited for if it cannot end: a source may hang.
	select {
	case e := <-ended:
		if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, context.Canceled) {
			err = nil
		}
		if e != nil && !errors.Is(e, context.Canceled) {
			return errors.Join(err, e)
		}
	case <-time.After(2 * time.Second):
	}
	if errors.Is(err, tea.ErrProgramKilled) {
		return nil
	}
	return err
}

// replayTop shows what was recorded at a multiple of its own speed.
func (a *app) replayTop(ctx context.Context, f *topFlags, t *topFeed) error {
	cli.LimitHeap(offlineMemory)
	set, err := t.catalogue()
	if err != nil {
		return err
	}
	in, err := diagnose.Open([]string{f.replay})
	if err != nil {
		return err
	}
	defer in.Close()
	o := analyze.Options{Sources: in.Names, Agent: "jindan/" + cli.Version}
	if m, ok := in.Meta(); ok {
		if o, err = diagnose.EngineOptions(m); err != nil {
			return err
		}
	}
	o.Causes, o.Watch = cause.New(set), t.view
	e, err := analyze.New(set, detect.All(), o, func(*analyze.Finding) error { return nil })
	if err != nil {
		return err
	}
	t.engine = func() *analyze.Engine { return e }
	var first capture.Instant
	began := time.Now()
	var failed error
	err = in.Read(ctx, func(b *capture.Batch) error {
		if len(b.Obs) > 0 {
			at := b.Obs[0].At
			if first == 0 {
				first = at
			}
			if f.speed > 0 {
				select {
				case <-time.After(time.Until(began.Add(time.Duration(float64(at.Sub(first)) / f.speed)))):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if f.speed > 0 {
				t.seen(at)
			}
		}
		failed = e.Observe(b)
		return failed
	})
	if failed != nil {
		return failed
	}
	if ctx.Err() != nil {
		return nil
	}
	d, closing := e.Close()
	if closing != nil {
		return closing
	}
	t.take(d)
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// utf8Locale reports whether the locale's characters are UTF-8 (POSIX.1-2017 §8.2).
func utf8Locale(getenv func(string) string) bool {
	for _, k := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(k)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}
